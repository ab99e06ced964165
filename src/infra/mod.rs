//! Technology without a context: configuration, logs, the database, the broker, HTTP, metrics, cryptography,
//! the system.
//!
//! Nothing here names users or wallets. `slog`, `lapin`, `tokio_postgres` and `actix_web` begin on this floor.

pub(crate) mod amqp;
pub mod config;
pub mod health;
pub mod http;
pub mod metrics;
pub mod postgres;
pub mod security;
pub mod system;
pub mod telemetry;
