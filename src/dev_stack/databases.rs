//! A database for each role, with an owner for the migrations and a least-privileged account for the running role.
//!
//! The statements go through the `psql` beside the server, so this room needs no database driver. They are idempotent:
//! a second run over kept data changes nothing. Tables and their grants are made by the roles' own migrations.

use std::env;
use std::io::Write;
use std::process::{Command, Stdio};

use super::addresses::{DEV_PASSWORD, ServerAddresses};
use super::error::DevStackError;

const PREFIX_BYTES_MAX: usize = 40;
const PSQL_CONNECT_TIMEOUT_S: &str = "10";

/// How one role reaches its database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleDatabase {
    /// The name of the database.
    pub database: String,
    /// For the running role: may log in and, until a migration grants more, nothing else.
    pub runtime_url: String,
    /// For the migrations: owns the database.
    pub migration_url: String,
}

/// The databases of both roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleDatabases {
    /// Of the users role.
    pub users: RoleDatabase,
    /// Of the wallet role.
    pub wallet: RoleDatabase,
    prefix: String,
}

impl ServerAddresses {
    /// Creates what is missing of `<prefix>_users` and `<prefix>_wallet`, each with its accounts `…_owner` and `…_app`.
    ///
    /// # Errors
    /// `Prefix` when the prefix is no plain identifier, `Spawn` and `Psql` when psql is away or refuses.
    pub fn create_role_databases(&self, prefix: &str) -> Result<RoleDatabases, DevStackError> {
        check_prefix(prefix)?;
        let names = role_names(prefix);
        let script = names.each_ref().map(|name| creation_script(name)).concat();
        self.psql("postgres", &script)?;
        let [users, wallet] = names.map(|database| RoleDatabase {
            runtime_url: self.database_url(&format!("{database}_app"), DEV_PASSWORD, &database),
            migration_url: self.database_url(&format!("{database}_owner"), DEV_PASSWORD, &database),
            database,
        });
        Ok(RoleDatabases { users, wallet, prefix: prefix.to_owned() })
    }

    /// Runs statements as the superuser and returns what they printed, a row a line, `|` between columns.
    ///
    /// # Errors
    /// `Spawn` when psql does not start, `Psql` with its message when a statement is refused.
    pub fn psql(&self, database: &str, script: &str) -> Result<String, DevStackError> {
        let program = self.postgres_bin_dir.join("psql");
        let spawn = |source| DevStackError::Spawn { program: program.display().to_string(), source };
        let mut command = Command::new(&program);
        clear_environment(&mut command, "PG");
        let mut child = command
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", &self.host, "-d", database])
            .args(["-p", &self.postgres_port.to_string(), "-U", &self.postgres_superuser])
            .env("PGPASSWORD", &self.postgres_password)
            .env("PGCONNECT_TIMEOUT", PSQL_CONNECT_TIMEOUT_S)
            .env("PGOPTIONS", "-c client_min_messages=warning")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(spawn)?;
        if let Some(mut input) = child.stdin.take() {
            // A psql that ended early closes the pipe; its own message below says more than that error.
            let _closed = input.write_all(script.as_bytes());
        }
        let output = child.wait_with_output().map_err(spawn)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(DevStackError::Psql { message: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
    }
}

impl RoleDatabases {
    /// Removes both databases, whoever is still connected, and their accounts.
    ///
    /// # Errors
    /// As [`ServerAddresses::psql`].
    pub fn remove(&self, addresses: &ServerAddresses) -> Result<(), DevStackError> {
        let script = role_names(&self.prefix).map(|name| removal_script(&name)).concat();
        addresses.psql("postgres", &script).map(drop)
    }
}

/// Removes every inherited variable that begins so: a developer's own setting must not steer a private server.
pub(super) fn clear_environment(command: &mut Command, name_start: &str) {
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with(name_start) {
            command.env_remove(name);
        }
    }
}

fn role_names(prefix: &str) -> [String; 2] {
    [format!("{prefix}_users"), format!("{prefix}_wallet")]
}

/// Names go into SQL unquoted, so nothing but a plain lower-case identifier passes.
fn check_prefix(prefix: &str) -> Result<(), DevStackError> {
    let plain = prefix.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    let begins = prefix.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    if plain && begins && prefix.len() <= PREFIX_BYTES_MAX {
        return Ok(());
    }
    Err(DevStackError::Prefix { prefix: prefix.to_owned() })
}

fn creation_script(name: &str) -> String {
    let accounts = [format!("{name}_owner"), format!("{name}_app")].map(|account| {
        format!(
            "SELECT 'CREATE ROLE {account} LOGIN PASSWORD ''{DEV_PASSWORD}'' NOSUPERUSER NOCREATEDB NOCREATEROLE' \
             WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{account}') \\gexec\n"
        )
    });
    let database = format!(
        "SELECT 'CREATE DATABASE {name} OWNER {name}_owner TEMPLATE template0' \
         WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{name}') \\gexec\n\
         REVOKE ALL ON DATABASE {name} FROM PUBLIC;\n\
         GRANT CONNECT ON DATABASE {name} TO {name}_owner, {name}_app;\n\
         -- Before version 15 everybody may create in the schema public.\n\
         SELECT :SERVER_VERSION_NUM < 150000 AS open_schema \\gset\n\
         \\if :open_schema\n\
         \\connect {name}\n\
         REVOKE CREATE ON SCHEMA public FROM PUBLIC;\n\
         GRANT CREATE ON SCHEMA public TO {name}_owner;\n\
         \\connect postgres\n\
         \\endif\n"
    );
    accounts.concat() + &database
}

fn removal_script(name: &str) -> String {
    format!(
        "DROP DATABASE IF EXISTS {name} WITH (FORCE);\n\
         DROP ROLE IF EXISTS {name}_app;\n\
         DROP ROLE IF EXISTS {name}_owner;\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_identifier_begins_a_database_name() {
        for good in ["purse", "t1_0a", "a"] {
            assert!(check_prefix(good).is_ok(), "{good}");
        }
        let long = "a".repeat(PREFIX_BYTES_MAX + 1);
        for bad in ["", "1a", "_a", "A", "a-b", "a;drop", "a'b", "ä", long.as_str()] {
            assert!(matches!(check_prefix(bad), Err(DevStackError::Prefix { .. })), "{bad}");
        }
    }

    #[test]
    fn the_longest_account_name_fits_postgresql() {
        let longest = format!("{}_wallet_owner", "a".repeat(PREFIX_BYTES_MAX));
        assert!(longest.len() <= 63);
    }
}
