//! Wallets: provisioning from registrations, and the append-only ledger of credits and debits.

pub(crate) mod actors;
pub(crate) mod amqp;
pub mod application;
pub mod domain;
pub(crate) mod http;
pub(crate) mod postgres;
