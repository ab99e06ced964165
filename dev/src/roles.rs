//! Both roles as child processes, with the settings that point them at the private servers.
//!
//! A setting of the person's own environment reaches the roles too, except the addresses of the private servers and what
//! is meant for another program or cannot work for two roles on one machine.

use std::env;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Seek};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::child::{ChildSpec, ManagedChild, tail};
use crate::console::{Console, show};
use crate::databases::RoleDatabases;
use crate::error::{At, DevError};
use crate::hints::variable;
use crate::keys::Keys;
use crate::ports::Ports;
use crate::probe::http_status;
use crate::role::Role;
use crate::servers::ServerAddresses;

const READY_TIMEOUT: Duration = Duration::from_secs(90);
/// A log file that has been shown up to here is emptied, because `up` may run for days.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// Where the environment does not set them: a walk-through meets no rate limit.
const DEFAULTS: [(&str, &str); 2] = [("RL_REGISTER_MAX", "200"), ("RL_LOGIN_MAX", "200")];

/// How an operator's command reaches the same databases, broker and keys.
pub(crate) fn connection_settings(
    ports: &Ports,
    addresses: &ServerAddresses,
    databases: &RoleDatabases,
    keys: &Keys,
) -> Vec<(&'static str, String)> {
    vec![
        ("USERS_DATABASE_URL", databases.users.runtime_url.clone()),
        ("USERS_MIGRATION_DATABASE_URL", databases.users.migration_url.clone()),
        ("WALLET_DATABASE_URL", databases.wallet.runtime_url.clone()),
        ("WALLET_MIGRATION_DATABASE_URL", databases.wallet.migration_url.clone()),
        ("RABBITMQ_URL", addresses.amqp_url("/")),
        ("JWT_PRIVATE_KEY", set_or("JWT_PRIVATE_KEY", &keys.access)),
        ("INTERNAL_JWT_PRIVATE_KEY", set_or("INTERNAL_JWT_PRIVATE_KEY", &keys.events)),
        ("LEDGER_SIGNING_KEY", set_or("LEDGER_SIGNING_KEY", &keys.receipts)),
        ("USERS_PORT", ports.users.to_string()),
        ("WALLET_PORT", ports.wallet.to_string()),
    ]
}

/// The value in the environment, else ours.
fn set_or(name: &str, ours: &str) -> String {
    variable(name).and_then(|value| value.into_string().ok()).unwrap_or_else(|| ours.to_owned())
}

/// The binary of the roles: the one that was named, else `purse` beside this binary.
pub(crate) fn find_purse(named: Option<PathBuf>) -> Result<PathBuf, DevError> {
    let beside = || Some(env::current_exe().ok()?.with_file_name("purse"));
    let purse = named.or_else(beside).unwrap_or_default();
    if purse.is_file() {
        return std::path::absolute(&purse).at(&purse);
    }
    Err(DevError::Setting(format!(
        "there is no purse binary at {}; build it with `cargo build --release`, or name it with --purse",
        purse.display()
    )))
}

