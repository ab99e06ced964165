//! A GET over plain TCP that returns the status alone: enough to ask whether something is ready.
//!
//! Not an HTTP client: one request, one status line, the loopback address, short bounds.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
const STATUS_LINE_BYTES_MAX: u64 = 64;

/// The status that the server on this port of the loopback address gives for the path, `None` without an answer.
pub(super) fn http_status(port: u16, path: &str) -> Option<u16> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).ok()?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).ok()?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT)).ok()?;
    // In one piece: a server may answer and close after the first one.
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost:{port}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut head = Vec::new();
    let _short = stream.take(STATUS_LINE_BYTES_MAX).read_to_end(&mut head);
    status_in(&String::from_utf8_lossy(&head))
}

fn status_in(head: &str) -> Option<u16> {
    head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.get(..3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_read_from_the_first_line_alone() {
        assert_eq!(status_in("HTTP/1.1 200 OK\r\ncontent-length: 503\r\n"), Some(200));
        assert_eq!(status_in("HTTP/1.1 503\r\n"), Some(503));
        assert_eq!(status_in("AMQP\u{0}\u{0}\u{9}\u{1}"), None);
        assert_eq!(status_in(""), None);
    }
}
