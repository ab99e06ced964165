//! The use cases of people and their events, one file each, and the ports that they need.
//!
//! No HTTP, SQL or AMQP word stands here: what a store or a broker is, the adapters know.

pub mod get_profile;
pub mod log_in;
pub mod ports;
pub mod register_user;
pub mod relay_outbox;
