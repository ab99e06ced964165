//! A private RabbitMQ node with its management plugin, as a child process, and the port mapper it registers with.
//!
//! Erlang would start one port mapper for the whole machine and leave it running; here it is a child of ours on a port of
//! its own, started before the node, so that nothing stays behind. Vhosts, users and queues are not made here.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::addresses::ServerAddresses;
use super::child::{ChildPlace, ManagedChild, Slot, Wait};
use super::databases::clear_environment;
use super::error::DevStackError;
use super::health::http_status;
use super::interrupt::Interrupt;
use super::locate::Programs;
use super::servers::Lifetime;

const READY_BOUND: Duration = Duration::from_mins(2);
const EPMD_BOUND: Duration = Duration::from_secs(10);
const STOP_BOUND: Duration = Duration::from_secs(30);
const CLOSED_BOUND: Duration = Duration::from_secs(5);
/// Longest run of the command-line tool.
const CONTROL_TIMEOUT_S: &str = "30";
const CLOSED_POLL: Duration = Duration::from_millis(5);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// The name decides the data folder; the private port mapper keeps it apart from every other node of the machine.
const NODE: &str = "purse@localhost";

/// The ports that only Erlang itself uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ErlangPorts {
    pub epmd: u16,
    pub distribution: u16,
}

/// One node, running or not.
#[derive(Debug)]
pub(super) struct RabbitMq {
    state: PathBuf,
    folder: PathBuf,
    server: PathBuf,
    epmd_program: PathBuf,
    ports: ErlangPorts,
    lifetime: Lifetime,
    pub(super) child: Slot,
    epmd: Option<ManagedChild>,
}

impl RabbitMq {
    pub(super) fn new(state: &Path, programs: &Programs, ports: ErlangPorts, lifetime: Lifetime) -> Self {
        Self {
            state: state.to_path_buf(),
            folder: state.join("rabbitmq"),
            server: programs.rabbitmq_server.clone(),
            epmd_program: programs.epmd.clone(),
            ports,
            lifetime,
            child: Slot::default(),
            epmd: None,
        }
    }

    /// Starts the port mapper and the node, without waiting for the node.
    pub(super) fn launch(&mut self, addresses: &ServerAddresses, interrupt: &Interrupt) -> Result<(), DevStackError> {
        if self.child.is_running() {
            return Ok(());
        }
        self.prepare_folder(addresses)?;
        self.start_epmd(interrupt)?;
        let mut command = self.node_command(addresses);
        self.child.0 = Some(ManagedChild::spawn(&mut command, self.place("rabbitmq"))?);
        Ok(())
    }

    /// Waits until the node greets on AMQP and its management answers.
    pub(super) fn wait_ready(
        &mut self,
        addresses: &ServerAddresses,
        interrupt: &Interrupt,
        progress: &mut dyn FnMut(&str),
    ) -> Result<(), DevStackError> {
        let Some(child) = self.child.0.as_mut() else { return Ok(()) };
        let wait = Wait { what: "RabbitMQ", bound: READY_BOUND, interrupt };
        wait.until_ready(child, progress, || {
            greets(addresses.amqp_port) && http_status(addresses.management_port, "/") == Some(200)
        })
    }

    /// Ends node and port mapper: in an orderly way when the data is kept, at once when it is thrown away.
    pub(super) fn stop(&mut self, addresses: &ServerAddresses, interrupt: &Interrupt) {
        match self.lifetime {
            Lifetime::Kept => self.stop_node(interrupt),
            Lifetime::ThrowAway => self.kill(addresses),
        }
        self.epmd = None;
    }

    /// Ends the node in an orderly way; queues and messages reach the disk.
    pub(super) fn stop_node(&mut self, interrupt: &Interrupt) {
        if let Some(mut child) = self.child.0.take() {
            child.signal_family(Signal::CONT);
            child.stop(Signal::TERM, STOP_BOUND, interrupt);
        }
    }

    /// Ends the node as a power cut would, and returns when nothing answers any more.
    pub(super) fn kill(&mut self, addresses: &ServerAddresses) {
        self.child.0 = None;
        // The node is a grandchild with many threads: its listeners outlive the process's entry by a moment.
        let begun = Instant::now();
        while connect(addresses.amqp_port).is_some() && begun.elapsed() < CLOSED_BOUND {
            thread::sleep(CLOSED_POLL);
        }
    }

    /// Runs the node's own command-line tool, `rabbitmqctl`, for what only it can do: alarms, limits.
    pub(super) fn control(&self, addresses: &ServerAddresses, arguments: &[&str]) -> Result<(), DevStackError> {
        let program = self.server.with_file_name("rabbitmqctl");
        let mut command = self.command(&program, addresses);
        command.args(["--node", NODE, "--timeout", CONTROL_TIMEOUT_S]).args(arguments).stdin(Stdio::null());
        let spawn = |source| DevStackError::Spawn { program: program.display().to_string(), source };
        let output = command.output().map_err(spawn)?;
        if output.status.success() {
            return Ok(());
        }
        let log = [output.stdout, output.stderr].concat();
        let log = String::from_utf8_lossy(&log).trim().to_owned();
        Err(DevStackError::Server { server: "rabbitmqctl", problem: "refused".into(), log })
    }

