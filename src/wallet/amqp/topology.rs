//! What this role declares before it uses it.

use crate::contracts::{
    DEAD_LETTER_EXCHANGE, DEAD_LETTER_QUEUE, DELIVERY_LIMIT, EVENTS_EXCHANGE, PROVISION_QUEUE, USER_REGISTERED_KEY,
};
use crate::infra::amqp::{DeadLettering, Declaration, QueueKind, RetryHold};
use crate::wallet::application::retry_ladder::RetryLadder;

/// All exchanges, queues and bindings, in an order in which each finds what it names.
pub fn topology(ladder: &RetryLadder) -> Vec<Declaration> {
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
                hold: None,
            },
        ),
        Declaration::Binding { queue: PROVISION_QUEUE, exchange: EVENTS_EXCHANGE, routing_key: USER_REGISTERED_KEY },
    ];
    // Through the default exchange, to the one queue: through domain.events every other subscriber would see retries.
    declarations.extend(ladder.tiers().iter().map(|tier| {
        Declaration::Queue(
            tier.queue(),
            QueueKind::Quorum {
                dead_lettering: DeadLettering { exchange: "", routing_key: PROVISION_QUEUE },
                delivery_limit: None,
                hold: Some(RetryHold(tier.ttl())),
            },
        )
    }));
    declarations
}
