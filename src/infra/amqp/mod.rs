//! RabbitMQ without a topology: connections, declarations, confirmed publishing, consuming, and looking into a queue by
//! hand. Every wait has a limit.
//!
//! lapin's own recovery stays off: under it a pending confirm can hang for ever. Whatever fails ends the connection,
//! and whoever owned it is built again by its supervisor.

mod browser;
mod connection;
mod consumer;
mod declare;
mod error;
mod forward;
mod publisher;

pub use browser::{Browser, Death};
pub use connection::{Broker, BrokerConnection, Frames, is_broker_url};
pub use consumer::{Consumer, Incoming};
pub use declare::{DeadLettering, Declaration, QueueKind, RetryHold};
pub use error::AmqpError;
pub use forward::Forwarding;
pub use publisher::{ConfirmedPublisher, HeaderValue, Outgoing, PublishResult};
