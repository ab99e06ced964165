//! Declares exchanges, queues and bindings; a declaration of what is there already changes nothing.

use std::time::Duration;

use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};

use crate::infra::amqp::connection::{BrokerConnection, answer};
use crate::infra::amqp::error::AmqpError;

/// Where a quorum queue sends what leaves it unhandled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLettering {
    /// Exchange; empty is the default one, whose routing keys are queue names.
    pub exchange: &'static str,
    /// Routing key.
    pub routing_key: &'static str,
}

/// How long a queue keeps a message before it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryHold(pub Duration);

/// What kind of queue is declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueKind {
    /// Replicated and fsynced. Dead-lettering is at-least-once: a message leaves only when its next queue has it.
    Quorum {
        /// Where to.
        dead_lettering: DeadLettering,
        /// Deliveries before the broker dead-letters by itself.
        delivery_limit: Option<i64>,
        /// For a retry tier.
        hold: Option<RetryHold>,
    },
    /// Durable, and without any argument.
    PlainClassic,
}

/// One thing to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Declaration {
    /// A durable topic exchange.
    TopicExchange(&'static str),
    /// A durable queue.
    Queue(String, QueueKind),
    /// `queue` gets what `exchange` routes by `routing_key`.
    Binding {
        /// The queue.
        queue: &'static str,
        /// The exchange.
        exchange: &'static str,
        /// The key.
        routing_key: &'static str,
    },
}

impl BrokerConnection {
    /// Declares all of them, in order.
    ///
    /// # Errors
    /// [`AmqpError::Differs`] when something of that name exists with other arguments.
    pub async fn declare(&self, declarations: &[Declaration]) -> Result<(), AmqpError> {
        for declaration in declarations {
            self.declare_one(declaration).await?;
        }
        Ok(())
    }

    /// How many messages wait in a queue, without those that a consumer has in hand.
    ///
    /// # Errors
    /// [`AmqpError`], also when there is no such queue, which closes the channel.
    pub async fn messages(&self, queue: &str) -> Result<u32, AmqpError> {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let asked = self.channel().queue_declare(queue.into(), options, FieldTable::default());
        answer("counting a queue's messages", asked).await.map(|queue| queue.message_count())
    }

    async fn declare_one(&self, declaration: &Declaration) -> Result<(), AmqpError> {
        match declaration {
            Declaration::TopicExchange(name) => {
                let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
                let asked = self.channel().exchange_declare(
                    (*name).into(),
                    ExchangeKind::Topic,
                    options,
                    FieldTable::default(),
                );
                answer("declaring an exchange", asked).await.map_err(|e| e.or_differs(name))
            }
            Declaration::Queue(name, kind) => {
                // Not the default, which is transient.
                let options = QueueDeclareOptions::durable();
                let asked = self.channel().queue_declare(name.as_str().into(), options, arguments(kind));
                answer("declaring a queue", asked).await.map(drop).map_err(|e| e.or_differs(name))
            }
            Declaration::Binding { queue, exchange, routing_key } => {
                let bound = self.channel().queue_bind(
                    (*queue).into(),
                    (*exchange).into(),
                    (*routing_key).into(),
                    QueueBindOptions::default(),
                    FieldTable::default(),
                );
                answer("binding a queue", bound).await
            }
        }
    }
}

fn arguments(kind: &QueueKind) -> FieldTable {
    let mut arguments = FieldTable::default();
    let QueueKind::Quorum { dead_lettering, delivery_limit, hold } = kind else { return arguments };
    let mut text = |name: &'static str, value: &'static str| {
        arguments.insert(name.into(), AMQPValue::LongString(value.into()));
    };
    text("x-queue-type", "quorum");
    text("x-dead-letter-exchange", dead_lettering.exchange);
    text("x-dead-letter-routing-key", dead_lettering.routing_key);
    text("x-dead-letter-strategy", "at-least-once"); // the default loses what its target cannot take at the moment
    text("x-overflow", "reject-publish"); // at-least-once needs it; a full queue answers with a nack
    if let Some(limit) = delivery_limit {
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(*limit));
    }
    if let Some(RetryHold(ttl)) = hold {
        let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
        arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(ttl_ms));
    }
    arguments
}
