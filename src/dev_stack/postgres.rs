//! A private PostgreSQL server as a child process: its cluster, its settings, its start and its end.
//!
//! It listens on the loopback address and on a socket inside its own folder, and a password is asked for everywhere.
//! Databases and accounts are not made here.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use super::account::Account;
use super::addresses::{DEV_PASSWORD, ServerAddresses};
use super::child::{ChildPlace, ManagedChild, Slot, Wait};
use super::databases::clear_environment;
use super::error::DevStackError;
use super::interrupt::Interrupt;
use super::servers::{Durability, Lifetime};

const INITDB_BOUND: Duration = Duration::from_mins(2);
const READY_BOUND: Duration = Duration::from_mins(1);
const STOP_BOUND: Duration = Duration::from_secs(20);
const CONNECTIONS_MAX: u16 = 300;
/// `sun_path` holds 108 bytes on Linux and 104 on macOS, with the final NUL.
const SOCKET_PATH_BYTES_MAX: usize = 103;

/// Where a server whose state lies in `state` writes its log.
pub(super) fn log_in(state: &Path) -> PathBuf {
    state.join("postgres.log")
}

/// One server, running or not.
#[derive(Debug)]
pub(super) struct Postgres {
    state: PathBuf,
    folder: PathBuf,
    account: Option<Account>,
    durability: Durability,
    lifetime: Lifetime,
    pub(super) child: Slot,
}

impl Postgres {
    pub(super) fn new(state: &Path, durability: Durability, lifetime: Lifetime) -> Self {
        let folder = state.join("postgres");
        Self {
            state: state.to_path_buf(),
            folder,
            account: Account::for_postgres(),
            durability,
            lifetime,
            child: Slot::default(),
        }
    }

    /// Makes the cluster where there is none, and starts the server.
    pub(super) fn start(
        &mut self,
        addresses: &ServerAddresses,
        interrupt: &Interrupt,
        progress: &mut dyn FnMut(&str),
    ) -> Result<(), DevStackError> {
        if self.child.is_running() {
            return Ok(());
        }
        self.prepare_folder()?;
        if !self.folder.join("data/PG_VERSION").exists() {
            progress(&format!("PostgreSQL: making a new cluster in {}", self.folder.display()));
            self.make_cluster(addresses, interrupt)?;
        }
        let mut command = self.command(addresses, "postgres");
        command.arg("-D").arg(self.folder.join("data")).args(self.settings(addresses.postgres_port));
        let place = ChildPlace {
            name: "postgres",
            folder: &self.state,
            mark: format!("{}/", self.state.display()),
            log: log_in(&self.state),
        };
        let child = self.child.0.insert(ManagedChild::spawn(&mut command, place)?);
        let wait = Wait { what: "PostgreSQL", bound: READY_BOUND, interrupt };
        wait.until_ready(child, progress, || addresses.psql("postgres", "SELECT 1").is_ok())
    }

    /// Ends it: fast and clean when the data is kept, without a checkpoint when it is thrown away.
    pub(super) fn stop(&mut self, interrupt: &Interrupt) {
        // Not SIGKILL for a throw-away server: that would leave its shared memory segments behind.
        let signal = if self.lifetime == Lifetime::Kept { Signal::INT } else { Signal::QUIT };
        if let Some(mut child) = self.child.0.take() {
            // A server that a test has paused would not hear the request.
            child.signal_family(Signal::CONT);
            child.stop(signal, STOP_BOUND, interrupt);
        }
    }

    /// Ends it as a power cut would.
    pub(super) fn kill(&mut self) {
        self.child.0 = None;
    }

