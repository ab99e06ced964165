//! Publishes and does not believe it until the broker has confirmed that very message.

use std::collections::HashMap;
use std::time::Duration;

use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Confirmation, PublisherConfirm};
use tokio::time::{Instant, timeout_at};

use crate::infra::amqp::connection::{BrokerConnection, answer};
use crate::infra::amqp::error::AmqpError;
use crate::kernel::fault;

/// Longest wait for the confirms of one batch.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);
/// AMQP's number for "keep on disk".
const PERSISTENT: u8 = 2;

/// A header's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderValue {
    /// A long string.
    Text(String),
    /// A 32-bit integer.
    Int(i32),
}

/// A message on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Exchange; empty is the default one.
    pub exchange: String,
    /// Routing key; at the default exchange the queue's name.
    pub routing_key: String,
    /// `message_id`; unique in its batch, because returned messages are recognised by it.
    pub message_id: String,
    /// `type`, where there is one.
    pub kind: Option<String>,
    /// Headers.
    pub headers: Vec<(&'static str, HeaderValue)>,
    /// Body.
    pub body: Vec<u8>,
}

/// What the broker said to one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishResult {
    /// Routed to a queue, and stored there.
    Confirmed,
    /// No queue takes it; the broker's words.
    Unroutable(String),
    /// A queue refused it.
    Nacked,
    /// No answer. The connection is not worth keeping.
    Unanswered,
}

/// A connection in confirm mode.
pub struct ConfirmedPublisher {
    connection: BrokerConnection,
}

impl ConfirmedPublisher {
    /// Turns confirms on.
    ///
    /// # Errors
    /// [`AmqpError`].
    pub async fn open(connection: BrokerConnection) -> Result<Self, AmqpError> {
        answer("turning on confirms", connection.channel().confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(Self { connection })
    }

    /// The connection under it.
    pub const fn connection(&self) -> &BrokerConnection {
        &self.connection
    }

    /// Gives the connection back, to be closed.
    pub fn into_connection(self) -> BrokerConnection {
        self.connection
    }

    /// Publishes all of them, `mandatory` and persistent, and waits for all answers; the results stand in the order of
    /// `messages`. One batch at a time.
    ///
    /// A message that no queue takes is acknowledged by the broker all the same, after it was sent back. lapin hands a
    /// returned message out with whichever confirm comes next, so they are collected over the whole batch and
    /// recognised by their `message_id`.
    pub async fn publish(&self, messages: &[Outgoing]) -> Vec<PublishResult> {
        let deadline = Instant::now() + CONFIRM_TIMEOUT;
        let mut sent = Vec::with_capacity(messages.len());
        for message in messages {
            match timeout_at(deadline, self.send(message)).await {
                Ok(Ok(confirm)) => sent.push(confirm),
                Ok(Err(_)) | Err(_) => break,
            }
        }
        fault::point("amqp.written");
        if fault::disabled("amqp.confirm") {
            return vec![PublishResult::Confirmed; messages.len()];
        }
        let mut returned = HashMap::new();
        let mut answers = Vec::with_capacity(messages.len());
        for confirm in sent {
            answers.push(match timeout_at(deadline, confirm).await {
                Ok(Ok(Confirmation::Ack(message))) => {
                    note(&mut returned, message);
                    PublishResult::Confirmed
                }
                Ok(Ok(Confirmation::Nack(message))) => {
                    note(&mut returned, message);
                    PublishResult::Nacked
                }
                // Without confirm mode, a dead channel, or no answer: nothing is known.
                Ok(Ok(Confirmation::NotRequested) | Err(_)) | Err(_) => PublishResult::Unanswered,
            });
        }
        // Returns precede their own confirms, so with one confirm missing a return may still be under way.
        let complete = answers.len() == messages.len() && !answers.contains(&PublishResult::Unanswered);
        answers.resize(messages.len(), PublishResult::Unanswered);
        fault::point("amqp.confirmed");
        messages
            .iter()
            .zip(answers)
            .map(|(message, answer)| match (returned.remove(&message.message_id), answer) {
                (Some(words), _) => PublishResult::Unroutable(words),
                (None, PublishResult::Confirmed) if !complete => PublishResult::Unanswered,
                (None, answer) => answer,
            })
            .collect()
    }

    async fn send(&self, message: &Outgoing) -> lapin::Result<PublisherConfirm> {
        let mut headers = FieldTable::default();
        for (name, value) in &message.headers {
            let value = match value {
                HeaderValue::Text(text) => AMQPValue::LongString(text.as_str().into()),
                HeaderValue::Int(number) => AMQPValue::LongInt(*number),
            };
            headers.insert((*name).into(), value);
        }
        let mut properties = BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_content_type("application/json".into())
            .with_message_id(message.message_id.as_str().into())
            .with_headers(headers);
        if let Some(kind) = &message.kind {
            properties = properties.with_type(kind.as_str().into());
        }
        let options = BasicPublishOptions { mandatory: !fault::disabled("amqp.mandatory"), immediate: false };
        self.connection
            .channel()
            .basic_publish(
                message.exchange.as_str().into(),
                message.routing_key.as_str().into(),
                options,
                &message.body,
                properties,
            )
            .await
    }
}

fn note(returned: &mut HashMap<String, String>, message: Option<BasicReturnMessage>) {
    if let Some(message) = message {
        let id = message.properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default();
        returned.insert(id, format!("{} {}", message.reply_code, message.reply_text));
    }
}
