use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{PATIENCE, Response};

/// A connection for requests that no HTTP client would send.
pub struct Raw {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Raw {
    pub async fn connect(url: &str) -> Self {
        let address = url.trim_start_matches("http://");
        Self { stream: TcpStream::connect(address).await.expect("connected"), received: Vec::new() }
    }

    /// `false` if the server no longer accepts data.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let sent = timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await;
        sent.expect("the server reads").is_ok()
    }

    /// Resets the connection, so that a handler that runs is dropped.
    pub fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("a reset");
    }

    /// Closes the sending direction; the server may have closed the connection already.
    pub async fn finish(&mut self) {
        drop(self.stream.shutdown().await);
    }

    /// Reads more bytes; `false` if the connection was closed or reset.
    async fn read_more(&mut self) -> bool {
        let mut chunk = [0; 4096];
        match timeout(PATIENCE, self.stream.read(&mut chunk)).await.expect("data or the end of the connection") {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.received.extend_from_slice(&chunk[..count]);
                true
            }
        }
    }

    /// The next response, with `Null` for an empty body; `None` if the connection ended instead.
    pub async fn response(&mut self) -> Option<Response> {
        let end = loop {
            if let Some(at) = self.received.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.read_more().await {
                return None;
            }
        };
        let head = String::from_utf8(self.received[..end].to_vec()).expect("ASCII");
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
        let headers: HeaderMap = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| {
                (name.parse::<HeaderName>().expect("name"), HeaderValue::from_str(value).expect("value"))
            })
            .collect();
        let length = headers.get("content-length").and_then(|v| v.to_str().ok()?.parse().ok()).unwrap_or(0_usize);
        while self.received.len() < end + length {
            assert!(self.read_more().await, "truncated body:\n{head}");
        }
        let text = &self.received[end..end + length];
        let is_json = headers.get("content-type").is_some_and(|kind| kind == "application/json");
        let body = match text {
            [] => Value::Null,
            json if is_json => {
                assert!(json.ends_with(b"\n"), "no line end after the body:\n{head}");
                serde_json::from_slice(json).expect("JSON")
            }
            // The page /docs and its files.
            other => Value::String(String::from_utf8_lossy(other).into_owned()),
        };
        self.received.drain(..end + length);
        Some(Response { status: status.parse::<StatusCode>().expect("a status"), headers, body })
    }

    /// Waits for the end of the connection; `true` if no bytes came before it.
    pub async fn ends(&mut self) -> bool {
        while self.read_more().await {}
        self.received.is_empty()
    }

    /// Whether the connection is still open and silent after this long.
    pub async fn stays_open(&mut self, span: Duration) -> bool {
        timeout(span, self.stream.read(&mut [0; 1])).await.is_err()
    }
}
