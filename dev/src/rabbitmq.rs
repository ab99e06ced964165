//! Private RabbitMQ nodes with their management plugin, and the port mapper they register with.
//!
//! Erlang would start one port mapper for the whole machine and leave it running; here it is our own child process on
//! its own port, started before the node.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::child::{ManagedChild, clear_environment, is_running};
use crate::console::Console;
use crate::error::{At, DevError};
use crate::folder::Afterwards;
use crate::probe::{connect, http_status, is_broker, local};
use crate::servers::Servers;

pub(crate) const READY_TIMEOUT: Duration = Duration::from_mins(2);
const EPMD_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout of the command-line tool.
const CONTROL_TIMEOUT_S: &str = "30";
const HOST: &str = "127.0.0.1";
/// The name decides the data folder; the private port mapper keeps it apart from every other node of the machine.
const NODE: &str = "purse@localhost";

impl Servers {
    /// Starts the port mapper and the node unless they run, without waiting for the node.
    pub(crate) fn launch_rabbitmq(&mut self) -> Result<(), DevError> {
        if is_running(&mut self.rabbitmq) {
            return Ok(());
        }
        let node = self.rabbitmq_node();
        node.prepare("")?;
        self.start_epmd()?;
        let mut command = node.server(&self.programs.rabbitmq_server);
        let stop = if self.afterwards == Afterwards::Keep { Signal::TERM } else { Signal::KILL };
        self.rabbitmq = Some(ManagedChild::spawn(&mut command, &self.child_spec("rabbitmq", stop))?);
        Ok(())
    }

    /// Waits until the node accepts AMQP connections and its management API responds.
    pub(crate) fn wait_for_rabbitmq(&mut self) -> Result<(), DevError> {
        let node = self.rabbitmq_node();
        let Some(child) = self.rabbitmq.as_mut() else { return Ok(()) };
        child.wait(READY_TIMEOUT, &self.console, |_| node.is_ready().then_some(()))
    }

    /// Runs the node's own command-line tool, for what nothing else can do: alarms, limits.
    pub(crate) fn rabbitmqctl(&self, arguments: &[&str]) -> Result<(), DevError> {
        self.rabbitmq_node().control(&self.programs.rabbitmq_server, arguments).map(drop)
    }

    fn rabbitmq_node(&self) -> Node {
        let (folder, ports) = (self.folder.join("rabbitmq"), self.ports);
        Node {
            name: NODE,
            home: folder.clone(),
            folder,
            amqp: ports.amqp,
            management: ports.management,
            distribution: ports.distribution,
            epmd: ports.epmd,
        }
    }

    fn start_epmd(&mut self) -> Result<(), DevError> {
        if is_running(&mut self.epmd) {
            return Ok(());
        }
        let mut command = epmd(&self.programs.epmd, &self.folder.join("rabbitmq"), self.ports.epmd);
        let child = ManagedChild::spawn(&mut command, &self.child_spec("epmd", Signal::KILL))?;
        wait_for_epmd(self.epmd.insert(child), self.ports.epmd, &self.console)
    }
}

/// The port mapper of the nodes in `folder`.
pub(crate) fn epmd(program: &Path, folder: &Path, port: u16) -> Command {
    let mut command = Command::new(program);
    clear_environment(&mut command, "ERL_");
    // Its arguments have no room for our mark, so its name contains it.
    command.arg0(folder.join("epmd")).args(["-port", &port.to_string(), "-address", HOST]);
    command.current_dir(folder);
    command
}

pub(crate) fn wait_for_epmd(epmd: &mut ManagedChild, port: u16, console: &Console) -> Result<(), DevError> {
    epmd.wait(EPMD_TIMEOUT, console, |_| connect(local(port)).map(drop))
}

/// What distinguishes one node from another.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub name: &'static str,
    /// Its data and its configuration.
    pub folder: PathBuf,
    /// Has the Erlang cookie, which the nodes of a cluster and their tools share.
    pub home: PathBuf,
    pub amqp: u16,
    pub management: u16,
    pub distribution: u16,
    pub epmd: u16,
}

