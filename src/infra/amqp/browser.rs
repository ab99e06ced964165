//! Reads a queue without consuming it, for the operator's commands.
//!
//! Messages are taken one at a time and stay unacknowledged, so the broker keeps them: whatever was not removed is back
//! in its old place when it is returned or when the connection ends, however it ends.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lapin::options::{BasicGetOptions, BasicNackOptions};
use tokio::time::{Instant, sleep};

use crate::infra::amqp::connection::{BrokerConnection, reply};
use crate::infra::amqp::error::AmqpError;
use crate::infra::amqp::incoming::Incoming;

/// Longest wait until the queue counts what was returned; another reader may have taken it meanwhile.
const RETURN_WAIT_MAX: Duration = Duration::from_secs(2);
const RETURN_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A connection that reads one queue.
pub(crate) struct Browser {
    connection: BrokerConnection,
    queue: &'static str,
    /// Messages taken and neither removed nor returned.
    taken: AtomicU32,
}

impl Browser {
    /// Opens the queue and returns its depth; [`AmqpError::Missing`] if it does not exist.
    pub(crate) async fn open(connection: BrokerConnection, queue: &'static str) -> Result<(Self, u32), AmqpError> {
        let depth = connection.depth(queue).await?;
        Ok((Self { connection, queue, taken: AtomicU32::new(0) }, depth))
    }

    /// Takes the next message; `None` at the end of the queue.
    pub(crate) async fn next(&self) -> Result<Option<Incoming>, AmqpError> {
        let next = self.connection.channel().basic_get(self.queue.into(), BasicGetOptions { no_ack: false });
        let message = reply("getting a message", next).await?;
        Ok(message.map(|message| {
            self.taken.fetch_add(1, Ordering::Relaxed);
            Incoming { delivery: message.delivery }
        }))
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
        self.connection.close().await;
    }
}
