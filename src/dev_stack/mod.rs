//! Private PostgreSQL and RabbitMQ as child processes: for `purse dev`, for the tests and for the benchmarks.
//!
//! A fresh machine needs the two packages and nothing else: no container engine, no service of the system, no account.
//! Everything lies in one folder, listens on the loopback address and ends with the process that started it.
//!
//! The room knows nothing of accounts and wallets: it starts the roles as any other program, from outside. It speaks
//! neither PostgreSQL's protocol nor AMQP beyond a greeting, and it installs nothing (`just servers` does).

mod account;
mod addresses;
mod child;
mod control;
mod databases;
mod error;
mod folder;
mod health;
mod interrupt;
mod lend;
pub mod lent;
mod locate;
mod logs;
mod ports;
mod postgres;
mod processes;
mod rabbitmq;
mod roles;
mod servers;
mod up;
mod walkthrough;

use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};

pub use addresses::ServerAddresses;
pub use databases::{RoleDatabase, RoleDatabases};
pub use error::DevStackError;
pub use interrupt::Interrupt;
pub use lent::LentServers;
pub use servers::{Action, Durability, Lifetime, PreferredPorts, Server, Servers, StartOptions};

/// The subcommand `dev`; without a further word it is `dev up`.
pub fn command() -> Command {
    Command::new("dev")
        .about("Run PostgreSQL, RabbitMQ and both roles on this machine, for development")
        .long_about(
            "Runs a private PostgreSQL, a private RabbitMQ and both roles as child processes, and shows their logs. \
             Without a further word it does what `up` does. State lies in /var/tmp/purse-<uid>; PURSE_DEV_DIR names \
             another folder.",
        )
        .subcommand(Command::new("up").about("Start everything; Ctrl-C ends it and keeps the data"))
        .subcommand(Command::new("down").about("End an `up` that runs in another terminal"))
        .subcommand(Command::new("status").about("Show what runs; exit code 1 unless everything is ready"))
        .subcommand(Command::new("reset").about("Remove the data"))
        .subcommand(
            Command::new("servers").about("Lend throw-away servers to the calling process").hide(true).arg(
                Arg::new("durable")
                    .long("durable")
                    .action(ArgAction::SetTrue)
                    .help("Keep PostgreSQL's own durable settings"),
            ),
        )
}

/// Runs the subcommand. Exit codes: 0 done or stopped on request, 1 a `status` of something that is not ready, 64 a
/// setting that cannot be used, 69 a server, port or folder that we depend on, 70 a role that ended by itself.
pub fn run(matches: &ArgMatches) -> ExitCode {
    let outcome = match matches.subcommand() {
        Some(("down", _)) => control::down().map(|()| true),
        Some(("status", _)) => control::status(),
        Some(("reset", _)) => control::reset().map(|()| true),
        Some(("servers", options)) => {
            let durability = if options.get_flag("durable") { Durability::Stock } else { Durability::Off };
            lend::run(durability).map(|()| true)
        }
        _ => up::run().map(|()| true),
    };
    match outcome {
        Ok(false) => ExitCode::FAILURE,
        Ok(true) | Err(DevStackError::Interrupted) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("purse: {}", error.chain());
            ExitCode::from(error.exit_code())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_consistent_and_hides_the_lender() {
        command().debug_assert();
        assert!(!command().render_long_help().to_string().contains("servers  "));
    }
}
