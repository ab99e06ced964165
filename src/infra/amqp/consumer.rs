//! Subscribes to a queue.

use futures_util::{Stream, StreamExt as _};
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};

use crate::infra::amqp::connection::{BrokerConnection, reply};
use crate::infra::amqp::error::AmqpError;
use crate::infra::amqp::incoming::Incoming;

pub(crate) struct Consumer {
    connection: BrokerConnection,
    tag: ShortString,
}

impl Consumer {
    /// Subscribes to `queue` with at most `prefetch` unacknowledged deliveries. The stream ends, after an error or
    /// without one, when the queue is deleted or the channel or the connection closes.
    pub(crate) async fn subscribe(
        connection: BrokerConnection,
        queue: &str,
        prefetch: u16,
    ) -> Result<(Self, impl Stream<Item = Result<Incoming, AmqpError>> + use<>), AmqpError> {
        let channel = connection.channel();
        // Not global: RabbitMQ 4.3 refuses that form.
        reply("setting the prefetch", channel.basic_qos(prefetch, BasicQosOptions { global: false })).await?;
        let options = BasicConsumeOptions { no_local: false, no_ack: false, exclusive: false, nowait: false };
        let subscribed = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
        let deliveries = reply("subscribing", subscribed).await?;
        let tag = deliveries.tag();
        let incoming = deliveries.map(|delivery| match delivery {
            Ok(delivery) => Ok(Incoming { delivery }),
            Err(e) => Err(AmqpError::failed("receiving deliveries", e)),
        });
        Ok((Self { connection, tag }, incoming))
    }

    /// The connection that it subscribes on.
    pub(crate) const fn connection(&self) -> &BrokerConnection {
        &self.connection
    }

    /// Stops new deliveries; those already received stay unacknowledged until they are acked.
    pub(crate) async fn cancel(&self) -> Result<(), AmqpError> {
        let cancelled = self.connection.channel().basic_cancel(self.tag.clone(), BasicCancelOptions { nowait: false });
        reply("cancelling the subscription", cancelled).await
    }
}
