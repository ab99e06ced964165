//! One child process with its log file and its way of ending.
//!
//! It is started in a process group of its own, so that Ctrl-C reaches only us and we decide the order. It never
//! outlives its value: dropping it kills it. What the program is and when it is ready, its owner knows.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::error::DevStackError;
use super::folder::record_process;
use super::interrupt::Interrupt;
use super::processes::{Record, all, family, left_over, signal_all};

const POLL: Duration = Duration::from_millis(25);
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
const KILL_POLL: Duration = Duration::from_millis(5);
/// Only a process that the kernel itself holds up takes longer.
const KILL_BOUND: Duration = Duration::from_secs(5);
const TAIL_BYTES: u64 = 4096;
const TAIL_LINES: usize = 15;

/// A started program.
#[derive(Debug)]
pub(super) struct ManagedChild {
    child: Child,
    log: PathBuf,
    name: &'static str,
    record: Record,
}

/// The place of a server's program: empty while it does not run.
#[derive(Debug, Default)]
pub(super) struct Slot(pub(super) Option<ManagedChild>);

impl Slot {
    pub(super) fn signal_family(&self, signal: Signal) {
        if let Some(child) = &self.0 {
            child.signal_family(signal);
        }
    }

    pub(super) fn is_running(&mut self) -> bool {
        self.0.as_mut().is_some_and(|child| child.ended().is_none())
    }

    /// How it ended, if it ended without being asked; told once.
    pub(super) fn unasked_end(&mut self) -> Option<ExitStatus> {
        let status = self.0.as_mut()?.ended()?;
        self.0 = None;
        Some(status)
    }
}

/// What a program is called, where it is noted, and where it writes.
pub(super) struct ChildPlace<'a> {
    pub name: &'static str,
    /// The state folder, whose record gets the process.
    pub folder: &'a Path,
    /// A part of the command line that only this stack has.
    pub mark: String,
    /// The file that gets both output streams.
    pub log: PathBuf,
}

impl ManagedChild {
    /// Starts the program with its output in the log file; the log of the run before is kept beside it.
    pub(super) fn spawn(command: &mut Command, place: ChildPlace<'_>) -> Result<Self, DevStackError> {
        let _absent = fs::rename(&place.log, place.log.with_extension("log.1"));
        let file = |result: std::io::Result<File>| result.map_err(|e| DevStackError::file(&place.log, e));
        let output = file(File::create(&place.log))?;
        let errors = file(output.try_clone())?;
        Self::begin(command.stdout(output).stderr(errors), place)
    }

    /// Starts the program and returns its two output streams to be read by the caller.
    pub(super) fn spawn_piped(
        command: &mut Command,
        place: ChildPlace<'_>,
    ) -> Result<(Self, Option<ChildStdout>, Option<ChildStderr>), DevStackError> {
        let mut started = Self::begin(command.stdout(Stdio::piped()).stderr(Stdio::piped()), place)?;
        let (output, errors) = (started.child.stdout.take(), started.child.stderr.take());
        Ok((started, output, errors))
    }

    fn begin(command: &mut Command, place: ChildPlace<'_>) -> Result<Self, DevStackError> {
        let child = command.stdin(Stdio::null()).process_group(0).spawn().map_err(|source| DevStackError::Spawn {
            program: command.get_program().to_string_lossy().into(),
            source,
        })?;
        let pid = i32::try_from(child.id()).unwrap_or_default();
        let record = Record { pid, name: place.name.into(), mark: place.mark };
        let started = Self { child, log: place.log, name: place.name, record };
        record_process(place.folder, &started.record)?;
        Ok(started)
    }

    /// How it ended, `None` while it runs.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Asks for an end without waiting for it.
    pub(super) fn ask(&mut self, signal: Signal) {
        if self.ended().is_none() {
            signal_all(&[self.record.pid], signal);
        }
    }

    /// Asks for an end and waits for it.
    pub(super) fn stop(&mut self, signal: Signal, bound: Duration, interrupt: &Interrupt) {
        self.ask(signal);
        self.finish(bound, interrupt);
    }

    /// Waits for the end that was asked for; past the bound, or when somebody is in a hurry, it is killed.
    pub(super) fn finish(&mut self, bound: Duration, interrupt: &Interrupt) {
        let begun = Instant::now();
        while self.ended().is_none() && begun.elapsed() < bound && !interrupt.is_urgent() {
            thread::sleep(POLL);
        }
        self.kill();
    }

