//! Builds the logger of a process.

use std::io::{self, IsTerminal};

use slog::{Drain, FnValue, Level, Logger, Never, PushFnValue, Record, o};
use slog_async::OverflowStrategy;

use crate::infra::config::{LogConfig, LogFormat};
use crate::infra::system::System;
use crate::infra::telemetry::gathered::{self, Flusher, Gathered};
use crate::infra::telemetry::level_filter::{LevelFilter, target};
use crate::kernel::{Clock, Role};

/// Records that may wait for the writing thread. Past it the logging thread waits: no record is dropped.
const QUEUE_RECORDS_MAX: usize = 8192;

/// Keeps the log's queue alive. Dropping it writes out what still waits; records after that go nowhere.
pub struct LogGuard {
    // In this order: what the queue still holds is written out, and then what waits to be written.
    _queue: slog_async::AsyncGuard,
    _flusher: Option<Flusher>,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum NoLog {
    /// One was installed before.
    #[error("a logger was installed before")]
    Installed(#[from] log::SetLoggerError),
    /// The system has no thread for it.
    #[error("the log's thread could not be started")]
    Thread(#[from] io::Error),
}

type BoxedDrain = Box<dyn Drain<Ok = (), Err = Never> + Send>;

/// Starts logging for the whole process: ours through the returned logger, the dependencies' through `log`, panics
/// through a hook.
///
/// # Errors
/// [`NoLog`].
pub fn init(config: &LogConfig, role: Role) -> Result<(Logger, LogGuard), NoLog> {
    let format =
        config.format.unwrap_or_else(|| if io::stdout().is_terminal() { LogFormat::Pretty } else { LogFormat::Json });
    let (sink, flusher): (BoxedDrain, _) = match format {
        LogFormat::Json => {
            let (lines, flusher) = gathered::stdout()?;
            (json(lines), Some(flusher))
        }
        LogFormat::Pretty => {
            let lines = slog_term::TermDecorator::new().stdout().build();
            (Box::new(slog_term::FullFormat::new(lines).build().ignore_res()), None)
        }
    };
    let (queue, queue_guard) = slog_async::Async::new(sink)
        .chan_size(QUEUE_RECORDS_MAX)
        .overflow_strategy(OverflowStrategy::Block) // an audit line is worth a wait
        .thread_name("log".into())
        .build_with_guard();
    // The filter stands before the queue, so that a suppressed record costs nothing.
    let drain = LevelFilter { inner: queue, level: config.level };
    let root = Logger::root(drain.ignore_res(), o!("role" => role.as_str()));
    // Left in place to the very end: a dependency's thread that logs after a reset would panic.
    slog_scope::set_global_logger(root.clone()).cancel_reset();
    slog_stdlog::init_with_level(as_log_level(config.level))?;
    let hook = root.clone();
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string);
        slog::error!(hook, "panicked"; "error" => panic.payload_as_str(), "at" => place);
    }));
    Ok((root, LogGuard { _queue: queue_guard, _flusher: flusher }))
}

fn json(lines: Gathered) -> BoxedDrain {
    let lines = slog_json::Json::new(lines)
        .add_key_value(o!(
            // Written by slog-json in reverse, so the line begins with the time.
            "target" => FnValue(|r: &Record<'_>| target(r).to_owned()),
            "msg" => PushFnValue(|r: &Record<'_>, out| out.emit(r.msg())),
            "level" => FnValue(|r: &Record<'_>| level_name(r.level())),
            "ts" => FnValue(|_: &Record<'_>| System.now().to_string()),
        ))
        .build();
    Box::new(lines.ignore_res())
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
