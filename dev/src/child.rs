//! One child process with its log file and its way of stopping.
//!
//! It starts in a process group of its own, so that Ctrl-C reaches only us and we decide the order. It never outlives its
//! value: dropping it kills it. Its owner knows what the program is and when it is ready.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::console::Console;
use crate::error::{At, DevError};
use crate::folder::record;
use crate::processes::{family, signal_all};

const POLL: Duration = Duration::from_millis(25);
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
const KILL_POLL: Duration = Duration::from_millis(5);
/// Only a process that the kernel itself holds up takes longer.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
const TAIL_BYTES: u64 = 4096;
const TAIL_LINES: usize = 15;

pub(crate) struct ChildSpec<'a> {
    pub name: &'static str,
    /// The state folder: the process is recorded there, and `<name>.log` gets its output.
    pub folder: &'a Path,
    /// A part of its command line that no other program has.
    pub mark: String,
    /// What the watchdog stops it with.
    pub stop: Signal,
}

#[derive(Debug)]
pub(crate) struct ManagedChild {
    child: Child,
    name: &'static str,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl ManagedChild {
    /// Starts the program with its output in the log file; the log of the previous run is kept as `<name>.log.1`.
    pub(crate) fn spawn(command: &mut Command, spec: &ChildSpec<'_>) -> Result<Self, DevError> {
        let log = spec.folder.join(format!("{}.log", spec.name));
        let _absent = fs::rename(&log, log.with_extension("log.1"));
        let output = OpenOptions::new().create(true).append(true).mode(0o600).open(&log).at(&log)?;
        let errors = output.try_clone().at(&log)?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0);
        let child = command.spawn().at(command.get_program().as_ref())?;
        let child = Self { child, name: spec.name, log, ended: None };
        record(spec.folder, child.child.id(), spec.stop, &spec.mark)?;
        Ok(child)
    }

    /// How it ended, `None` while it runs. What it leaves running is killed.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
            if self.ended.is_some() {
                kill_family(Pid::from_child(&self.child));
            }
        }
        self.ended
    }

    /// Waits until `done` returns a value for the state of the child; an end that it does not accept is an error.
    pub(crate) fn wait<T>(
        &mut self,
        timeout: Duration,
        console: &Console,
        mut done: impl FnMut(Option<ExitStatus>) -> Option<T>,
    ) -> Result<T, DevError> {
        let (begun, mut next_progress) = (Instant::now(), PROGRESS_EVERY);
        loop {
            console.check()?;
            let ended = self.ended();
            if let Some(value) = done(ended) {
                return Ok(value);
            }
            if let Some(status) = ended {
                return Err(self.failure(&format!("exited ({status}) instead of becoming ready")));
            }
            let (waited, limit) = (begun.elapsed(), timeout.as_secs());
            if waited >= timeout {
                return Err(self.failure(&format!("was not ready after {limit} s")));
            }
            if waited >= next_progress {
                console.progress(&format!(
                    "{}: still starting ({} s of at most {limit} s)",
                    self.title(),
                    waited.as_secs()
                ));
                next_progress += PROGRESS_EVERY;
            }
            thread::sleep(POLL);
        }
    }

    /// Kills it when it has not ended after the timeout.
    pub(crate) fn stop(&mut self, signal: Signal, timeout: Duration) {
        // A paused server does not notice a request.
        self.signal_family(Signal::CONT);
        if self.ended().is_none() {
            let _ended = kill_process(Pid::from_child(&self.child), signal);
        }
        let begun = Instant::now();
        while self.ended().is_none() && begun.elapsed() < timeout {
            thread::sleep(POLL);
        }
        self.kill();
    }

    fn kill(&mut self) {
        if self.ended().is_none() {
            kill_family(Pid::from_child(&self.child));
            self.ended = self.child.wait().ok();
        }
    }

    pub(crate) fn signal_family(&self, signal: Signal) {
        // Once it is reaped, another process may get its id.
        if self.ended.is_none() {
            signal_all(&family(Pid::from_child(&self.child)), signal);
        }
    }

    pub(crate) fn failure(&self, problem: &str) -> DevError {
        DevError::Unavailable(format!("{} {problem}; its last lines were:\n{}", self.title(), tail(&self.log)))
    }

    fn title(&self) -> &'static str {
        match self.name {
            "postgres" => "PostgreSQL",
            "rabbitmq" => "RabbitMQ",
            "users" => "the users role",
            "wallet" => "the wallet role",
            other => other,
        }
    }
}

impl Drop for ManagedChild {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn is_running(child: &mut Option<ManagedChild>) -> bool {
    child.as_mut().is_some_and(|child| child.ended().is_none())
}

fn kill_family(root: Pid) {
    let begun = Instant::now();
    // Repeated, because a member may have started another one between the look and the signal.
    while begun.elapsed() < KILL_TIMEOUT {
        let members = family(root);
        if members.is_empty() {
            return;
        }
        signal_all(&members, Signal::KILL);
        thread::sleep(KILL_POLL);
    }
}

/// Removes every inherited variable with this prefix: a developer's own settings must not steer a private server.
pub(crate) fn clear_environment(command: &mut Command, prefix: &str) {
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with(prefix)) {
        command.env_remove(name);
    }
}

/// The last lines of a log file.
pub(crate) fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(TAIL_LINES)..).unwrap_or_default();
    if last.is_empty() { format!("({} is empty)", path.display()) } else { last.join("\n") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::tests::fresh_path;

    #[test]
    fn the_tail_is_the_end_of_a_long_log() {
        let path = fresh_path();
        let lines: Vec<String> = (0..2000).map(|n| format!("line {n}")).collect();
        fs::write(&path, lines.join("\n")).unwrap();
        let end = tail(&path);
        fs::remove_file(&path).unwrap();
        assert_eq!(end.lines().count(), TAIL_LINES);
        assert!(end.ends_with("line 1999"));
    }

    #[test]
    fn a_dropped_child_is_killed_with_its_children() {
        let folder = fresh_path();
        fs::create_dir(&folder).unwrap();
        // Two processes: the outer one waits for the inner one.
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "sleep 300; exit 3"]);
        let spec = ChildSpec { name: "sleeper", folder: &folder, mark: "sleep".into(), stop: Signal::TERM };
        let child = ManagedChild::spawn(&mut command, &spec).unwrap();
        let pid = Pid::from_child(&child.child);
        assert!(!family(pid).is_empty());
        drop(child);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(family(pid), []);
    }
}
