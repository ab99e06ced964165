//! The state folder of a stack: data, logs, a lock, the record of what was started, and a watchdog.
//!
//! Nobody else can have prepared the folder, and only one process uses it at a time. The watchdog is a small shell script
//! that stops what is recorded as soon as this process ends, however it ends; it shares the lock until it is done.

use std::env;
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
        match env::var_os("PURSE_DEV_DIR") {
            Some(named) if !named.is_empty() => std::path::absolute(&named).unwrap_or_else(|_| PathBuf::from(named)),
            _ => PathBuf::from(format!("/var/tmp/purse-{}", getuid().as_raw())),
        }
    }

    /// Creates the folder if it is missing, locks it, and stops what an earlier process left running.
    pub(crate) fn open(path: &Path, console: &Console) -> Result<Self, DevError> {
        // Root's PostgreSQL runs under another account, which has to pass through.
        let mode = if getuid().is_root() { 0o711 } else { 0o700 };
        let created = DirBuilder::new().mode(mode).create(path);
        // The umask may have removed bits from the mode.
        match created.and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode))) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => refuse_foreign(path)?,
            other => other.at(path)?,
        }
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

    pub(crate) fn remove(self) -> Result<(), DevError> {
        fs::remove_dir_all(&self.path).at(&self.path)
    }
}

impl Drop for StateFolder {
    fn drop(&mut self) {
        self.stop_all(&Console::silent(), || {});
    }
}

fn lock(folder: &Path, console: &Console) -> Result<File, DevError> {
    let path = folder.join("lock");
    let mut lock = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path).at(&path)?;
    let (begun, mut is_announced) = (Instant::now(), false);
    while let Err(error) = lock.try_lock() {
        if let TryLockError::Error(error) = error {
            return Err(error).at(&path);
        }
        // A holder that has been killed leaves the lock to its watchdog.
        let holder = fs::read_to_string(&path).unwrap_or_default();
        let (is_alive, waited) = (is_alive(&holder), begun.elapsed());
        if waited >= if is_alive { LOCK_PATIENCE } else { WATCHDOG_PATIENCE } {
            return Err(DevError::Unavailable(format!(
                "`purse-dev up` is already running as process {holder}; `just status` shows it and `just down` stops it"
            )));
        }
        if !is_alive && !is_announced {
            console.progress("an earlier run was killed; waiting until its servers have stopped");
            is_announced = true;
        }
        thread::sleep(POLL);
    }
    lock.set_len(0).and_then(|()| write!(lock, "{}", std::process::id())).at(&path)?;
    Ok(lock)
}

/// The process id that the holder of the lock has written, `None` if the lock is free or the folder is missing.
pub(crate) fn holder(folder: &Path) -> Result<Option<String>, DevError> {
    let path = folder.join("lock");
    match File::open(&path).map(|lock| lock.try_lock_shared()) {
        Ok(Err(TryLockError::WouldBlock)) => fs::read_to_string(&path).map(Some).at(&path),
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

/// A real folder, not a link, of this user: anybody can guess the names under /var/tmp.
pub(crate) fn refuse_foreign(path: &Path) -> Result<(), DevError> {
    let metadata = fs::symlink_metadata(path).at(path)?;
    if metadata.is_dir() && metadata.uid() == getuid().as_raw() {
        return Ok(());
    }
    Err(DevError::Unavailable(format!(
        "{} is not a folder of this user; remove it, or name another one with PURSE_DEV_DIR",
        path.display()
    )))
}

/// Records a process for the watchdog: the signal that stops it in an orderly way, and a part of its command line.
pub(crate) fn record(folder: &Path, pid: u32, stop: Signal, mark: &str) -> Result<(), DevError> {
    let path = folder.join("processes");
    let line = format!("{pid} {} {mark}\n", stop.as_raw());
    let opened = OpenOptions::new().create(true).append(true).open(&path);
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
        env::temp_dir().join(format!("purse-dev-{}-{:08x}", std::process::id(), fastrand::u32(..)))
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
        assert_eq!(holder(&path).unwrap(), Some(own));
        first.remove().unwrap();
        assert_eq!(holder(&path).unwrap(), None);
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
        second.remove().unwrap();
    }
}
