//! Declares exchanges, queues and bindings; declaring what already exists changes nothing.

use std::time::Duration;

use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};

use crate::infra::amqp::connection::{BrokerConnection, reply};
use crate::infra::amqp::error::AmqpError;

/// Where a quorum queue sends messages that leave it unhandled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeadLettering {
    /// Empty for the default exchange, whose routing keys are queue names.
    pub(crate) exchange: &'static str,
    pub(crate) routing_key: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum QueueKind {
    /// Replicated and fsynced. Dead-lettering is at-least-once: a message leaves only when its next queue has it.
    Quorum {
        dead_lettering: DeadLettering,
        /// Deliveries of one message before the broker dead-letters it.
        delivery_limit: Option<i64>,
        /// Age at which a message is dead-lettered: the delay of a retry tier.
        message_ttl: Option<Duration>,
    },
    /// Durable, on one node. Its type is declared, because the default type of the virtual host may be another.
    Classic,
    /// Durable, replicated, and without further arguments: any limit is that of the broker or of a policy.
    PlainQuorum,
}

/// An exchange, a queue or a binding that must exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Declaration {
    /// A durable topic exchange.
    TopicExchange(&'static str),
    /// A durable queue.
    Queue(String, QueueKind),
    /// Routes what `exchange` receives under `routing_key` to `queue`.
    Binding { queue: &'static str, exchange: &'static str, routing_key: &'static str },
}

impl Declaration {
    /// If it declares a queue.
    pub(crate) fn queue_name(&self) -> Option<&str> {
        match self {
            Self::Queue(name, _) => Some(name),
            Self::TopicExchange(_) | Self::Binding { .. } => None,
        }
    }
}

impl BrokerConnection {
    /// Declares all of them, in order, up to the first that fails; see [`declare_one`](Self::declare_one).
    pub(crate) async fn declare(&self, declarations: &[Declaration]) -> Result<(), AmqpError> {
        for declaration in declarations {
            self.declare_one(declaration).await?;
        }
        Ok(())
    }

    /// How many messages are ready in `queue`, not counting unacknowledged ones; [`AmqpError::Missing`], which also
    /// closes the channel, when there is no such queue.
    pub(crate) async fn depth(&self, queue: &str) -> Result<u32, AmqpError> {
        // Passive: asks, and declares nothing.
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
        let declared = self.channel().queue_declare(queue.into(), options, FieldTable::default());
        let queried = reply("reading the depth of a queue", declared).await.map_err(|e| e.or_missing(queue))?;
        Ok(queried.message_count())
    }

    /// [`AmqpError::Differs`] when it exists with different arguments, [`AmqpError::NotDeclared`] when the broker rejects it
    /// for another reason or does not respond. The connection must not be used after either.
    pub(crate) async fn declare_one(&self, declaration: &Declaration) -> Result<(), AmqpError> {
        match declaration {
            Declaration::TopicExchange(name) => {
                let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
                let declared = self.channel().exchange_declare(
                    (*name).into(),
                    ExchangeKind::Topic,
                    options,
                    FieldTable::default(),
                );
                reply("declaring an exchange", declared).await.map_err(|e| e.or_not_declared(name))
            }
            Declaration::Queue(name, kind) => {
                // Not the default, which is transient.
                let options = QueueDeclareOptions::durable();
                let declared = self.channel().queue_declare(name.as_str().into(), options, arguments(kind));
                reply("declaring a queue", declared).await.map(drop).map_err(|e| e.or_not_declared(name))
            }
            Declaration::Binding { queue, exchange, routing_key } => {
                let bound = self.channel().queue_bind(
                    (*queue).into(),
                    (*exchange).into(),
                    (*routing_key).into(),
                    QueueBindOptions::default(),
                    FieldTable::default(),
                );
                reply("binding a queue", bound).await.map_err(|e| e.or_not_declared(&format!("the binding of {queue}")))
            }
        }
    }
}

fn arguments(kind: &QueueKind) -> FieldTable {
    let mut arguments = FieldTable::default();
    let mut text = |name: &'static str, value: &'static str| {
        arguments.insert(name.into(), AMQPValue::LongString(value.into()));
    };
    // RabbitMQ takes a classic queue that was declared without its type for the same.
    text("x-queue-type", if *kind == QueueKind::Classic { "classic" } else { "quorum" });
    let QueueKind::Quorum { dead_lettering, delivery_limit, message_ttl } = kind else { return arguments };
    text("x-dead-letter-exchange", dead_lettering.exchange);
    text("x-dead-letter-routing-key", dead_lettering.routing_key);
    text("x-dead-letter-strategy", "at-least-once"); // the default loses messages that the target cannot take
    text("x-overflow", "reject-publish"); // required by at-least-once; a full queue replies with a nack
    if let Some(limit) = delivery_limit {
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(*limit));
    }
    if let Some(ttl) = message_ttl {
        let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
        arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(ttl_ms));
    }
    arguments
}
