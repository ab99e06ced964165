//! A private RabbitMQ node with its management plugin, and the port mapper it registers with.
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
use crate::error::{At, DevError};
use crate::folder::Afterwards;
use crate::probe::{connect, http_status, is_broker, local};
use crate::servers::{ServerAddresses, Servers};

const READY_TIMEOUT: Duration = Duration::from_mins(2);
const EPMD_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout of the command-line tool.
const CONTROL_TIMEOUT_S: &str = "30";
/// The name decides the data folder; the private port mapper keeps it apart from every other node of the machine.
const NODE: &str = "purse@localhost";

impl Servers {
    /// Starts the port mapper and the node unless they run, without waiting for the node.
    pub(crate) fn launch_rabbitmq(&mut self) -> Result<(), DevError> {
        if is_running(&mut self.rabbitmq) {
            return Ok(());
        }
        let folder = self.rabbitmq_folder();
        for folder in ["", "mnesia", "log", "conf.d"].map(|name| folder.join(name)) {
            fs::create_dir_all(&folder).at(&folder)?;
        }
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).at(&folder)?;
        fs::write(folder.join("enabled_plugins"), "[rabbitmq_management].\n").at(&folder)?;
        fs::write(folder.join("rabbitmq.conf"), configuration(&self.addresses())).at(&folder)?;
        self.start_epmd()?;
        let mut command = self.rabbitmq_command(&self.programs.rabbitmq_server);
        // Erlang ignores this argument: it marks the command line as ours.
        command.arg("-purse_folder").arg(folder);
        let stop = if self.afterwards == Afterwards::Keep { Signal::TERM } else { Signal::KILL };
        self.rabbitmq = Some(ManagedChild::spawn(&mut command, &self.child_spec("rabbitmq", stop))?);
        Ok(())
    }

    /// Waits until the node accepts AMQP connections and its management API responds.
    pub(crate) fn wait_for_rabbitmq(&mut self) -> Result<(), DevError> {
        let (amqp, management) = (self.ports.amqp, self.ports.management);
        let is_ready = || is_broker(amqp) && http_status(local(management), "/") == Some(200);
        let Some(child) = self.rabbitmq.as_mut() else { return Ok(()) };
        child.wait(READY_TIMEOUT, &self.console, |_| is_ready().then_some(()))
    }

    /// Runs the node's own command-line tool, for what nothing else can do: alarms, limits.
    pub(crate) fn rabbitmqctl(&self, arguments: &[&str]) -> Result<(), DevError> {
        let program = self.programs.rabbitmq_server.with_file_name("rabbitmqctl");
        let mut command = self.rabbitmq_command(&program);
        command.args(["--node", NODE, "--timeout", CONTROL_TIMEOUT_S]).args(arguments).stdin(Stdio::null());
        let output = command.output().at(&program)?;
        if output.status.success() {
            return Ok(());
        }
        let text = [output.stdout, output.stderr].concat();
        Err(DevError::Unavailable(format!("rabbitmqctl failed: {}", String::from_utf8_lossy(&text).trim())))
    }

    fn rabbitmq_folder(&self) -> PathBuf {
        self.folder.join("rabbitmq")
    }

    fn start_epmd(&mut self) -> Result<(), DevError> {
        if is_running(&mut self.epmd) {
            return Ok(());
        }
        let (port, folder) = (self.ports.epmd, self.rabbitmq_folder());
        let mut command = Command::new(&self.programs.epmd);
        clear_environment(&mut command, "ERL_");
        // Its arguments have no room for our mark, so its name contains it.
        command.arg0(folder.join("epmd")).args(["-port", &port.to_string(), "-address", "127.0.0.1"]);
        command.current_dir(&folder);
        let child = ManagedChild::spawn(&mut command, &self.child_spec("epmd", Signal::KILL))?;
        self.epmd.insert(child).wait(EPMD_TIMEOUT, &self.console, |_| connect(local(port)).map(drop))
    }

    fn rabbitmq_command(&self, program: &Path) -> Command {
        let (addresses, folder) = (self.addresses(), self.rabbitmq_folder());
        let mut command = Command::new(program);
        clear_environment(&mut command, "RABBITMQ_");
        clear_environment(&mut command, "ERL_");
        let data = folder.join("mnesia");
        command
            .current_dir(&folder)
            // The Erlang cookie is in the home folder.
            .env("HOME", &folder)
            .env_remove("NOTIFY_SOCKET")
            .env("RABBITMQ_NODENAME", NODE)
            .env("RABBITMQ_NODE_PORT", addresses.amqp_port.to_string())
            .env("RABBITMQ_NODE_IP_ADDRESS", addresses.host)
            .env("RABBITMQ_DIST_PORT", self.ports.distribution.to_string())
            .env("ERL_EPMD_PORT", self.ports.epmd.to_string())
            .env("ERL_EPMD_ADDRESS", addresses.host)
            // Both names of the data folder: the newest versions have no Mnesia, and only the second one.
            .env("RABBITMQ_MNESIA_BASE", &data)
            .env("RABBITMQ_MNESIA_DIR", data.join(NODE))
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
}

fn configuration(addresses: &ServerAddresses) -> String {
    format!(
        "listeners.tcp.1 = {host}:{amqp}\n\
         management.tcp.ip = {host}\n\
         management.tcp.port = {management}\n\
         loopback_users.guest = true\n\
         vm_memory_high_watermark.absolute = 512MB\n\
         disk_free_limit.absolute = 50MB\n\
         log.console = true\n\
         log.console.level = info\n\
         log.file = false\n",
        host = addresses.host,
        amqp = addresses.amqp_port,
        management = addresses.management_port,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::Durability;
    use crate::servers::tests::servers;

    #[test]
    fn everything_listens_on_the_loopback_address() {
        let text = configuration(&servers(Durability::Off).addresses());
        assert!(text.contains("listeners.tcp.1 = 127.0.0.1:55672\n"));
        assert!(text.contains("management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = 55673\n"));
    }
}
