//! Whether a port of this machine answers: to a TCP connection, an HTTP request or the AMQP header.
//!
//! Not clients: one request, the first bytes of the response, short timeouts.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);
const STATUS_LINE_BYTES_MAX: u64 = 64;

/// The port on the loopback address.
pub(crate) fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

pub(crate) fn connect(address: SocketAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).ok()?;
    stream.set_read_timeout(Some(RESPONSE_TIMEOUT)).ok()?;
    stream.set_write_timeout(Some(RESPONSE_TIMEOUT)).ok()?;
    Some(stream)
}

/// The status of a GET, `None` without a response.
pub(crate) fn http_status(address: SocketAddr, path: &str) -> Option<u16> {
    let mut stream = connect(address)?;
    // In one write: a server may respond and close after the first packet.
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut head = Vec::new();
    let _short = stream.take(STATUS_LINE_BYTES_MAX).read_to_end(&mut head);
    status_in(&String::from_utf8_lossy(&head))
}

fn status_in(head: &str) -> Option<u16> {
    head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.get(..3)?.parse().ok()
}

/// Whether a broker responds to the AMQP 0-9-1 header with a method frame, which `connection.start` is.
pub(crate) fn is_broker(port: u16) -> bool {
    let exchange = || {
        let mut stream = connect(local(port))?;
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
    fn the_status_is_read_from_the_first_line_alone() {
        assert_eq!(status_in("HTTP/1.1 200 OK\r\ncontent-length: 503\r\n"), Some(200));
        assert_eq!(status_in("HTTP/1.1 503\r\n"), Some(503));
        assert_eq!(status_in("AMQP\u{0}\u{0}\u{9}\u{1}"), None);
        assert_eq!(status_in(""), None);
    }

    #[test]
    fn a_web_server_is_no_broker() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let response = std::thread::spawn(move || listener.accept().unwrap().0.write_all(b"HTTP/1.1 400\r\n\r\n"));
        assert!(!is_broker(port));
        response.join().unwrap().unwrap();
    }
}
