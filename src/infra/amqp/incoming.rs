//! A message received from a queue: its body, properties and headers without lapin's types.

use lapin::message::Delivery;
use lapin::options::BasicAckOptions;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde_json::{Map, Value};

use crate::infra::amqp::connection::reply;
use crate::infra::amqp::error::AmqpError;
use crate::kernel::Timestamp;

/// A received message. It is unsettled until [`ack`](Incoming::ack): the broker redelivers it when the connection ends.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(super) delivery: Delivery,
}

/// The broker's record (`x-death`) of the last time it moved a message out of a queue by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Death {
    /// The queue that the message left.
    pub(crate) queue: String,
    /// `delivery_limit`, `expired`, `rejected` or `maxlen`.
    pub(crate) reason: String,
    pub(crate) at: Option<Timestamp>,
}

impl Incoming {
    pub(crate) fn body(&self) -> &[u8] {
        &self.delivery.data
    }

    pub(crate) fn message_id(&self) -> Option<String> {
        self.delivery.properties.message_id().as_ref().map(ToString::to_string)
    }

    /// The property `type`.
    pub(crate) fn kind(&self) -> Option<String> {
        self.delivery.properties.kind().as_ref().map(ToString::to_string)
    }

    pub(crate) fn content_type(&self) -> Option<String> {
        self.delivery.properties.content_type().as_ref().map(ToString::to_string)
    }

    /// The property `timestamp`, which the publisher sets.
    pub(crate) fn sent_at(&self) -> Option<Timestamp> {
        from_seconds((*self.delivery.properties.timestamp())?)
    }

    fn header(&self, name: &str) -> Option<&AMQPValue> {
        self.delivery.properties.headers().as_ref()?.inner().get(name)
    }

    /// Whether the header exists, whatever its type.
    pub(crate) fn has_header(&self, name: &str) -> bool {
        self.header(name).is_some()
    }

    /// The header, if it is text in UTF-8.
    pub(crate) fn header_text(&self, name: &str) -> Option<String> {
        text(self.header(name)?)
    }

    /// The header, if it is an integer of any width.
    pub(crate) fn header_int(&self, name: &str) -> Option<i64> {
        json(self.header(name)?).as_i64()
    }

    /// All headers, in a readable form.
    pub(crate) fn headers_json(&self) -> Map<String, Value> {
        self.delivery.properties.headers().as_ref().map(json_object).unwrap_or_default()
    }

    /// How many earlier deliveries ended without an ack, as a quorum queue counts them.
    pub(crate) fn earlier_deliveries(&self) -> u32 {
        self.header_int("x-delivery-count").map_or(0, |count| u32::try_from(count).unwrap_or(0))
    }

    /// Why and from where the broker last moved the message, if it did.
    pub(crate) fn last_death(&self) -> Option<Death> {
        let AMQPValue::FieldArray(deaths) = self.header("x-death")? else { return None };
        let AMQPValue::FieldTable(latest) = deaths.as_slice().first()? else { return None };
        let field = |name: &str| latest.inner().get(name);
        let at = match field("time") {
            Some(AMQPValue::Timestamp(seconds)) => from_seconds(*seconds),
            _ => None,
        };
        let [queue, reason] = ["queue", "reason"].map(|name| field(name).and_then(text).unwrap_or_default());
        Some(Death { queue, reason, at })
    }

    /// Acknowledges the message. If this fails, the broker redelivers it.
    pub(crate) async fn ack(&self) -> Result<(), AmqpError> {
        const STEP: &str = "acknowledging a delivery";
        // `false` means that the channel is closed; lapin does not call that an error.
        if reply(STEP, self.delivery.ack(BasicAckOptions { multiple: false })).await? {
            Ok(())
        } else {
            Err(AmqpError::Closed { step: STEP })
        }
    }
}

/// AMQP counts whole seconds since 1970.
fn from_seconds(seconds: u64) -> Option<Timestamp> {
    Timestamp::from_second(i64::try_from(seconds).ok()?).ok()
}

fn text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok().map(str::to_owned),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

fn json_object(table: &FieldTable) -> Map<String, Value> {
    table.inner().iter().map(|(name, value)| (ShortString::to_string(name), json(value))).collect()
}

fn json(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::Boolean(boolean) => (*boolean).into(),
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
        AMQPValue::FieldArray(values) => values.as_slice().iter().map(json).collect(),
        AMQPValue::FieldTable(table) => json_object(table).into(),
        AMQPValue::Timestamp(seconds) => {
            from_seconds(*seconds).map_or_else(|| (*seconds).into(), |at| at.to_string().into())
        }
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
        assert_eq!(Value::Object(json_object(&table)), shown);
    }
}
