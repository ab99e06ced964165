//! What this role declares at the broker, each part independent of the others.

use std::collections::BTreeSet;

use crate::contracts::{
    DEAD_LETTER_EXCHANGE, DEAD_LETTER_QUEUE, DELIVERY_LIMIT, EVENTS_EXCHANGE, PROVISION_QUEUE, USER_REGISTERED_KEY,
};
use crate::infra::amqp::{AmqpError, Broker, BrokerConnection, DeadLettering, Declaration, FrameSize, QueueKind};
use crate::wallet::application::retry_ladder::RetryLadder;

/// Name of the connection in the broker's listings.
const CONNECTION_NAME: &str = "purse wallet: topology";

/// The queue that this role consumes, and all that it needs to do so.
pub(crate) fn provision_queue() -> Declaration {
    Declaration::Queue(
        PROVISION_QUEUE.to_owned(),
        QueueKind::Quorum {
            dead_lettering: DeadLettering { exchange: DEAD_LETTER_EXCHANGE, routing_key: DEAD_LETTER_QUEUE },
            delivery_limit: Some(DELIVERY_LIMIT),
            message_ttl: None,
        },
    )
}

/// All exchanges, queues and bindings, each after those that it refers to.
pub(crate) fn topology(ladder: &RetryLadder) -> Vec<Declaration> {
    let mut declarations = vec![
        Declaration::TopicExchange(EVENTS_EXCHANGE),
        provision_queue(),
        Declaration::Binding { queue: PROVISION_QUEUE, exchange: EVENTS_EXCHANGE, routing_key: USER_REGISTERED_KEY },
        Declaration::TopicExchange(DEAD_LETTER_EXCHANGE),
        Declaration::Queue(DEAD_LETTER_QUEUE.to_owned(), QueueKind::PlainClassic),
        Declaration::Binding {
            queue: DEAD_LETTER_QUEUE,
            exchange: DEAD_LETTER_EXCHANGE,
            routing_key: DEAD_LETTER_QUEUE,
        },
    ];
    // Back through the default exchange, to this queue only: through domain.events every subscriber would get retries.
    declarations.extend(ladder.tiers().iter().map(|tier| {
        Declaration::Queue(
            tier.queue(),
            QueueKind::Quorum {
                dead_lettering: DeadLettering { exchange: "", routing_key: PROVISION_QUEUE },
                delivery_limit: None,
                message_ttl: Some(tier.ttl()),
            },
        )
    }));
    declarations
}

/// Makes declarations on a connection of its own.
pub(crate) struct TopologyDeclarer {
    broker: Broker,
    declarations: Vec<Declaration>,
    connection: Option<BrokerConnection>,
    /// Queues that may not exist, so that binding them is not worth a try.
    missing: BTreeSet<String>,
}

/// The outcome of one pass.
pub(crate) struct Pass {
    /// In the order of the declarations; `None` for one that was left out.
    pub(crate) results: Vec<Option<Result<(), AmqpError>>>,
    /// Messages in the dead-letter queue, if the broker could say.
    pub(crate) dead_letters: Option<u32>,
}

impl TopologyDeclarer {
    pub(crate) const fn new(broker: Broker, declarations: Vec<Declaration>) -> Self {
        Self { broker, declarations, connection: None, missing: BTreeSet::new() }
    }

    /// Makes each declaration that is `due`. One that fails costs the connection, since the broker closes the channel or
    /// owes a reply; the next one gets a fresh connection.
    ///
    /// # Errors
    /// The broker is unavailable.
    pub(crate) async fn declare(&mut self, due: &[bool]) -> Result<Pass, AmqpError> {
        let mut results = Vec::with_capacity(self.declarations.len());
        for (declaration, due) in self.declarations.iter().zip(due) {
            if !due || matches!(declaration, Declaration::Binding { queue, .. } if self.missing.contains(*queue)) {
                results.push(None);
                continue;
            }
            let declared = connected(&mut self.connection, &self.broker).await?.declare_one(declaration).await;
            if let Declaration::Queue(name, _) = declaration {
                match &declared {
                    Err(AmqpError::NotDeclared { .. }) => drop(self.missing.insert(name.clone())),
                    Ok(()) | Err(_) => drop(self.missing.remove(name)),
                }
            }
            match declared {
                Ok(()) => results.push(Some(Ok(()))),
                Err(e @ (AmqpError::Differs { .. } | AmqpError::NotDeclared { .. })) => {
                    self.connection = None;
                    results.push(Some(Err(e)));
                }
                Err(e) => return Err(e),
            }
        }
        Ok(Pass { results, dead_letters: self.dead_letters().await? })
    }

    async fn dead_letters(&mut self) -> Result<Option<u32>, AmqpError> {
        if self.missing.contains(DEAD_LETTER_QUEUE) {
            return Ok(None);
        }
        let depth = connected(&mut self.connection, &self.broker).await?.depth(DEAD_LETTER_QUEUE).await.ok();
        if depth.is_none() {
            // Deleted since it was declared, for example; the next pass declares it.
            self.connection = None;
        }
        Ok(depth)
    }

    pub(crate) async fn close(self) {
        if let Some(connection) = self.connection {
            connection.close().await;
        }
    }
}

/// The connection, opened again if it was lost.
async fn connected<'a>(
    connection: &'a mut Option<BrokerConnection>,
    broker: &Broker,
) -> Result<&'a BrokerConnection, AmqpError> {
    let open = match connection.take().filter(BrokerConnection::is_open) {
        Some(open) => open,
        None => broker.connect(CONNECTION_NAME, FrameSize::Small).await?,
    };
    Ok(connection.insert(open))
}
