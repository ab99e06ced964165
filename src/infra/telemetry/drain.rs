//! Builds the logger of a process.

use std::io::{self, IsTerminal};

use slog::{Drain, FnValue, Level, Logger, Never, PushFnValue, Record, o};
use slog_async::OverflowStrategy;

use crate::infra::config::{LogConfig, LogFormat};
use crate::infra::system::System;
use crate::infra::telemetry::level_filter::{LevelFilter, target};
use crate::infra::telemetry::pretty::Pretty;
use crate::infra::telemetry::stdout::{LineBuffer, StdoutWriter, buffered_stdout};
use crate::kernel::{Clock, Role, rfc3339};

/// Records in the queue to the writing thread. When it is full, logging blocks: no record is dropped.
const QUEUE_RECORDS_MAX: usize = 8192;

/// Keeps the log running. Dropping it writes everything that was logged; later records are lost.
pub(crate) struct LogGuard {
    // In this order: the queue is drained into the buffer, and then the buffer is written.
    _queue: slog_async::AsyncGuard,
    _writer: Option<StdoutWriter>,
}

/// Why logging could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogInitError {
    #[error("a logger is already installed")]
    Installed(#[from] log::SetLoggerError),
    #[error("the log thread could not be started")]
    Thread(#[from] io::Error),
}

type BoxedDrain = Box<dyn Drain<Ok = (), Err = Never> + Send>;

/// Starts logging for the whole process: our records through the returned logger, those of dependencies through `log`,
/// panics through a hook.
pub(crate) fn init(config: &LogConfig, role: Role) -> Result<(Logger, LogGuard), LogInitError> {
    let terminal = io::stdout().is_terminal();
    let format = config.format.unwrap_or(if terminal { LogFormat::Pretty } else { LogFormat::Json });
    let (sink, writer): (BoxedDrain, _) = match format {
        LogFormat::Json => {
            let (lines, writer) = buffered_stdout()?;
            (json(lines), Some(writer))
        }
        LogFormat::Pretty => {
            // https://no-color.org, https://bixense.com/clicolors
            let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0");
            let coloured = (terminal || is_set("CLICOLOR_FORCE")) && !is_set("NO_COLOR");
            (Box::new(Pretty::new(io::stdout(), coloured).ignore_res()), None)
        }
    };
    let (queue, queue_guard) = slog_async::Async::new(sink)
        .chan_size(QUEUE_RECORDS_MAX)
        .overflow_strategy(OverflowStrategy::Block) // the log is an audit trail
        .thread_name("log".into())
        .build_with_guard();
    // The filter is before the queue, so that a suppressed record costs nothing.
    let drain = LevelFilter { inner: queue, level: config.level };
    let root = Logger::root(drain.ignore_res(), o!("role" => role.as_str()));
    // Never reset: a dependency's thread that logs after a reset would panic.
    slog_scope::set_global_logger(root.clone()).cancel_reset();
    slog_stdlog::init_with_level(as_log_level(config.level))?;
    let hook = root.clone();
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string);
        slog::error!(hook, "panicked"; "error" => panic.payload_as_str(), "at" => place);
    }));
    Ok((root, LogGuard { _queue: queue_guard, _writer: writer }))
}

fn json(lines: LineBuffer) -> BoxedDrain {
    let lines = slog_json::Json::new(lines)
        .add_key_value(o!(
            // slog-json writes them in reverse, so a line begins with the time.
            "target" => FnValue(|r: &Record<'_>| target(r).to_owned()),
            "msg" => PushFnValue(|r: &Record<'_>, out| out.emit(r.msg())),
            "level" => FnValue(|r: &Record<'_>| level_name(r.level())),
            "ts" => FnValue(|_: &Record<'_>| rfc3339(System.now())),
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
