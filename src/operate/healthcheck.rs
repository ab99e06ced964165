//! `purse healthcheck`: whether the role on this machine is ready, for a container without curl.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::infra::config::HttpConfig;

/// Time limit for connecting, and for each read and write.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Requests `/health/ready`. The error says why the role is not ready.
pub(super) fn check(http: &HttpConfig) -> Result<(), String> {
    let status = ready_status(local_address(http)).map_err(|e| e.to_string())?;
    if status.starts_with("HTTP/1.1 200 ") { Ok(()) } else { Err(status) }
}

fn local_address(http: &HttpConfig) -> SocketAddr {
    let mut address = http.listen;
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    address
}

/// The status line of the response.
fn ready_status(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "GET /health/ready HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut response = Vec::new();
    // The status line is in the first bytes; the rest is not needed.
    stream.take(512).read_to_end(&mut response)?;
    let text = String::from_utf8_lossy(&response);
    Ok(text.lines().next().unwrap_or_default().trim_end().to_owned())
}