    fn prepare_folder(&self) -> Result<(), DevStackError> {
        let file = |error| DevStackError::file(&self.folder, error);
        fs::create_dir_all(&self.folder).map_err(file)?;
        fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o700)).map_err(file)?;
        if let Some(account) = self.account {
            account.give(&self.folder)?;
            account.check_passage(&self.folder)?;
        }
        Ok(())
    }

    /// Runs initdb into a folder beside the final one, so that an interrupted run leaves no half cluster.
    fn make_cluster(&self, addresses: &ServerAddresses, interrupt: &Interrupt) -> Result<(), DevStackError> {
        match self.initdb(addresses, interrupt, "C.UTF-8") {
            // Not every system has that locale; `C` with UTF8 sorts the same way.
            Err(DevStackError::Server { log, .. }) if log.contains("locale") => self.initdb(addresses, interrupt, "C"),
            other => other,
        }?;
        let data = self.folder.join("data");
        fs::rename(self.folder.join("data.new"), &data).map_err(|e| DevStackError::file(data, e))
    }

    fn initdb(&self, addresses: &ServerAddresses, interrupt: &Interrupt, locale: &str) -> Result<(), DevStackError> {
        let (fresh, password) = (self.folder.join("data.new"), self.folder.join("initdb.password"));
        let _absent = fs::remove_dir_all(&fresh);
        fs::write(&password, format!("{DEV_PASSWORD}\n")).map_err(|e| DevStackError::file(&password, e))?;
        if let Some(account) = self.account {
            account.give(&password)?;
        }
        let mut command = self.command(addresses, "initdb");
        command
            .arg("-D")
            .arg(&fresh)
            .arg(format!("--pwfile={}", password.display()))
            .args(["-U", &addresses.postgres_superuser, "--auth=scram-sha-256", "--encoding=UTF8"])
            .arg(format!("--locale={locale}"));
        if self.lifetime == Lifetime::ThrowAway {
            command.arg("--no-sync");
        }
        let place = ChildPlace {
            name: "initdb",
            folder: &self.state,
            mark: format!("{}/", self.state.display()),
            log: self.state.join("initdb.log"),
        };
        let mut child = ManagedChild::spawn(&mut command, place)?;
        let wait = Wait { what: "initdb", bound: INITDB_BOUND, interrupt };
        let status = wait.until_ended(&mut child);
        let _absent = fs::remove_file(&password);
        if status?.success() { Ok(()) } else { Err(child.failure("did not make a cluster")) }
    }

    fn command(&self, addresses: &ServerAddresses, program: &str) -> Command {
        let mut command = Command::new(addresses.postgres_bin_dir.join(program));
        clear_environment(&mut command, "PG");
        // The server keeps its working folder for life, and its account may not enter ours.
        command.current_dir(&self.folder).env("LC_MESSAGES", "C");
        if let Some(account) = self.account {
            account.apply(&mut command);
        }
        command
    }

    fn settings(&self, port: u16) -> Vec<String> {
        let socket = self.folder.join(format!(".s.PGSQL.{port}"));
        // A path that is too long for a socket leaves the server on the loopback address alone.
        let fits = socket.as_os_str().len() <= SOCKET_PATH_BYTES_MAX;
        let socket_folder = if fits { self.folder.display().to_string() } else { String::new() };
        let mut settings = vec![
            format!("port={port}"),
            "listen_addresses=127.0.0.1".into(),
            format!("unix_socket_directories={socket_folder}"),
            format!("max_connections={CONNECTIONS_MAX}"),
        ];
        if self.durability == Durability::Off {
            settings.extend(["fsync=off", "synchronous_commit=off", "full_page_writes=off"].map(String::from));
        }
        settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_without_durability_gives_up_fsync() {
        let stock = Postgres::new(Path::new("/x"), Durability::Stock, Lifetime::ThrowAway).settings(1);
        let fast = Postgres::new(Path::new("/x"), Durability::Off, Lifetime::ThrowAway).settings(1);
        assert!(!stock.iter().any(|setting| setting.starts_with("fsync")));
        assert!(fast.contains(&"fsync=off".to_owned()));
    }

    #[test]
    fn a_folder_too_deep_for_a_socket_gets_none() {
        let deep = format!("/{}", "x".repeat(120));
        let settings = Postgres::new(Path::new(&deep), Durability::Off, Lifetime::ThrowAway).settings(55432);
        assert!(settings.contains(&"unix_socket_directories=".to_owned()));
    }
}
