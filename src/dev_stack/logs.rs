//! Both roles' logs on one terminal: each line under the name of its role, held back until the table is printed.
//!
//! The last lines of each role are kept, so that a role that ends by itself can be quoted. Lines are shown as they are:
//! this file does not read them.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::roles::Role;

const LINE_BYTES_MAX: u64 = 64 * 1024;
const HELD_LINES_MAX: usize = 2000;
const TAIL_LINES: usize = 15;

/// Where the lines of both roles come together.
#[derive(Debug)]
pub(super) struct RoleLogs {
    colour: bool,
    lines: Mutex<Lines>,
}

#[derive(Debug)]
struct Lines {
    /// `Some` until the table is printed.
    held: Option<VecDeque<String>>,
    users: VecDeque<String>,
    wallet: VecDeque<String>,
}

impl RoleLogs {
    /// Holds lines back from the start.
    pub(super) fn new(colour: bool) -> Arc<Self> {
        let lines = Lines { held: Some(VecDeque::new()), users: VecDeque::new(), wallet: VecDeque::new() };
        Arc::new(Self { colour, lines: Mutex::new(lines) })
    }

    /// Reads a stream of a role to its end, in the background.
    pub(super) fn follow(self: &Arc<Self>, role: Role, stream: Option<impl Read + Send + 'static>) {
        let (logs, Some(stream)) = (Arc::clone(self), stream) else { return };
        thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            let mut bytes = Vec::new();
            while let Ok(1..) = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes) {
                logs.add(role, String::from_utf8_lossy(&bytes).trim_end());
                bytes.clear();
            }
        });
    }

    /// Shows what was held back, and from now on each line as it comes.
    pub(super) fn release(&self) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        for line in lines.held.take().unwrap_or_default() {
            show(&line);
        }
    }

    /// The last lines of a role.
    pub(super) fn tail(&self, role: Role) -> String {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let tail: Vec<String> = lines.of(role).iter().cloned().collect();
        if tail.is_empty() { "(it logged nothing)".into() } else { tail.join("\n") }
    }

    fn add(&self, role: Role, text: &str) {
        let line = prefixed(role, text, self.colour);
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        push(lines.of(role), text.to_owned(), TAIL_LINES);
        match lines.held.as_mut() {
            Some(held) => push(held, line, HELD_LINES_MAX),
            None => show(&line),
        }
    }
}

impl Lines {
    fn of(&mut self, role: Role) -> &mut VecDeque<String> {
        match role {
            Role::Users => &mut self.users,
            Role::Wallet => &mut self.wallet,
        }
    }
}

fn push(lines: &mut VecDeque<String>, line: String, lines_max: usize) {
    lines.push_back(line);
    if lines.len() > lines_max {
        lines.pop_front();
    }
}

fn prefixed(role: Role, text: &str, colour: bool) -> String {
    let name = role.name();
    match (role, colour) {
        (_, false) => format!("{name:<6} | {text}"),
        (Role::Users, true) => format!("\u{1b}[36m{name:<6} |\u{1b}[0m {text}"),
        (Role::Wallet, true) => format!("\u{1b}[35m{name:<6} |\u{1b}[0m {text}"),
    }
}

/// A line for the person at the terminal. A closed terminal is no reason to stop serving.
pub(super) fn show(line: &str) {
    let _closed = writeln!(std::io::stdout().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_quoted_with_its_last_lines_only() {
        let logs = RoleLogs::new(false);
        (0..40).for_each(|n| logs.add(Role::Users, &format!("line {n}")));
        logs.add(Role::Wallet, "another");
        assert_eq!(logs.tail(Role::Users).lines().count(), TAIL_LINES);
        assert!(logs.tail(Role::Users).ends_with("line 39"));
        assert_eq!(logs.tail(Role::Wallet), "another");
    }

    #[test]
    fn a_line_is_coloured_on_a_terminal_alone() {
        assert_eq!(prefixed(Role::Users, "x", false), "users  | x");
        assert_eq!(prefixed(Role::Wallet, "x", true), "\u{1b}[35mwallet |\u{1b}[0m x");
    }
}
