//! Opens and closes connections.

use std::future::Future;
use std::time::Duration;

use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::infra::amqp::error::AmqpError;
use crate::infra::config::AmqpConfig;
use crate::kernel::Secret;

/// Longest wait for any answer of the broker that is not a delivery.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for a polite goodbye; a blocked connection never gives one.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Agreed with the broker; a silent peer is given up after twice this.
const HEARTBEAT_S: u16 = 10;

/// For connections that publish our own small messages; RabbitMQ 4.1 refuses less than 8 KiB.
const SMALL_FRAME_BYTES: u32 = 16 * 1024;

/// How large a frame may be. The client keeps buffers of 64 frames a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frames {
    /// What the server proposes (128 KiB): for consuming, since a message's headers must fit into one frame, and
    /// somebody else chose them.
    OfTheServer,
    /// 16 KiB: for publishing.
    Small,
}

/// Whether `url` can be a broker's URL. Why not is not told on purpose: the parser's message may quote the password.
pub fn is_broker_url(url: &str) -> bool {
    url.parse::<AMQPUri>().is_ok()
}

/// Where the broker is, and the runtime that its connections live on.
#[derive(Clone)]
pub struct Broker {
    url: Secret,
    io: Handle,
}

/// An open connection with one channel. Dropping it closes it without waiting.
pub struct BrokerConnection {
    connection: Connection,
    channel: Channel,
}

impl Broker {
    /// The configured broker; nothing is opened yet.
    pub fn new(config: &AmqpConfig, io: Handle) -> Self {
        Self { url: config.url.clone(), io }
    }

    /// The runtime for work on its connections.
    pub const fn io(&self) -> &Handle {
        &self.io
    }

    /// Opens a connection named `name` in the broker's listings, and a channel on it.
    ///
    /// # Errors
    /// [`AmqpError`]; a refused password looks like any other absence.
    pub async fn connect(&self, name: &str, frames: Frames) -> Result<BrokerConnection, AmqpError> {
        const STEP: &str = "connecting to RabbitMQ";
        let mut uri: AMQPUri = self.url.expose().parse().map_err(|_| AmqpError::Closed { step: STEP })?;
        uri.query.heartbeat = Some(HEARTBEAT_S); // default: the server's 60 s
        uri.query.frame_max = match frames {
            Frames::OfTheServer => None,
            Frames::Small => Some(SMALL_FRAME_BYTES),
        };
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        // The shared IO runtime, not the thread that happens to ask: heartbeats must not wait for its other work.
        let runtime = async_rs::Runtime::tokio_with_handle(self.io.clone());
        let connection = answer(STEP, Connection::connect_uri_with_runtime(uri, properties, runtime)).await?;
        let channel = answer("opening a channel", connection.create_channel()).await?;
        Ok(BrokerConnection { connection, channel })
    }
}

impl BrokerConnection {
    pub(super) const fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Whether the connection and its channel are open, as far as this side knows.
    pub fn is_open(&self) -> bool {
        self.connection.status().connected() && self.channel.status().connected()
    }

    /// Whether the broker takes nothing from this connection at the moment, because it is short of memory or disk.
    /// Such a connection is kept: a new one would be blocked too, and a blocked broker does not notice that the old one
    /// has gone.
    pub fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// Says goodbye, within a second.
    pub async fn close(self) {
        let goodbye = self.connection.close(200, "purse is done".into());
        // Whether it was heard or not: the connection is dropped here.
        let _ = timeout(CLOSE_TIMEOUT, goodbye).await;
    }
}

/// Waits for an answer of the broker, within the limit.
pub(super) async fn answer<T>(
    step: &'static str,
    asked: impl Future<Output = lapin::Result<T>>,
) -> Result<T, AmqpError> {
    match timeout(ANSWER_TIMEOUT, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(e)) => Err(AmqpError::failed(step, e)),
        Err(_) => Err(AmqpError::TimedOut { step, limit: ANSWER_TIMEOUT }),
    }
}

#[cfg(test)]
mod tests {
    use super::is_broker_url;

    #[test]
    fn only_amqp_urls_are_taken() {
        assert!(is_broker_url("amqp://guest:guest@localhost:5672/%2f"));
        assert!(is_broker_url("amqps://u:p@broker/vhost"));
        for refused in ["", "http://localhost", "localhost:5672", "amqp://u:p@host:port"] {
            assert!(!is_broker_url(refused), "{refused}");
        }
    }
}
