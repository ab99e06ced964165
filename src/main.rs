//! The binary: reads the command line, does what it says, and turns the end into an exit code.

mod cli;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::Duration;

use clap::ArgMatches;

use purse::infra::config::{HttpConfig, Layers};
use purse::kernel::Role;
use purse::operate;
use purse::roles::{self, ExitReason, RoleConfig};

/// Bad usage or configuration.
///
/// # Source
/// `sysexits.h`, as are the next two.
const EX_USAGE: u8 = 64;
/// A dependency refused for good.
const EX_UNAVAILABLE: u8 = 69;
/// Our own fault.
const EX_SOFTWARE: u8 = 70;

/// Longest wait of the health check for each of its steps.
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    purse::kernel::fault::set_up();
    let matches = match cli::command().try_get_matches() {
        Ok(matches) => matches,
        Err(e) => {
            // Help and version are asked for; anything else is bad usage.
            let code = if e.use_stderr() { EX_USAGE } else { 0 };
            // Whether it can be shown changes nothing about the code.
            let _ = e.print();
            return code.into();
        }
    };
    match matches.subcommand() {
        Some(("healthcheck", arguments)) => with_layers(arguments, healthcheck),
        Some(("check-config", arguments)) => with_layers(arguments, check_config),
        Some(("migrate", arguments)) => {
            with_layers(arguments, |layers| with_config(layers, |c| ended(roles::migrate(&c))))
        }
        Some(("dlq", arguments)) => operated(Role::Wallet, arguments, operate::dlq),
        Some(("outbox", arguments)) => operated(Role::Users, arguments, operate::outbox),
        Some(("ledger", arguments)) => operated(Role::Wallet, arguments, operate::ledger),
        Some(("config", _)) => operate::config_template(),
        Some(("completions", arguments)) => operate::completions(arguments, cli::command()),
        Some(("man", arguments)) => operate::man(arguments, cli::command()),
        Some(("openapi", arguments)) => openapi(arguments),
        Some((other, _)) => usage(&format!("{other} is not a command of this version")),
        None if matches.get_flag("check-config") => with_layers(&matches, check_config),
        None if matches.get_flag("migrate-only") => {
            with_layers(&matches, |layers| with_config(layers, |c| ended(roles::migrate(&c))))
        }
        None => with_layers(&matches, |layers| with_config(layers, |c| ended(roles::serve(c)))),
    }
}

fn usage(message: &str) -> ExitCode {
    say_wrong(message);
    EX_USAGE.into()
}

/// Tells a person on stderr; a closed stderr is nobody's fault.
fn say_wrong(message: &str) {
    let _ = writeln!(std::io::stderr(), "purse: {message}");
}

fn with_layers(matches: &ArgMatches, run: impl FnOnce(Layers) -> ExitCode) -> ExitCode {
    match cli::layers(matches) {
        Ok(layers) => run(layers),
        Err(message) => usage(&message),
    }
}

/// Runs an operator's command with the settings of the role that it belongs to.
fn operated(role: Role, arguments: &ArgMatches, run: fn(&ArgMatches, Layers) -> ExitCode) -> ExitCode {
    match (roles::self_test(), cli::layers_of(role, arguments, BTreeMap::new())) {
        (Err(e), _) => ended(ExitReason::InternalError(e.to_owned())),
        (_, Err(message)) => usage(&message),
        (Ok(()), Ok(layers)) => run(arguments, layers),
    }
}

fn with_config(layers: Layers, run: impl FnOnce(RoleConfig) -> ExitCode) -> ExitCode {
    match RoleConfig::build(layers) {
        Ok(config) => run(config),
        Err(e) => usage(&e.to_string()),
    }
}

fn check_config(layers: Layers) -> ExitCode {
    with_config(layers, |config| match roles::self_test() {
        Ok(()) => {
            let process = config.process();
            for warning in &process.warnings {
                say_wrong(&format!("warning: {warning}"));
            }
            let _ = writeln!(std::io::stdout(), "The configuration of the {} role is sound.", process.role);
            ExitCode::SUCCESS
        }
        Err(e) => ended(ExitReason::InternalError(e.to_owned())),
    })
}

/// Prints the document of a role. A closed stdout, as of `| head`, is nobody's fault.
fn openapi(arguments: &ArgMatches) -> ExitCode {
    match cli::role(arguments).map(roles::openapi) {
        Ok(Ok(document)) => {
            let _ = writeln!(std::io::stdout(), "{document}");
            ExitCode::SUCCESS
        }
        Ok(Err(e)) => ended(ExitReason::InternalError(format!("the document could not be written: {e}"))),
        Err(message) => usage(&message),
    }
}

/// The exit code of an ending; its reason has been logged, and is told to a person too.
fn ended(ending: ExitReason) -> ExitCode {
    match ending {
        ExitReason::Requested => ExitCode::SUCCESS,
        ExitReason::Refused(why) => {
            say_wrong(&why);
            EX_UNAVAILABLE.into()
        }
        ExitReason::InternalError(why) => {
            say_wrong(&why);
            EX_SOFTWARE.into()
        }
    }
}

/// 0 when the role's `/health/ready` answers 200, else 1.
fn healthcheck(layers: Layers) -> ExitCode {
    match HttpConfig::build(layers) {
        Err(e) => usage(&e.to_string()),
        Ok(http) => match ask_ready(&http) {
            Ok(status) if status.starts_with("HTTP/1.1 200 ") => ExitCode::SUCCESS,
            Ok(status) => {
                say_wrong(&format!("not ready: {}", status.trim_end()));
                ExitCode::FAILURE
            }
            Err(e) => {
                say_wrong(&format!("not ready: {e}"));
                ExitCode::FAILURE
            }
        },
    }
}

/// The status line of `GET /health/ready`.
fn ask_ready(http: &HttpConfig) -> std::io::Result<String> {
    let address = roles::probe_address(http);
    let mut stream = TcpStream::connect_timeout(&address, HEALTHCHECK_TIMEOUT)?;
    stream.set_read_timeout(Some(HEALTHCHECK_TIMEOUT))?;
    stream.set_write_timeout(Some(HEALTHCHECK_TIMEOUT))?;
    write!(stream, "GET /health/ready HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    // The first bytes hold the status line; what follows is not needed.
    stream.take(512).read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
