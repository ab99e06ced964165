//! The one folder that holds everything of a stack: data, logs, the lock and the record of what was started.
//!
//! It is made so that another account cannot have prepared it, and locked while somebody works with it. The lock is the
//! file system's: it is released however the holder dies. This file does not know what the servers keep inside.

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::getuid;

use super::error::DevStackError;
use super::processes::Record;

const LOCK_PATIENCE: Duration = Duration::from_millis(300);
const LOCK_POLL: Duration = Duration::from_millis(10);

/// A folder that this process holds the lock of.
#[derive(Debug)]
pub(super) struct StateFolder {
    path: PathBuf,
    _lock: File,
}

impl StateFolder {
    /// The folder of `dev up`: `PURSE_DEV_DIR`, else one a user under /var/tmp, which survives a restart of the machine.
    pub(super) fn default_path() -> PathBuf {
        match env::var_os("PURSE_DEV_DIR") {
            Some(named) if !named.is_empty() => std::path::absolute(&named).unwrap_or_else(|_| PathBuf::from(named)),
            _ => PathBuf::from(format!("/var/tmp/purse-{}", getuid().as_raw())),
        }
    }

    /// Makes the folder where it is missing and takes its lock.
    ///
    /// # Errors
    /// `Busy` while another process holds it, `ForeignFolder` when it belongs to another user.
    pub(super) fn open(path: &Path) -> Result<Self, DevStackError> {
        // Root's PostgreSQL runs under another account, which has to pass through.
        let mode = if getuid().is_root() { 0o711 } else { 0o700 };
        match DirBuilder::new()
            .mode(mode)
            .create(path)
            // The umask may have taken from the mode.
            .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(DevStackError::file(path, error)),
        }
        refuse_foreign(path)?;
        let lock_path = path.join("lock");
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&lock_path)
            .map_err(|e| DevStackError::file(&lock_path, e))?;
        if !taken_within(&lock_path, LOCK_PATIENCE, || lock.try_lock())? {
            return Err(DevStackError::Busy { holder: written_in(&mut lock) });
        }
        lock.set_len(0)
            .and_then(|()| lock.write_all(std::process::id().to_string().as_bytes()))
            .map_err(|e| DevStackError::file(&lock_path, e))?;
        Ok(Self { path: path.to_path_buf(), _lock: lock })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Forgets what was started: everything has ended.
    pub(super) fn forget_processes(&self) {
        let _absent = fs::remove_file(self.path.join("processes"));
    }

    /// Removes the folder with everything in it.
    pub(super) fn remove(self) -> Result<(), DevStackError> {
        fs::remove_dir_all(&self.path).map_err(|e| DevStackError::file(&self.path, e))
    }
}

/// Who holds the lock of the folder, `None` when nobody does or there is no folder.
pub(super) fn holder(path: &Path) -> Result<Option<String>, DevStackError> {
    let lock_path = path.join("lock");
    let mut lock = match File::open(&lock_path) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DevStackError::file(lock_path, error)),
    };
    let free = taken_within(&lock_path, Duration::ZERO, || lock.try_lock_shared())?;
    Ok((!free).then(|| written_in(&mut lock)))
}

/// Tries for the lock; somebody who only looks at it holds it for a moment, which is waited for.
fn taken_within(
    path: &Path,
    patience: Duration,
    mut attempt: impl FnMut() -> Result<(), TryLockError>,
) -> Result<bool, DevStackError> {
    let begun = Instant::now();
    loop {
        match attempt() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) if begun.elapsed() >= patience => return Ok(false),
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_POLL),
            Err(TryLockError::Error(error)) => return Err(DevStackError::file(path, error)),
        }
    }
}

fn written_in(lock: &mut File) -> String {
    let mut holder = String::new();
    let _unreadable = lock.read_to_string(&mut holder);
    Some(holder.trim()).filter(|text| !text.is_empty()).unwrap_or("?").to_owned()
}

/// A real folder, not a link, of this user: the names under /var/tmp can be guessed by anybody.
pub(super) fn refuse_foreign(path: &Path) -> Result<(), DevStackError> {
    let metadata = fs::symlink_metadata(path).map_err(|e| DevStackError::file(path, e))?;
    let own = metadata.is_dir() && metadata.uid() == getuid().as_raw();
    if own { Ok(()) } else { Err(DevStackError::ForeignFolder { path: path.to_path_buf() }) }
}

/// Notes a process that was started, before anything can interrupt us.
pub(super) fn record_process(folder: &Path, record: &Record) -> Result<(), DevStackError> {
    let path = folder.join("processes");
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .and_then(|mut file| file.write_all(record.to_line().as_bytes()))
        .map_err(|e| DevStackError::file(path, e))
}

/// What was started in the folder and not yet forgotten.
pub(super) fn recorded_processes(folder: &Path) -> Vec<Record> {
    let text = fs::read_to_string(folder.join("processes")).unwrap_or_default();
    text.lines().filter_map(Record::from_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> PathBuf {
        env::temp_dir().join(format!("purse-folder-{}-{:08x}", std::process::id(), fastrand::u32(..)))
    }

    #[test]
    fn a_second_holder_is_told_who_the_first_is() {
        let path = fresh();
        let first = StateFolder::open(&path).unwrap();
        let error = StateFolder::open(&path).unwrap_err();
        assert!(matches!(error, DevStackError::Busy { holder } if holder == std::process::id().to_string()));
        assert_eq!(holder(&path).unwrap(), Some(std::process::id().to_string()));
        first.remove().unwrap();
        assert_eq!(holder(&path).unwrap(), None);
    }

    #[test]
    fn a_link_is_refused_even_to_a_folder_of_our_own() {
        let (target, link) = (fresh(), fresh());
        fs::create_dir(&target).unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let refused = StateFolder::open(&link);
        fs::remove_file(&link).unwrap();
        fs::remove_dir_all(&target).unwrap();
        assert!(matches!(refused, Err(DevStackError::ForeignFolder { .. })));
    }

    #[test]
    fn what_was_recorded_is_read_back_until_it_is_forgotten() {
        let folder = StateFolder::open(&fresh()).unwrap();
        let record = Record { pid: 4711, name: "epmd".into(), mark: "/x/".into() };
        record_process(folder.path(), &record).unwrap();
        assert_eq!(recorded_processes(folder.path()), vec![record]);
        folder.forget_processes();
        assert_eq!(recorded_processes(folder.path()), Vec::new());
        folder.remove().unwrap();
    }
}
