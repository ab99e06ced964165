//! Publishes with confirms: a message counts as published only when the broker has confirmed that very message.

use std::collections::HashMap;
use std::time::Duration;

use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Confirmation, PublisherConfirm};
use tokio::time::{Instant, timeout_at};

use crate::infra::amqp::connection::{BrokerConnection, reply};
use crate::infra::amqp::error::AmqpError;
use crate::kernel::fault;

/// Longest wait for the confirms of one batch.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);
/// Delivery mode of a message that survives a restart of the broker.
pub(super) const PERSISTENT: u8 = 2;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HeaderValue {
    Text(String),
    Int(i32),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outgoing {
    /// Empty for the default exchange.
    pub(crate) exchange: &'static str,
    /// At the default exchange the name of a queue.
    pub(crate) routing_key: String,
    /// Unique within a batch, because returned messages are recognised by it.
    pub(crate) message_id: String,
    /// The property `type`.
    pub(crate) kind: Option<String>,
    pub(crate) headers: Vec<(&'static str, HeaderValue)>,
    /// JSON.
    pub(crate) body: Vec<u8>,
}

/// What became of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PublishResult {
    /// Routed to a queue and stored there.
    Confirmed,
    /// Returned because no queue is bound, with the broker's reason.
    Unroutable(String),
    /// Rejected by a queue.
    Nacked,
    /// No confirm in time: it may or may not have been stored. The connection is not worth keeping.
    Unconfirmed,
}

/// A connection in confirm mode.
pub(crate) struct ConfirmedPublisher {
    connection: BrokerConnection,
}

/// A message in lapin's types.
pub(super) struct RawMessage<'a> {
    pub(super) exchange: &'a str,
    pub(super) routing_key: &'a str,
    pub(super) properties: BasicProperties,
    pub(super) body: &'a [u8],
}

/// The broker's confirms of a batch.
pub(super) struct Confirms {
    /// In the order of the messages. A returned message is `Confirmed` here: the broker acks it too.
    pub(super) results: Vec<PublishResult>,
    /// lapin hands a returned message out with whichever confirm comes next, so these have no order.
    pub(super) returned: Vec<BasicReturnMessage>,
}

impl ConfirmedPublisher {
    pub(crate) async fn open(connection: BrokerConnection) -> Result<Self, AmqpError> {
        reply("enabling confirms", connection.channel().confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(Self { connection })
    }

    pub(crate) const fn connection(&self) -> &BrokerConnection {
        &self.connection
    }

    /// Publishes all of them, `mandatory` and persistent, and waits for all confirms; the results are in the order of
    /// `messages`. One batch at a time.
    pub(crate) async fn publish(&self, messages: &[Outgoing]) -> Vec<PublishResult> {
        let Confirms { results, returned } = self.publish_raw(messages.iter().map(raw).collect()).await;
        let returned: HashMap<String, String> =
            returned.iter().map(|message| (id_of(message), reason(message))).collect();
        // A return precedes its own confirm, so while a confirm is missing a return may be missing too.
        let complete = !results.contains(&PublishResult::Unconfirmed);
        let result = |(message, result): (&Outgoing, PublishResult)| match (returned.get(&message.message_id), result) {
            (Some(reason), _) => PublishResult::Unroutable(reason.clone()),
            (None, PublishResult::Confirmed) if !complete => PublishResult::Unconfirmed,
            (None, result) => result,
        };
        messages.iter().zip(results).map(result).collect()
    }

    /// Publishes all of them and waits for the confirms, for [`CONFIRM_TIMEOUT`] together.
    pub(super) async fn publish_raw(&self, messages: Vec<RawMessage<'_>>) -> Confirms {
        let count = messages.len();
        let deadline = Instant::now() + CONFIRM_TIMEOUT;
        let mut sent = Vec::with_capacity(count);
        for message in messages {
            match timeout_at(deadline, self.send(message)).await {
                Ok(Ok(confirm)) => sent.push(confirm),
                Ok(Err(_)) | Err(_) => break,
            }
        }
        fault::point("amqp.written");
        let mut confirms = Confirms { results: Vec::with_capacity(count), returned: Vec::new() };
        if fault::disabled("amqp.confirm") {
            confirms.results.resize(count, PublishResult::Confirmed);
            return confirms;
        }
        for confirm in sent {
            let (result, returned) = match timeout_at(deadline, confirm).await {
                Ok(Ok(Confirmation::Ack(returned))) => (PublishResult::Confirmed, returned),
                Ok(Ok(Confirmation::Nack(returned))) => (PublishResult::Nacked, returned),
                // Not in confirm mode, a closed channel, or no confirm in time: the outcome is unknown.
                Ok(Ok(Confirmation::NotRequested) | Err(_)) | Err(_) => (PublishResult::Unconfirmed, None),
            };
            confirms.results.push(result);
            confirms.returned.extend(returned);
        }
        confirms.results.resize(count, PublishResult::Unconfirmed);
        fault::point("amqp.confirmed");
        confirms
    }

    async fn send(&self, message: RawMessage<'_>) -> lapin::Result<PublisherConfirm> {
        let RawMessage { exchange, routing_key, properties, body } = message;
        let options = BasicPublishOptions { mandatory: !fault::disabled("amqp.mandatory"), immediate: false };
        self.connection.channel().basic_publish(exchange.into(), routing_key.into(), options, body, properties).await
    }
}

fn raw(message: &Outgoing) -> RawMessage<'_> {
    let mut headers = FieldTable::default();
    set_headers(&mut headers, &message.headers);
    let mut properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_content_type("application/json".into())
        .with_message_id(message.message_id.as_str().into())
        .with_headers(headers);
    if let Some(kind) = &message.kind {
        properties = properties.with_type(kind.as_str().into());
    }
    RawMessage { exchange: message.exchange, routing_key: &message.routing_key, properties, body: &message.body }
}

pub(super) fn set_headers(table: &mut FieldTable, headers: &[(&'static str, HeaderValue)]) {
    for (name, value) in headers {
        let value = match value {
            HeaderValue::Text(text) => AMQPValue::LongString(text.as_str().into()),
            HeaderValue::Int(number) => AMQPValue::LongInt(*number),
        };
        table.insert((*name).into(), value);
    }
}

fn id_of(message: &BasicReturnMessage) -> String {
    message.properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default()
}

/// Why the broker returned a message: `312 NO_ROUTE`.
pub(super) fn reason(message: &BasicReturnMessage) -> String {
    format!("{} {}", message.reply_code, message.reply_text)
}
