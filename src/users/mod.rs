//! People: registration, login, profile, and the outbox that tells the other role of each registration.

pub(crate) mod actors;
pub(crate) mod amqp;
pub mod application;
pub mod domain;
pub(crate) mod http;
pub(crate) mod postgres;
