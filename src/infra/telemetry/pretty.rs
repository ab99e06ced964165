//! The log format for a person at a terminal: `12:00:00.000 INFO  users  listening address=127.0.0.1:3002`, in UTC like
//! the JSON format.
//!
//! The line of a request fits 120 columns: `12:00:00.000 INFO  wallet GET /v1/balance 200 1.2 ms request_id=…`. What it
//! leaves out is in the JSON format.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::io::{self, Write};

use slog::{Drain, KV as _, Level, OwnedKVList, Record};

use crate::infra::system::System;
use crate::kernel::{Clock as _, Timestamp};

const RESET: &str = "\x1b[0m";
const DIM: &str = "\x1b[2m";
const BOLD: &str = "\x1b[1m";
/// As wide as the longest role, so that messages are aligned where the lines of both roles are shown together.
const ROLE_COLUMNS: usize = 6;

/// Pairs that describe a request, in the order in which they are shown before its other pairs, without their names.
const REQUEST: [&str; 4] = ["method", "route", "status", "duration_ms"];
/// Pairs that are not shown of a request: it is found by its id alone, and its actor is always the same one.
const HIDDEN_OF_REQUEST: [&str; 3] = ["actor", "trace_id", "user_id"];

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
        let pairs = Pairs::of(record, values)?;
        let paint = |colour: &'static str| if self.coloured { (colour, RESET) } else { ("", "") };
        let ((dim, reset), (bold, _), (colour, _)) = (paint(DIM), paint(BOLD), paint(colour(record.level())));
        let time = now.strftime("%H:%M:%S%.3f");
        let mut line = format!("{dim}{time}{reset} {colour}{:<5}{reset}", name(record.level()));
        if let Some(role) = pairs.value("role") {
            write!(line, " {role:<ROLE_COLUMNS$}")?;
        }
        let message = printable(&record.msg().to_string());
        let message = match pairs.request() {
            Some(request) if message == "request" => request,
            Some(request) => format!("{request} {message}"),
            None => message,
        };
        write!(line, " {bold}{message}{reset}")?;
        for (key, value) in pairs.0.iter().filter(|(key, _)| !pairs.hides(key)) {
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

/// In the order in which they were written.
struct Pairs(Vec<(slog::Key, String)>);

impl Pairs {
    fn of(record: &Record<'_>, values: &OwnedKVList) -> Result<Self, slog::Error> {
        let mut pairs = Self(Vec::new());
        record.kv().serialize(record, &mut pairs)?;
        values.serialize(record, &mut pairs)?;
        // slog lists the innermost pair first.
        pairs.0.reverse();
        Ok(pairs)
    }

    fn value(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| *own == key).map(|(_, value)| value.as_str())
    }

    /// `GET /v1/balance 200 1.2 ms`, if the record is about a request.
    fn request(&self) -> Option<String> {
        let [method, route, status, duration] = REQUEST.map(|key| self.value(key));
        let duration: f64 = duration?.parse().ok()?;
        Some(format!("{} {} {} {duration:.1} ms", method?, route?, status?))
    }

    /// Whether the pair is shown elsewhere in the line, or not at all.
    fn hides(&self, key: &str) -> bool {
        let is_request = || self.request().is_some();
        key == "role"
            || (key == "trace_id" && self.value("request_id").is_some())
            || ((REQUEST.contains(&key) || HIDDEN_OF_REQUEST.contains(&key)) && is_request())
    }
}

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

    fn written(logger: &Logger, record: &Record<'_>, coloured: bool) -> String {
        let now = "2026-01-31T12:34:56.789123Z".parse().expect("time");
        Pretty::new(Vec::new(), coloured).line(now, record, logger.list()).expect("line")
    }

    fn line(coloured: bool) -> String {
        let logger = Logger::root(slog::Discard, o!("role" => "users")).new(o!("actor" => "http"));
        let message = format_args!("two\nlines");
        let values = b!("status" => 503, "error" => "no \"pool\"\x1b[2J", "empty" => "");
        written(&logger, &record!(Level::Warning, "", &message, values), coloured)
    }

    const REQUEST_ID: &str = "0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e";

    #[test]
    fn a_line_has_time_level_role_message_and_pairs_in_the_order_in_which_they_were_written() {
        let expected = "12:34:56.789 WARN  users  two\\nlines actor=http status=503 error=\"no \\\"pool\\\"\\u{1b}[2J\" empty=\"\"\n";
        assert_eq!(line(false), expected);
    }

    #[test]
    fn colours_are_the_only_difference_on_a_terminal() {
        let coloured = line(true);
        assert!(coloured.contains("\x1b[33mWARN \x1b[0m users"), "{coloured:?}");
        let plain = [RESET, DIM, BOLD, "\x1b[33m"].iter().fold(coloured, |text, code| text.replace(code, ""));
        assert_eq!(plain, line(false));
    }

    #[test]
    fn a_failed_request_also_shows_its_message_and_its_error() {
        let logger = Logger::root(slog::Discard, o!("role" => "wallet", "actor" => "http"));
        let logger = logger.new(o!("request_id" => REQUEST_ID, "trace_id" => "4bf92f3577b34da6a3ce929d0e0e4736"));
        let logger =
            logger.new(o!("method" => "GET", "route" => "/v1/balance", "status" => 503, "duration_ms" => 1_079.123));
        let message = format_args!("request could not be served");
        let values = b!("error" => "the pool is closed");
        assert_eq!(
            written(&logger, &record!(Level::Warning, "", &message, values), false),
            format!(
                "12:34:56.789 WARN  wallet GET /v1/balance 503 1079.1 ms request could not be served request_id={REQUEST_ID} error=\"the pool is closed\"\n"
            )
        );
    }

    #[test]
    fn a_record_about_an_event_has_its_user_and_a_trace_id_only_without_a_request_id() {
        let logger = Logger::root(slog::Discard, o!("role" => "wallet", "actor" => "provision_consumer"));
        let message = format_args!("wallet provisioned");
        let both = logger.new(o!("request_id" => "r-1", "trace_id" => "4bf92f35", "user_id" => "u-1"));
        assert_eq!(
            written(&both, &record!(Level::Info, "", &message, b!()), false),
            "12:34:56.789 INFO  wallet wallet provisioned actor=provision_consumer request_id=r-1 user_id=u-1\n"
        );
        let trace = logger.new(o!("trace_id" => "4bf92f35"));
        assert_eq!(
            written(&trace, &record!(Level::Info, "", &message, b!()), false),
            "12:34:56.789 INFO  wallet wallet provisioned actor=provision_consumer trace_id=4bf92f35\n"
        );
    }
}
