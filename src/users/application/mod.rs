//! Use cases of users and their events, one per file; the ports that they need; and the queries of this context.
//!
//! Nothing here knows HTTP, SQL or AMQP: that is the adapters' part.

pub mod log_in;
pub mod ports;
pub(crate) mod queries;
pub mod register_user;
pub(crate) mod relay_outbox;
