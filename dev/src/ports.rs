//! Every port of a stack: preferred ones where they are free, and those of the last run.
//!
//! Other ports come from below the range that the system gives to outgoing connections: a port found free there would
//! be taken by the next connection of a test that runs at the same moment.

use std::env;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::console::Console;
use crate::error::DevError;
use crate::folder::write_private;
use crate::probe::{connect, local};
use crate::role::Role;

/// Linux gives 32768 and up to outgoing connections, macOS 49152 and up.
const CANDIDATES: Range<u16> = 20_000..32_000;
const ATTEMPTS_MAX: usize = 200;

/// The servers listen on 127.0.0.1, the roles on `host`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Ports {
    pub host: IpAddr,
    pub users: u16,
    pub wallet: u16,
    pub postgres: u16,
    pub amqp: u16,
    pub management: u16,
    /// Erlang's port mapper.
    pub epmd: u16,
    /// Between Erlang nodes and their command-line tools.
    pub distribution: u16,
}

impl Default for Ports {
    /// Those of the servers are not the well-known ones, so that the machine's own servers can run too.
    fn default() -> Self {
        Self {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            users: 3002,
            wallet: 3001,
            postgres: 55432,
            amqp: 55672,
            management: 55673,
            epmd: 55674,
            distribution: 55675,
        }
    }
}

impl Ports {
    pub(crate) fn of(&self, role: Role) -> u16 {
        match role {
            Role::Users => self.users,
            Role::Wallet => self.wallet,
        }
    }

    /// Where a role can be reached from this machine.
    pub(crate) fn address(&self, role: Role) -> SocketAddr {
        let host = match self.host {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
            other => other,
        };
        (host, self.of(role)).into()
    }

    /// The root of a role's API.
    pub(crate) fn url(&self, role: Role) -> String {
        let address = self.address(role);
        if address.ip() == Ipv4Addr::LOCALHOST {
            return format!("http://localhost:{}", address.port());
        }
        format!("http://{address}")
    }

    /// The ports of the last run. The roles' are the documented ones, or those that the environment sets.
    pub(crate) fn preferred(folder: &Path) -> Result<Self, DevError> {
        let [users, wallet] = [role_port(Role::Users)?, role_port(Role::Wallet)?];
        if users == wallet {
            return Err(DevError::Setting(format!(
                "USERS_PORT and WALLET_PORT are both {users}; set one of them to another port"
            )));
        }
        Ok(Self { host: listen_address()?, users, wallet, ..Self::remembered(folder) })
    }

