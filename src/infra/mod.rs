//! Technology shared by both roles: configuration, logs, the database, the broker, HTTP, metrics, cryptography, the
//! system.
//!
//! Nothing here depends on users or wallets.

pub(crate) mod amqp;
pub mod config;
pub(crate) mod health;
pub mod http;
pub(crate) mod metrics;
pub(crate) mod postgres;
pub(crate) mod process_usage;
pub mod security;
pub mod system;
pub mod telemetry;
