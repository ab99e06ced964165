//! Users: registration, login, profile, and the outbox that publishes each registration to the wallet role.

pub(crate) mod actors;
pub(crate) mod amqp;
pub mod application;
pub mod domain;
pub(crate) mod http;
pub(crate) mod postgres;
