//! The pair of private servers: started together, stopped in order, and one by one where a test wants to see an outage.
//!
//! RabbitMQ needs ten seconds to start and PostgreSQL one, so the slow one is launched first and waited for last.
//! Who keeps the folder and its lock is the caller's decision.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Instant;

use rustix::process::Signal;

use super::addresses::ServerAddresses;
use super::error::DevStackError;
use super::interrupt::Interrupt;
use super::locate::Programs;
use super::ports;
use super::postgres::{Postgres, log_in};
use super::rabbitmq::{ErlangPorts, RabbitMq};

/// Whether PostgreSQL survives a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The server's own defaults: every commit reaches the disk.
    Stock,
    /// Nothing waits for the disk, for tests.
    Off,
}

/// Whether somebody wants to find the data again, which decides how gently the servers are ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// The data is kept: the servers end in an orderly way.
    Kept,
    /// The folder is removed afterwards: the servers end at once.
    ThrowAway,
}

/// One of the two servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// PostgreSQL.
    Postgres,
    /// RabbitMQ; its port mapper stays.
    RabbitMq,
}

/// What can be done to one server while the other runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start it again on the same port with the same data, and wait until it is ready.
    Start,
    /// End it in an orderly way.
    Stop,
    /// End it as a power cut would.
    Kill,
    /// Freeze all of its processes: connections stay open and nothing answers.
    Pause,
    /// Let it go on after a pause.
    Resume,
}

/// The three ports that a person may want to know by heart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreferredPorts {
    /// PostgreSQL.
    pub postgres: u16,
    /// RabbitMQ's AMQP.
    pub amqp: u16,
    /// RabbitMQ's management.
    pub management: u16,
}

/// How to start a pair of servers.
#[derive(Clone, Debug)]
pub struct StartOptions {
    /// Where everything lies; it exists and belongs to this user.
    pub folder: PathBuf,
    /// Whether PostgreSQL waits for the disk.
    pub durability: Durability,
    /// Whether the data is wanted afterwards.
    pub lifetime: Lifetime,
    /// Ports to take where they are free; any free port otherwise.
    pub preferred_ports: Option<PreferredPorts>,
    /// Ends a start that somebody no longer waits for.
    pub interrupt: Interrupt,
}

/// A running pair. Dropping it kills both; [`Servers::stop`] ends them as their lifetime asks.
#[derive(Debug)]
pub struct Servers {
    addresses: ServerAddresses,
    postgres: Postgres,
    rabbitmq: RabbitMq,
    interrupt: Interrupt,
}

impl Servers {
    /// Starts both and returns when both answer. `progress` gets a sentence for each slow step.
    ///
    /// # Errors
    /// `NotInstalled` with the command to type, `NoFreePort`, `NotTraversable`, `Server` with the end of its log,
    /// `Interrupted`. Nothing runs after an error.
    pub fn start(options: StartOptions, mut progress: impl FnMut(&str)) -> Result<Self, DevStackError> {
        let programs = Programs::locate()?;
        let (addresses, erlang) = choose_ports(&programs, &options)?;
        let mut servers = Self {
            postgres: Postgres::new(&options.folder, options.durability, options.lifetime),
            rabbitmq: RabbitMq::new(&options.folder, &programs, erlang, options.lifetime),
            addresses,
            interrupt: options.interrupt,
        };
        match servers.bring_up(&options.folder, &mut progress) {
            Ok(()) => Ok(servers),
            Err(error) => {
                servers.stop();
                Err(error)
            }
        }
    }

    /// Where they answer.
    pub fn addresses(&self) -> &ServerAddresses {
        &self.addresses
    }

    /// Ends RabbitMQ, PostgreSQL and the port mapper; at once when the interrupt is urgent.
    pub fn stop(&mut self) {
        self.rabbitmq.stop(&self.addresses, &self.interrupt);
        self.postgres.stop(&self.interrupt);
    }

    /// Does something to one of them.
    ///
    /// # Errors
    /// Those of a start; the other actions always succeed, also on a server that does not run.
    pub fn act(&mut self, server: Server, action: Action) -> Result<(), DevStackError> {
        match (server, action) {
            (Server::Postgres, Action::Start) => self.postgres.start(&self.addresses, &self.interrupt, &mut |_| {})?,
            (Server::Postgres, Action::Stop) => self.postgres.stop(&self.interrupt),
            (Server::Postgres, Action::Kill) => self.postgres.kill(),
            (Server::Postgres, Action::Pause) => self.postgres.child.signal_family(Signal::STOP),
            (Server::Postgres, Action::Resume) => self.postgres.child.signal_family(Signal::CONT),
            (Server::RabbitMq, Action::Start) => {
                self.rabbitmq.launch(&self.addresses, &self.interrupt)?;
                self.rabbitmq.wait_ready(&self.addresses, &self.interrupt, &mut |_| {})?;
            }
            (Server::RabbitMq, Action::Stop) => self.rabbitmq.stop_node(&self.interrupt),
            (Server::RabbitMq, Action::Kill) => self.rabbitmq.kill(&self.addresses),
            (Server::RabbitMq, Action::Pause) => self.rabbitmq.child.signal_family(Signal::STOP),
            (Server::RabbitMq, Action::Resume) => self.rabbitmq.child.signal_family(Signal::CONT),
        }
        Ok(())
    }

    /// Runs RabbitMQ's own command-line tool against the running node.
    ///
    /// # Errors
    /// `Server` with what it wrote.
    pub fn rabbitmqctl(&self, arguments: &[&str]) -> Result<(), DevStackError> {
        self.rabbitmq.control(&self.addresses, arguments)
    }

    /// A server that ended without being asked, told once each.
    pub fn unasked_end(&mut self) -> Option<(&'static str, ExitStatus)> {
        let postgres = self.postgres.child.unasked_end().map(|status| ("PostgreSQL", status));
        postgres.or_else(|| self.rabbitmq.child.unasked_end().map(|status| ("RabbitMQ", status)))
    }

    fn bring_up(&mut self, folder: &Path, progress: &mut dyn FnMut(&str)) -> Result<(), DevStackError> {
        let begun = Instant::now();
        progress(&format!("RabbitMQ: starting on port {} (about ten seconds)", self.addresses.amqp_port));
        self.rabbitmq.launch(&self.addresses, &self.interrupt)?;
        progress(&format!(
            "PostgreSQL: starting on port {}, data in {}",
            self.addresses.postgres_port,
            folder.display()
        ));
        self.postgres.start(&self.addresses, &self.interrupt, progress)?;
        progress(&format!("PostgreSQL: ready after {:.1} s", begun.elapsed().as_secs_f64()));
        self.rabbitmq.wait_ready(&self.addresses, &self.interrupt, progress)?;
        progress(&format!("RabbitMQ: ready after {:.1} s", begun.elapsed().as_secs_f64()));
        Ok(())
    }
}

fn choose_ports(programs: &Programs, options: &StartOptions) -> Result<(ServerAddresses, ErlangPorts), DevStackError> {
    let preferred = options.preferred_ports;
    let mut used = Vec::new();
    let postgres = ports::choose(preferred.map(|ports| ports.postgres), &mut used)?;
    let amqp = ports::choose(preferred.map(|ports| ports.amqp), &mut used)?;
    let management = ports::choose(preferred.map(|ports| ports.management), &mut used)?;
    let epmd = ports::choose(None, &mut used)?;
    let distribution = ports::choose(None, &mut used)?;
    let addresses =
        ServerAddresses::new(programs.postgres_bin.clone(), log_in(&options.folder), postgres, amqp, management);
    Ok((addresses, ErlangPorts { epmd, distribution }))
}
