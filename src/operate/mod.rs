//! The operator commands: dead letters, the outbox, the ledger, the health check, and pages generated from the tables of
//! the binary.
//!
//! A command runs as its own process beside the serving roles, with the permissions of the role whose settings it reads.
//! It connects only to what it needs, does one thing, and exits. The result goes to standard output, as a table or as
//! JSON; errors go to standard error, with what to do next. Commands do not log, and no role depends on them.

mod config;
mod dead_letter;
mod dlq;
mod doctor;
mod export;
mod failure;
mod healthcheck;
mod help;
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

pub use doctor::Check;
pub use help::help_end;
pub use pages::{commands as page_commands, completions, config_template, man};

use crate::infra::config::{AmqpConfig, DatabaseConfig, HttpConfig, Layers, UsersConfig, WalletConfig};
use crate::kernel::{ExitError, ExitStatus, Role};
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
    [dlq::command(), outbox::command(), ledger::command()].map(|command| command.args(format_arguments())).into()
}

/// `purse config show`, without the flags of the settings.
pub fn config_show_command() -> Command {
    config::command().args(format_arguments())
}

/// `purse doctor`, without the flags of the settings.
pub fn doctor_command() -> Command {
    doctor::command().args(format_arguments())
}

fn format_arguments() -> [Arg; 2] {
    [
        Arg::new("format")
            .long("format")
            .value_name("FORMAT")
            .global(true)
            .default_value("table")
            .value_parser(PossibleValuesParser::new(["table", "json"]))
            .help("Output format"),
        Arg::new("json")
            .long("json")
            .global(true)
            .action(ArgAction::SetTrue)
            .conflicts_with("format")
            .help("Short for --format json"),
    ]
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
    with_io(|io| dlq::run(arguments, config, io, Format::of(arguments))).map(checked)
}

/// `purse outbox …`: connects to the users database.
pub fn outbox(arguments: &ArgMatches, layers: Layers) -> Result<ExitStatus, ExitError> {
    let config = DatabaseConfig::build(layers).map_err(ExitError::usage)?;
    with_io(|io| outbox::run(arguments, config, io, Format::of(arguments))).map(checked)
}

/// `purse ledger …`: connects to the wallet database.
pub fn ledger(arguments: &ArgMatches, layers: Layers) -> Result<ExitStatus, ExitError> {
    let config = DatabaseConfig::build(layers).map_err(ExitError::usage)?;
    with_io(|io| ledger::run(arguments, config, io, Format::of(arguments))).map(checked)
}

/// `purse doctor`: connects to the role's database and to the broker, and to the database of the other role if its URL is in
/// `other`.
pub fn doctor(arguments: &ArgMatches, layers: Layers, other: Layers) -> Result<ExitStatus, ExitError> {
    let target = match layers.role() {
        Role::Users => UsersConfig::build(layers).map(|config| doctor::Target::Users(Box::new(config))),
        Role::Wallet => WalletConfig::build(layers).map(|config| doctor::Target::Wallet(Box::new(config))),
    };
    let target = target.map_err(ExitError::usage)?;
    let other = DatabaseConfig::build_if_set(other).map_err(ExitError::usage)?;
    with_io(|io| doctor::run(target, other, io, Format::of(arguments)))
}

const fn checked(passed: bool) -> ExitStatus {
    if passed { ExitStatus::Success } else { ExitStatus::CheckFailed }
}

fn with_io<T, F: Future<Output = Result<T, Failure>>>(work: impl FnOnce(Handle) -> F) -> Result<T, ExitError> {
    let io = Builder::new_multi_thread().worker_threads(IO_THREADS).thread_name("io").enable_all().build();
    let io = io.map_err(|e| ExitError::internal(format!("cannot start the IO threads: {e}")))?;
    let outcome = io.block_on(work(io.handle().clone()));
    io.shutdown_background();
    Ok(outcome?)
}

/// `purse config show`: connects to nothing.
pub fn config_show(arguments: &ArgMatches, layers: Layers) -> Result<ExitStatus, ExitError> {
    config::show(arguments, layers)
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

/// Prints an error or a warning to standard error, as [`to_stderr`] does.
pub fn print_error(message: &str) {
    let line = format!("purse: {message}\n");
    to_stderr(move || std::io::stderr().write_all(line.as_bytes()));
}

/// Prints what clap says about a command line, in colour on a terminal, as [`to_stderr`] does.
pub fn print_usage_error(error: clap::Error) {
    to_stderr(move || error.print());
}

/// Writes to standard error, and gives up on a reader that reads nothing: a process that cannot report why it ends has to
/// end all the same.
fn to_stderr(write: impl FnOnce() -> std::io::Result<()> + Send + 'static) {
    let (done, written) = mpsc::channel();
    let writer = thread::Builder::new().name("stderr".into()).spawn(move || {
        // Without standard error there is nowhere left to report to.
        let _ = write();
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
