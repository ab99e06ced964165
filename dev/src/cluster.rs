//! Three RabbitMQ nodes of one cluster, for tests that kill, freeze and restart them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;

use crate::child::{ChildSpec, ManagedChild, is_running};
use crate::console::Console;
use crate::error::DevError;
use crate::folder::StateFolder;
use crate::locate::Programs;
use crate::ports::choose;
use crate::rabbitmq::{Node, READY_TIMEOUT, epmd, wait_for_epmd};
use crate::servers::Action;
use crate::test_servers::test_folder;

/// Name and log of each node.
const NODES: [(&str, &str); 3] =
    [("purse1@localhost", "rabbitmq-1"), ("purse2@localhost", "rabbitmq-2"), ("purse3@localhost", "rabbitmq-3")];
const STOP_TIMEOUT: Duration = Duration::from_mins(1);

/// A cluster that runs until this value is dropped or this process ends.
#[derive(Debug)]
pub struct BrokerCluster {
    folder: StateFolder,
    programs: Programs,
    console: Console,
    members: Vec<Member>,
    _epmd: ManagedChild,
}

#[derive(Debug)]
struct Member {
    node: Node,
    log: &'static str,
    /// `None` after it was killed or stopped.
    running: Mutex<Option<ManagedChild>>,
}

impl Member {
    fn running(&self) -> MutexGuard<'_, Option<ManagedChild>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a node finds the others. It lists the first one and itself: a new node waits for each that it lists, and the first one
/// starts alone.
fn formation(name: &str) -> String {
    let [(first, _), ..] = NODES;
    // A node that cannot see the majority stops serving, as in any cluster that values its data.
    let mut lines = "cluster_partition_handling = pause_minority\n\
                     cluster_formation.peer_discovery_backend = classic_config\n"
        .to_owned();
    for (number, listed) in (1..).zip(BTreeSet::from([first, name])) {
        let _infallible = writeln!(lines, "cluster_formation.classic_config.nodes.{number} = {listed}");
    }
    lines
}

impl BrokerCluster {
    /// Starts the nodes and returns when all of them are members, after about half a minute. Blocks the thread.
    ///
    /// # Errors
    /// `Unavailable`, for example with the command that installs RabbitMQ.
    pub fn start() -> Result<Self, DevError> {
        let (console, programs) = (Console::silent(), Programs::locate()?);
        let folder = test_folder(&StateFolder::default_path(), &console)?;
        let mut used = Vec::new();
        let mut port = || choose(0, &mut used);
        let mapper = port()?;
        let home = folder.path().join("rabbitmq");
        let mut members = Vec::new();
        for (name, log) in NODES {
            let (folder, home, epmd) = (home.join(name), home.clone(), mapper);
            let (amqp, management, distribution) = (port()?, port()?, port()?);
            let node = Node { name, folder, home, amqp, management, distribution, epmd };
            node.prepare(&formation(name))?;
            members.push(Member { node, log, running: Mutex::new(None) });
        }
        let mark = format!("{}/", folder.path().display());
        let spec = ChildSpec { name: "epmd", folder: folder.path(), mark, stop: Signal::KILL };
        let mut command = epmd(&programs.epmd, &home, mapper);
        let mut started = ManagedChild::spawn(&mut command, &spec)?;
        wait_for_epmd(&mut started, mapper, &console)?;
        let cluster = Self { folder, programs, console, members, _epmd: started };
        // The first one alone: it creates the cookie, and the others join it.
        cluster.launch(0)?;
        cluster.wait_until_ready(0)?;
        cluster.heal()?;
        Ok(cluster)
    }

    /// Of each node its name, as the nodes call each other, and its ports for AMQP and for management.
    pub fn nodes(&self) -> Vec<(&'static str, u16, u16)> {
        self.members.iter().map(|member| (member.node.name, member.node.amqp, member.node.management)).collect()
    }

    /// Performs an action on one node and returns when it is done; a start returns before the node is ready. Blocks the
    /// thread.
    ///
    /// # Errors
    /// `Unavailable` when the node cannot be started.
    pub fn command(&self, index: usize, action: Action) -> Result<(), DevError> {
        let member = self.member(index)?;
        match action {
            Action::Start => return self.launch(index),
            Action::Stop => {
                let node = member.running().take();
                if let Some(mut node) = node {
                    node.stop(Signal::TERM, STOP_TIMEOUT);
                }
            }
            Action::Kill => drop(member.running().take()),
            Action::Pause => member.running().iter().for_each(|node| node.signal_family(Signal::STOP)),
            Action::Resume => member.running().iter().for_each(|node| node.signal_family(Signal::CONT)),
        }
        Ok(())
    }

    /// Resumes the nodes that are paused, starts those that do not run, and returns when all are ready. Blocks the thread.
    ///
    /// # Errors
    /// `Unavailable` with the end of the log of a node that does not start.
    pub fn heal(&self) -> Result<(), DevError> {
        for index in 0..self.members.len() {
            let runs = is_running(&mut self.member(index)?.running());
            self.command(index, if runs { Action::Resume } else { Action::Start })?;
        }
        (0..self.members.len()).try_for_each(|index| self.wait_until_ready(index))
    }

    fn wait_until_ready(&self, index: usize) -> Result<(), DevError> {
        let member = self.member(index)?;
        let mut running = member.running();
        let Some(child) = running.as_mut() else { return Ok(()) };
        child.wait(READY_TIMEOUT, &self.console, |_| member.node.is_ready().then_some(()))
    }

    /// Runs the command-line tool of a node, and returns what that prints. Blocks the thread.
    ///
    /// # Errors
    /// `Unavailable` with the output of the tool.
    pub fn rabbitmqctl(&self, index: usize, arguments: &[&str]) -> Result<String, DevError> {
        self.member(index)?.node.control(&self.programs.rabbitmq_server, arguments)
    }

    fn launch(&self, index: usize) -> Result<(), DevError> {
        let (member, folder) = (self.member(index)?, self.folder.path());
        let mut command = member.node.server(&self.programs.rabbitmq_server);
        let spec = ChildSpec { name: member.log, folder, mark: format!("{}/", folder.display()), stop: Signal::KILL };
        *member.running() = Some(ManagedChild::spawn(&mut command, &spec)?);
        Ok(())
    }

    fn member(&self, index: usize) -> Result<&Member, DevError> {
        self.members.get(index).ok_or_else(|| DevError::Failed(format!("there is no node {index}")))
    }
}
