//! The operator commands: dead letters, the outbox, the ledger, service tokens, the health check, and pages generated from the
//! tables of the binary.
//!
//! A command runs as its own process beside the serving roles, with the permissions of the role whose settings it reads.
//! It connects only to what it needs, does one thing, and exits. The result goes to standard output, as a table or as
//! JSON; errors go to standard error, with what to do next. Commands do not log, and no role depends on them.

mod arguments;
mod config;
mod dead_letter;
mod dlq;
mod doctor;
mod export;
mod failure;
mod healthcheck;
mod help;
mod holds;
mod humanize;
mod ledger;
mod outbox;
mod output;
mod pages;
mod progress;
mod purge;
mod receipts;
mod redrive;
mod tally;
mod token;

use std::future::Future;

use clap::{ArgMatches, Command};
use tokio::runtime::{Builder, Handle};

pub use doctor::Check;
pub use help::help_end;
pub use output::{print, print_error, print_styled, print_usage_error};
pub use pages::{commands as page_commands, completions, config_template, man};

use crate::infra::config::{AmqpConfig, DatabaseConfig, HttpConfig, Layers, OutboxConfig, UsersConfig, WalletConfig};
use crate::kernel::{ExitError, ExitStatus, Role};
use crate::operate::arguments::format_arguments;
use crate::operate::failure::Failure;
use crate::operate::output::Format;

/// Threads that drive the connections of a command.
const IO_THREADS: usize = 2;

/// The commands that read the settings of a role.
pub fn commands() -> Vec<Command> {
    [dlq::command(), outbox::command(), ledger::command()].map(|command| command.args(format_arguments())).into()
}

/// `purse config show`, without the flags of the settings.
pub fn config_show_command() -> Command {
    config::command().args(format_arguments())
}

/// `purse token`.
pub fn token_command() -> Command {
    token::command()
}

/// `purse doctor`, without the flags of the settings.
pub fn doctor_command() -> Command {
    doctor::command().args(format_arguments())
}

/// `purse dlq …`: connects to the broker.
pub fn dlq(arguments: &ArgMatches, layers: Layers) -> Result<ExitStatus, ExitError> {
    let config = AmqpConfig::build(layers).map_err(ExitError::usage)?;
    with_io(|io| dlq::run(arguments, config, io, Format::of(arguments))).map(checked)
}

/// `purse outbox …`: connects to the users database.
pub fn outbox(arguments: &ArgMatches, layers: Layers) -> Result<ExitStatus, ExitError> {
    let config = OutboxConfig::build(layers).map_err(ExitError::usage)?;
    with_io(|io| outbox::run(arguments, config, io, Format::of(arguments))).map(checked)
}

/// `purse ledger …`: connects to the wallet database, except to verify receipts.
pub fn ledger(arguments: &ArgMatches, layers: Layers) -> Result<ExitStatus, ExitError> {
    if let Some(("verify-receipt", receipts)) = arguments.subcommand() {
        return Ok(checked(receipts::run(receipts, Format::of(arguments))?));
    }
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

/// `purse token`: connects to nothing.
pub fn token(arguments: &ArgMatches, layers: Layers) -> Result<ExitStatus, ExitError> {
    token::run(arguments, layers)
}

/// `purse healthcheck`: connects to the role on this machine.
pub fn healthcheck(layers: Layers) -> Result<ExitStatus, ExitError> {
    let http = HttpConfig::build(layers).map_err(ExitError::usage)?;
    healthcheck::check(&http).map_err(|why| ExitError::new(ExitStatus::CheckFailed, format!("not ready: {why}")))?;
    Ok(ExitStatus::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_well_formed() {
        for command in commands().into_iter().chain(page_commands()).chain([token_command()]) {
            command.debug_assert();
        }
    }
}
