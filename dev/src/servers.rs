//! The pair of private servers: started together, stopped in order, and one by one where a test needs an outage.
//!
//! RabbitMQ needs ten seconds to start and PostgreSQL one, so the slow one is launched first and waited for last.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::child::{ChildSpec, ManagedChild};
use crate::console::Console;
use crate::error::DevError;
use crate::folder::Afterwards;
use crate::locate::Programs;
use crate::ports::Ports;
use crate::probe::{connect, local};

const STOP_TIMEOUT: Duration = Duration::from_secs(30);
const CLOSED_TIMEOUT: Duration = Duration::from_secs(5);
const CLOSED_POLL: Duration = Duration::from_millis(5);
/// The password of every PostgreSQL account of a private server.
pub(crate) const POSTGRES_PASSWORD: &str = "purse";

/// Where the private servers listen and who may log in. Constants of a developer's machine, no secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the other fields are complete")]
pub struct ServerAddresses {
    /// The host of both servers: the loopback address.
    pub host: &'static str,
    pub postgres_port: u16,
    pub postgres_superuser: &'static str,
    pub postgres_password: &'static str,
    /// The folder of `psql`, `pg_dump` and the rest.
    pub postgres_bin_dir: PathBuf,
    pub postgres_log: PathBuf,
    pub amqp_port: u16,
    /// An administrator of RabbitMQ, for AMQP and for management.
    pub amqp_user: &'static str,
    pub amqp_password: &'static str,
    /// The port of RabbitMQ's management UI and HTTP API.
    pub management_port: u16,
}

impl ServerAddresses {
    /// The URL of a database for the superuser.
    pub fn superuser_url(&self, database: &str) -> String {
        self.database_url(self.postgres_superuser, database)
    }

    /// The AMQP URL of a virtual host; `/` is the default one.
    pub fn amqp_url(&self, vhost: &str) -> String {
        let vhost = vhost.replace('%', "%25").replace('/', "%2f");
        format!("amqp://{}:{}@{}:{}/{vhost}", self.amqp_user, self.amqp_password, self.host, self.amqp_port)
    }

    /// The root of RabbitMQ's management UI; its HTTP API is under `/api`.
    pub fn management_url(&self) -> String {
        format!("http://{}:{}", self.host, self.management_port)
    }

    pub(crate) fn database_url(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}:{POSTGRES_PASSWORD}@{}:{}/{database}", self.host, self.postgres_port)
    }
}

/// Whether PostgreSQL survives a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The server's own defaults: every commit reaches the disk.
    Stock,
    /// Nothing waits for the disk, for tests.
    Off,
}

/// One of the two servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are the names of the servers")]
pub enum Server {
    Postgres,
    /// RabbitMQ; its port mapper keeps running.
    RabbitMq,
}

/// What can be done to one server while the other keeps running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start it on the same port with the same data, and wait until it is ready.
    Start,
    /// Stop it in an orderly way.
    Stop,
    /// Kill it, as a power cut would.
    Kill,
    /// Freeze all of its processes: connections stay open and nothing responds.
    Pause,
    /// Resume it after a pause.
    Resume,
}

/// How to run the pair, and the processes that run. Dropping it kills them.
#[derive(Debug)]
pub(crate) struct Servers {
    pub folder: PathBuf,
    pub programs: Programs,
    pub ports: Ports,
    pub durability: Durability,
    /// Data that is removed afterwards needs no orderly stop.
    pub afterwards: Afterwards,
    pub console: Console,
    pub postgres: Option<ManagedChild>,
    pub rabbitmq: Option<ManagedChild>,
    pub epmd: Option<ManagedChild>,
}

impl Servers {
    /// Finds the programs and starts nothing.
    pub(crate) fn locate(
        folder: &Path,
        ports: Ports,
        durability: Durability,
        afterwards: Afterwards,
        console: &Console,
    ) -> Result<Self, DevError> {
        let (folder, console, programs) = (folder.to_path_buf(), console.clone(), Programs::locate()?);
        let (postgres, rabbitmq, epmd) = (None, None, None);
        Ok(Self { folder, programs, ports, durability, afterwards, console, postgres, rabbitmq, epmd })
    }

