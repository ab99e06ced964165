//! Reads a queue without consuming it, for the operator's commands.
//!
//! Messages are taken one at a time and stay unacknowledged, so the broker keeps them: whatever was not removed is back
//! in its old place when it is returned or when the connection ends, however it ends.
//!
//! A quorum queue counts each return as a failed delivery, and drops a message with too many of them. A message that has
//! been returned a few times is therefore replaced by a copy at the end of the queue, whose count begins anew.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lapin::options::{BasicGetOptions, BasicNackOptions};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

use crate::infra::amqp::connection::{Broker, BrokerConnection, FrameSize, reply};
use crate::infra::amqp::error::AmqpError;
use crate::infra::amqp::forward::Forwarding;
use crate::infra::amqp::incoming::Incoming;
use crate::infra::amqp::publisher::{ConfirmedPublisher, PublishResult};

/// Longest wait until the queue counts what was returned; another reader may have taken it meanwhile.
const RETURN_WAIT_MAX: Duration = Duration::from_secs(2);
const RETURN_POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Returns after which a message is replaced. Far below the limit of RabbitMQ 4, which is 20 by default, because commands
/// that are interrupted count too.
const RETURNS_MAX: u32 = 3;

/// A connection that reads one queue.
pub(crate) struct Browser {
    broker: Broker,
    name: &'static str,
    connection: BrokerConnection,
    queue: &'static str,
    /// Messages taken and neither removed nor returned.
    taken: AtomicU32,
    /// Publishes copies; `None` if it could not be opened.
    renewing: OnceCell<Option<ConfirmedPublisher>>,
}

impl Browser {
    /// Opens the queue on a connection that the broker lists as `name`, and returns its depth; [`AmqpError::Missing`] if it
    /// does not exist.
    pub(crate) async fn open(
        broker: &Broker,
        name: &'static str,
        queue: &'static str,
    ) -> Result<(Self, u32), AmqpError> {
        // Any publisher may have sent a message, with headers as large as the server accepts.
        let connection = broker.connect(name, FrameSize::ServerDefault).await?;
        let depth = connection.depth(queue).await?;
        let (taken, renewing) = (AtomicU32::new(0), OnceCell::new());
        Ok((Self { broker: broker.clone(), name, connection, queue, taken, renewing }, depth))
    }

    /// Takes the next message; `None` at the end of the queue.
    pub(crate) async fn next(&self) -> Result<Option<Incoming>, AmqpError> {
        loop {
            let next = self.connection.channel().basic_get(self.queue.into(), BasicGetOptions { no_ack: false });
            let Some(message) = reply("getting a message", next).await? else { return Ok(None) };
            let incoming = Incoming { delivery: message.delivery };
            // Its copy has no count yet, so that this comes to an end.
            if incoming.earlier_deliveries() < RETURNS_MAX || !self.renew(&incoming).await? {
                self.taken.fetch_add(1, Ordering::Relaxed);
                return Ok(Some(incoming));
            }
        }
    }

    /// Moves a message to the end of the queue, and returns whether it could: the broker may not accept the copy.
    async fn renew(&self, worn: &Incoming) -> Result<bool, AmqpError> {
        let publisher = self.renewing.get_or_init(|| async {
            // Its own connection, because a memory or disk alarm blocks connections that publish.
            let connection = self.broker.connect(self.name, FrameSize::ServerDefault).await.ok()?;
            ConfirmedPublisher::open(connection).await.ok()
        });
        let Some(publisher) = publisher.await.as_ref().filter(|publisher| publisher.connection().is_open()) else {
            return Ok(false);
        };
        let how = Forwarding { queue: self.queue, without: &[], with: Vec::new() };
        if publisher.forward(std::slice::from_ref(worn), &how).await != [PublishResult::Confirmed] {
            return Ok(false);
        }
        worn.ack().await?;
        Ok(true)
    }

    /// Removes a taken message for good. If this fails, it stays in the queue.
    pub(crate) async fn remove(&self, taken: &Incoming) -> Result<(), AmqpError> {
        taken.ack().await?;
        self.taken.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    }

    /// Puts everything taken and not removed back into its place, and returns the depth of the queue. If this fails,
    /// the broker does the same when the connection ends.
    pub(crate) async fn return_all(&self) -> Result<u32, AmqpError> {
        let depth = self.connection.depth(self.queue).await?;
        let expected = depth.saturating_add(self.taken.swap(0, Ordering::Relaxed));
        let all = BasicNackOptions { multiple: true, requeue: true };
        // Tag 0 with `multiple` means everything that is unacknowledged.
        reply("returning messages", self.connection.channel().basic_nack(0, all)).await?;
        // A nack has no reply, and the queue handles it after later requests: wait until the messages count again.
        let deadline = Instant::now() + RETURN_WAIT_MAX;
        loop {
            let depth = self.connection.depth(self.queue).await?;
            if depth >= expected || Instant::now() >= deadline {
                return Ok(depth);
            }
            sleep(RETURN_POLL_INTERVAL).await;
        }
    }

    pub(crate) async fn close(self) {
        if let Some(Some(publisher)) = self.renewing.get() {
            publisher.connection().close().await;
        }
        self.connection.close().await;
    }
}
