//! The other end of `purse dev servers`: what a test or a benchmark holds while it uses throw-away servers.
//!
//! The servers live in a process of their own, because a test binary has no last moment in which it surely could end
//! them. Its standard input is the lifeline: it closes with this value, and also when this process is killed.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::addresses::ServerAddresses;
use super::error::DevStackError;
use super::lend::{CONTROL_PREFIX, command_line};
use super::servers::{Action, Server};

const END_BOUND: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(20);
/// The end of what the lender wrote, for an error.
const MESSAGE_BYTES_MAX: usize = 8192;

/// Servers that run until this value is dropped.
#[derive(Debug)]
pub struct LentServers {
    addresses: ServerAddresses,
    lender: Child,
    lines: Mutex<Option<Lines>>,
}

#[derive(Debug)]
struct Lines {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl LentServers {
    /// Starts `purse dev servers` and returns when both servers answer, after about ten seconds. Blocks the thread.
    ///
    /// # Errors
    /// `Spawn` when the binary does not start; `Lent` with what it wrote, for example the command that installs a
    /// missing server.
    pub fn start(purse_binary: &Path, durable: bool) -> Result<Self, DevStackError> {
        Self::spawn(Command::new(purse_binary), purse_binary, durable)
    }

    /// The same, with everything in a folder whose name begins with `folder`, for a file system of one's own.
    ///
    /// # Errors
    /// As those of [`Self::start`].
    pub fn start_in(purse_binary: &Path, durable: bool, folder: &Path) -> Result<Self, DevStackError> {
        let mut command = Command::new(purse_binary);
        command.env("PURSE_DEV_DIR", folder);
        Self::spawn(command, purse_binary, durable)
    }

    fn spawn(mut command: Command, purse_binary: &Path, durable: bool) -> Result<Self, DevStackError> {
        command.args(["dev", "servers"]);
        if durable {
            command.arg("--durable");
        }
        let mut lender = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| DevStackError::Spawn { program: purse_binary.display().to_string(), source })?;
        let written = collect(lender.stderr.take());
        let (Some(input), Some(output)) = (lender.stdin.take(), lender.stdout.take()) else {
            return Err(DevStackError::Lent { message: "its pipes are missing".into() });
        };
        let mut output = BufReader::new(output);
        let mut line = String::new();
        let _ended = output.read_line(&mut line);
        if let Ok(addresses) = ServerAddresses::from_json_line(&line) {
            return Ok(Self { addresses, lender, lines: Mutex::new(Some(Lines { input, output })) });
        }
        drop(input);
        let _ended = lender.wait();
        // Its error stream is at its end now, so the collector ends too.
        Err(DevStackError::Lent { message: written.join().trim().to_owned() })
    }

    /// Where they answer.
    pub fn addresses(&self) -> &ServerAddresses {
        &self.addresses
    }

    /// Does something to one server and returns when it is done. Blocks the thread; commands follow one another.
    ///
    /// # Errors
    /// `Lent` with the lender's answer, or when it is gone.
    pub fn command(&self, server: Server, action: Action) -> Result<(), DevStackError> {
        self.ask(&command_line(server, action))
    }

    /// Runs RabbitMQ's own command-line tool against the node, and returns when it has done so. No argument holds a
    /// blank. Blocks the thread.
    ///
    /// # Errors
    /// `Lent` with what the tool wrote, or when the lender is gone.
    pub fn rabbitmqctl(&self, arguments: &[&str]) -> Result<(), DevStackError> {
        self.ask(&format!("{CONTROL_PREFIX}{}", arguments.join(" ")))
    }

    fn ask(&self, line: &str) -> Result<(), DevStackError> {
        let gone = || DevStackError::Lent { message: "it has ended".into() };
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let Lines { input, output } = lines.as_mut().ok_or_else(gone)?;
        writeln!(input, "{line}").and_then(|()| input.flush()).map_err(|_| gone())?;
        let mut answer = String::new();
        output.read_line(&mut answer).map_err(|_| gone())?;
        match answer.trim() {
            "ok" => Ok(()),
            "" => Err(gone()),
            other => Err(DevStackError::Lent { message: other.trim_start_matches("error ").to_owned() }),
        }
    }
}

impl Drop for LentServers {
    fn drop(&mut self) {
        // Closing the input is the request to end.
        *self.lines.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let begun = Instant::now();
        while matches!(self.lender.try_wait(), Ok(None)) {
            if begun.elapsed() >= END_BOUND {
                let _gone = self.lender.kill().and_then(|()| self.lender.wait());
                return;
            }
            thread::sleep(POLL);
        }
    }
}

/// Reads a stream in the background, so that the lender never waits for us, and keeps its end.
struct Collected {
    kept: Arc<Mutex<Vec<u8>>>,
    reader: Option<thread::JoinHandle<()>>,
}

fn collect(stream: Option<impl Read + Send + 'static>) -> Collected {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&kept);
    let reader = stream.map(|mut stream| {
        thread::spawn(move || {
            let mut chunk = [0_u8; 1024];
            while let Ok(count @ 1..) = stream.read(&mut chunk) {
                let mut kept = shared.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend_from_slice(chunk.get(..count).unwrap_or_default());
                let surplus = kept.len().saturating_sub(MESSAGE_BYTES_MAX);
                kept.drain(..surplus);
            }
        })
    });
    Collected { kept, reader }
}

impl Collected {
    fn join(self) -> String {
        let _ended = self.reader.map(thread::JoinHandle::join);
        String::from_utf8_lossy(&self.kept.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_lender_that_fails_is_quoted() {
        let program = std::env::temp_dir().join(format!("purse-lender-{}.sh", std::process::id()));
        std::fs::write(&program, "#!/bin/sh\necho 'PostgreSQL is not installed; type: the command' >&2\nexit 69\n")
            .unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let error = LentServers::start(&program, false).unwrap_err();
        std::fs::remove_file(&program).unwrap();
        assert!(
            matches!(&error, DevStackError::Lent { message } if message == "PostgreSQL is not installed; type: the command"),
            "{error}"
        );
    }
}
