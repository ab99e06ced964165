//! What crosses between the two roles: the event on the wire and the names of the broker's topology.
//!
//! Both roles read this room and nothing of each other. Pure: how a queue is declared is `infra::amqp`'s work.

mod topology;
mod user_registered;

pub use topology::{
    ATTEMPT_HEADER, DEAD_LETTER_EXCHANGE, DEAD_LETTER_QUEUE, DELIVERY_LIMIT, ERROR_HEADER, EVENTS_EXCHANGE,
    PROVISION_QUEUE, REQUEST_ID_HEADER, RetryTier, SIGNATURE_HEADER, TRACEPARENT_HEADER, USER_REGISTERED_KEY,
};
pub use user_registered::{EventRefused, UserRegistered};
