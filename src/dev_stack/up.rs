//! `purse dev up`: servers, databases, both roles, the table, the logs, and the orderly end of all of it.
//!
//! Whatever happens between the first and the last step, everything that was started ends here. A run that was itself
//! killed is cleaned up by the next one, from the record in the folder.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::error::DevStackError;
use super::folder::{StateFolder, recorded_processes};
use super::interrupt::Interrupt;
use super::logs::show;
use super::processes::{Record, all, end_left_over, left_over};
use super::roles::{HttpPorts, Roles};
use super::servers::{Durability, Lifetime, PreferredPorts, Servers, StartOptions};
use super::walkthrough;

const DATABASE_PREFIX: &str = "purse";
const LEFT_OVER_BOUND: Duration = Duration::from_secs(20);
const WATCH_EVERY: Duration = Duration::from_millis(100);
/// Beside the well-known ports, so that servers of the machine's own can run too.
const FIRST_CHOICE: PreferredPorts = PreferredPorts { postgres: 55432, amqp: 55672, management: 55673 };

/// Runs until somebody asks to stop or a role ends by itself.
pub(super) fn run() -> Result<(), DevStackError> {
    let interrupt =
        Interrupt::listen().map_err(|source| DevStackError::Spawn { program: "the signal listener".into(), source })?;
    let http = HttpPorts::from_environment()?;
    let folder = StateFolder::open(&StateFolder::default_path())?;
    let say = Progress(Instant::now());
    clear_left_over(&folder, &interrupt, |line| say.line(line));
    http.check_free()?;
    let mut stack = Stack { servers: None, roles: None };
    let outcome = stack.run(&folder, http, &interrupt, &say);
    match &outcome {
        Err(DevStackError::Interrupted) if stack.servers.is_none() => {
            say.line("stopped on request; nothing is left running");
        }
        Ok(()) | Err(DevStackError::Interrupted) => {}
        // The whole of it stands last, where it is found; an orderly end takes seconds until then.
        Err(error) => say.line(error.to_string().split(';').next().unwrap_or_default()),
    }
    stack.stop(&interrupt, &say);
    folder.forget_processes();
    outcome
}

/// Ends what an `up` that was killed has left behind.
pub(super) fn clear_left_over(folder: &StateFolder, interrupt: &Interrupt, mut say: impl FnMut(&str)) {
    let found = left_over(&recorded_processes(folder.path()), &all());
    if !found.is_empty() {
        let names: Vec<String> = found.iter().map(|Record { name, pid, .. }| format!("{name} ({pid})")).collect();
        say(&format!("an earlier run was killed; ending what it left behind: {}", names.join(", ")));
        end_left_over(&found, LEFT_OVER_BOUND, interrupt);
    }
    folder.forget_processes();
}

/// Lines with the time since the start.
struct Progress(Instant);

impl Progress {
    fn line(&self, text: &str) {
        show(&format!("[{:5.1} s] {text}", self.0.elapsed().as_secs_f64()));
    }
}

struct Stack {
    servers: Option<Servers>,
    roles: Option<Roles>,
}

impl Stack {
    fn run(
        &mut self,
        folder: &StateFolder,
        http: HttpPorts,
        interrupt: &Interrupt,
        say: &Progress,
    ) -> Result<(), DevStackError> {
        let wanted = remembered_ports(folder);
        let options = StartOptions {
            folder: folder.path().to_path_buf(),
            durability: Durability::Stock,
            lifetime: Lifetime::Kept,
            preferred_ports: Some(wanted),
            interrupt: interrupt.clone(),
        };
        let servers = self.servers.insert(Servers::start(options, |line| say.line(line))?);
        let addresses = servers.addresses().clone();
        let given = PreferredPorts {
            postgres: addresses.postgres_port,
            amqp: addresses.amqp_port,
            management: addresses.management_port,
        };
        tell_moved(wanted, given, say);
        remember(folder, given, http)?;
        let databases = addresses.create_role_databases(DATABASE_PREFIX)?;
        say.line(&format!("databases {} and {} are there", databases.users.database, databases.wallet.database));
        say.line("users and wallet: starting, with their migrations");
        let roles = self.roles.insert(Roles::start(folder.path(), http, &addresses, &databases)?);
        roles.wait_ready(http, interrupt)?;
        say.line("users and wallet: ready");
        show(&walkthrough::table(http, &addresses, &databases));
        show(&walkthrough::session(http));
        roles.show_logs();
        while !interrupt.is_raised() {
            roles.check_running()?;
            if let Some((server, status)) = servers.unasked_end() {
                // The roles are built to live through this, and somebody may just be watching how they do.
                say.line(&format!(
                    "{server} ended by itself ({status}); the roles run on without it until the next `up`"
                ));
            }
            thread::sleep(WATCH_EVERY);
        }
        Err(DevStackError::Interrupted)
    }

    fn stop(&mut self, interrupt: &Interrupt, say: &Progress) {
        if let Some(roles) = &mut self.roles {
            say.line("stopping users and wallet (Ctrl-C once more kills everything at once)");
            roles.stop(interrupt);
        }
        if let Some(servers) = &mut self.servers {
            say.line("stopping RabbitMQ and PostgreSQL");
            servers.stop();
            say.line("everything has ended; the data is kept");
        }
    }
}

fn tell_moved(wanted: PreferredPorts, given: PreferredPorts, say: &Progress) {
    let moved = [
        ("PostgreSQL", wanted.postgres, given.postgres),
        ("RabbitMQ", wanted.amqp, given.amqp),
        ("RabbitMQ management", wanted.management, given.management),
    ];
    for (server, before, now) in moved.into_iter().filter(|(_, before, now)| before != now) {
        say.line(&format!("{server}: port {before} is taken by another program, so it has {now} from now on"));
    }
}

/// The ports of the last run, so that addresses once noted stay right.
fn remembered_ports(folder: &StateFolder) -> PreferredPorts {
    let text = fs::read_to_string(folder.path().join("ports.json")).unwrap_or_default();
    let value: Value = serde_json::from_str(&text).unwrap_or_default();
    let port = |name: &str, otherwise: u16| {
        value.get(name).and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok()).unwrap_or(otherwise)
    };
    PreferredPorts {
        postgres: port("postgres", FIRST_CHOICE.postgres),
        amqp: port("amqp", FIRST_CHOICE.amqp),
        management: port("management", FIRST_CHOICE.management),
    }
}

fn remember(folder: &StateFolder, ports: PreferredPorts, http: HttpPorts) -> Result<(), DevStackError> {
    let path = folder.path().join("ports.json");
    let value = json!({
        "postgres": ports.postgres,
        "amqp": ports.amqp,
        "management": ports.management,
        "users": http.users,
        "wallet": http.wallet,
    });
    fs::write(&path, format!("{value}\n")).map_err(|e| DevStackError::file(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_remembered_and_a_damaged_memory_is_forgotten() {
        let path = std::env::temp_dir().join(format!("purse-up-{}", std::process::id()));
        let folder = StateFolder::open(&path).unwrap();
        assert_eq!(remembered_ports(&folder), FIRST_CHOICE);
        let ports = PreferredPorts { postgres: 21000, amqp: 21001, management: 21002 };
        remember(&folder, ports, HttpPorts { users: 3002, wallet: 3001 }).unwrap();
        assert_eq!(remembered_ports(&folder), ports);
        fs::write(path.join("ports.json"), "{\"postgres\": 99999").unwrap();
        assert_eq!(remembered_ports(&folder), FIRST_CHOICE);
        folder.remove().unwrap();
    }
}
