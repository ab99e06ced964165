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
        Declaration::Queue(DEAD_LETTER_QUEUE.to_owned(), QueueKind::Classic),
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

/// A form of an existing queue that is accepted in place of the declared one. A quorum queue keeps dead letters when a
/// node is lost, and earlier releases declared one in a virtual host whose default type is quorum.
pub(crate) fn accepted_instead(declaration: &Declaration) -> Option<Declaration> {
    match declaration {
        Declaration::Queue(name, QueueKind::Classic) => Some(Declaration::Queue(name.clone(), QueueKind::PlainQuorum)),
        Declaration::Queue(..) | Declaration::TopicExchange(_) | Declaration::Binding { .. } => None,
    }
}

/// Makes declarations on a connection of its own.
pub(crate) struct TopologyDeclarer {
    broker: Broker,
    declarations: Vec<Declaration>,
    connection: Option<BrokerConnection>,
    /// Queues that exist in their other accepted form. The broker logs each refusal as an error, so they are not declared
    /// in the preferred form again while they exist.
    substituted: BTreeSet<String>,
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
        Self { broker, declarations, connection: None, substituted: BTreeSet::new(), missing: BTreeSet::new() }
    }

    /// Makes each declaration that is `due`. One that fails costs the connection, since the broker closes the channel or
    /// owes a reply; the next one gets a fresh connection.
    ///
    /// # Errors
    /// The broker is unavailable.
    pub(crate) async fn declare(&mut self, due: &[bool]) -> Result<Pass, AmqpError> {
        let mut results = Vec::with_capacity(self.declarations.len());
        for (declaration, due) in self.declarations.clone().iter().zip(due) {
            if !due || matches!(declaration, Declaration::Binding { queue, .. } if self.missing.contains(*queue)) {
                results.push(None);
                continue;
            }
            let declared = self.declare_in_either_form(declaration).await;
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

    /// Declares it, or its other accepted form if it exists in that one. On an error the connection is not usable.
    async fn declare_in_either_form(&mut self, declaration: &Declaration) -> Result<(), AmqpError> {
        let name = declaration.queue_name().unwrap_or_default().to_owned();
        if self.substituted.contains(&name) && self.connected().await?.depth(&name).await.is_err() {
            // Deleted meanwhile.
            self.connection = None;
            self.substituted.remove(&name);
        }
        let other = accepted_instead(declaration);
        if let (true, Some(other)) = (self.substituted.contains(&name), &other) {
            return self.connected().await?.declare_one(other).await;
        }
        let declared = self.connected().await?.declare_one(declaration).await;
        let (Err(AmqpError::Differs { .. }), Some(other)) = (&declared, other) else { return declared };
        self.connection = None;
        if self.connected().await?.declare_one(&other).await.is_err() {
            return declared;
        }
        self.substituted.insert(name);
        Ok(())
    }

    async fn dead_letters(&mut self) -> Result<Option<u32>, AmqpError> {
        if self.missing.contains(DEAD_LETTER_QUEUE) {
            return Ok(None);
        }
        let depth = self.connected().await?.depth(DEAD_LETTER_QUEUE).await.ok();
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

    /// The connection, opened again if it was lost.
    async fn connected(&mut self) -> Result<&BrokerConnection, AmqpError> {
        let open = match self.connection.take().filter(BrokerConnection::is_open) {
            Some(open) => open,
            None => self.broker.connect(CONNECTION_NAME, FrameSize::Small).await?,
        };
        Ok(self.connection.insert(open))
    }
}
