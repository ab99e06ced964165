//! Both roles as children of this very binary, with the settings that point them at the private servers.
//!
//! A setting of the person's own environment reaches the roles too; only the addresses of the private servers replace it.

use std::env;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::addresses::ServerAddresses;
use super::child::{ChildPlace, ManagedChild};
use super::databases::RoleDatabases;
use super::error::DevStackError;
use super::health::http_status;
use super::interrupt::Interrupt;
use super::logs::RoleLogs;
use super::ports;

const READY_BOUND: Duration = Duration::from_secs(90);
const STOP_BOUND: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(100);
/// How long the reader of a log may need for the last lines of a role that ended.
const LAST_LINES: Duration = Duration::from_millis(200);

/// The two roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Users,
    Wallet,
}

impl Role {
    pub(super) const BOTH: [Self; 2] = [Self::Users, Self::Wallet];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Wallet => "wallet",
        }
    }

    fn port_setting(self) -> (&'static str, u16) {
        match self {
            Self::Users => ("USERS_PORT", 3002),
            Self::Wallet => ("WALLET_PORT", 3001),
        }
    }
}

/// The ports that the roles serve HTTP on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HttpPorts {
    pub users: u16,
    pub wallet: u16,
}

impl HttpPorts {
    /// The documented ports, or what `USERS_PORT` and `WALLET_PORT` say.
    pub(super) fn from_environment() -> Result<Self, DevStackError> {
        let read = |role: Role| {
            let (variable, default) = role.port_setting();
            parse_port(variable, default, env::var(variable).ok().as_deref())
        };
        let ports = Self { users: read(Role::Users)?, wallet: read(Role::Wallet)? };
        if ports.users == ports.wallet {
            let value = ports.wallet.to_string();
            return Err(DevStackError::Setting {
                variable: "WALLET_PORT",
                value,
                problem: "the users role has that port",
            });
        }
        Ok(ports)
    }

    pub(super) fn of(self, role: Role) -> u16 {
        match role {
            Role::Users => self.users,
            Role::Wallet => self.wallet,
        }
    }

    /// Refuses a port that another program has.
    pub(super) fn check_free(self) -> Result<(), DevStackError> {
        match Role::BOTH.into_iter().find(|role| !ports::is_free(self.of(*role))) {
            None => Ok(()),
            Some(role) => {
                let variable = role.port_setting().0;
                Err(DevStackError::PortTaken { port: self.of(role), role: role.name(), variable })
            }
        }
    }
}

fn parse_port(variable: &'static str, default: u16, value: Option<&str>) -> Result<u16, DevStackError> {
    let Some(value) = value.map(str::trim).filter(|value| !value.is_empty()) else { return Ok(default) };
    let refused =
        || DevStackError::Setting { variable, value: value.into(), problem: "a port is a number from 1 to 65535" };
    value.parse().ok().filter(|port| *port != 0).ok_or_else(refused)
}

/// Both running roles.
#[derive(Debug)]
pub(super) struct Roles {
    running: Vec<(Role, ManagedChild)>,
    logs: Arc<RoleLogs>,
}

impl Roles {
    /// Starts both; neither is ready yet.
    pub(super) fn start(
        folder: &Path,
        http: HttpPorts,
        addresses: &ServerAddresses,
        databases: &RoleDatabases,
    ) -> Result<Self, DevStackError> {
        let program =
            env::current_exe().map_err(|source| DevStackError::Spawn { program: "this binary".into(), source })?;
        let terminal = std::io::stdout().is_terminal();
        let logs = RoleLogs::new(terminal && env::var_os("NO_COLOR").is_none());
        let mut roles = Self { running: Vec::new(), logs };
        for role in Role::BOTH {
            let mut command = Command::new(&program);
            command.args(["--role", role.name()]);
            if let Some(config) = config_folder() {
                command.arg("--config-dir").arg(config);
            }
            if terminal {
                command.args(["--log-format", "pretty"]);
            }
            apply_settings(&mut command, http, addresses, databases);
            let mark = format!("{} --role {}", program.display(), role.name());
            let place = ChildPlace { name: role.name(), folder, mark, log: PathBuf::new() };
            let (child, output, errors) = ManagedChild::spawn_piped(&mut command, place)?;
            roles.logs.follow(role, output);
            roles.logs.follow(role, errors);
            roles.running.push((role, child));
        }
        Ok(roles)
    }

