//! Builds the logger of a process.

use std::cell::Cell;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use slog::{Drain, FnValue, Level, Logger, Never, OwnedKVList, PushFnValue, Record, b, o};

use crate::infra::config::{LogConfig, LogFormat};
use crate::infra::system::System;
use crate::infra::telemetry::level_filter::{LevelFilter, target};
use crate::infra::telemetry::pretty::Pretty;
use crate::infra::telemetry::repeats::{RepeatFilter, SuppressedCount};
use crate::infra::telemetry::stdout::{DroppedCount, LineBuffer, StdoutWriter, buffered_stdout};
use crate::kernel::{Clock, Role, rfc3339};

/// Longest wait for standard output after a panic of the main thread.
const PANIC_FLUSH: Duration = Duration::from_secs(1);

/// Keeps the log running. [`LogGuard::finish`] writes what was logged, as far as standard output takes it in time;
/// later records are lost.
pub(crate) struct LogGuard {
    is_closed: bool,
    writer: StdoutWriter,
    suppressed: SuppressedCount,
}

impl LogGuard {
    pub(crate) fn counts(&self) -> LogCounts {
        LogCounts { dropped: self.writer.dropped(), suppressed: self.suppressed.clone() }
    }

    /// Completes when everything is written, which is never if standard output stays blocked.
    pub(crate) async fn finish(&mut self) {
        self.close();
        self.writer.ended().await;
    }

    fn close(&mut self) {
        self.is_closed = true;
        self.writer.close();
    }
}

/// For a stop: libraries would report each connection that it ends as an error.
pub(crate) fn mute_libraries() {
    log::set_max_level(log::LevelFilter::Off);
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        if !self.is_closed {
            self.close();
            self.writer.wait_for_end(PANIC_FLUSH);
        }
    }
}

/// What the log did not write, since the start of the process.
#[derive(Clone)]
pub(crate) struct LogCounts {
    dropped: DroppedCount,
    suppressed: SuppressedCount,
}

impl LogCounts {
    /// Records lost because standard output was blocked.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    /// Records in which a library repeated itself.
    pub(crate) fn suppressed(&self) -> u64 {
        self.suppressed.get()
    }
}

/// Why logging could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogInitError {
    #[error("a logger is already installed")]
    Installed(#[from] log::SetLoggerError),
    #[error("the log thread could not be started")]
    Thread(#[from] io::Error),
}

type BoxedDrain = Box<dyn Drain<Ok = (), Err = Never>>;

/// Starts logging for the whole process: our records through the returned logger, those of dependencies through `log`,
/// panics through a hook.
pub(crate) fn init(config: &LogConfig, role: Role) -> Result<(Logger, LogGuard), LogInitError> {
    let shape = Shape::of(config);
    let values = o!("role" => role.as_str());
    let root_values: OwnedKVList = o!("role" => role.as_str()).into();
    let (lines, writer) = buffered_stdout(Box::new(move |dropped| shape.dropped_line(dropped, &root_values)))?;
    let repeats = RepeatFilter::new(Formatter { shape, lines });
    let suppressed = repeats.suppressed();
    let drain = LevelFilter { inner: repeats, level: config.level };
    let root = Logger::root(drain.ignore_res(), values);
    // Never reset: a dependency's thread that logs after a reset would panic.
    slog_scope::set_global_logger(root.clone()).cancel_reset();
    slog_stdlog::init_with_level(as_log_level(config.level))?;
    let hook = root.clone();
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string);
        slog::error!(hook, "panicked"; "error" => panic.payload_as_str(), "at" => place);
    }));
    Ok((root, LogGuard { is_closed: false, writer, suppressed }))
}

/// Formats each record on the thread that logs it. Only the finished line needs a lock.
struct Formatter {
    shape: Shape,
    lines: LineBuffer,
}

thread_local! {
    /// Taken while it is in use: a value that logs or panics while it is formatted does so through another one.
    static DRAIN: Cell<Option<BoxedDrain>> = const { Cell::new(None) };
}

