//! The command line: parses arguments, runs one command, and returns its exit code.

mod cli;

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::ArgMatches;
use clap::error::ErrorKind;

use purse::infra::config::{Layers, MigrationConfig};
use purse::kernel::{ExitError, ExitStatus, Role, fault};
use purse::operate;
use purse::roles::{self, RoleConfig};

type Outcome = Result<ExitStatus, ExitError>;

fn main() -> ExitCode {
    fault::set_up();
    let matches = match cli::parse(std::env::args_os()) {
        Ok(matches) => matches,
        Err(e) => return usage(e).into(),
    };
    let status = run(&matches).unwrap_or_else(|e| {
        operate::print_error(&e.to_string());
        e.status
    });
    status.into()
}

/// Prints the help or version that was requested, or what is wrong with the command line.
fn usage(e: clap::Error) -> ExitStatus {
    if !e.use_stderr() {
        return operate::print_styled(&e).unwrap_or_else(|e| {
            operate::print_error(&e.to_string());
            e.status
        });
    }
    let kind = e.kind();
    operate::print_usage_error(e);
    if kind == ErrorKind::InvalidUtf8 {
        // clap does not name it.
        operate::print_error(&format!("not valid UTF-8: {}", cli::not_utf8(std::env::args_os()).join(", ")));
    }
    ExitStatus::Usage
}

fn run(matches: &ArgMatches) -> Outcome {
    match matches.subcommand() {
        Some(("healthcheck", arguments)) => operate::healthcheck(cli::layers(arguments)?),
        Some(("check-config", arguments)) => check_config(arguments),
        Some(("migrate", arguments)) => migrate(arguments),
        Some(("doctor", arguments)) => doctor(arguments),
        Some(("dlq", arguments)) => operate::dlq(arguments, operator_layers(Role::Wallet, arguments)?),
        Some(("outbox", arguments)) => operate::outbox(arguments, operator_layers(Role::Users, arguments)?),
        Some(("ledger", arguments)) => operate::ledger(arguments, operator_layers(Role::Wallet, arguments)?),
        Some(("token", arguments)) => operate::token(arguments, operator_layers(Role::Wallet, arguments)?),
        Some(("config", arguments)) => match arguments.subcommand() {
            Some(("show", arguments)) => operate::config_show(arguments, cli::layers(arguments)?),
            _ => operate::config_template(),
        },
        Some(("completions", arguments)) => operate::completions(arguments, cli::command()),
        Some(("man", arguments)) => operate::man(arguments, cli::command()),
        Some(("openapi", arguments)) => openapi(arguments),
        Some((other, _)) => Err(ExitError::usage(format!("unknown command {other}"))),
        None if matches.get_flag("check-config") => check_config(matches),
        None if matches.get_flag("migrate-only") => migrate(matches),
        None => roles::serve(&role_config(matches)?).map(|()| ExitStatus::Success),
    }
}

fn role_config(arguments: &ArgMatches) -> Result<RoleConfig, ExitError> {
    RoleConfig::build(cli::layers(arguments)?).map_err(ExitError::usage)
}

/// The settings of the role that an operator command belongs to.
fn operator_layers(role: Role, arguments: &ArgMatches) -> Result<Layers, ExitError> {
    roles::init_crypto()?;
    cli::layers_of(role, arguments, BTreeMap::new())
}

fn migrate(arguments: &ArgMatches) -> Outcome {
    let config = MigrationConfig::build(cli::layers(arguments)?).map_err(ExitError::usage)?;
    roles::migrate(&config).map(|()| ExitStatus::Success)
}

fn check_config(arguments: &ArgMatches) -> Outcome {
    let config = role_config(arguments)?;
    roles::init_crypto()?;
    let process = config.process();
    for warning in &process.warnings {
        operate::print_error(&format!("warning: {warning}"));
    }
    operate::print(&format!("The configuration of the {} role is valid.\n", process.role))
}

fn doctor(arguments: &ArgMatches) -> Outcome {
    roles::init_crypto()?;
    let other = match cli::role(arguments)? {
        Role::Users => Role::Wallet,
        Role::Wallet => Role::Users,
    };
    operate::doctor(arguments, cli::layers(arguments)?, cli::layers_of(other, arguments, BTreeMap::new())?)
}

fn openapi(arguments: &ArgMatches) -> Outcome {
    let document = roles::openapi(cli::role_or_both(arguments)?);
    let document = document.map_err(|e| ExitError::internal(format!("cannot serialize the document: {e}")))?;
    operate::print(&format!("{document}\n"))
}
