//! Looks into a queue by hand: for a person who asks, not for a role that consumes.
//!
//! Messages are taken one at a time and stay unsettled, so the broker keeps them: what is not acknowledged is in the
//! queue again, in its old place, when it is given back or when the connection ends, however it ends.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lapin::options::{BasicGetOptions, BasicNackOptions, QueueDeclareOptions, QueuePurgeOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep};

use crate::infra::amqp::connection::{BrokerConnection, answer};
use crate::infra::amqp::consumer::Incoming;
use crate::infra::amqp::error::AmqpError;
use crate::kernel::Timestamp;

/// Longest wait for a queue to have back what it was given back; another reader may have taken it meanwhile.
const RETURN_WAIT_MAX: Duration = Duration::from_secs(2);
/// How often it is asked.
const RETURN_POLL: Duration = Duration::from_millis(10);

/// A connection that looks into one queue.
pub struct Browser {
    connection: BrokerConnection,
    queue: &'static str,
    /// Messages that were taken and are not settled.
    in_hand: AtomicU32,
}

/// What the broker wrote when it last moved a message out of a queue by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Death {
    /// The queue it left.
    pub queue: String,
    /// `delivery_limit`, `expired`, `rejected`, `maxlen`.
    pub reason: String,
    /// When.
    pub at: Option<Timestamp>,
}

impl BrokerConnection {
    /// How many messages wait in `queue`, not counting those in somebody's hand.
    ///
    /// # Errors
    /// [`AmqpError::Missing`] when there is no such queue.
    pub async fn depth(&self, queue: &str) -> Result<u32, AmqpError> {
        // Passive: asks, and declares nothing.
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
        let asked = self.channel().queue_declare(queue.into(), options, FieldTable::default());
        let declared = answer("asking for a queue", asked).await.map_err(|e| e.or_missing(queue))?;
        Ok(declared.message_count())
    }
}

impl Browser {
    /// Over this connection; the depth of the queue comes along.
    ///
    /// # Errors
    /// [`AmqpError::Missing`] when there is no such queue.
    pub async fn open(connection: BrokerConnection, queue: &'static str) -> Result<(Self, u32), AmqpError> {
        let depth = connection.depth(queue).await?;
        Ok((Self { connection, queue, in_hand: AtomicU32::new(0) }, depth))
    }

    /// Takes the next message; `None` when no more wait.
    ///
    /// # Errors
    /// [`AmqpError`].
    pub async fn next(&self) -> Result<Option<Incoming>, AmqpError> {
        let asked = self.connection.channel().basic_get(self.queue.into(), BasicGetOptions { no_ack: false });
        let got = answer("looking at a message", asked).await?;
        Ok(got.map(|message| {
            self.in_hand.fetch_add(1, Ordering::Relaxed);
            Incoming { delivery: message.delivery }
        }))
    }

    /// Takes a message out of the queue for good.
    ///
    /// # Errors
    /// [`AmqpError`] when the broker will not hear of it: the message stays in the queue.
    pub async fn remove(&self, taken: &Incoming) -> Result<(), AmqpError> {
        taken.ack().await?;
        self.in_hand.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    }

    /// Puts everything that was taken and not removed back into its place, and returns how many messages wait then.
    ///
    /// # Errors
    /// [`AmqpError`]; the broker puts it back all the same when the connection ends.
    pub async fn give_back(&self) -> Result<u32, AmqpError> {
        let waiting = self.connection.depth(self.queue).await?;
        let whole = waiting.saturating_add(self.in_hand.swap(0, Ordering::Relaxed));
        let all = BasicNackOptions { multiple: true, requeue: true };
        // Tag 0 with `multiple` is everything that is unsettled.
        answer("giving messages back", self.connection.channel().basic_nack(0, all)).await?;
        // There is no answer, and the queue learns of it later than of a question: whoever asks next must find them.
        let deadline = Instant::now() + RETURN_WAIT_MAX;
        loop {
            let depth = self.connection.depth(self.queue).await?;
            if depth >= whole || Instant::now() >= deadline {
                return Ok(depth);
            }
            sleep(RETURN_POLL).await;
        }
    }

