//! The state folder of a stack: data, logs, a lock, the record of what was started, and a watchdog.
//!
//! The folder is either new or marked as ours, so that a folder of the user is never written to or deleted. Only one
//! process uses it at a time. The watchdog is a small shell script
//! that stops what is recorded as soon as this process ends, however it ends; it shares the lock until it is done.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getuid, test_kill_process};

use crate::console::Console;
use crate::error::{At, DevError};
use crate::hints::{another_command, variable};
use crate::processes::start_of;

/// Marks the folder. It is written first and removed last.
pub(crate) const MARKER: &str = "purse-dev.txt";
const MARKER_TEXT: &str = "This folder belongs to purse-dev, whose command `reset` deletes the data in it.\n";
/// Everything else that is created in the folder.
const CREATED: [&str; 8] =
    ["postgres", "rabbitmq", "environment.sh", "keys.json", "ports.json", "processes", WATCHDOG, "lock"];
/// Each has `<name>.log` and `<name>.log.1`.
const LOGS: [&str; 9] =
    ["epmd", "initdb", "postgres", "rabbitmq", "rabbitmq-1", "rabbitmq-2", "rabbitmq-3", "users", "wallet"];
const WATCHDOG: &str = "watchdog.sh";
/// `status` holds the lock for a moment to look at it.
const LOCK_PATIENCE: Duration = Duration::from_millis(300);
/// A watchdog gives each server half a minute.
const WATCHDOG_PATIENCE: Duration = Duration::from_mins(2);
const POLL: Duration = Duration::from_millis(20);

/// What the watchdog leaves of the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Afterwards {
    Keep,
    Remove,
}

/// A folder that this process holds the lock of. Dropping it makes the watchdog stop what is recorded.
#[derive(Debug)]
pub(crate) struct StateFolder {
    path: PathBuf,
    lock: File,
    watchdog: Option<Child>,
}

impl StateFolder {
    /// `PURSE_DEV_DIR`, else a folder per user under /var/tmp, which survives a restart of the machine.
    pub(crate) fn default_path() -> PathBuf {
        match variable("PURSE_DEV_DIR") {
            Some(named) => std::path::absolute(&named).unwrap_or_else(|_| PathBuf::from(named)),
            None => PathBuf::from(format!("/var/tmp/purse-{}", getuid().as_raw())),
        }
    }

    /// Creates the folder if it is missing, locks it, and stops what an earlier process left running.
    ///
    /// # Errors
    /// `Setting` when the folder has files and is not marked as ours.
    pub(crate) fn open(path: &Path, console: &Console) -> Result<Self, DevError> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => refuse_foreign(path)?,
            created => created.map_err(|error| unusable(path, &error))?,
        }
        claim(path)?;
        let folder = Self { path: path.to_path_buf(), lock: lock(path, console)?, watchdog: None };
        write_private(&path.join(WATCHDOG), include_str!("watchdog.sh"))?;
        if path.join("processes").exists() {
            console.progress("an earlier run was killed; stopping what it left running");
            folder.watchdog_command(Afterwards::Keep).stdin(Stdio::null()).status().at(path)?;
        }
        Ok(folder)
    }

    /// From now on, the end of this process stops what is recorded.
    pub(crate) fn start_watchdog(&mut self, afterwards: Afterwards) -> Result<(), DevError> {
        let lock = self.lock.try_clone().at(&self.path)?;
        let watchdog = self.watchdog_command(afterwards).stdin(Stdio::piped()).stdout(lock).spawn();
        self.watchdog = Some(watchdog.at(&self.path)?);
        Ok(())
    }

    fn watchdog_command(&self, afterwards: Afterwards) -> Command {
        let afterwards = if afterwards == Afterwards::Remove { "remove" } else { "keep" };
        let mut command = Command::new("/bin/sh");
        command.arg(self.path.join(WATCHDOG)).arg(&self.path).arg(afterwards);
        // In a group of its own: Ctrl-C and the end of the terminal do not reach it.
        command.current_dir("/").process_group(0).stderr(Stdio::null());
        command
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the watchdog stop what is recorded, newest first, and waits until it has. A second signal ends the wait.
    pub(crate) fn stop_all(&mut self, console: &Console, mut meanwhile: impl FnMut()) {
        let Some(mut watchdog) = self.watchdog.take() else { return };
        drop(watchdog.stdin.take());
        while matches!(watchdog.try_wait(), Ok(None)) && !console.is_impatient() {
            meanwhile();
            thread::sleep(POLL);
        }
    }

    /// Removes everything that was created here. Returns whether the folder is gone too: other files keep it.
    pub(crate) fn remove(self) -> Result<bool, DevError> {
        for name in created() {
            let path = self.path.join(name);
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            match removed {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other.at(&path)?,
            }
        }
        if fs::read_dir(&self.path).at(&self.path)?.count() > 1 {
            return Ok(false);
        }
        fs::remove_file(self.path.join(MARKER)).and_then(|()| fs::remove_dir(&self.path)).at(&self.path)?;
        Ok(true)
    }
}

