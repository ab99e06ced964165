//! Builds the logger of a process.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use slog::{Drain, FnValue, Level, Logger, Never, OwnedKVList, PushFnValue, Record, b, o};
use slog_async::OverflowStrategy;

use crate::infra::config::{LogConfig, LogFormat};
use crate::infra::system::System;
use crate::infra::telemetry::level_filter::{LevelFilter, target};
use crate::infra::telemetry::pretty::Pretty;
use crate::infra::telemetry::repeats::{RepeatFilter, SuppressedCount};
use crate::infra::telemetry::stdout::{DroppedCount, StdoutWriter, buffered_stdout};
use crate::kernel::{Clock, Role, rfc3339};

/// Records in the queue to the formatting thread. When it is full, logging waits for that thread, which itself waits for
/// nothing.
const QUEUE_RECORDS_MAX: usize = 8192;
/// Longest wait for standard output after a panic of the main thread.
const PANIC_FLUSH: Duration = Duration::from_secs(1);

/// Keeps the log running. [`LogGuard::finish`] writes everything that was logged; later records are lost.
pub(crate) struct LogGuard {
    queue: Option<slog_async::AsyncGuard>,
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
        // The queue is drained into the buffer, and then the buffer is written.
        drop(self.queue.take());
        self.writer.close();
    }
}

/// For a stop: libraries would report each connection that it ends as an error.
pub(crate) fn mute_libraries() {
    log::set_max_level(log::LevelFilter::Off);
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        if self.queue.is_some() {
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
    #[error("the log threads could not be started")]
    Thread(#[from] io::Error),
}

type BoxedDrain = Box<dyn Drain<Ok = (), Err = Never> + Send>;

/// Starts logging for the whole process: our records through the returned logger, those of dependencies through `log`,
/// panics through a hook.
pub(crate) fn init(config: &LogConfig, role: Role) -> Result<(Logger, LogGuard), LogInitError> {
    let shape = Shape::of(config);
    let values = o!("role" => role.as_str());
    let root_values: OwnedKVList = o!("role" => role.as_str()).into();
    let (lines, writer) = buffered_stdout(Box::new(move |dropped| shape.dropped_line(dropped, &root_values)))?;
    let (queue, queue_guard) = slog_async::Async::new(shape.drain(lines))
        .chan_size(QUEUE_RECORDS_MAX)
        .overflow_strategy(OverflowStrategy::Block)
        .thread_name("log".into())
        .build_with_guard();
    // The filters are before the queue, so that a suppressed record costs little.
    let repeats = RepeatFilter::new(queue);
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
    Ok((root, LogGuard { queue: Some(queue_guard), writer, suppressed }))
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

    fn drain(self, out: impl Write + Send + 'static) -> BoxedDrain {
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
            "msg" => PushFnValue(|r: &Record<'_>, out| out.emit(r.msg())),
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
