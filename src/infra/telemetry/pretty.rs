//! The log format for a person at a terminal: `12:00:00.000 INFO  users listening address=127.0.0.1:3002`, in UTC like
//! the JSON format.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::io::{self, Write};

use slog::{Drain, KV as _, Level, OwnedKVList, Record};

use crate::infra::system::System;
use crate::kernel::{Clock as _, Timestamp};

const RESET: &str = "\x1b[0m";
const DIM: &str = "\x1b[2m";
const BOLD: &str = "\x1b[1m";

/// Writes one line per record.
pub(super) struct Pretty<W> {
    out: RefCell<W>,
    coloured: bool,
}

impl<W: Write> Pretty<W> {
    pub(super) const fn new(out: W, coloured: bool) -> Self {
        Self { out: RefCell::new(out), coloured }
    }

    fn line(&self, now: Timestamp, record: &Record<'_>, values: &OwnedKVList) -> Result<String, slog::Error> {
        let mut pairs = Pairs(Vec::new());
        record.kv().serialize(record, &mut pairs)?;
        values.serialize(record, &mut pairs)?;
        let paint = |colour: &'static str| if self.coloured { (colour, RESET) } else { ("", "") };
        let ((dim, reset), (bold, _), (colour, _)) = (paint(DIM), paint(BOLD), paint(colour(record.level())));
        let time = now.strftime("%H:%M:%S%.3f");
        let mut line = format!("{dim}{time}{reset} {colour}{:<5}{reset}", name(record.level()));
        if let Some((_, role)) = pairs.0.iter().find(|(key, _)| *key == "role") {
            write!(line, " {role}")?;
        }
        write!(line, " {bold}{}{reset}", printable(&record.msg().to_string()))?;
        // slog lists the innermost pair first.
        for (key, value) in pairs.0.iter().rev().filter(|(key, _)| *key != "role") {
            write!(line, " {dim}{key}={reset}{value}")?;
        }
        line.push('\n');
        Ok(line)
    }
}

impl<W: Write> Drain for Pretty<W> {
    type Ok = ();
    type Err = io::Error;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> io::Result<()> {
        let line = self.line(System.now(), record, values).map_err(io::Error::other)?;
        self.out.borrow_mut().write_all(line.as_bytes())
    }
}

const fn name(level: Level) -> &'static str {
    match level {
        Level::Critical | Level::Error => "ERROR",
        Level::Warning => "WARN",
        Level::Info => "INFO",
        Level::Debug => "DEBUG",
        Level::Trace => "TRACE",
    }
}

const fn colour(level: Level) -> &'static str {
    match level {
        Level::Critical | Level::Error => "\x1b[31m",
        Level::Warning => "\x1b[33m",
        Level::Info => "\x1b[32m",
        Level::Debug => "\x1b[36m",
        Level::Trace => DIM,
    }
}

/// Without line ends and escape sequences, which a dependency may pass on from outside.
fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

struct Pairs(Vec<(slog::Key, String)>);

impl slog::Serializer for Pairs {
    fn emit_arguments(&mut self, key: slog::Key, value: &fmt::Arguments<'_>) -> slog::Result {
        let text = value.to_string();
        let is_plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '=');
        let is_word = !text.is_empty() && text.chars().all(is_plain);
        self.0.push((key, if is_word { text } else { format!("{text:?}") }));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slog::{Logger, b, o, record};

    fn line(coloured: bool) -> String {
        let logger = Logger::root(slog::Discard, o!("role" => "users")).new(o!("actor" => "http"));
        let message = format_args!("two\nlines");
        let values = b!("status" => 503, "error" => "no \"pool\"\x1b[2J", "empty" => "");
        let record = record!(Level::Warning, "", &message, values);
        let now = "2026-01-31T12:34:56.789123Z".parse().expect("time");
        Pretty::new(Vec::new(), coloured).line(now, &record, logger.list()).expect("line")
    }

    #[test]
    fn a_line_has_time_level_role_message_and_pairs_in_the_order_in_which_they_were_written() {
        let expected = "12:34:56.789 WARN  users two\\nlines actor=http status=503 error=\"no \\\"pool\\\"\\u{1b}[2J\" empty=\"\"\n";
        assert_eq!(line(false), expected);
    }

    #[test]
    fn colours_are_the_only_difference_on_a_terminal() {
        let coloured = line(true);
        assert!(coloured.contains("\x1b[33mWARN \x1b[0m users"), "{coloured:?}");
        let plain = [RESET, DIM, BOLD, "\x1b[33m"].iter().fold(coloured, |text, code| text.replace(code, ""));
        assert_eq!(plain, line(false));
    }
}
