//! The state of a broker, for an operator. Changes nothing.

use futures_util::{AsyncReadExt as _, AsyncWriteExt as _};
use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::protocol::{self, AMQPClass, connection};
use lapin::types::{AMQPValue, FieldTable};

use async_rs::TokioRuntime;

use crate::infra::amqp::connection::{Broker, BrokerConnection, Node, REPLY_TIMEOUT, reply};
use crate::infra::amqp::declare::Declaration;
use crate::infra::amqp::error::AmqpError;
use crate::infra::amqp::socket::Socket;

/// What a client of AMQP 0-9-1 sends first.
const PROTOCOL_HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";
/// Type, channel and size of a frame.
const FRAME_HEAD_BYTES: usize = 7;
/// Longest first frame of a broker.
const FRAME_BYTES_MAX: usize = 64 * 1024;

/// How a queue is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueueState {
    /// Ready, not counting unacknowledged ones.
    pub(crate) messages: u32,
    pub(crate) consumers: u32,
}

impl Broker {
    /// Product and version as the broker introduces itself, before any login: `RabbitMQ`, `3.10.8`. lapin does not keep
    /// them, so this reads the first frame on a connection of its own.
    pub(crate) async fn version(&self) -> Result<(String, String), AmqpError> {
        const STEP: &str = "reading the version of the broker";
        self.first(|node| async {
            let socket = Socket::default();
            let runtime = TokioRuntime::tokio_with_handle(self.io().clone());
            // lapin's connecting future is large.
            let frame = reply(STEP, Box::pin(first_frame(&socket, node, &runtime))).await;
            socket.shut_down();
            version_in(&frame?).ok_or(AmqpError::Closed { step: STEP })
        })
        .await
    }
}

async fn first_frame(socket: &Socket, node: Node, runtime: &TokioRuntime) -> lapin::Result<Vec<u8>> {
    let mut stream = socket.open(&node.uri, node.address, runtime, REPLY_TIMEOUT).await?;
    stream.write_all(PROTOCOL_HEADER).await?;
    stream.flush().await?;
    let mut head = [0; FRAME_HEAD_BYTES];
    stream.read_exact(&mut head).await?;
    let [_, _, _, size @ ..] = head;
    let size = usize::try_from(u32::from_be_bytes(size)).unwrap_or(usize::MAX);
    let mut payload = vec![0; size.min(FRAME_BYTES_MAX)];
    stream.read_exact(&mut payload).await?;
    Ok(payload)
}

/// `None` if it is no frame that begins a connection.
fn version_in(payload: &[u8]) -> Option<(String, String)> {
    let (_, AMQPClass::Connection(connection::AMQPMethod::Start(start))) = protocol::parse_class(payload).ok()? else {
        return None;
    };
    let text = |name: &str| match start.server_properties.inner().get(name)? {
        AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        _ => None,
    };
    Some((text("product")?, text("version")?))
}

impl BrokerConnection {
    /// Whether an exchange or a queue exists, and how a queue is used; [`AmqpError::Missing`], which also closes the
    /// channel, if it does not. AMQP cannot ask for bindings, so they count as existing.
    pub(crate) async fn look_up(&self, declaration: &Declaration) -> Result<Option<QueueState>, AmqpError> {
        match declaration {
            Declaration::TopicExchange(name) => {
                let options =
                    ExchangeDeclareOptions { passive: true, durable: true, ..ExchangeDeclareOptions::default() };
                let declared = self.channel().exchange_declare(
                    (*name).into(),
                    ExchangeKind::Topic,
                    options,
                    FieldTable::default(),
                );
                reply("looking up an exchange", declared).await.map_err(|e| e.or_missing(name))?;
                Ok(None)
            }
            Declaration::Queue(name, _) => {
                let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
                let declared = self.channel().queue_declare(name.as_str().into(), options, FieldTable::default());
                let queue = reply("looking up a queue", declared).await.map_err(|e| e.or_missing(name))?;
                Ok(Some(QueueState { messages: queue.message_count(), consumers: queue.consumer_count() }))
            }
            Declaration::Binding { .. } => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::version_in;

    #[test]
    fn a_frame_that_does_not_begin_a_connection_has_no_version() {
        for payload in [&b""[..], b"\x00", b"\x00\x0a\x00\x1e\x00\x00\x00\x02\x00\x00\x00\x3c", b"HTTP/1.1 400 Bad"] {
            assert_eq!(version_in(payload), None, "{payload:?}");
        }
    }
}