impl Drop for StateFolder {
    fn drop(&mut self) {
        self.stop_all(&Console::silent(), || {});
    }
}

/// Names of what the stack creates in the folder, without the marker.
pub(crate) fn created() -> impl Iterator<Item = String> {
    let logs = LOGS.iter().flat_map(|name| [format!("{name}.log"), format!("{name}.log.1")]);
    CREATED.map(String::from).into_iter().chain(logs)
}

/// Marks an empty folder as ours, and refuses one that has other files.
fn claim(path: &Path) -> Result<(), DevError> {
    let marker = path.join(MARKER);
    if !marker.is_file() {
        let mut entries = fs::read_dir(path).map_err(|error| unusable(path, &error))?;
        if entries.next().is_some() {
            return Err(DevError::Setting(format!(
                "{} has files that purse-dev did not create, so it is left unchanged; set PURSE_DEV_DIR to a new or empty folder",
                path.display()
            )));
        }
    }
    // Root's PostgreSQL runs under another account, which has to pass through.
    let mode = if getuid().is_root() { 0o711 } else { 0o700 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|error| unusable(path, &error))?;
    write_private(&marker, MARKER_TEXT)
}

fn unusable(path: &Path, error: &io::Error) -> DevError {
    DevError::Unavailable(format!(
        "cannot use the state folder {}: {error}; set PURSE_DEV_DIR to another one, in a folder that exists and that \
         you can write to",
        path.display()
    ))
}

/// `up` of this folder runs as that process.
pub(crate) fn already_running(pid: &str) -> DevError {
    let (status, down) = (another_command("status"), another_command("down"));
    DevError::Unavailable(format!(
        "`up` is already running as process {pid}; `{status}` shows it and `{down}` stops it"
    ))
}

fn lock(folder: &Path, console: &Console) -> Result<File, DevError> {
    let path = folder.join("lock");
    let mut lock =
        OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(&path).at(&path)?;
    let (begun, mut is_announced) = (Instant::now(), false);
    while let Err(error) = lock.try_lock() {
        if let TryLockError::Error(error) = error {
            return Err(error).at(&path);
        }
        // A holder that has been killed leaves the lock to its watchdog.
        let holder = Holder::parse(&fs::read_to_string(&path).unwrap_or_default());
        let (is_alive, waited) = (holder.is_alive(), begun.elapsed());
        if waited >= if is_alive { LOCK_PATIENCE } else { WATCHDOG_PATIENCE } {
            return Err(already_running(&holder.pid));
        }
        if !is_alive && !is_announced {
            console.progress("an earlier run was killed; waiting until its servers have stopped");
            is_announced = true;
        }
        thread::sleep(POLL);
    }
    let pid = std::process::id().to_string();
    let started = start_of(&pid).unwrap_or_default();
    lock.set_len(0).and_then(|()| write!(lock, "{pid} {started}")).at(&path)?;
    Ok(lock)
}

/// The process that has written itself into the lock file. After it was killed its watchdog holds the lock for a while,
/// and the system may give its id to another process, so its start is compared too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub pid: String,
    started: String,
}

impl Holder {
    fn parse(text: &str) -> Self {
        let (pid, started) = text.split_once(' ').unwrap_or((text, ""));
        Self { pid: pid.to_owned(), started: started.to_owned() }
    }

    pub(crate) fn is_alive(&self) -> bool {
        start_of(&self.pid).is_some_and(|started| started == self.started)
    }
}

/// Who holds the lock, `None` if it is free or the folder is missing.
pub(crate) fn holder(folder: &Path) -> Result<Option<Holder>, DevError> {
    let path = folder.join("lock");
    match File::open(&path).map(|lock| lock.try_lock_shared()) {
        Ok(Err(TryLockError::WouldBlock)) => fs::read_to_string(&path).map(|text| Some(Holder::parse(&text))).at(&path),
        Ok(Err(TryLockError::Error(error))) => Err(error).at(&path),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at(&path),
        Ok(Ok(())) | Err(_) => Ok(None),
    }
}