    /// Removes every message that waits, for good, and returns how many those were.
    ///
    /// # Errors
    /// [`AmqpError`].
    pub async fn purge(&self) -> Result<u32, AmqpError> {
        let asked = self.connection.channel().queue_purge(self.queue.into(), QueuePurgeOptions { nowait: false });
        answer("purging a queue", asked).await
    }

    /// Closes the connection.
    pub async fn close(self) {
        self.connection.close().await;
    }
}

impl Incoming {
    /// `content_type`.
    pub fn content_type(&self) -> Option<String> {
        self.delivery.properties.content_type().as_ref().map(ToString::to_string)
    }

    /// `timestamp`, as its publisher set it.
    pub fn sent_at(&self) -> Option<Timestamp> {
        moment((*self.delivery.properties.timestamp())?)
    }

    /// The broker's own record of why it moved the message here, if it did.
    pub fn last_death(&self) -> Option<Death> {
        let headers = self.delivery.properties.headers().as_ref()?.inner();
        let AMQPValue::FieldArray(deaths) = headers.get("x-death")? else { return None };
        let AMQPValue::FieldTable(latest) = deaths.as_slice().first()? else { return None };
        let text = |name: &str| match latest.inner().get(name) {
            Some(AMQPValue::LongString(text)) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
            Some(AMQPValue::ShortString(text)) => text.to_string(),
            _ => String::new(),
        };
        let at = match latest.inner().get("time") {
            Some(AMQPValue::Timestamp(seconds)) => moment(*seconds),
            _ => None,
        };
        Some(Death { queue: text("queue"), reason: text("reason"), at })
    }

    /// All headers, as a person can read them.
    pub fn headers_json(&self) -> Map<String, Value> {
        self.delivery.properties.headers().as_ref().map(object).unwrap_or_default()
    }
}

/// AMQP counts whole seconds since 1970.
fn moment(seconds: u64) -> Option<Timestamp> {
    Timestamp::from_second(i64::try_from(seconds).ok()?).ok()
}

fn object(table: &FieldTable) -> Map<String, Value> {
    table.inner().iter().map(|(name, value)| (name.to_string(), readable(value))).collect()
}

fn readable(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::Boolean(yes) => (*yes).into(),
        AMQPValue::ShortShortInt(n) => (*n).into(),
        AMQPValue::ShortShortUInt(n) => (*n).into(),
        AMQPValue::ShortInt(n) => (*n).into(),
        AMQPValue::ShortUInt(n) => (*n).into(),
        AMQPValue::LongInt(n) => (*n).into(),
        AMQPValue::LongUInt(n) => (*n).into(),
        AMQPValue::LongLongInt(n) => (*n).into(),
        AMQPValue::Float(n) => (*n).into(),
        AMQPValue::Double(n) => (*n).into(),
        AMQPValue::DecimalValue(n) => format!("{n:?}").into(),
        AMQPValue::ShortString(text) => text.as_str().into(),
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into(),
        AMQPValue::ByteArray(bytes) => String::from_utf8_lossy(bytes.as_slice()).into(),
        AMQPValue::FieldArray(values) => values.as_slice().iter().map(readable).collect(),
        AMQPValue::FieldTable(table) => object(table).into(),
        AMQPValue::Timestamp(seconds) => moment(*seconds).map_or_else(|| (*seconds).into(), |at| at.to_string().into()),
        AMQPValue::Void => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_every_type_are_readable() {
        let mut inner = FieldTable::default();
        inner.insert("reason".into(), AMQPValue::LongString("delivery_limit".into()));
        inner.insert("time".into(), AMQPValue::Timestamp(1_767_225_600));
        let mut table = FieldTable::default();
        table.insert("x-attempt".into(), AMQPValue::LongInt(-3));
        table.insert("nothing".into(), AMQPValue::Void);
        table.insert("bytes".into(), AMQPValue::LongString([0xff, b'a'].to_vec().into()));
        table.insert("x-death".into(), AMQPValue::FieldArray(vec![AMQPValue::FieldTable(inner)].into()));
        table.insert("far".into(), AMQPValue::Timestamp(u64::MAX));
        let shown = serde_json::json!({
            "x-attempt": -3, "nothing": null, "bytes": "\u{fffd}a", "far": u64::MAX,
            "x-death": [{"reason": "delivery_limit", "time": "2026-01-01T00:00:00Z"}],
        });
        assert_eq!(Value::Object(object(&table)), shown);
    }
}
