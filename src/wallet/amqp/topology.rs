//! What this role declares before it uses it.

use crate::contracts::{
    DEAD_LETTER_EXCHANGE, DEAD_LETTER_QUEUE, DELIVERY_LIMIT, EVENTS_EXCHANGE, PROVISION_QUEUE, USER_REGISTERED_KEY,
};
use crate::infra::amqp::{DeadLettering, Declaration, QueueKind};
use crate::wallet::application::retry_ladder::RetryLadder;

/// All exchanges, queues and bindings, each after those that it refers to.
pub(crate) fn topology(ladder: &RetryLadder) -> Vec<Declaration> {
    let mut declarations = vec![
        Declaration::TopicExchange(EVENTS_EXCHANGE),
        Declaration::TopicExchange(DEAD_LETTER_EXCHANGE),
        Declaration::Queue(DEAD_LETTER_QUEUE.to_owned(), QueueKind::PlainClassic),
        Declaration::Binding {
            queue: DEAD_LETTER_QUEUE,
            exchange: DEAD_LETTER_EXCHANGE,
            routing_key: DEAD_LETTER_QUEUE,
        },
        Declaration::Queue(
            PROVISION_QUEUE.to_owned(),
            QueueKind::Quorum {
                dead_lettering: DeadLettering { exchange: DEAD_LETTER_EXCHANGE, routing_key: DEAD_LETTER_QUEUE },
                delivery_limit: Some(DELIVERY_LIMIT),
                message_ttl: None,
            },
        ),
        Declaration::Binding { queue: PROVISION_QUEUE, exchange: EVENTS_EXCHANGE, routing_key: USER_REGISTERED_KEY },
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
