//! `purse dev servers`: throw-away servers for the process that started it, for as long as that process lives.
//!
//! One JSON line on standard output says where they answer. After that each line on standard input (`kill postgres`)
//! is answered with one line, and the end of standard input ends everything, which happens however the parent dies.
//! What an earlier lender left, because it was killed itself, is cleared away first.

use std::fs;
use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::error::DevStackError;
use super::folder::{StateFolder, recorded_processes, refuse_foreign};
use super::interrupt::Interrupt;
use super::processes::{all, end_left_over};
use super::servers::{Action, Durability, Lifetime, Server, Servers, StartOptions};

const LEFT_OVER_BOUND: Duration = Duration::from_secs(2);
const COMMAND_BYTES_MAX: u64 = 256;
/// Commands that wait for the one before them.
const COMMANDS_WAITING_MAX: usize = 16;
const POLL: Duration = Duration::from_millis(100);
/// Begins a command for RabbitMQ's own tool; its words follow, separated by blanks.
pub(super) const CONTROL_PREFIX: &str = "rabbitmqctl ";

/// Lends servers until standard input ends or a signal comes.
pub(super) fn run(durability: Durability) -> Result<(), DevStackError> {
    let interrupt =
        Interrupt::listen().map_err(|source| DevStackError::Spawn { program: "the signal listener".into(), source })?;
    let commands = read_commands(interrupt.clone())
        .map_err(|source| DevStackError::Spawn { program: "the reader of standard input".into(), source })?;
    clear_abandoned(&interrupt);
    let folder = StateFolder::open(&own_path())?;
    let options = StartOptions {
        folder: folder.path().to_path_buf(),
        durability,
        lifetime: Lifetime::ThrowAway,
        preferred_ports: None,
        interrupt: interrupt.clone(),
    };
    let outcome = Servers::start(options, |line| eprintln!("{line}")).map(|mut servers| {
        answer(&servers.addresses().to_json_line());
        serve(&mut servers, &commands, &interrupt);
        servers.stop();
    });
    folder.remove()?;
    match outcome {
        Err(DevStackError::Interrupted) => Ok(()),
        other => other,
    }
}

/// The words of a command on standard input.
pub(super) fn command_line(server: Server, action: Action) -> String {
    let action = match action {
        Action::Start => "start",
        Action::Stop => "stop",
        Action::Kill => "kill",
        Action::Pause => "pause",
        Action::Resume => "resume",
    };
    let server = match server {
        Server::Postgres => "postgres",
        Server::RabbitMq => "rabbitmq",
    };
    format!("{action} {server}")
}

fn parse_command(line: &str) -> Option<(Server, Action)> {
    let actions = [Action::Start, Action::Stop, Action::Kill, Action::Pause, Action::Resume];
    let servers = [Server::Postgres, Server::RabbitMq];
    servers
        .into_iter()
        .flat_map(|server| actions.map(|action| (server, action)))
        .find(|(server, action)| command_line(*server, *action) == line.trim())
}

fn serve(servers: &mut Servers, commands: &mpsc::Receiver<String>, interrupt: &Interrupt) {
    while !interrupt.is_raised() {
        let line = match commands.recv_timeout(POLL) {
            Ok(line) => line,
            Err(mpsc::RecvTimeoutError::Timeout) => continue,
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        };
        let control = line.strip_prefix(CONTROL_PREFIX).map(|words| words.split_whitespace().collect::<Vec<_>>());
        let done = match (parse_command(&line), control) {
            (Some((server, action)), _) => servers.act(server, action).map_err(|error| error.chain()),
            (None, Some(words)) => servers.rabbitmqctl(&words).map_err(|error| error.chain()),
            (None, None) => Err(format!(
                "unknown command `{}`; use start, stop, kill, pause or resume with postgres or rabbitmq, or rabbitmqctl",
                line.trim()
            )),
        };
        match done {
            Ok(()) => answer("ok"),
            Err(message) => answer(&format!("error {}", message.replace('\n', " | "))),
        }
    }
}

fn read_commands(interrupt: Interrupt) -> io::Result<mpsc::Receiver<String>> {
    let (sender, receiver) = mpsc::sync_channel(COMMANDS_WAITING_MAX);
    thread::Builder::new().name("dev-commands".into()).spawn(move || {
        let mut input = io::stdin().lock();
        let mut line = String::new();
        // A line past the bound is not ours to understand and comes out as an unknown command.
        while let Ok(1..) = input.by_ref().take(COMMAND_BYTES_MAX).read_line(&mut line) {
            if sender.send(std::mem::take(&mut line)).is_err() {
                break;
            }
        }
        // The end of the input also ends a start that is still under way.
        interrupt.raise();
    })?;
    Ok(receiver)
}

/// One line to the parent; where it no longer reads, the end of our input follows.
fn answer(line: &str) {
    let mut output = io::stdout().lock();
    let _gone = writeln!(output, "{line}").and_then(|()| output.flush());
}

fn own_path() -> PathBuf {
    PathBuf::from(format!("{}-lent-{}", StateFolder::default_path().display(), std::process::id()))
}

/// Ends and removes what a lender that was killed has left behind. What cannot be cleared stays for the next time.
fn clear_abandoned(interrupt: &Interrupt) {
    let default = StateFolder::default_path();
    let (Some(parent), Some(name)) = (default.parent(), default.file_name()) else { return };
    let name_start = format!("{}-lent-", name.to_string_lossy());
    let table = all();
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let entry_name = entry.file_name().to_string_lossy().into_owned();
        let Some(lender) = entry_name.strip_prefix(&name_start).and_then(|pid| pid.parse::<i32>().ok()) else {
            continue;
        };
        // A lender that is just about to take its lock is alive.
        if !table.iter().any(|process| process.pid == lender) {
            clear_folder(&entry.path(), interrupt);
        }
    }
}

fn clear_folder(path: &Path, interrupt: &Interrupt) {
    if refuse_foreign(path).is_err() {
        return;
    }
    let Ok(folder) = StateFolder::open(path) else { return };
    end_left_over(&recorded_processes(path), LEFT_OVER_BOUND, interrupt);
    if let Err(error) = folder.remove() {
        eprintln!("{} stays behind: {}", path.display(), error.chain());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_understood_as_it_is_written() {
        for server in [Server::Postgres, Server::RabbitMq] {
            for action in [Action::Start, Action::Stop, Action::Kill, Action::Pause, Action::Resume] {
                assert_eq!(parse_command(&command_line(server, action)), Some((server, action)));
            }
        }
        assert_eq!(parse_command("kill everything"), None);
        assert_eq!(parse_command(""), None);
    }
}
