//! A database for each role, with an owner for the migrations and a least-privileged account for the running role.
//!
//! The statements go through the server's own `psql`, so that this crate needs no database driver. They are idempotent:
//! a second run over existing data changes nothing. The roles' own migrations create tables and grants.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::child::clear_environment;
use crate::error::{At, DevError};
use crate::servers::{POSTGRES_PASSWORD, ServerAddresses};

const PREFIX_BYTES_MAX: usize = 40;
const PSQL_CONNECT_TIMEOUT_S: &str = "10";

/// How one role reaches its database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleDatabase {
    /// `<prefix>_users` or `<prefix>_wallet`.
    pub database: String,
    /// For the running role, which may log in and has only the rights that migrations grant.
    pub runtime_url: String,
    /// For the migrations, as the owner of the database.
    pub migration_url: String,
}

/// The databases of both roles.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the roles")]
pub struct RoleDatabases {
    pub users: RoleDatabase,
    pub wallet: RoleDatabase,
}

impl ServerAddresses {
    /// Creates `<prefix>_users` and `<prefix>_wallet`, each with the accounts `…_owner` and `…_app`, where missing.
    ///
    /// # Errors
    /// `Setting` when the prefix is not a plain identifier, and those of [`Self::psql`].
    pub fn create_role_databases(&self, prefix: &str) -> Result<RoleDatabases, DevError> {
        check_prefix(prefix)?;
        let databases = self.role_databases(prefix);
        let names = [&databases.users.database, &databases.wallet.database];
        self.psql("postgres", &names.map(|name| creation_script(name)).concat())?;
        Ok(databases)
    }

    /// What [`Self::create_role_databases`] returns, without creating anything.
    pub(crate) fn role_databases(&self, prefix: &str) -> RoleDatabases {
        let [users, wallet] = ["users", "wallet"].map(|role| {
            let database = format!("{prefix}_{role}");
            RoleDatabase {
                runtime_url: self.database_url(&format!("{database}_app"), &database),
                migration_url: self.database_url(&format!("{database}_owner"), &database),
                database,
            }
        });
        RoleDatabases { users, wallet }
    }

    /// Runs statements as the superuser and returns what they printed: one line per row, `|` between columns.
    ///
    /// # Errors
    /// `Unavailable` when psql does not start, `Failed` with its message when a statement fails.
    pub fn psql(&self, database: &str, script: &str) -> Result<String, DevError> {
        let program = self.postgres_bin_dir.join("psql");
        let mut command = Command::new(&program);
        clear_environment(&mut command, "PG");
        let mut child = command
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", self.host, "-d", database])
            .args(["-p", &self.postgres_port.to_string(), "-U", self.postgres_superuser])
            .env("PGPASSWORD", self.postgres_password)
            .env("PGCONNECT_TIMEOUT", PSQL_CONNECT_TIMEOUT_S)
            .env("PGOPTIONS", "-c client_min_messages=warning")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C does not reach it.
            .process_group(0)
            .spawn()
            .at(&program)?;
        if let Some(mut input) = child.stdin.take() {
            // A psql that ends early closes the pipe; its own message below is more helpful than that error.
            let _closed = input.write_all(script.as_bytes());
        }
        let output = child.wait_with_output().at(&program)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(DevError::Failed(format!("psql: {}", String::from_utf8_lossy(&output.stderr).trim())))
    }
}

/// Names go into SQL unquoted, so only a plain lower-case identifier is accepted.
fn check_prefix(prefix: &str) -> Result<(), DevError> {
    let plain = prefix.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    let begins = prefix.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    if plain && begins && prefix.len() <= PREFIX_BYTES_MAX {
        return Ok(());
    }
    Err(DevError::Setting(format!(
        "`{prefix}` cannot start a database name: use a-z, 0-9 and _, at most {PREFIX_BYTES_MAX} characters, a letter first"
    )))
}

fn creation_script(name: &str) -> String {
    let accounts = [format!("{name}_owner"), format!("{name}_app")].map(|account| {
        format!(
            "SELECT 'CREATE ROLE {account} LOGIN PASSWORD ''{POSTGRES_PASSWORD}'' NOSUPERUSER NOCREATEDB NOCREATEROLE' \
             WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{account}') \\gexec\n"
        )
    });
    let database = format!(
        "SELECT 'CREATE DATABASE {name} OWNER {name}_owner TEMPLATE template0' \
         WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{name}') \\gexec\n\
         REVOKE ALL ON DATABASE {name} FROM PUBLIC;\n\
         GRANT CONNECT ON DATABASE {name} TO {name}_owner, {name}_app;\n"
    );
    accounts.concat() + &database
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_identifier_starts_a_database_name() {
        for good in ["purse", "t1_0a", "a"] {
            assert!(check_prefix(good).is_ok(), "{good}");
        }
        let long = "a".repeat(PREFIX_BYTES_MAX + 1);
        for bad in ["", "1a", "_a", "A", "a-b", "a;drop", "a'b", "ä", long.as_str()] {
            assert!(matches!(check_prefix(bad), Err(DevError::Setting(_))), "{bad}");
        }
    }

    #[test]
    fn the_longest_account_name_fits_postgresql() {
        let longest = format!("{}_wallet_owner", "a".repeat(PREFIX_BYTES_MAX));
        assert!(longest.len() <= 63);
    }
}
