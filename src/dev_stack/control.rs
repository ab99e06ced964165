//! `purse dev down`, `status` and `reset`: what another terminal can do about an `up`.
//!
//! The lock says whether one runs and which process it is; these commands never touch a server that an `up` looks after.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::error::DevStackError;
use super::folder::{StateFolder, holder, recorded_processes};
use super::health::http_status;
use super::interrupt::Interrupt;
use super::logs::show;
use super::processes::{all, left_over, signal_all};
use super::up::clear_left_over;

/// Longer than everything that an `up` may take to end.
const DOWN_BOUND: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(100);

/// Ends a running `up`, or what a killed one left behind.
pub(super) fn down() -> Result<(), DevStackError> {
    let path = StateFolder::default_path();
    let Some(running) = holder(&path)? else {
        if path.exists() {
            clear_left_over(&StateFolder::open(&path)?, &Interrupt::default(), show);
        }
        show("nothing runs");
        return Ok(());
    };
    show(&format!("asking process {running} to end; this takes a few seconds"));
    if let Ok(pid) = running.parse() {
        signal_all(&[pid], Signal::TERM);
    }
    let begun = Instant::now();
    while holder(&path)?.is_some() {
        if begun.elapsed() >= DOWN_BOUND {
            return Err(DevStackError::Busy { holder: running });
        }
        thread::sleep(POLL);
    }
    show(&format!("ended after {:.1} s; the data is kept", begun.elapsed().as_secs_f64()));
    Ok(())
}

/// Shows what runs; the answer is whether an `up` does and both roles are ready.
pub(super) fn status() -> Result<bool, DevStackError> {
    let path = StateFolder::default_path();
    let holder = holder(&path)?;
    let ports: Value =
        serde_json::from_str(&fs::read_to_string(path.join("ports.json")).unwrap_or_default()).unwrap_or_default();
    let port = |name: &str| ports.get(name).and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
    let alive = left_over(&recorded_processes(&path), &all());
    match &holder {
        Some(pid) => show(&format!("`purse dev up` runs as process {pid}, state in {}", path.display())),
        None if alive.is_empty() => show("nothing runs; `just up` starts everything"),
        None => show("`purse dev up` was killed and left servers behind; `just down` ends them"),
    }
    let mut ready = holder.is_some();
    for (name, port_name) in [("users", "users"), ("wallet", "wallet"), ("postgres", "postgres"), ("rabbitmq", "amqp")]
    {
        let process = alive.iter().find(|record| record.name == name);
        let is_role = name == port_name && name != "postgres";
        let health = port(port_name)
            .filter(|_| is_role && process.is_some())
            .and_then(|port| http_status(port, "/health/ready"));
        ready &= process.is_some() && (!is_role || health == Some(200));
        if holder.is_none() && process.is_none() {
            continue;
        }
        let state = match (process, is_role, health) {
            (None, ..) => "does not run".to_owned(),
            (Some(record), false, _) => format!("process {}", record.pid),
            (Some(record), true, Some(200)) => format!("process {}, ready", record.pid),
            (Some(record), true, other) => {
                format!(
                    "process {}, not ready ({})",
                    record.pid,
                    other.map_or("no answer".to_owned(), |code| code.to_string())
                )
            }
        };
        let place = port(port_name).map(|port| format!("127.0.0.1:{port}")).unwrap_or_default();
        show(&format!("  {name:<10}  {place:<16}  {state}"));
    }
    Ok(ready)
}

/// Removes the folder of `up` with all data.
pub(super) fn reset() -> Result<(), DevStackError> {
    let path = StateFolder::default_path();
    if !path.exists() {
        show("there is nothing to remove");
        return Ok(());
    }
    let folder = StateFolder::open(&path)?;
    clear_left_over(&folder, &Interrupt::default(), show);
    folder.remove()?;
    show(&format!("{} is removed", path.display()));
    Ok(())
}
