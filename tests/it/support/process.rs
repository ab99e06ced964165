//! A role as a process of its own, with its log.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::world::{PURSE, TEST, kill_with_us};
use super::{PATIENCE, eventually, leaks};

/// Lines of the log that are shown when a test fails.
const LINES_OF_A_FAILURE: usize = 300;

/// A running `purse`.
pub struct RoleProcess {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    errors: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
    settings: BTreeMap<String, String>,
    address: Option<String>,
}

fn collect(stream: impl std::io::Read + Send + 'static) -> (Arc<Mutex<Vec<String>>>, JoinHandle<()>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&lines);
    let reader = std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        for line in stream.by_ref().lines().map_while(Result::ok) {
            let listening = line.contains(r#""msg":"listening""#);
            kept.lock().expect("lines").push(line);
            if listening && !TEST {
                break;
            }
        }
        // Nobody looks for more in a benchmark, and to keep it would be measured too.
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    (lines, reader)
}

impl RoleProcess {
    /// Starts the binary with these arguments and no other environment than `settings`.
    pub fn spawn(arguments: &[&str], settings: &BTreeMap<String, String>) -> Self {
        let mut command = Command::new(PURSE);
        command.args(arguments).env_clear().envs(settings).stdin(Stdio::null());
        // Coverage is written where the run that measures it says.
        command.envs(std::env::vars().filter(|(name, _)| name == "LLVM_PROFILE_FILE"));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("spawned");
        kill_with_us(child.id());
        let (lines, of_lines) = collect(child.stdout.take().expect("stdout"));
        let (errors, of_errors) = collect(child.stderr.take().expect("stderr"));
        let readers = vec![of_lines, of_errors];
        Self { child, lines, errors, readers, settings: settings.clone(), address: None }
    }

    /// Waits until it listens, and remembers where.
    pub async fn listening(&mut self) {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            if let Some(line) = self.log().iter().find(|line| line["msg"] == "listening") {
                self.address = line["address"].as_str().map(str::to_owned);
                return;
            }
            if let Some(status) = self.child.try_wait().expect("waited") {
                panic!("ended with {status} instead of listening:\n{}", self.everything());
            }
            assert!(std::time::Instant::now() < deadline, "does not listen:\n{}", self.everything());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until everything that it depends on is there.
    pub async fn ready(&self) {
        let url = format!("{}/health/ready", self.url());
        eventually(PATIENCE, &format!("{url} says ok\n{}", self.everything()), || async {
            let body: Value = reqwest::get(&url).await.ok()?.json().await.ok()?;
            (body["status"] == "ok").then_some(())
        })
        .await;
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.address.as_deref().expect("listening"))
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Every line of its log so far, as JSON. A line that is none fails the test.
    pub fn log(&self) -> Vec<Value> {
        let lines = self.lines.lock().expect("lines");
        lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    }

    /// All that it has printed, on both streams.
    pub fn everything(&self) -> String {
        let (lines, errors) = (self.lines.lock().expect("lines"), self.errors.lock().expect("errors"));
        format!("{}\n{}", lines.join("\n"), errors.join("\n"))
    }

    /// What it has told a person on stderr.
    pub fn told(&self) -> String {
        self.errors.lock().expect("errors").join("\n")
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("signalled");
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("waited").is_some()
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("waited") {
                // The readers see the end of their streams a moment later.
                tokio::time::sleep(Duration::from_millis(100)).await;
                return status;
            }
            assert!(std::time::Instant::now() < deadline, "does not end:\n{}", self.everything());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until a fault point has ended it.
    pub async fn broken_off(mut self) {
        let status = self.ended().await;
        assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{status}\n{}", self.everything());
    }

    /// Lines of its log with this message.
    pub fn said(&self, message: &str) -> Vec<Value> {
        self.log().into_iter().filter(|line| line["msg"] == message).collect()
    }

    /// A number out of `/proc`, in the unit that stands there.
    fn status(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid().as_raw_nonzero())).expect("status");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("field");
        line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("number")
    }

    /// Resident memory, now.
    pub fn memory_kib(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// Resident memory, at its most.
    pub fn peak_memory_kib(&self) -> u64 {
        self.status("VmHWM:")
    }

    pub fn threads(&self) -> u64 {
        self.status("Threads:")
    }

    /// Open files, sockets among them.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid().as_raw_nonzero())).expect("fd").count()
    }

    /// Time that it has spent on processors.
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid().as_raw_nonzero())).expect("stat");
        let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
        // utime and stime, in hundredths of a second on every Linux.
        let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("ticks")).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Ends it without a warning, and waits until it is gone.
    pub async fn kill(mut self) {
        self.signal(Signal::KILL);
        self.ended().await;
    }
}

impl RoleProcess {
    /// Sees to it that the process is gone.
    fn end(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // In order where it goes fast: coverage is written at an orderly end.
            let _ = kill_process(self.pid(), Signal::TERM);
            for _ in 0..300 {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Drop for RoleProcess {
    /// Ends it, and looks through all that it has printed: no secret may stand there, whatever the test was about.
    fn drop(&mut self) {
        self.end();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        if std::thread::panicking() {
            // What a failed test wants to be read with: the end of it.
            let all = self.everything();
            let lines: Vec<&str> = all.lines().collect();
            eprintln!("{}", lines[lines.len().saturating_sub(LINES_OF_A_FAILURE)..].join("\n"));
        }
        let found = leaks::leaks(&self.everything(), &self.settings);
        // A test that has failed already has its own reason to tell.
        assert!(
            found.is_empty() || std::thread::panicking(),
            "secrets stand in a log: {found:?}\n{}",
            self.everything()
        );
    }
}
