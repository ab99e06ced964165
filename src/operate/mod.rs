//! The operator commands: dead letters, the outbox, the ledger, the health check, and pages generated from the tables of
//! the binary.
//!
//! A command runs as its own process beside the serving roles, with the permissions of the role whose settings it reads.
//! It connects only to what it needs, does one thing, and exits. The result goes to standard output, as a table or as
//! JSON; errors go to standard error, with what to do next. Commands do not log, and no role depends on them.

mod dead_letter;
mod dlq;
mod export;
mod failure;
mod healthcheck;
mod humanize;
mod ledger;
mod outbox;
mod output;
mod pages;
mod progress;
mod purge;
mod redrive;
mod tally;

use std::future::Future;
use std::io::Write as _;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command};
use tokio::runtime::{Builder, Handle};

pub use pages::{commands as page_commands, completions, config_template, man};

use crate::infra::config::{AmqpConfig, DatabaseConfig, HttpConfig, Layers, OutboxConfig};
use crate::kernel::{ExitError, ExitStatus};
use crate::operate::failure::Failure;
use crate::operate::output::Format;

/// Threads that drive the connections of a command.
const IO_THREADS: usize = 2;
/// Longest wait for a reader of standard error.
const STDERR_WAIT: Duration = Duration::from_secs(5);

/// Whether everything that was requested exists and is consistent.
type Outcome = Result<bool, Failure>;

/// The commands that read the settings of a role.
pub fn commands() -> Vec<Command> {
    [dlq::command(), outbox::command(), ledger::command()].map(|command| command.arg(format_argument())).into()
}

fn format_argument() -> Arg {
    Arg::new("format")
        .long("format")
        .value_name("FORMAT")
        .global(true)
        .default_value("table")
        .value_parser(PossibleValuesParser::new(["table", "json"]))
        .help("Output format")
}

fn dry_run_argument() -> Arg {
    Arg::new("dry-run")
        .long("dry-run")
        .action(ArgAction::SetTrue)
        .help("Print what would change without changing anything")
}

/// `purse dlq …`: connects to the broker.
pub fn dlq(arguments: &ArgMatches, layers: Layers) -> Result<ExitStatus, ExitError> {
    let config = AmqpConfig::build(layers).map_err(ExitError::usage)?;
    with_io(|io| dlq::run(arguments, config, io, Format::of(arguments)))
}

/// `purse outbox …`: connects to the users database.
pub fn outbox(arguments: &ArgMatches, layers: Layers) -> Result<ExitStatus, ExitError> {
    let config = OutboxConfig::build(layers).map_err(ExitError::usage)?;
    with_io(|io| outbox::run(arguments, config, io, Format::of(arguments)))
}

/// `purse ledger …`: connects to the wallet database.
pub fn ledger(arguments: &ArgMatches, layers: Layers) -> Result<ExitStatus, ExitError> {
    let config = DatabaseConfig::build(layers).map_err(ExitError::usage)?;
    with_io(|io| ledger::run(arguments, config, io, Format::of(arguments)))
}

fn with_io<F: Future<Output = Outcome>>(work: impl FnOnce(Handle) -> F) -> Result<ExitStatus, ExitError> {
    let io = Builder::new_multi_thread().worker_threads(IO_THREADS).thread_name("io").enable_all().build();
    let io = io.map_err(|e| ExitError::internal(format!("cannot start the IO threads: {e}")))?;
    let outcome = io.block_on(work(io.handle().clone()));
    io.shutdown_background();
    Ok(if outcome? { ExitStatus::Success } else { ExitStatus::CheckFailed })
}

/// `purse healthcheck`: connects to the role on this machine.
pub fn healthcheck(layers: Layers) -> Result<ExitStatus, ExitError> {
    let http = HttpConfig::build(layers).map_err(ExitError::usage)?;
    healthcheck::check(&http).map_err(|why| ExitError::new(ExitStatus::CheckFailed, format!("not ready: {why}")))?;
    Ok(ExitStatus::Success)
}

/// Prints `text` to standard output. A reader that closes it early, as `head` does, is not an error.
pub fn print(text: &str) -> Result<ExitStatus, ExitError> {
    output::print_text(text).map_err(Failure::Output)?;
    Ok(ExitStatus::Success)
}

/// Prints the help or the version that clap has rendered.
pub fn print_styled(rendered: &clap::Error) -> Result<ExitStatus, ExitError> {
    output::print_rendered(rendered).map_err(Failure::Output)?;
    Ok(ExitStatus::Success)
}

/// Prints an error or a warning to standard error, and gives up on a reader that reads nothing: a process that cannot
/// report why it ends has to end all the same.
pub fn print_error(message: &str) {
    let line = format!("purse: {message}\n");
    let (done, written) = mpsc::channel();
    let writer = thread::Builder::new().name("stderr".into()).spawn(move || {
        // Without standard error there is nowhere left to report to.
        let _ = std::io::stderr().write_all(line.as_bytes());
        let _ = done.send(());
    });
    if writer.is_ok() {
        let _ = written.recv_timeout(STDERR_WAIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_well_formed() {
        for command in commands().into_iter().chain(page_commands()) {
            command.debug_assert();
        }
    }
}
