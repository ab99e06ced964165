//! Consumes deliveries and settles each exactly once.

use futures_util::{Stream, StreamExt as _};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::infra::amqp::connection::{BrokerConnection, answer};
use crate::infra::amqp::error::AmqpError;

/// A subscription on a connection of its own.
pub struct Consumer {
    connection: BrokerConnection,
    tag: ShortString,
}

/// A delivery, read out of lapin's types. It is unsettled until [`ack`](Incoming::ack).
#[derive(Debug)]
pub struct Incoming {
    pub(super) delivery: Delivery,
}

impl Consumer {
    /// Subscribes to `queue` with at most `prefetch` deliveries in hand. The stream ends with an error, or simply ends,
    /// when the queue is deleted or the channel or the connection closes; there is nothing to wait for then.
    ///
    /// # Errors
    /// [`AmqpError`].
    pub async fn subscribe(
        connection: BrokerConnection,
        queue: &str,
        prefetch: u16,
    ) -> Result<(Self, impl Stream<Item = Result<Incoming, AmqpError>> + use<>), AmqpError> {
        let channel = connection.channel();
        // Not global: RabbitMQ 4.3 refuses that form.
        answer("limiting deliveries", channel.basic_qos(prefetch, BasicQosOptions { global: false })).await?;
        let options = BasicConsumeOptions { no_local: false, no_ack: false, exclusive: false, nowait: false };
        let subscribed = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
        let deliveries = answer("subscribing", subscribed).await?;
        let tag = deliveries.tag();
        let incoming = deliveries.map(|delivery| match delivery {
            Ok(delivery) => Ok(Incoming { delivery }),
            Err(e) => Err(AmqpError::failed("receiving deliveries", e)),
        });
        Ok((Self { connection, tag }, incoming))
    }

    /// Asks for no more deliveries; those in hand stay in hand.
    ///
    /// # Errors
    /// [`AmqpError`].
    pub async fn cancel(&self) -> Result<(), AmqpError> {
        let cancelled = self.connection.channel().basic_cancel(self.tag.clone(), BasicCancelOptions { nowait: false });
        answer("ending a subscription", cancelled).await
    }

    /// Closes the connection; the broker delivers what is unsettled again, to whoever comes.
    pub async fn close(self) {
        self.connection.close().await;
    }
}

impl Incoming {
    /// Body.
    pub fn body(&self) -> &[u8] {
        &self.delivery.data
    }

    /// `message_id`.
    pub fn message_id(&self) -> Option<String> {
        self.delivery.properties.message_id().as_ref().map(ToString::to_string)
    }

    /// `type`.
    pub fn kind(&self) -> Option<String> {
        self.delivery.properties.kind().as_ref().map(ToString::to_string)
    }

    fn header(&self, name: &str) -> Option<&AMQPValue> {
        self.delivery.properties.headers().as_ref()?.inner().get(name)
    }

    /// Whether there is such a header, of whatever type.
    pub fn has_header(&self, name: &str) -> bool {
        self.header(name).is_some()
    }

    /// A header that is a text.
    pub fn header_text(&self, name: &str) -> Option<String> {
        match self.header(name)? {
            AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok().map(str::to_owned),
            AMQPValue::ShortString(text) => Some(text.to_string()),
            _ => None,
        }
    }

    /// A header that is an integer of whatever width.
    pub fn header_int(&self, name: &str) -> Option<i64> {
        match self.header(name)? {
            AMQPValue::ShortShortInt(n) => Some((*n).into()),
            AMQPValue::ShortShortUInt(n) => Some((*n).into()),
            AMQPValue::ShortInt(n) => Some((*n).into()),
            AMQPValue::ShortUInt(n) => Some((*n).into()),
            AMQPValue::LongInt(n) => Some((*n).into()),
            AMQPValue::LongUInt(n) => Some((*n).into()),
            AMQPValue::LongLongInt(n) => Some(*n),
            _ => None,
        }
    }

    /// How often it was delivered before and came back without an answer, as a quorum queue counts it.
    pub fn unanswered_before(&self) -> u32 {
        self.header_int("x-delivery-count").map_or(0, |count| u32::try_from(count).unwrap_or(0))
    }

    /// The queue that the broker has most recently dead-lettered it from.
    pub fn last_death_queue(&self) -> Option<String> {
        let AMQPValue::FieldArray(deaths) = self.header("x-death")? else { return None };
        let AMQPValue::FieldTable(latest) = deaths.as_slice().first()? else { return None };
        match latest.inner().get("queue")? {
            AMQPValue::LongString(queue) => std::str::from_utf8(queue.as_bytes()).ok().map(str::to_owned),
            AMQPValue::ShortString(queue) => Some(queue.to_string()),
            _ => None,
        }
    }

    /// Settles it as done with.
    ///
    /// # Errors
    /// [`AmqpError`] when the broker will not hear of it: it delivers it again.
    pub async fn ack(&self) -> Result<(), AmqpError> {
        const STEP: &str = "acknowledging a delivery";
        // `false` says that the channel is closed; lapin does not call that an error.
        if answer(STEP, self.delivery.ack(BasicAckOptions { multiple: false })).await? {
            Ok(())
        } else {
            Err(AmqpError::Closed { step: STEP })
        }
    }
}