impl Drain for Formatter {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        // There is none in a thread that ends.
        let drain = DRAIN.try_with(Cell::take).ok().flatten();
        let drain = drain.unwrap_or_else(|| self.shape.drain(self.lines.clone()));
        let logged = drain.log(record, values);
        let _ = DRAIN.try_with(|of_thread| of_thread.set(Some(drain)));
        logged
    }
}

#[derive(Clone, Copy)]
enum Shape {
    Json,
    Pretty { coloured: bool },
}

impl Shape {
    fn of(config: &LogConfig) -> Self {
        let terminal = io::stdout().is_terminal();
        match config.format.unwrap_or(if terminal { LogFormat::Pretty } else { LogFormat::Json }) {
            LogFormat::Json => Self::Json,
            LogFormat::Pretty => {
                // https://no-color.org, https://bixense.com/clicolors
                let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0");
                Self::Pretty { coloured: (terminal || is_set("CLICOLOR_FORCE")) && !is_set("NO_COLOR") }
            }
        }
    }

    fn drain(self, out: impl Write + 'static) -> BoxedDrain {
        match self {
            Self::Json => Box::new(json(out).ignore_res()),
            Self::Pretty { coloured } => Box::new(Pretty::new(out, coloured).ignore_res()),
        }
    }

    fn dropped_line(self, dropped: u64, values: &OwnedKVList) -> Vec<u8> {
        let mut line = Vec::new();
        let message = format_args!("log records were dropped because standard output was blocked");
        let pairs = b!("dropped" => dropped);
        let record = slog::record!(Level::Warning, "", &message, pairs);
        // A vector takes every byte.
        let _ = match self {
            Self::Json => json(&mut line).log(&record, values),
            Self::Pretty { coloured } => Pretty::new(&mut line, coloured).log(&record, values),
        };
        line
    }
}

fn json<W: Write>(out: W) -> slog_json::Json<W> {
    slog_json::Json::new(out)
        .add_key_value(o!(
            // slog-json writes them in reverse, so a line begins with the time.
            "target" => FnValue(|r: &Record<'_>| target(r).to_owned()),
            // slog-json formats values in a buffer that a panic in one of them leaves borrowed, but not plain texts: the line of
            // the panic has nothing else.
            "msg" => PushFnValue(|r: &Record<'_>, out| match r.msg().as_str() {
                Some(text) => out.emit(text),
                None => out.emit(r.msg()),
            }),
            "level" => FnValue(|r: &Record<'_>| level_name(r.level())),
            "ts" => FnValue(|_: &Record<'_>| rfc3339(System.now())),
        ))
        .build()
}

const fn level_name(level: Level) -> &'static str {
    match level {
        Level::Critical | Level::Error => "error",
        Level::Warning => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

const fn as_log_level(level: Level) -> log::Level {
    match level {
        Level::Critical | Level::Error => log::Level::Error,
        Level::Warning => log::Level::Warn,
        Level::Info => log::Level::Info,
        Level::Debug => log::Level::Debug,
        Level::Trace => log::Level::Trace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    /// Logs a line, as the hook of a panic does, and panics.
    struct Panics(Logger);

    impl fmt::Display for Panics {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            slog::error!(self.0, "panicked"; "error" => "on purpose");
            panic!("on purpose")
        }
    }

    #[test]
    fn a_value_that_panics_while_it_is_formatted_costs_its_own_line_only() {
        for shape in [Shape::Json, Shape::Pretty { coloured: false }] {
            let (lines, written) = LineBuffer::for_test();
            // Each shape in a thread of its own: a thread has one drain.
            let logging = std::thread::spawn(move || {
                let logger = Logger::root(Formatter { shape, lines }, o!("role" => "wallet"));
                let panics = Panics(logger.clone());
                let logged = catch_unwind(AssertUnwindSafe(|| slog::info!(logger, "never"; "value" => %panics)));
                slog::info!(logger, "after"; "value" => %42);
                logged.is_err()
            });
            assert!(logging.join().expect("joined"));
            let text = String::from_utf8(written()).expect("text");
            let lines: Vec<&str> = text.lines().collect();
            assert!(matches!(lines[..], [hook, after] if hook.contains("panicked") && after.contains("42")), "{text}");
        }
    }
}
