//! Servers of a test run or a benchmark, in a folder of their own that is removed with them.
//!
//! A test binary has no last moment in which it could stop them: the watchdog does that when the process ends, even when
//! it is killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::process::Signal;

use crate::console::Console;
use crate::error::DevError;
use crate::folder::{Afterwards, StateFolder, is_alive, record, refuse_foreign};
use crate::ports::Ports;
use crate::servers::{Action, Durability, Server, ServerAddresses, Servers};

/// Servers that run until this value is dropped or this process ends.
#[derive(Debug)]
pub struct TestServers {
    // Dropped first: its watchdog stops both servers better than a kill, which leaves shared memory behind.
    folder: StateFolder,
    addresses: ServerAddresses,
    servers: Mutex<Servers>,
}

impl TestServers {
    /// Starts both servers and returns when both are ready, after about ten seconds. Blocks the thread.
    ///
    /// # Errors
    /// `Unavailable`, for example with the command that installs a missing server.
    pub fn start(durability: Durability) -> Result<Self, DevError> {
        Self::start_in(durability, &StateFolder::default_path())
    }

    /// The same, in a folder beside `base` whose name starts with it: for a file system of one's own.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub fn start_in(durability: Durability, base: &Path) -> Result<Self, DevError> {
        let console = Console::silent();
        let folder = test_folder(base, &console)?;
        let servers = Servers::locate(folder.path(), Ports::random()?, durability, Afterwards::Remove, &console)?;
        let mut test_servers = Self { folder, addresses: servers.addresses(), servers: Mutex::new(servers) };
        test_servers.servers.get_mut().unwrap_or_else(PoisonError::into_inner).start()?;
        Ok(test_servers)
    }

    /// Where they listen.
    pub fn addresses(&self) -> &ServerAddresses {
        &self.addresses
    }

    /// Performs an action on one server and returns when it is done. Blocks the thread.
    ///
    /// # Errors
    /// `Unavailable` when a start fails.
    pub fn command(&self, server: Server, action: Action) -> Result<(), DevError> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).act(server, action)
    }

    /// Runs RabbitMQ's own command-line tool against the node. Blocks the thread.
    ///
    /// # Errors
    /// `Unavailable` with the tool's output.
    pub fn rabbitmqctl(&self, arguments: &[&str]) -> Result<(), DevError> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).rabbitmqctl(arguments)
    }

    /// Kills a child of this process too when this process ends; `program` is the start of its command line.
    ///
    /// # Errors
    /// `Unavailable` when the process cannot be recorded.
    pub fn kill_with_us(&self, pid: u32, program: &str) -> Result<(), DevError> {
        record(self.folder.path(), pid, Signal::KILL, program)
    }
}

/// A new folder for servers that stop when this process ends.
pub(crate) fn test_folder(base: &Path, console: &Console) -> Result<StateFolder, DevError> {
    remove_abandoned(base, console);
    let path = PathBuf::from(format!("{}{:08x}", prefix(base, std::process::id()), fastrand::u32(..)));
    let mut folder = StateFolder::open(&path, console)?;
    folder.start_watchdog(Afterwards::Remove)?;
    Ok(folder)
}

fn prefix(base: &Path, pid: u32) -> String {
    format!("{}-test-{pid}-", base.display())
}

/// Stops and removes what is left of a run that was killed together with its watchdog. Failures wait for the next run.
fn remove_abandoned(base: &Path, console: &Console) {
    let (Some(parent), Some(name)) = (base.parent(), base.file_name()) else { return };
    let start = format!("{}-test-", name.to_string_lossy());
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let entry_name = entry.file_name().to_string_lossy().into_owned();
        let pid = entry_name.strip_prefix(&start).and_then(|rest| rest.split_once('-')).map(|(pid, _)| pid);
        let path = entry.path();
        // While its process runs, or its watchdog still works, something takes care of it.
        let abandoned = pid.is_some_and(|pid| !is_alive(pid)) && matches!(crate::folder::holder(&path), Ok(None));
        if abandoned && refuse_foreign(&path).is_ok() {
            let _next_time = StateFolder::open(&path, console).and_then(StateFolder::remove);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::show;
    use crate::folder::tests::fresh_path;
    use crate::folder::{MARKER, created};
    use crate::probe::{connect, local};
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    const TIMEOUT: Duration = Duration::from_mins(1);

    #[test]
    fn only_folders_of_processes_that_have_ended_are_removed() {
        let base = fresh_path();
        let own = PathBuf::from(format!("{}1", prefix(&base, std::process::id())));
        // Process ids end at 4194304 on Linux and at 99998 on macOS.
        let abandoned = PathBuf::from(format!("{}1", prefix(&base, 2_000_000_000)));
        for path in [&own, &abandoned] {
            fs::create_dir(path).unwrap();
        }
        remove_abandoned(&base, &Console::silent());
        assert!(own.exists() && !abandoned.exists());
        fs::remove_dir(&own).unwrap();
    }

    /// Runs itself once more as the process that is killed.
    #[test]
    fn a_killed_test_run_leaves_nothing_behind() {
        const BASE: &str = "PURSE_DEV_TEST_BASE";
        if let Some(base) = std::env::var_os(BASE) {
            let servers = TestServers::start_in(Durability::Off, Path::new(&base)).unwrap();
            let ServerAddresses { postgres_port, amqp_port, .. } = servers.addresses();
            show(&format!("\nstarted {postgres_port} {amqp_port} {}", servers.folder.path().display()));
            std::thread::sleep(TIMEOUT);
            return;
        }
        let base = PathBuf::from(format!("/var/tmp/purse-killed-{}", std::process::id()));
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["a_killed_test_run_leaves_nothing_behind", "--nocapture"]).env(BASE, &base);
        let mut run = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(run.stdout.take().unwrap()).lines().map_while(Result::ok);
        let started = lines.find_map(|line| line.strip_prefix("started ").map(str::to_owned)).unwrap();
        let [postgres, amqp, folder] = started.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{started}") };
        let ports: [u16; 2] = [postgres.parse().unwrap(), amqp.parse().unwrap()];
        assert!(ports.iter().all(|port| connect(local(*port)).is_some()));
        let unknown = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let unknown: Vec<_> = unknown.filter(|name| name != MARKER && !created().any(|known| known == *name)).collect();
        assert_eq!(unknown, [""; 0], "`reset` would leave these");
        run.kill().unwrap();
        run.wait().unwrap();
        let begun = Instant::now();
        while Path::new(folder).exists() || ports.iter().any(|port| connect(local(*port)).is_some()) {
            assert!(begun.elapsed() < TIMEOUT, "{folder} is still there, or a server still listens");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
