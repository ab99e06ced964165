use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
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
    command.args(arguments).env_clear().envs(of_this_run()).envs(settings).stdin(Stdio::null());
    command
}

/// What a run of the tests sets for every process: a coverage run the place of the profiles, and a run with shards their number.
pub fn of_this_run() -> impl Iterator<Item = (String, String)> {
    std::env::vars().filter(|(name, _)| ["LLVM_PROFILE_FILE", "WALLET_SHARDS"].contains(&name.as_str()))
}

/// Runs the binary to its end.
pub async fn purse(arguments: &[&str], settings: &BTreeMap<String, String>) -> CommandOutput {
    let mut command = command(arguments, settings);
    let output = tokio::task::spawn_blocking(move || command.output().expect("spawned")).await.expect("thread");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    CommandOutput { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Both ends of a new terminal: ours, and the one for the command.
fn terminal() -> (File, File) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&ours).expect("granted");
    unlockpt(&ours).expect("unlocked");
    let name = ptsname(&ours, Vec::new()).expect("its name");
    let theirs = File::options().read(true).write(true).open(std::ffi::OsStr::from_bytes(name.as_bytes()));
    (File::from(ours), theirs.expect("opened"))
}

/// Runs the command with its standard error on a terminal, and returns what it wrote there.
pub fn run_on_terminal(mut command: Command) -> String {
    let (mut ours, theirs) = terminal();
    let mut child = command.stdout(Stdio::null()).stderr(theirs).spawn().expect("spawned");
    // Closes this process's end of the terminal; while it is open, reading would not end.
    drop(command);
    let reading = std::thread::spawn(move || read_until(&mut ours, |_| false));
    child.wait().expect("ended");
    reading.join().expect("read")
}

/// Runs the command on a terminal. When it asks, calls `then` and types `answer`. Returns what the terminal showed, and
/// the exit code.
pub fn answer_on_terminal(mut command: Command, answer: &str, then: impl FnOnce()) -> (String, Option<i32>) {
    let (mut ours, theirs) = terminal();
    let their_input = theirs.try_clone().expect("cloned");
    let mut child = command.stdin(their_input).stdout(Stdio::null()).stderr(theirs).spawn().expect("spawned");
    drop(command);
    let mut shown = read_until(&mut ours, |shown| shown.ends_with("? Type yes: "));
    then();
    ours.write_all(answer.as_bytes()).expect("typed");
    shown += &read_until(&mut ours, |_| false);
    (shown, child.wait().expect("ended").code())
}

/// What the terminal shows until `done`, or until the command has ended.
fn read_until(terminal: &mut File, done: impl Fn(&str) -> bool) -> String {
    let (mut written, mut part) = (Vec::new(), [0; 4096]);
    // On Linux the read fails once the last writer has closed.
    while let Ok(length @ 1..) = terminal.read(&mut part) {
        written.extend_from_slice(&part[..length]);
        if done(&String::from_utf8_lossy(&written)) {
            break;
        }
    }
    String::from_utf8_lossy(&written).into_owned()
}