    fn place(&self, name: &'static str) -> ChildPlace<'_> {
        let mark = format!("{}/", self.state.display());
        ChildPlace { name, folder: &self.state, mark, log: self.state.join(format!("{name}.log")) }
    }

    fn prepare_folder(&self, addresses: &ServerAddresses) -> Result<(), DevStackError> {
        let write = |name: &str, text: &str| {
            let path = self.folder.join(name);
            fs::write(&path, text).map_err(|e| DevStackError::file(path, e))
        };
        for name in ["", "mnesia", "log", "conf.d"] {
            let path = self.folder.join(name);
            fs::create_dir_all(&path).map_err(|e| DevStackError::file(path, e))?;
        }
        fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o700))
            .map_err(|e| DevStackError::file(&self.folder, e))?;
        write("enabled_plugins", "[rabbitmq_management].\n")?;
        write("rabbitmq.conf", &configuration(addresses))
    }

    fn start_epmd(&mut self, interrupt: &Interrupt) -> Result<(), DevStackError> {
        if self.epmd.as_mut().is_some_and(|epmd| epmd.ended().is_none()) {
            return Ok(());
        }
        let port = self.ports.epmd;
        let mut command = Command::new(&self.epmd_program);
        clear_environment(&mut command, "ERL_");
        command
            // Its arguments have no room for our mark, so its name carries it.
            .arg0(self.folder.join("epmd"))
            .args(["-port", &port.to_string(), "-address", "127.0.0.1"])
            .current_dir(&self.folder);
        let child = ManagedChild::spawn(&mut command, self.place("epmd"))?;
        let wait = Wait { what: "epmd", bound: EPMD_BOUND, interrupt };
        wait.until_ready(self.epmd.insert(child), &mut |_| {}, || connect(port).is_some())
    }

    fn node_command(&self, addresses: &ServerAddresses) -> Command {
        let mut command = self.command(&self.server, addresses);
        command
            // Erlang ignores this argument: it marks the command line as ours.
            .arg("-purse_folder")
            .arg(self.folder.join("mnesia"));
        command
    }

    fn command(&self, program: &Path, addresses: &ServerAddresses) -> Command {
        let mut command = Command::new(program);
        clear_environment(&mut command, "RABBITMQ_");
        clear_environment(&mut command, "ERL_");
        let data = self.folder.join("mnesia");
        command
            .current_dir(&self.folder)
            // The cookie lies in the home folder.
            .env("HOME", &self.folder)
            .env_remove("NOTIFY_SOCKET")
            .env("RABBITMQ_NODENAME", NODE)
            .env("RABBITMQ_NODE_PORT", addresses.amqp_port.to_string())
            .env("RABBITMQ_NODE_IP_ADDRESS", &addresses.host)
            .env("RABBITMQ_DIST_PORT", self.ports.distribution.to_string())
            .env("ERL_EPMD_PORT", self.ports.epmd.to_string())
            .env("ERL_EPMD_ADDRESS", &addresses.host)
            // Both names of the data folder: the newest versions have no Mnesia, and only the second one.
            .env("RABBITMQ_MNESIA_BASE", &data)
            .env("RABBITMQ_MNESIA_DIR", data.join(NODE))
            .env("RABBITMQ_LOG_BASE", self.folder.join("log"))
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_CONFIG_FILE", self.folder.join("rabbitmq.conf"))
            // Whatever the machine's own broker is configured with is none of our business.
            .env("RABBITMQ_CONFIG_FILES", self.folder.join("conf.d"))
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", self.folder.join("enabled_plugins"))
            .env("RABBITMQ_PID_FILE", self.folder.join("pid"))
            // No busy waiting on a developer's machine; the node is reachable from this machine only.
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

fn connect(port: u16) -> Option<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), PROBE_TIMEOUT).ok()?;
    stream.set_read_timeout(Some(PROBE_TIMEOUT)).ok()?;
    Some(stream)
}

/// Whether a broker answers the AMQP 0-9-1 header with a method frame, which `connection.start` is.
fn greets(port: u16) -> bool {
    let exchange = || {
        let mut stream = connect(port)?;
        stream.write_all(b"AMQP\x00\x00\x09\x01").ok()?;
        let mut frame_type = [0_u8; 1];
        stream.read_exact(&mut frame_type).ok()?;
        Some(frame_type == [1])
    };
    exchange().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_listens_on_the_loopback_address() {
        let text = configuration(&ServerAddresses::new("/x".into(), "/y".into(), 1, 2, 3));
        assert!(text.contains("listeners.tcp.1 = 127.0.0.1:2\n"));
        assert!(text.contains("management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = 3\n"));
    }

    #[test]
    fn a_listener_that_is_no_broker_does_not_greet() {
        let silent = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = silent.local_addr().unwrap().port();
        let answer = std::thread::spawn(move || silent.accept().unwrap().0.write_all(b"HTTP/1.1 400\r\n\r\n"));
        assert!(!greets(port));
        answer.join().unwrap().unwrap();
    }
}
