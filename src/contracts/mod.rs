//! The contract between the two roles: the event's wire format and the names in the broker topology.
//!
//! Both roles depend on this module and never on each other. It does no I/O: `infra::amqp` declares the queues.

mod topology;
mod user_registered;

pub use topology::{
    ATTEMPT_HEADER, DEAD_LETTER_EXCHANGE, DEAD_LETTER_QUEUE, DELIVERY_LIMIT, ERROR_HEADER, EVENTS_EXCHANGE,
    PROVISION_QUEUE, REQUEST_ID_HEADER, RetryTier, SIGNATURE_HEADER, TRACEPARENT_HEADER, USER_REGISTERED_KEY,
};
pub use user_registered::{EventRefused, UserRegistered};
