//! `purse-dev up`: servers, databases, both roles, the banner, the logs, and the orderly stop of all of it.
//!
//! Everything that was started is stopped by the watchdog of the state folder, however this process ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::banner;
use crate::console::{Console, show};
use crate::control::ENVIRONMENT_FILE;
use crate::error::DevError;
use crate::folder::{Afterwards, StateFolder, write_private};
use crate::keys::Keys;
use crate::ports::Ports;
use crate::roles::{Roles, check_settings, connection_settings, find_purse};
use crate::servers::{Durability, Servers};

const DATABASE_PREFIX: &str = "purse";
const WATCH_EVERY: Duration = Duration::from_millis(100);

/// Runs until a signal asks to stop or a role ends.
pub(crate) fn run(purse: Option<PathBuf>) -> Result<(), DevError> {
    let console = Console::listen()?;
    let purse = find_purse(purse)?;
    let mut folder = StateFolder::open(&StateFolder::default_path(), &console)?;
    let environment = folder.path().join(ENVIRONMENT_FILE);
    // Of a run that was killed.
    let _absent = fs::remove_file(&environment);
    let ports = Ports::preferred(folder.path())?;
    ports.check_roles()?;
    let ports = ports.with_free_servers(&console)?;
    ports.remember(folder.path())?;
    let servers = Servers::locate(folder.path(), ports, Durability::Stock, Afterwards::Keep, &console)?;
    let keys = Keys::load_or_generate(folder.path())?;
    let (addresses, databases) = (servers.addresses(), servers.addresses().role_databases(DATABASE_PREFIX));
    let settings = connection_settings(&ports, &addresses, &databases, &keys);
    check_settings(&purse, &ports, &settings)?;
    folder.start_watchdog(Afterwards::Keep)?;
    let mut stack = Stack { purse, ports, settings, servers, roles: None };
    let outcome = stack.run(folder.path(), &console);
    if let Err(DevError::Unavailable(text) | DevError::Failed(text)) = &outcome {
        // All of it is the last line of the output, where it is found: the stop takes seconds.
        console.progress(text.split(';').next().unwrap_or_default());
    }
    let running = stack.running();
    if !running.is_empty() {
        console.progress(&format!("stopping {running} (a few seconds; Ctrl-C again kills everything immediately)"));
    }
    let _absent = fs::remove_file(&environment);
    folder.stop_all(&console, || stack.roles.iter_mut().for_each(Roles::show_new_lines));
    drop(stack);
    if !running.is_empty() {
        console.progress("everything has stopped; the data is kept");
    }
    outcome
}

struct Stack {
    purse: PathBuf,
    ports: Ports,
    settings: Vec<(&'static str, String)>,
    servers: Servers,
    roles: Option<Roles>,
}

impl Stack {
    /// The names of what was started, for a sentence.
    fn running(&self) -> String {
        let roles = self.roles.as_ref().map(|_| "both roles");
        let names: Vec<&str> = roles.into_iter().chain(self.servers.started()).collect();
        match names.as_slice() {
            [first @ .., second, last] => [first, &[&format!("{second} and {last}")]].concat().join(", "),
            few => few.concat(),
        }
    }

    fn run(&mut self, folder: &Path, console: &Console) -> Result<(), DevError> {
        self.servers.start()?;
        let addresses = self.servers.addresses();
        let databases = addresses.create_role_databases(DATABASE_PREFIX)?;
        console.progress("users and wallet: applying migrations and starting (about 2 s)");
        let roles = self.roles.insert(Roles::start(&self.purse, folder, &self.ports, &self.settings)?);
        roles.wait_ready(console)?;
        console.progress("users and wallet: ready");
        let environment = banner::environment(&self.settings, &self.purse, &addresses.postgres_bin_dir)?;
        write_private(&folder.join(ENVIRONMENT_FILE), &environment)?;
        show(&banner::table(&self.ports, &addresses, &databases));
        show(&banner::session(&self.ports));
        loop {
            roles.show_new_lines();
            console.check()?;
            roles.check_running()?;
            if let Some((server, status)) = self.servers.unexpected_end() {
                // The roles survive this, which the user may be testing.
                console.progress(&format!(
                    "{server} ended ({status}); the roles keep running without it until the next `up`"
                ));
            }
            thread::sleep(WATCH_EVERY);
        }
    }
}