/// Whether the text is the process id of a process that runs, also one of another user.
pub(crate) fn is_alive(pid: &str) -> bool {
    let pid = pid.parse().ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

/// A real folder, not a link, of this user: any user can guess the names under /var/tmp.
pub(crate) fn refuse_foreign(path: &Path) -> Result<(), DevError> {
    let metadata = fs::symlink_metadata(path).at(path)?;
    if metadata.is_dir() && metadata.uid() == getuid().as_raw() {
        return Ok(());
    }
    Err(DevError::Unavailable(format!(
        "{} is not a folder of this user; remove it, or set PURSE_DEV_DIR to another one",
        path.display()
    )))
}

/// Records a process for the watchdog: the signal that stops it in an orderly way, and a part of its command line.
pub(crate) fn record(folder: &Path, pid: u32, stop: Signal, mark: &str) -> Result<(), DevError> {
    let path = folder.join("processes");
    let line = format!("{pid} {} {mark}\n", stop.as_raw());
    let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
    opened.and_then(|mut file| file.write_all(line.as_bytes())).at(&path)
}

/// Writes a file that only this user can read.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<(), DevError> {
    let opened = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path);
    opened.and_then(|mut file| file.write_all(text.as_bytes())).at(path)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn fresh_path() -> PathBuf {
        std::env::temp_dir().join(format!("purse-dev-{}-{:08x}", std::process::id(), fastrand::u32(..)))
    }

    fn sleeper(name: &Path) -> Child {
        Command::new("/bin/sh").args(["-c", "sleep 300; exit 3"]).arg(name).process_group(0).spawn().unwrap()
    }

    #[test]
    fn a_second_holder_learns_who_the_first_is() {
        let (path, console) = (fresh_path(), Console::silent());
        let first = StateFolder::open(&path, &console).unwrap();
        let own = std::process::id().to_string();
        let error = StateFolder::open(&path, &console).unwrap_err();
        assert!(matches!(&error, DevError::Unavailable(text) if text.contains(&own)), "{error}");
        let holder_now = holder(&path).unwrap().unwrap();
        assert!(holder_now.pid == own && holder_now.is_alive());
        assert!(first.remove().unwrap());
        assert_eq!(holder(&path).unwrap(), None);
    }

    #[test]
    fn a_process_that_got_the_id_of_the_holder_is_not_taken_for_it() {
        let reused = Holder { pid: std::process::id().to_string(), started: "1".into() };
        assert!(!reused.is_alive());
    }

    #[test]
    fn a_folder_with_files_of_the_user_is_refused_and_left_as_it_is() {
        let path = fresh_path();
        fs::create_dir(&path).unwrap();
        fs::write(path.join("thesis.txt"), "years of work").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let refused = StateFolder::open(&path, &Console::silent());
        let names: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        let mode = fs::metadata(&path).unwrap().mode() & 0o777;
        fs::remove_dir_all(&path).unwrap();
        assert!(matches!(refused, Err(DevError::Setting(text)) if text.contains("did not create")));
        assert_eq!((names, mode), (vec!["thesis.txt".into()], 0o755));
    }

    #[test]
    fn removing_an_empty_folder_that_was_claimed_leaves_files_that_came_later() {
        let (path, console) = (fresh_path(), Console::silent());
        fs::create_dir(&path).unwrap();
        let folder = StateFolder::open(&path, &console).unwrap();
        fs::create_dir(path.join("postgres")).unwrap();
        fs::write(path.join("postgres.log"), "").unwrap();
        fs::write(path.join("notes"), "").unwrap();
        assert!(!folder.remove().unwrap());
        assert!(path.join("notes").exists() && !path.join("postgres").exists() && !path.join("postgres.log").exists());
        fs::remove_file(path.join("notes")).unwrap();
        assert!(StateFolder::open(&path, &console).unwrap().remove().unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn a_missing_parent_is_reported_with_what_to_do() {
        let refused = StateFolder::open(&fresh_path().join("inner"), &Console::silent());
        assert!(matches!(refused, Err(DevError::Unavailable(text)) if text.contains("PURSE_DEV_DIR")));
    }

    #[test]
    fn a_link_is_refused_even_to_a_folder_of_our_own() {
        let (target, link) = (fresh_path(), fresh_path());
        fs::create_dir(&target).unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let refused = StateFolder::open(&link, &Console::silent());
        fs::remove_file(&link).unwrap();
        fs::remove_dir_all(&target).unwrap();
        assert!(matches!(refused, Err(DevError::Unavailable(text)) if text.contains("is not a folder of this user")));
    }

    #[test]
    fn when_the_pipe_closes_recorded_processes_are_stopped_and_others_are_not() {
        let mut folder = StateFolder::open(&fresh_path(), &Console::silent()).unwrap();
        folder.start_watchdog(Afterwards::Remove).unwrap();
        let path = folder.path().to_path_buf();
        let (mut ours, mut stranger) = (sleeper(&path), sleeper(Path::new("another")));
        for child in [&ours, &stranger] {
            record(&path, child.id(), Signal::TERM, &path.display().to_string()).unwrap();
        }
        drop(folder);
        assert!(!path.exists());
        let still_runs = stranger.try_wait().unwrap().is_none();
        let family = crate::processes::family(Pid::from_child(&stranger));
        crate::processes::signal_all(&family, Signal::KILL);
        stranger.wait().unwrap();
        assert!(still_runs);
        assert!(ours.try_wait().unwrap().is_some());
    }

    #[test]
    fn what_a_killed_run_left_is_stopped_by_the_next_one() {
        let (path, console) = (fresh_path(), Console::silent());
        let first = StateFolder::open(&path, &console).unwrap();
        let mut ours = sleeper(&path);
        record(&path, ours.id(), Signal::TERM, &path.display().to_string()).unwrap();
        drop(first);
        assert!(ours.try_wait().unwrap().is_none());
        let second = StateFolder::open(&path, &console).unwrap();
        assert!(ours.try_wait().unwrap().is_some());
        assert!(!path.join("processes").exists());
        assert!(second.remove().unwrap());
    }
}