impl Node {
    /// Creates its folder and writes its configuration, with these lines at the end.
    pub(crate) fn prepare(&self, more: &str) -> Result<(), DevError> {
        for folder in ["", "mnesia", "log", "conf.d"].map(|name| self.folder.join(name)) {
            fs::create_dir_all(&folder).at(&folder)?;
        }
        fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o700)).at(&self.folder)?;
        fs::write(self.folder.join("enabled_plugins"), "[rabbitmq_management].\n").at(&self.folder)?;
        fs::write(self.folder.join("rabbitmq.conf"), self.configuration() + more).at(&self.folder)
    }

    pub(crate) fn is_ready(&self) -> bool {
        is_broker(self.amqp) && http_status(local(self.management), "/") == Some(200)
    }

    /// Starts it.
    pub(crate) fn server(&self, program: &Path) -> Command {
        let mut command = self.command(program);
        // Erlang ignores this argument: it marks the command line as ours.
        command.arg("-purse_folder").arg(&self.folder);
        command
    }

    /// Runs its command-line tool, and returns what that prints. `program` is the server.
    pub(crate) fn control(&self, program: &Path, arguments: &[&str]) -> Result<String, DevError> {
        let program = program.with_file_name("rabbitmqctl");
        let mut command = self.command(&program);
        command.args(["--node", self.name, "--timeout", CONTROL_TIMEOUT_S]).args(arguments).stdin(Stdio::null());
        let output = command.output().at(&program)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let text = [output.stdout, output.stderr].concat();
        Err(DevError::Unavailable(format!("rabbitmqctl failed: {}", String::from_utf8_lossy(&text).trim())))
    }

    fn command(&self, program: &Path) -> Command {
        let folder = &self.folder;
        let mut command = Command::new(program);
        clear_environment(&mut command, "RABBITMQ_");
        clear_environment(&mut command, "ERL_");
        let data = folder.join("mnesia");
        command
            .current_dir(folder)
            // The Erlang cookie is in the home folder.
            .env("HOME", &self.home)
            .env_remove("NOTIFY_SOCKET")
            .env("RABBITMQ_NODENAME", self.name)
            .env("RABBITMQ_NODE_PORT", self.amqp.to_string())
            .env("RABBITMQ_NODE_IP_ADDRESS", HOST)
            .env("RABBITMQ_DIST_PORT", self.distribution.to_string())
            .env("ERL_EPMD_PORT", self.epmd.to_string())
            .env("ERL_EPMD_ADDRESS", HOST)
            // Both names of the data folder: the newest versions have no Mnesia, and only the second one.
            .env("RABBITMQ_MNESIA_BASE", &data)
            .env("RABBITMQ_MNESIA_DIR", data.join(self.name))
            .env("RABBITMQ_LOG_BASE", folder.join("log"))
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
            // Not the configuration of the machine's own broker.
            .env("RABBITMQ_CONFIG_FILES", folder.join("conf.d"))
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("enabled_plugins"))
            .env("RABBITMQ_PID_FILE", folder.join("pid"))
            // No busy waiting; the node is reachable from this machine only.
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+sbwt none -kernel inet_dist_use_interface {127,0,0,1}");
        command
    }

    /// Each test has a virtual host, which takes a megabyte. At the limit of the memory, nobody could publish any more.
    fn configuration(&self) -> String {
        format!(
            "listeners.tcp.1 = {HOST}:{amqp}\n\
             management.tcp.ip = {HOST}\n\
             management.tcp.port = {management}\n\
             loopback_users.guest = true\n\
             vm_memory_high_watermark.absolute = 2GB\n\
             disk_free_limit.absolute = 50MB\n\
             log.console = true\n\
             log.console.level = info\n\
             log.file = false\n",
            amqp = self.amqp,
            management = self.management,
        )
    }
}

#[cfg(test)]
mod tests {
    use crate::servers::Durability;
    use crate::servers::tests::servers;

    #[test]
    fn everything_listens_on_the_loopback_address() {
        let text = servers(Durability::Off).rabbitmq_node().configuration();
        assert!(text.contains("listeners.tcp.1 = 127.0.0.1:55672\n"));
        assert!(text.contains("management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = 55673\n"));
    }
}