    pub(crate) fn remembered(folder: &Path) -> Self {
        let text = fs::read_to_string(folder.join("ports.json")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    pub(crate) fn remember(&self, folder: &Path) -> Result<(), DevError> {
        let path = folder.join("ports.json");
        let text = serde_json::to_string(self).map_err(|error| DevError::Failed(error.to_string()))?;
        write_private(&path, &text)
    }

    /// Random free ports for servers; no roles.
    pub(crate) fn random() -> Result<Self, DevError> {
        let none = Self {
            host: Ipv4Addr::LOCALHOST.into(),
            users: 0,
            wallet: 0,
            postgres: 0,
            amqp: 0,
            management: 0,
            epmd: 0,
            distribution: 0,
        };
        none.with_free_servers(&Console::silent())
    }

    /// The same ports, where those of the servers are taken with others in their place.
    pub(crate) fn with_free_servers(mut self, console: &Console) -> Result<Self, DevError> {
        let mut used = vec![self.users, self.wallet];
        let servers = [
            ("PostgreSQL", &mut self.postgres),
            ("RabbitMQ", &mut self.amqp),
            ("RabbitMQ management", &mut self.management),
            ("Erlang's port mapper", &mut self.epmd),
            ("Erlang's distribution", &mut self.distribution),
        ];
        for (server, port) in servers {
            let before = *port;
            *port = choose(before, &mut used)?;
            if before != 0 && before != *port {
                console.progress(&format!("{server}: another program uses port {before}; using {port} from now on"));
            }
        }
        Ok(self)
    }

    /// Refuses a role's port that another program uses.
    pub(crate) fn check_roles(&self) -> Result<(), DevError> {
        match Role::BOTH.into_iter().find(|role| !is_free(self.of(*role))) {
            None => Ok(()),
            Some(role) => Err(DevError::Unavailable(format!(
                "port {}, for the {} API, is used by another program; stop that program, or choose another port with {}=<port>",
                self.of(role),
                role.name(),
                role.port_variable()
            ))),
        }
    }
}

/// Whether nothing listens on the port, neither on the loopback address nor on all addresses.
fn is_free(port: u16) -> bool {
    // Some systems allow a listener on one address beside one on all addresses, so both are tried.
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
        && TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
        && connect(local(port)).is_none()
}

/// The preferred port if it is free and not in `used`, else a random free one, which is added to `used`.
pub(crate) fn choose(preferred: u16, used: &mut Vec<u16>) -> Result<u16, DevError> {
    let random = std::iter::repeat_with(|| fastrand::u16(CANDIDATES)).take(ATTEMPTS_MAX);
    let mut candidates = std::iter::once(preferred).chain(random).filter(|port| *port != 0);
    let port = candidates.find(|port| !used.contains(port) && is_free(*port)).ok_or_else(|| {
        DevError::Unavailable("there is no free port on 127.0.0.1; stop some programs and try again".into())
    })?;
    used.push(port);
    Ok(port)
}

/// The port of a role that the environment sets, else the documented one.
fn role_port(role: Role) -> Result<u16, DevError> {
    let variable = role.port_variable();
    parse_port(variable, Ports::default().of(role), &env::var(variable).unwrap_or_default())
}

fn parse_port(variable: &str, default: u16, value: &str) -> Result<u16, DevError> {
    match value.trim().parse() {
        _ if value.trim().is_empty() => Ok(default),
        Ok(port @ 1..) => Ok(port),
        _ => Err(DevError::Setting(format!("{variable}={value} cannot be used: a port is a number from 1 to 65535"))),
    }
}

/// `HOST`, by default the loopback address. Some shells set it to the name of the machine, which is not meant for us.
fn listen_address() -> Result<IpAddr, DevError> {
    parse_host(&env::var("HOST").unwrap_or_default())
}

fn parse_host(value: &str) -> Result<IpAddr, DevError> {
    let Ok(host) = value.trim().parse() else { return Ok(Ipv4Addr::LOCALHOST.into()) };
    TcpListener::bind((host, 0))
        .map(|_free| host)
        .map_err(|error| DevError::Setting(format!("HOST={value} cannot be used: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::tests::fresh_path;

    #[test]
    fn a_taken_port_is_replaced() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let taken = listener.local_addr().unwrap().port();
        let chosen = choose(taken, &mut Vec::new()).unwrap();
        assert_ne!(chosen, taken);
        assert!(CANDIDATES.contains(&chosen));
    }

    #[test]
    fn a_free_port_is_given_out_once() {
        let free = choose(0, &mut Vec::new()).unwrap();
        let mut used = Vec::new();
        assert_eq!(choose(free, &mut used).unwrap(), free);
        assert_ne!(choose(free, &mut used).unwrap(), free);
    }

    #[test]
    fn a_taken_port_of_a_role_is_refused_with_what_to_do() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let wallet = listener.local_addr().unwrap().port();
        let users = choose(0, &mut Vec::new()).unwrap();
        let text = Ports { users, wallet, ..Ports::default() }.check_roles().unwrap_err().to_string();
        assert!(text.contains(&wallet.to_string()) && text.contains("WALLET_PORT="), "{text}");
    }

    #[test]
    fn roles_are_reached_where_they_listen() {
        let at = |host: &str| {
            let ports = Ports { host: host.parse().unwrap(), ..Ports::default() };
            (ports.address(Role::Users).to_string(), ports.url(Role::Users))
        };
        let local = ("127.0.0.1:3002".to_owned(), "http://localhost:3002".to_owned());
        assert_eq!((at("127.0.0.1"), at("0.0.0.0")), (local.clone(), local));
        let local = ("[::1]:3002".to_owned(), "http://[::1]:3002".to_owned());
        assert_eq!((at("::1"), at("::")), (local.clone(), local));
    }

    #[test]
    fn ports_are_remembered_and_a_damaged_file_is_ignored() {
        let folder = fresh_path();
        fs::create_dir(&folder).unwrap();
        assert_eq!(Ports::remembered(&folder), Ports::default());
        let ports = Ports { postgres: 21000, ..Ports::default() };
        ports.remember(&folder).unwrap();
        assert_eq!(Ports::remembered(&folder), ports);
        fs::write(folder.join("ports.json"), "{\"postgres\": 99999").unwrap();
        assert_eq!(Ports::remembered(&folder), Ports::default());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_value_that_is_no_port_is_refused_with_the_name_of_its_variable() {
        assert_eq!(parse_port("USERS_PORT", 3002, "").unwrap(), 3002);
        assert_eq!(parse_port("USERS_PORT", 3002, " 4000 ").unwrap(), 4000);
        for bad in ["0", "65536", "-1", "http"] {
            let error = parse_port("USERS_PORT", 3002, bad).unwrap_err();
            assert!(
                matches!(&error, DevError::Setting(text) if text.starts_with(&format!("USERS_PORT={bad} "))),
                "{error}"
            );
        }
    }

    #[test]
    fn only_an_address_of_this_machine_is_listened_on() {
        for (value, host) in [("", "127.0.0.1"), ("my-laptop", "127.0.0.1"), ("0.0.0.0", "0.0.0.0")] {
            assert_eq!(parse_host(value).unwrap().to_string(), host, "{value}");
        }
        // Reserved for documentation.
        assert!(matches!(parse_host("192.0.2.1"), Err(DevError::Setting(text)) if text.starts_with("HOST=192.0.2.1 ")));
    }
}
