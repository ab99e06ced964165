use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::command::of_this_run;
use super::world::{PURSE, TEST, kill_with_us};
use super::{PATIENCE, eventually, leaks};

/// Lines of output shown when a test fails.
const FAILURE_LINES_MAX: usize = 300;

/// A running `purse`. Dropping it stops the process and scans its output for secrets.
pub struct RoleProcess {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    errors: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
    reading_is_paused: Arc<AtomicBool>,
    settings: BTreeMap<String, String>,
    address: Option<String>,
}

fn collect(
    stream: impl std::io::Read + Send + 'static,
    is_paused: &Arc<AtomicBool>,
) -> (Arc<Mutex<Vec<String>>>, JoinHandle<()>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let (collected, is_paused) = (Arc::clone(&lines), Arc::clone(is_paused));
    let reader = std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        for line in stream.by_ref().lines().map_while(Result::ok) {
            while is_paused.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(50));
            }
            let listening = line.contains(r#""msg":"listening""#);
            collected.lock().expect("lines").push(line);
            if listening && !TEST {
                break;
            }
        }
        // A benchmark reads no more lines, and storing them would be part of the measurement.
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    (lines, reader)
}

impl RoleProcess {
    /// Starts the binary with these arguments, and `settings` as its whole environment.
    pub fn spawn(arguments: &[&str], settings: &BTreeMap<String, String>) -> Self {
        let mut command = Command::new(PURSE);
        command.args(arguments).env_clear().envs(of_this_run()).envs(settings).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("spawned");
        kill_with_us(child.id());
        let reading_is_paused = Arc::new(AtomicBool::new(false));
        let (lines, lines_reader) = collect(child.stdout.take().expect("stdout"), &reading_is_paused);
        let (errors, errors_reader) = collect(child.stderr.take().expect("stderr"), &reading_is_paused);
        let readers = vec![lines_reader, errors_reader];
        Self { child, lines, errors, readers, reading_is_paused, settings: settings.clone(), address: None }
    }

    /// Waits until the process listens.
    pub async fn listening(&mut self) {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            if let Some(line) = self.log().iter().find(|line| line["msg"] == "listening") {
                self.address = line["address"].as_str().map(str::to_owned);
                return;
            }
            if let Some(status) = self.child.try_wait().expect("waited") {
                panic!("exited with {status} before listening:\n{}", self.output());
            }
            assert!(std::time::Instant::now() < deadline, "not listening:\n{}", self.output());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until `/health/ready` returns `ok`.
    pub async fn ready(&self) {
        let url = format!("{}/health/ready", self.url());
        eventually(PATIENCE, &format!("{url} returns ok\n{}", self.output()), || async {
            let body: Value = reqwest::get(&url).await.ok()?.json().await.ok()?;
            (body["status"] == "ok").then_some(())
        })
        .await;
    }

    /// The status and the body of `/health/ready`.
    pub async fn readiness(&self) -> (u16, Value) {
        let response = reqwest::get(format!("{}/health/ready", self.url())).await.expect("a response");
        (response.status().as_u16(), response.json().await.expect("JSON"))
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address.as_deref().expect("listening"))
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// All log lines so far. A line that is not JSON fails the test.
    pub fn log(&self) -> Vec<Value> {
        let lines = self.lines.lock().expect("lines");
        lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    }

    /// Standard output and standard error so far.
    pub fn output(&self) -> String {
        let (lines, errors) = (self.lines.lock().expect("lines"), self.errors.lock().expect("errors"));
        format!("{}\n{}", lines.join("\n"), errors.join("\n"))
    }

    pub fn stderr(&self) -> String {
        self.errors.lock().expect("errors").join("\n")
    }

    /// While reading is paused, the process writes into full pipes.
    pub fn pause_reading(&self, is_paused: bool) {
        self.reading_is_paused.store(is_paused, Ordering::Relaxed);
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("signalled");
    }

    pub fn has_exited(&mut self) -> bool {
        self.child.try_wait().expect("waited").is_some()
    }

    /// Waits until the process exits.
    pub async fn exited(&mut self) -> ExitStatus {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("waited") {
                // The readers reach the end of their streams a moment later.
                tokio::time::sleep(Duration::from_millis(100)).await;
                return status;
            }
            assert!(std::time::Instant::now() < deadline, "still running:\n{}", self.output());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until a fault point has aborted the process.
    pub async fn aborted(mut self) {
        let status = self.exited().await;
        assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{status}\n{}", self.output());
    }

    /// Log lines with this message.
    pub fn logged(&self, message: &str) -> Vec<Value> {
        self.log().into_iter().filter(|line| line["msg"] == message).collect()
    }

    /// A number from `/proc/<pid>/status`, in the unit given there.
    fn status(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid().as_raw_nonzero())).expect("status");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("field");
        line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("number")
    }

    pub fn memory_kib(&self) -> u64 {
        self.status("VmRSS:")
    }

    pub fn peak_memory_kib(&self) -> u64 {
        self.status("VmHWM:")
    }

    pub fn threads(&self) -> u64 {
        self.status("Threads:")
    }

    /// Open file descriptors, including sockets.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid().as_raw_nonzero())).expect("fd").count()
    }

    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid().as_raw_nonzero())).expect("stat");
        let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
        // utime and stime, in hundredths of a second on all Linux platforms.
        let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("ticks")).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Sends SIGKILL and waits until the process is gone.
    pub async fn kill(mut self) {
        self.signal(Signal::KILL);
        self.exited().await;
    }

    fn stop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // Gracefully first: coverage is written at a graceful exit.
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
    fn drop(&mut self) {
        self.stop();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        if std::thread::panicking() {
            let all = self.output();
            let lines: Vec<&str> = all.lines().collect();
            eprintln!("{}", lines[lines.len().saturating_sub(FAILURE_LINES_MAX)..].join("\n"));
        }
        let found = leaks::leaks(&self.output(), &self.settings);
        // A second panic would abort the test run and hide the first one.
        assert!(found.is_empty() || std::thread::panicking(), "secrets in the output: {found:?}\n{}", self.output());
    }
}
