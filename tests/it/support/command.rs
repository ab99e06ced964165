use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;

use super::world::PURSE;

#[derive(Clone, Debug)]
pub struct CommandOutput {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl CommandOutput {
    /// Standard output, which must be one JSON document.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The same, after checking for exit code 0 and an empty standard error.
    pub fn done(&self) -> Value {
        assert_eq!((self.code, self.err.as_str()), (Some(0), ""), "{self:?}");
        self.json()
    }
}

/// The binary with these arguments, and `settings` as its whole environment.
pub fn command(arguments: &[&str], settings: &BTreeMap<String, String>) -> Command {
    let mut command = Command::new(PURSE);
    command.args(arguments).env_clear().envs(settings).stdin(Stdio::null());
    // A coverage run sets this variable to where profiles are written.
    command.envs(std::env::vars().filter(|(name, _)| name == "LLVM_PROFILE_FILE"));
    command
}

/// Runs the binary to its end.
pub async fn purse(arguments: &[&str], settings: &BTreeMap<String, String>) -> CommandOutput {
    let mut command = command(arguments, settings);
    let output = tokio::task::spawn_blocking(move || command.output().expect("spawned")).await.expect("thread");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    CommandOutput { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Runs the command with its standard error on a terminal, and returns what it wrote there.
pub fn run_on_terminal(mut command: Command) -> String {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&terminal).expect("granted");
    unlockpt(&terminal).expect("unlocked");
    let name = ptsname(&terminal, Vec::new()).expect("its name");
    let inside = File::options().read(true).write(true).open(std::ffi::OsStr::from_bytes(name.as_bytes()));
    let mut child = command.stdout(Stdio::null()).stderr(inside.expect("opened")).spawn().expect("spawned");
    // Closes this process's end of the terminal; while it is open, reading would not end.
    drop(command);
    let reading = std::thread::spawn(move || {
        let (mut written, mut part) = (Vec::new(), [0; 4096]);
        // On Linux the read fails once the last writer has closed.
        while let Ok(length @ 1..) = File::from(terminal.try_clone().expect("cloned")).read(&mut part) {
            written.extend_from_slice(&part[..length]);
        }
        written
    });
    child.wait().expect("ended");
    String::from_utf8_lossy(&reading.join().expect("read")).into_owned()
}
