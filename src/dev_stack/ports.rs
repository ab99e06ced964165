//! Free ports: a preferred one when it is free, else one below the range that the system hands to outgoing calls.
//!
//! Below that range because a port found free would otherwise be taken by the next connection of a test that runs at
//! the same moment. Ports are remembered by the caller.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::time::Duration;

use super::error::DevStackError;

/// Linux gives 32768 and up to outgoing connections, macOS 49152 and up.
const CANDIDATES: Range<u16> = 20_000..32_000;
const ATTEMPTS_MAX: usize = 200;

/// Whether nothing listens on the port, neither on the loopback address nor on all of them.
pub(super) fn is_free(port: u16) -> bool {
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    // Some systems let a listener on one address stand beside one on all addresses, so both are tried.
    TcpListener::bind(local).is_ok()
        && TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
        && TcpStream::connect_timeout(&local, Duration::from_millis(200)).is_err()
}

/// The preferred port if it is free and not among `used`, else a free one; the port is added to `used`.
pub(super) fn choose(preferred: Option<u16>, used: &mut Vec<u16>) -> Result<u16, DevStackError> {
    let random = std::iter::repeat_with(|| fastrand::u16(CANDIDATES)).take(ATTEMPTS_MAX);
    let port = preferred
        .into_iter()
        .chain(random)
        .find(|port| !used.contains(port) && is_free(*port))
        .ok_or(DevStackError::NoFreePort)?;
    used.push(port);
    Ok(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_preferred_port_is_replaced() {
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let taken = holder.local_addr().unwrap().port();
        assert!(!is_free(taken));
        let chosen = choose(Some(taken), &mut Vec::new()).unwrap();
        assert_ne!(chosen, taken);
        assert!(CANDIDATES.contains(&chosen));
    }

    #[test]
    fn a_free_preferred_port_is_kept_once() {
        let mut used = Vec::new();
        let free = choose(None, &mut used).unwrap();
        used.clear();
        assert_eq!(choose(Some(free), &mut used).unwrap(), free);
        assert_ne!(choose(Some(free), &mut used).unwrap(), free);
    }
}