    /// Kills it and its whole family, and waits until it has gone.
    pub(super) fn kill(&mut self) {
        // Once it has ended its process id may be somebody else's, so then only what bears our mark is killed.
        let ours = self.ended().is_none() || !left_over(std::slice::from_ref(&self.record), &all()).is_empty();
        let begun = Instant::now();
        // Again and again, because a member may have started another one between the look and the signal.
        while ours && begun.elapsed() < KILL_BOUND {
            let table = all();
            let mut members = family(self.record.pid, &table);
            members.retain(|pid| table.iter().any(|process| process.pid == *pid));
            if members.is_empty() {
                break;
            }
            signal_all(&members, Signal::KILL);
            thread::sleep(KILL_POLL);
        }
        let _gone = self.child.wait();
    }

    /// Stops or continues the whole family.
    pub(super) fn signal_family(&self, signal: Signal) {
        signal_all(&family(self.record.pid, &all()), signal);
    }

    /// The error for a program that did something unasked, with the end of its log.
    pub(super) fn failure(&self, problem: impl Into<String>) -> DevStackError {
        DevStackError::Server { server: self.name, problem: problem.into(), log: tail(&self.log) }
    }
}

impl Drop for ManagedChild {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How long to wait for something, and who is told about it.
pub(super) struct Wait<'a> {
    pub what: &'static str,
    pub bound: Duration,
    pub interrupt: &'a Interrupt,
}

impl Wait<'_> {
    /// Asks until the child is ready, ended or out of time.
    pub(super) fn until_ready(
        &self,
        child: &mut ManagedChild,
        progress: &mut dyn FnMut(&str),
        mut ready: impl FnMut() -> bool,
    ) -> Result<(), DevStackError> {
        let begun = Instant::now();
        let mut told = PROGRESS_EVERY;
        loop {
            if self.interrupt.is_raised() {
                return Err(DevStackError::Interrupted);
            }
            if let Some(status) = child.ended() {
                return Err(child.failure(format!("ended by itself ({status}) instead of becoming ready")));
            }
            if ready() {
                return Ok(());
            }
            let waited = begun.elapsed();
            if waited >= self.bound {
                return Err(child.failure(format!("was not ready after {} s", self.bound.as_secs())));
            }
            if waited >= told {
                progress(&format!(
                    "{}: still starting ({} s of at most {} s)",
                    self.what,
                    waited.as_secs(),
                    self.bound.as_secs()
                ));
                told += PROGRESS_EVERY;
            }
            thread::sleep(POLL);
        }
    }
}

impl Wait<'_> {
    /// Waits for a program that ends by itself.
    pub(super) fn until_ended(&self, child: &mut ManagedChild) -> Result<ExitStatus, DevStackError> {
        let begun = Instant::now();
        loop {
            if self.interrupt.is_raised() {
                return Err(DevStackError::Interrupted);
            }
            if let Some(status) = child.ended() {
                return Ok(status);
            }
            if begun.elapsed() >= self.bound {
                return Err(child.failure(format!("had not ended after {} s", self.bound.as_secs())));
            }
            thread::sleep(POLL);
        }
    }
}

/// The last lines of a log file.
pub(super) fn tail(path: &Path) -> String {
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
    if last.is_empty() { format!("(nothing in {})", path.display()) } else { last.join("\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_end_of_a_long_log() {
        let path = std::env::temp_dir().join(format!("purse-tail-{}", std::process::id()));
        let lines: Vec<String> = (0..2000).map(|n| format!("line {n}")).collect();
        fs::write(&path, lines.join("\n")).unwrap();
        let end = tail(&path);
        fs::remove_file(&path).unwrap();
        assert_eq!(end.lines().count(), TAIL_LINES);
        assert!(end.ends_with("line 1999"));
    }

    #[test]
    fn a_dropped_child_is_killed_with_its_children() {
        let folder = std::env::temp_dir().join(format!("purse-child-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let mark = format!("{}/", folder.display());
        // Two processes, the outer one held up by the inner one.
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "sleep 300; exit 3", &mark]);
        let place = ChildPlace { name: "sleeper", folder: &folder, mark: mark.clone(), log: folder.join("s.log") };
        let child = ManagedChild::spawn(&mut command, place).unwrap();
        let pid = child.record.pid;
        drop(child);
        let survivors = all().into_iter().filter(|process| process.group == pid).count();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(survivors, 0);
    }
}