/// `purse` with the settings of the stack, and the arguments that come before `--role`.
fn role_command(
    purse: &Path,
    arguments: &[&str],
    role: Role,
    ports: &Ports,
    settings: &[(&'static str, String)],
) -> Command {
    let mut command = Command::new(purse);
    command.args(arguments).args(["--role", role.name()]);
    if variable("PURSE_CONFIG_DIR").is_none() {
        command.env_remove("PURSE_CONFIG_DIR");
        if Path::new("config").is_dir() {
            command.args(["--config-dir", "config"]);
        }
    }
    command.envs(settings.iter().map(|(name, value)| (*name, value)));
    command.envs(DEFAULTS.map(|(name, ours)| (name, set_or(name, ours))));
    command.env("HOST", ports.host.to_string()).env("APP_ENV", "development");
    // A secret may not be set twice.
    for (name, _) in settings {
        command.env_remove(format!("{name}_FILE"));
    }
    // One port for both roles.
    command.env_remove("METRICS_PORT");
    command
}

/// An error with everything that both roles refuse about their settings, before anything is started.
pub(crate) fn check_settings(purse: &Path, ports: &Ports, settings: &[(&'static str, String)]) -> Result<(), DevError> {
    let mut problems: Vec<String> = Vec::new();
    let mut outcome = Ok(());
    for role in Role::BOTH {
        let mut command = role_command(purse, &["check-config"], role, ports, settings);
        // Ctrl-C does not reach it.
        let output = command.stdin(Stdio::null()).process_group(0).output().at(purse)?;
        if !output.status.success() {
            for line in String::from_utf8_lossy(&output.stderr).lines() {
                if !problems.iter().any(|known| known == line) {
                    problems.push(line.to_owned());
                }
            }
            outcome = Err(output.status);
        }
    }
    outcome.map_err(|status| match status.code() {
        Some(64) => DevError::Setting(format!("the roles reject their settings:\n{}", problems.join("\n"))),
        _ => DevError::Failed(format!("`purse check-config` ended ({status}):\n{}", problems.join("\n"))),
    })
}

#[derive(Debug)]
struct RunningRole {
    role: Role,
    address: SocketAddr,
    child: ManagedChild,
    log_path: PathBuf,
    log: BufReader<File>,
    /// A line whose end is not written yet.
    line: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Roles(Vec<RunningRole>);

impl Roles {
    /// Starts both; neither is ready yet.
    pub(crate) fn start(
        purse: &Path,
        folder: &Path,
        ports: &Ports,
        settings: &[(&'static str, String)],
    ) -> Result<Self, DevError> {
        let mut roles = Vec::new();
        for role in Role::BOTH {
            let mut command = role_command(purse, &[], role, ports, settings);
            if std::io::stdout().is_terminal() {
                // The role writes to a file, which `up` copies to the terminal.
                command.args(["--log-format", "pretty"]).env("CLICOLOR_FORCE", "1");
            }
            let mark = format!("{} --role {}", purse.display(), role.name());
            let spec = ChildSpec { name: role.name(), folder, mark, stop: Signal::TERM };
            let child = ManagedChild::spawn(&mut command, &spec)?;
            let log_path = folder.join(format!("{}.log", role.name()));
            let log = BufReader::new(File::options().read(true).write(true).open(&log_path).at(&log_path)?);
            roles.push(RunningRole { role, address: ports.address(role), child, log_path, log, line: Vec::new() });
        }
        Ok(Self(roles))
    }

    /// Waits until both return 200 on `/health/ready`.
    pub(crate) fn wait_ready(&mut self, console: &Console) -> Result<(), DevError> {
        for RunningRole { address, child, .. } in &mut self.0 {
            let is_ready = || http_status(*address, "/health/ready") == Some(200);
            child.wait(READY_TIMEOUT, console, |_| is_ready().then_some(())).map_err(|error| match error {
                DevError::Unavailable(text) => DevError::Failed(text),
                interrupted => interrupted,
            })?;
        }
        // The response may be another program's, while ours could not take the port.
        self.check_running()
    }

    /// An error as soon as one of them has ended.
    pub(crate) fn check_running(&mut self) -> Result<(), DevError> {
        for RunningRole { role, child, log_path, .. } in &mut self.0 {
            if let Some(status) = child.ended() {
                let (name, log) = (role.name(), tail(log_path));
                return Err(DevError::Failed(format!("the {name} role ended ({status}); its last lines were:\n{log}")));
            }
        }
        Ok(())
    }

    /// Shows the lines that the roles have logged since the last call. Each names its role.
    pub(crate) fn show_new_lines(&mut self) {
        for running in &mut self.0 {
            while matches!(running.log.read_until(b'\n', &mut running.line), Ok(1..)) && running.line.ends_with(b"\n") {
                show(String::from_utf8_lossy(&running.line).trim_end());
                running.line.clear();
            }
            if running.log.stream_position().is_ok_and(|shown| shown > LOG_BYTES_MAX) {
                // The role appends, so it continues at the new end.
                let _kept = running.log.get_ref().set_len(0).and_then(|()| running.log.rewind());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stubs `purse` with a script that refuses what the real one would not be given.
    #[test]
    fn the_roles_are_asked_about_their_settings_and_a_shared_problem_is_reported_once() {
        let purse = crate::folder::tests::fresh_path();
        let script = "#!/bin/sh\necho \"$1 $2 $3 $HOST $APP_ENV\" >&2\necho 'purse: KEY: is short' >&2\nexit 64\n";
        std::fs::write(&purse, script).unwrap();
        std::fs::set_permissions(&purse, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let refused = check_settings(&purse, &Ports::default(), &[]);
        std::fs::remove_file(&purse).unwrap();
        let Err(DevError::Setting(text)) = refused else { panic!("{refused:?}") };
        let lines = ["users", "wallet"].map(|role| format!("check-config --role {role} 127.0.0.1 development"));
        assert_eq!(text.lines().skip(1).collect::<Vec<_>>(), [&lines[0], "purse: KEY: is short", &lines[1]]);
    }
}
