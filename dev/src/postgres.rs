//! A private PostgreSQL server: its cluster, its settings and its start.
//!
//! It listens on the loopback address only, and every connection needs a password.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::account::Account;
use crate::child::{ManagedChild, clear_environment, is_running};
use crate::error::{At, DevError};
use crate::folder::{Afterwards, write_private};
use crate::servers::{Durability, POSTGRES_PASSWORD, Servers};

const INITDB_TIMEOUT: Duration = Duration::from_mins(2);
const READY_TIMEOUT: Duration = Duration::from_mins(1);

impl Servers {
    /// Creates the cluster if there is none.
    pub(crate) fn prepare_postgres(&self) -> Result<(), DevError> {
        let folder = self.postgres_folder();
        fs::create_dir_all(&folder).at(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).at(&folder)?;
        if let Some(account) = Account::for_postgres() {
            account.own(&folder)?;
            account.check_access(&folder)?;
        }
        if !folder.join("data/PG_VERSION").exists() {
            self.console.progress("PostgreSQL: creating a cluster (once; a few seconds)");
            self.create_cluster()?;
        }
        Ok(())
    }

    /// Starts the server unless it runs.
    pub(crate) fn start_postgres(&mut self) -> Result<(), DevError> {
        if is_running(&mut self.postgres) {
            return Ok(());
        }
        let mut command = self.postgres_command("postgres");
        command.arg("-D").arg(self.postgres_folder().join("data")).args(self.postgres_settings());
        let child = ManagedChild::spawn(&mut command, &self.child_spec("postgres", self.postgres_stop_signal()))?;
        let addresses = self.addresses();
        let accepts = || addresses.psql("postgres", "SELECT 1").ok().map(drop);
        self.postgres.insert(child).wait(READY_TIMEOUT, &self.console, |_| accepts())
    }

    /// With a checkpoint only when the data is kept. Never SIGKILL, which leaves shared memory segments behind.
    pub(crate) fn postgres_stop_signal(&self) -> Signal {
        if self.afterwards == Afterwards::Keep { Signal::INT } else { Signal::QUIT }
    }

    fn postgres_folder(&self) -> PathBuf {
        self.folder.join("postgres")
    }

    /// Runs initdb into a folder beside the final one, so that an interrupted run leaves no half cluster.
    fn create_cluster(&self) -> Result<(), DevError> {
        match self.initdb("C.UTF-8") {
            // Not every system has that locale; `C` with UTF8 sorts the same way.
            Err(DevError::Unavailable(text)) if text.contains("invalid locale") => self.initdb("C")?,
            other => other?,
        }
        let data = self.postgres_folder().join("data");
        fs::rename(data.with_extension("new"), &data).at(&data)
    }

    fn initdb(&self, locale: &str) -> Result<(), DevError> {
        let folder = self.postgres_folder();
        let (fresh, password) = (folder.join("data.new"), folder.join("initdb.password"));
        let _absent = fs::remove_dir_all(&fresh);
        write_private(&password, POSTGRES_PASSWORD)?;
        if let Some(account) = Account::for_postgres() {
            account.own(&password)?;
        }
        let mut command = self.postgres_command("initdb");
        command.arg("-D").arg(&fresh).arg(format!("--pwfile={}", password.display()));
        command.args(["-U", self.addresses().postgres_superuser, "--auth=scram-sha-256", "--encoding=UTF8"]);
        command.arg(format!("--locale={locale}"));
        if self.afterwards == Afterwards::Remove {
            command.arg("--no-sync");
        }
        let mut child = ManagedChild::spawn(&mut command, &self.child_spec("initdb", Signal::TERM))?;
        let status = child.wait(INITDB_TIMEOUT, &self.console, |ended| ended);
        let _absent = fs::remove_file(&password);
        if status?.success() { Ok(()) } else { Err(child.failure("did not create a cluster")) }
    }

    fn postgres_command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.postgres_bin.join(program));
        clear_environment(&mut command, "PG");
        // The server keeps its working folder, and its account may not enter ours.
        command.current_dir(self.postgres_folder()).env("LC_ALL", "C");
        if let Some(account) = Account::for_postgres() {
            account.apply(&mut command);
        }
        command
    }

    fn postgres_settings(&self) -> Vec<String> {
        let port = format!("port={}", self.ports.postgres);
        let mut settings =
            vec![port.as_str(), "listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=300"];
        if self.durability == Durability::Off {
            settings.extend(["fsync=off", "synchronous_commit=off", "full_page_writes=off"]);
        }
        settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting.to_owned()]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::tests::servers;

    #[test]
    fn only_a_server_without_durability_disables_fsync() {
        let settings = |durability| servers(durability).postgres_settings();
        assert!(!settings(Durability::Stock).iter().any(|setting| setting.starts_with("fsync")));
        assert!(settings(Durability::Off).contains(&"fsync=off".to_owned()));
    }

    #[test]
    fn it_listens_on_the_loopback_address_only() {
        let settings = servers(Durability::Stock).postgres_settings().join(" ");
        assert!(settings.contains("-c listen_addresses=127.0.0.1 -c unix_socket_directories= "), "{settings}");
    }
}
