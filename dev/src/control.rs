//! `purse-dev down`, `status`, `reset` and `env`: what another terminal can do about a running `up`.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::console::{Console, show};
use crate::error::DevError;
use crate::folder::{Holder, StateFolder, already_running, holder};
use crate::hints::another_command;
use crate::ports::Ports;
use crate::probe::{connect, http_status, is_broker, local};
use crate::role::Role;

/// In the state folder while `up` is ready: the shell commands that `env` prints.
pub(crate) const ENVIRONMENT_FILE: &str = "environment.sh";
/// Longer than everything that `up` may take to stop.
const DOWN_TIMEOUT: Duration = Duration::from_mins(3);
const POLL: Duration = Duration::from_millis(100);

/// Stops a running `up`, or what a killed one left running.
pub(crate) fn down() -> Result<(), DevError> {
    let path = StateFolder::default_path();
    let Some(running) = holder(&path)? else {
        if path.exists() {
            StateFolder::open(&path, &Console::listen()?)?;
        }
        show("nothing is running");
        return Ok(());
    };
    let pid = &running.pid;
    if running.is_alive() {
        show(&format!("stopping process {pid}; this takes a few seconds"));
        if let Some(pid) = pid.parse().ok().and_then(Pid::from_raw) {
            let _ended = kill_process(pid, Signal::TERM);
        }
    } else {
        show("`up` was killed; waiting for the processes that it started to stop");
    }
    let begun = Instant::now();
    while holder(&path)?.is_some() {
        if begun.elapsed() >= DOWN_TIMEOUT {
            return Err(DevError::Unavailable(format!("process {pid} does not stop; kill it and try again")));
        }
        thread::sleep(POLL);
    }
    show(&format!("stopped after {:.1} s; the data is kept", begun.elapsed().as_secs_f64()));
    Ok(())
}

/// Shows what runs. Returns whether `up` and everything it started is ready.
pub(crate) fn status() -> Result<bool, DevError> {
    let path = StateFolder::default_path();
    let Some(running) = holder(&path)? else {
        show(&if path.join("processes").exists() {
            format!("`up` was killed and left servers running; stop them with: {}", another_command("down"))
        } else {
            nothing_runs()
        });
        return Ok(false);
    };
    if !running.is_alive() {
        show("`up` was killed; the processes that it started are being stopped");
        return Ok(false);
    }
    show(&format!("`up` is running as process {}, state in {}", running.pid, path.display()));
    let ports = Ports::remembered(&path);
    let [users, wallet] = Role::BOTH.map(|role| ports.address(role));
    let [postgres, broker] = [ports.postgres, ports.amqp].map(local);
    let is_ready = |role| http_status(role, "/health/ready") == Some(200);
    let rows = [
        ("users", users, is_ready(users)),
        ("wallet", wallet, is_ready(wallet)),
        ("PostgreSQL", postgres, connect(postgres).is_some()),
        ("RabbitMQ", broker, is_broker(ports.amqp)),
    ];
    for (name, address, ready) in rows {
        show(&format!("  {name:<10}  {address:<15}  {}", if ready { "ready" } else { "not ready" }));
    }
    Ok(rows.iter().all(|(_, _, ready)| *ready))
}

fn nothing_runs() -> String {
    format!("nothing is running; start everything with: {}", another_command("up"))
}

/// An error when `up` is running already, for `./justw up` to find that out before it builds.
pub(crate) fn check_idle() -> Result<(), DevError> {
    match holder(&StateFolder::default_path())?.filter(Holder::is_alive) {
        Some(running) => Err(already_running(&running.pid)),
        None => Ok(()),
    }
}

/// Removes the data, and the state folder unless it has other files.
pub(crate) fn reset() -> Result<(), DevError> {
    let path = StateFolder::default_path();
    if !path.exists() {
        show("there is nothing to remove");
        return Ok(());
    }
    let is_gone = StateFolder::open(&path, &Console::listen()?)?.remove()?;
    let kept = if is_gone { "" } else { ", except files that purse-dev did not create" };
    show(&format!("{} is removed{kept}", path.display()));
    Ok(())
}

/// Prints the `export` commands for a shell.
pub(crate) fn env() -> Result<(), DevError> {
    let path = StateFolder::default_path();
    let environment = fs::read_to_string(path.join(ENVIRONMENT_FILE)).ok();
    match (holder(&path)?.filter(Holder::is_alive), environment) {
        (None, _) => Err(DevError::Unavailable(nothing_runs())),
        (_, None) => Err(DevError::Unavailable("`up` is not ready; wait until it shows the addresses".into())),
        (_, Some(environment)) => {
            show(environment.trim_end());
            Ok(())
        }
    }
}
