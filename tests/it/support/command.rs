//! A command of the binary, run to its end.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;

use super::world::PURSE;

/// What a command came to.
#[derive(Clone, Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// What it printed, which must be one JSON document.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The same, of a command that has done all that it was told without a complaint.
    pub fn done(&self) -> Value {
        assert_eq!((self.code, self.err.as_str()), (Some(0), ""), "{self:?}");
        self.json()
    }
}

/// The binary with these arguments and no other environment than `settings`.
pub fn command(arguments: &[&str], settings: &BTreeMap<String, String>) -> Command {
    let mut command = Command::new(PURSE);
    command.args(arguments).env_clear().envs(settings).stdin(Stdio::null());
    // Coverage is written where the run that measures it says.
    command.envs(std::env::vars().filter(|(name, _)| name == "LLVM_PROFILE_FILE"));
    command
}

/// Runs it and waits for its end.
pub async fn purse(arguments: &[&str], settings: &BTreeMap<String, String>) -> Ran {
    let mut command = command(arguments, settings);
    let output = tokio::task::spawn_blocking(move || command.output().expect("spawned")).await.expect("thread");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Runs it with its standard error on a terminal, and returns what the terminal was told.
pub fn on_a_terminal(mut command: Command) -> String {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&terminal).expect("granted");
    unlockpt(&terminal).expect("unlocked");
    let name = ptsname(&terminal, Vec::new()).expect("its name");
    let inside = File::options().read(true).write(true).open(std::ffi::OsStr::from_bytes(name.as_bytes()));
    let mut child = command.stdout(Stdio::null()).stderr(inside.expect("opened")).spawn().expect("spawned");
    // Ours of its ends: with it open the reading would not end.
    drop(command);
    let reading = std::thread::spawn(move || {
        let (mut told, mut part) = (Vec::new(), [0; 4096]);
        // The end of the last writer is an error on Linux.
        while let Ok(length @ 1..) = File::from(terminal.try_clone().expect("cloned")).read(&mut part) {
            told.extend_from_slice(&part[..length]);
        }
        told
    });
    child.wait().expect("ended");
    String::from_utf8_lossy(&reading.join().expect("read")).into_owned()
}