    /// Waits until both answer 200 on `/health/ready`.
    pub(super) fn wait_ready(&mut self, http: HttpPorts, interrupt: &Interrupt) -> Result<(), DevStackError> {
        let begun = Instant::now();
        for role in Role::BOTH {
            while http_status(http.of(role), "/health/ready") != Some(200) {
                self.check_running()?;
                if interrupt.is_raised() {
                    return Err(DevStackError::Interrupted);
                }
                if begun.elapsed() >= READY_BOUND {
                    let (role, log) = (role.name(), self.logs.tail(role));
                    return Err(DevStackError::RoleNotReady { role, seconds: READY_BOUND.as_secs(), log });
                }
                thread::sleep(POLL);
            }
        }
        // An answer may have come from a stranger on the port while ours failed to take it.
        self.check_running()
    }

    /// An error as soon as one of them has ended.
    pub(super) fn check_running(&mut self) -> Result<(), DevStackError> {
        for (role, child) in &mut self.running {
            if let Some(status) = child.ended() {
                thread::sleep(LAST_LINES);
                let log = self.logs.tail(*role);
                return Err(DevStackError::RoleEnded { role: role.name(), status: status.to_string(), log });
            }
        }
        Ok(())
    }

    /// Shows the logs from now on, beginning with what came so far.
    pub(super) fn show_logs(&self) {
        self.logs.release();
    }

    /// Ends both at the same time.
    pub(super) fn stop(&mut self, interrupt: &Interrupt) {
        for (_, child) in &mut self.running {
            child.ask(Signal::TERM);
        }
        for (_, child) in &mut self.running {
            child.finish(STOP_BOUND, interrupt);
        }
    }
}

/// The configuration folder of the checkout we stand in, or the one that was named.
fn config_folder() -> Option<PathBuf> {
    let named = env::var_os("PURSE_CONFIG_DIR").map(PathBuf::from);
    named.or_else(|| Some(PathBuf::from("config"))).filter(|path| path.is_dir())
}

fn apply_settings(command: &mut Command, http: HttpPorts, addresses: &ServerAddresses, databases: &RoleDatabases) {
    command
        .env("USERS_PORT", http.users.to_string())
        .env("WALLET_PORT", http.wallet.to_string())
        .env("USERS_DATABASE_URL", &databases.users.runtime_url)
        .env("USERS_MIGRATION_DATABASE_URL", &databases.users.migration_url)
        .env("WALLET_DATABASE_URL", &databases.wallet.runtime_url)
        .env("WALLET_MIGRATION_DATABASE_URL", &databases.wallet.migration_url)
        .env("RABBITMQ_URL", addresses.amqp_url("/"));
    for (name, value) in [("JWT_PRIVATE_KEY", "ILIACHALLENGE"), ("INTERNAL_JWT_PRIVATE_KEY", "ILIACHALLENGE_INTERNAL")]
    {
        if env::var_os(name).is_none_or(|set| set.is_empty()) {
            command.env(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_no_port_is_refused_with_the_name_of_its_variable() {
        assert_eq!(parse_port("USERS_PORT", 3002, None).unwrap(), 3002);
        assert_eq!(parse_port("USERS_PORT", 3002, Some("")).unwrap(), 3002);
        assert_eq!(parse_port("USERS_PORT", 3002, Some(" 4000 ")).unwrap(), 4000);
        for bad in ["0", "65536", "-1", "http"] {
            let error = parse_port("USERS_PORT", 3002, Some(bad)).unwrap_err();
            assert!(error.to_string().starts_with(&format!("USERS_PORT={bad} ")), "{error}");
        }
    }

    #[test]
    fn a_taken_port_is_answered_with_what_to_do() {
        let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = holder.local_addr().unwrap().port();
        let other = ports::choose(None, &mut Vec::new()).unwrap();
        let text = HttpPorts { users: other, wallet: port }.check_free().unwrap_err().to_string();
        assert!(text.contains(&port.to_string()) && text.contains("WALLET_PORT="), "{text}");
    }
}