    /// Starts both and returns when both are ready.
    pub(crate) fn start(&mut self) -> Result<(), DevError> {
        let (begun, console) = (Instant::now(), self.console.clone());
        // Before anything runs that would have to be stopped when this fails.
        self.prepare_postgres()?;
        console.progress(&format!("RabbitMQ: starting on port {} (about 10 s)", self.ports.amqp));
        self.launch_rabbitmq()?;
        let (port, folder) = (self.ports.postgres, self.folder.display());
        console.progress(&format!("PostgreSQL: starting on port {port}, data in {folder}"));
        self.start_postgres()?;
        console.progress(&format!("PostgreSQL: ready after {:.1} s", begun.elapsed().as_secs_f64()));
        self.wait_for_rabbitmq()?;
        console.progress(&format!("RabbitMQ: ready after {:.1} s", begun.elapsed().as_secs_f64()));
        Ok(())
    }

    /// Those that were started and have not been reported as ended.
    pub(crate) fn started(&self) -> Vec<&'static str> {
        let slots = [("PostgreSQL", &self.postgres), ("RabbitMQ", &self.rabbitmq)];
        slots.into_iter().filter(|(_, slot)| slot.is_some()).map(|(name, _)| name).collect()
    }

    pub(crate) fn addresses(&self) -> ServerAddresses {
        ServerAddresses {
            host: "127.0.0.1",
            postgres_port: self.ports.postgres,
            postgres_superuser: "postgres",
            postgres_password: POSTGRES_PASSWORD,
            postgres_bin_dir: self.programs.postgres_bin.clone(),
            postgres_log: self.folder.join("postgres.log"),
            amqp_port: self.ports.amqp,
            amqp_user: "guest",
            amqp_password: "guest",
            management_port: self.ports.management,
        }
    }

    /// Only a start can fail; the other actions succeed even on a server that does not run.
    pub(crate) fn act(&mut self, server: Server, action: Action) -> Result<(), DevError> {
        let postgres_stop = self.postgres_stop_signal();
        let (child, stop) = match server {
            Server::Postgres => (&mut self.postgres, postgres_stop),
            Server::RabbitMq => (&mut self.rabbitmq, Signal::TERM),
        };
        match action {
            Action::Start if server == Server::Postgres => self.start_postgres()?,
            Action::Start => {
                self.launch_rabbitmq()?;
                self.wait_for_rabbitmq()?;
            }
            Action::Stop => child.take().into_iter().for_each(|mut running| running.stop(stop, STOP_TIMEOUT)),
            Action::Kill => {
                *child = None;
                self.wait_until_closed(server);
            }
            Action::Pause => child.iter().for_each(|running| running.signal_family(Signal::STOP)),
            Action::Resume => child.iter().for_each(|running| running.signal_family(Signal::CONT)),
        }
        Ok(())
    }

    /// A process that was killed has gone before its listeners have: RabbitMQ is a grandchild with many threads.
    fn wait_until_closed(&self, server: Server) {
        let port = if server == Server::Postgres { self.ports.postgres } else { self.ports.amqp };
        let begun = Instant::now();
        while connect(local(port)).is_some() && begun.elapsed() < CLOSED_TIMEOUT {
            thread::sleep(CLOSED_POLL);
        }
    }

    /// For a program whose command line contains the state folder.
    pub(crate) fn child_spec(&self, name: &'static str, stop: Signal) -> ChildSpec<'_> {
        ChildSpec { name, folder: &self.folder, mark: format!("{}/", self.folder.display()), stop }
    }

    /// A server that ended by itself; each is reported once.
    pub(crate) fn unexpected_end(&mut self) -> Option<(&'static str, ExitStatus)> {
        for (server, slot) in [("PostgreSQL", &mut self.postgres), ("RabbitMQ", &mut self.rabbitmq)] {
            if let Some(status) = slot.as_mut().and_then(ManagedChild::ended) {
                *slot = None;
                return Some((server, status));
            }
        }
        None
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn servers(durability: Durability) -> Servers {
        let programs = Programs { postgres_bin: "/p".into(), rabbitmq_server: "/r".into(), epmd: "/e".into() };
        let (ports, afterwards, console) = (Ports::default(), Afterwards::Remove, Console::silent());
        let (folder, postgres, rabbitmq, epmd) = ("/x".into(), None, None, None);
        Servers { folder, programs, ports, durability, afterwards, console, postgres, rabbitmq, epmd }
    }

    #[test]
    fn the_default_virtual_host_is_written_with_its_slash_encoded() {
        let addresses = servers(Durability::Off).addresses();
        assert_eq!(addresses.amqp_url("/"), "amqp://guest:guest@127.0.0.1:55672/%2f");
        assert_eq!(addresses.amqp_url("test-1"), "amqp://guest:guest@127.0.0.1:55672/test-1");
    }
}
