//! The operator's commands: dead letters, the outbox, the ledger, and pages made of the binary's own tables.
//!
//! A command is a process of its own beside the roles that serve: it opens what it needs (the broker, or one database,
//! and nothing else), does one thing, and ends. It says what it did on standard output, as a table or as JSON, and what
//! went wrong on standard error with what to do next. It logs nothing, and no role needs it: what it does, it does with
//! the rights of the role whose settings it reads.

mod dead_letter;
mod dlq;
mod failure;
mod ledger;
mod list;
mod outbox;
mod pages;
mod progress;
mod redrive;
mod words;

use std::future::Future;
use std::io::Write as _;
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command};
use tokio::runtime::{Builder, Handle};

pub use pages::{commands as page_commands, completions, config_template, man};

use crate::infra::config::{AmqpConfig, DatabaseConfig, Layers};
use crate::operate::failure::Failure;
use crate::operate::list::Format;

/// Threads that drive the connections of a command.
const IO_THREADS: usize = 2;

/// What a command came to: whether everything is as it was asked for or as it should be.
type Outcome = Result<bool, Failure>;

/// The commands that work on something, and read the settings of the role that it belongs to.
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
        .help("For a person, or for a program")
}

fn dry_run_argument() -> Arg {
    Arg::new("dry-run").long("dry-run").action(ArgAction::SetTrue).help("Say what would be done, and change nothing")
}

/// `purse dlq …`: needs the broker alone.
pub fn dlq(arguments: &ArgMatches, layers: Layers) -> ExitCode {
    ended(AmqpConfig::build(layers).map_err(Failure::from).and_then(|config| {
        let format = Format::of(arguments);
        with_io(|io| dlq::run(arguments, config, io, format))
    }))
}

/// `purse outbox …`: needs the users database alone.
pub fn outbox(arguments: &ArgMatches, layers: Layers) -> ExitCode {
    ended(DatabaseConfig::build(layers).map_err(Failure::from).and_then(|config| {
        let format = Format::of(arguments);
        with_io(|io| outbox::run(arguments, config, io, format))
    }))
}

/// `purse ledger …`: needs the wallet database alone.
pub fn ledger(arguments: &ArgMatches, layers: Layers) -> ExitCode {
    ended(DatabaseConfig::build(layers).map_err(Failure::from).and_then(|config| {
        let format = Format::of(arguments);
        with_io(|io| ledger::run(arguments, config, io, format))
    }))
}

fn with_io<F: Future<Output = Outcome>>(work: impl FnOnce(Handle) -> F) -> Outcome {
    let io = Builder::new_multi_thread().worker_threads(IO_THREADS).thread_name("io").enable_all().build();
    let io = io.map_err(|e| Failure::Own(format!("the IO threads could not be started: {e}")))?;
    let outcome = io.block_on(work(io.handle().clone()));
    io.shutdown_background();
    outcome
}

/// The exit code of a command; what went wrong is told to a person.
fn ended(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            say(&failure.to_string());
            failure.exit_code().into()
        }
    }
}

/// Tells a person on stderr; a closed stderr is nobody's fault.
fn say(message: &str) {
    let _ = writeln!(std::io::stderr(), "purse: {message}");
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
