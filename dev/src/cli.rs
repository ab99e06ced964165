//! The command line of `purse-dev`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};

use crate::error::DevError;
use crate::hints::variable;
use crate::{control, up};

fn command() -> Command {
    let purse = Arg::new("purse")
        .long("purse")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .global(true)
        .help("Binary of the roles [env: PURSE_BIN] [default: `purse` beside this binary]");
    Command::new("purse-dev")
        .version(version())
        .about("Run PostgreSQL, RabbitMQ and both roles on this machine, for development")
        .after_help(
            "Without a command it runs `up`. State is in /var/tmp/purse-<uid>; PURSE_DEV_DIR selects another \
             folder.\nExit codes: 0 done or stopped on request, 1 `status`: not everything is ready, 64 a setting cannot be \
             used, 69 a server, port or folder is not available, 70 a role ended.",
        )
        .arg(purse)
        .subcommand(Command::new("up").about("Start everything and show the logs; Ctrl-C stops it and keeps the data"))
        .subcommand(Command::new("down").about("Stop an `up` that runs in another terminal"))
        .subcommand(Command::new("status").about("Show what is running; exit code 1 unless everything is ready"))
        .subcommand(Command::new("check-idle").about("Exit with 69 if `up` is running").hide(true))
        .subcommand(Command::new("reset").about("Remove the data"))
        .subcommand(Command::new("env").about("Print the settings of a running `up` for a shell: eval \"$(purse-dev env)\""))
}

/// The version of purse: a release does not change that of this package.
fn version() -> &'static str {
    let mut lines = include_str!("../../Cargo.toml").lines();
    lines.find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"')).unwrap_or("unknown")
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
        Some("check-idle") => control::check_idle(),
        _ => up::run(matches.get_one("purse").cloned().or_else(|| variable("PURSE_BIN").map(PathBuf::from))),
    }
    .map(|()| true)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_well_formed() {
        super::command().debug_assert();
    }

    #[test]
    fn the_version_is_that_of_a_release() {
        let parts: Vec<&str> = super::version().split('.').collect();
        assert!(parts.len() == 3 && parts.iter().all(|part| part.parse::<u16>().is_ok()), "{parts:?}");
    }
}
