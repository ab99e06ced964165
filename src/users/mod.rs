//! People: registration, login, profile, and the outbox that tells the other role of each registration.

pub mod actors;
pub mod amqp;
pub mod application;
pub mod domain;
pub(crate) mod http;
pub(crate) mod postgres;
