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
use crate::roles::{Roles, connection_settings, find_purse};
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
    folder.start_watchdog(Afterwards::Keep)?;
    let mut stack = Stack { purse, ports, servers, roles: None };
    let outcome = stack.run(folder.path(), &console);
    if let Err(DevError::Unavailable(text) | DevError::Failed(text)) = &outcome {
        // All of it is the last line of the output, where it is found: the stop takes seconds.
        console.progress(text.split(';').next().unwrap_or_default());
    }
    console.progress("stopping both roles, PostgreSQL and RabbitMQ (some seconds; Ctrl-C again kills them at once)");
    let _absent = fs::remove_file(&environment);
    folder.stop_all(&console, || stack.roles.iter_mut().for_each(Roles::show_new_lines));
    drop(stack);
    console.progress("everything has stopped; the data is kept");
    outcome
}

struct Stack {
    purse: PathBuf,
    ports: Ports,
    servers: Servers,
    roles: Option<Roles>,
}

impl Stack {
    fn run(&mut self, folder: &Path, console: &Console) -> Result<(), DevError> {
        self.servers.start()?;
        let addresses = self.servers.addresses();
        let databases = addresses.create_role_databases(DATABASE_PREFIX)?;
        let keys = Keys::load_or_generate(folder)?;
        let settings = connection_settings(&self.ports, &addresses, &databases, &keys);
        console.progress("users and wallet: applying migrations and starting (about 2 s)");
        let roles = self.roles.insert(Roles::start(&self.purse, folder, &self.ports, &settings, console)?);
        roles.wait_ready(console)?;
        console.progress("users and wallet: ready");
        let environment = banner::environment(&settings, &self.purse, &addresses.postgres_bin_dir)?;
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
