//! The command line of `purse-dev`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};

use crate::error::DevError;
use crate::{control, up};

fn command() -> Command {
    let purse = Arg::new("purse")
        .long("purse")
        .value_name("FILE")
        .env("PURSE_BIN")
        .value_parser(value_parser!(PathBuf))
        .global(true)
        .help("Binary of the roles [default: `purse` beside this binary]");
    Command::new("purse-dev")
        .about("Run PostgreSQL, RabbitMQ and both roles on this machine, for development")
        .after_help(
            "Without a command it does what `up` does. State is in /var/tmp/purse-<uid>; PURSE_DEV_DIR names another \
             folder. The roles run with APP_ENV=development and listen on 127.0.0.1, whatever the shell has: \
             PURSE_DEV_APP_ENV sets another APP_ENV, HOST=0.0.0.0 lets other machines connect.\nExit codes: 0 done or stopped on request, 1 `status`: not everything is ready, 64 a setting cannot be \
             used, 69 a server, port or folder is not available, 70 a role ended.",
        )
        .arg(purse)
        .subcommand(Command::new("up").about("Start everything and show the logs; Ctrl-C stops it and keeps the data"))
        .subcommand(Command::new("down").about("Stop an `up` that runs in another terminal"))
        .subcommand(Command::new("status").about("Show what runs; exit code 1 unless everything is ready"))
        .subcommand(Command::new("reset").about("Remove the data"))
        .subcommand(Command::new("env").about("Print the settings of a running `up` for a shell: eval \"$(purse-dev env)\""))
}

/// Runs the command that the command line names.
pub fn main() -> ExitCode {
    let matches = match command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => {
            let _closed = error.print();
            return if error.use_stderr() { ExitCode::from(64) } else { ExitCode::SUCCESS };
        }
    };
    match run(&matches) {
        Ok(true) | Err(DevError::Interrupted) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("purse-dev: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(matches: &ArgMatches) -> Result<bool, DevError> {
    match matches.subcommand_name() {
        Some("down") => control::down(),
        Some("status") => return control::status(),
        Some("reset") => control::reset(),
        Some("env") => control::env(),
        _ => up::run(matches.get_one::<PathBuf>("purse").cloned()),
    }
    .map(|()| true)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_well_formed() {
        super::command().debug_assert();
    }
}
