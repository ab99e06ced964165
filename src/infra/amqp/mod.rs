//! RabbitMQ without a topology: connections, declarations, confirmed publishing, consuming, and reading a queue without
//! consuming it. Every wait has a limit.
//!
//! lapin's own recovery stays off: under it a pending confirm can hang forever. Any failure ends the connection, and
//! the supervisor restarts the actor that owned it.

mod browser;
mod connection;
mod consumer;
mod declare;
mod error;
mod forward;
mod incoming;
mod inspect;
mod publisher;
mod socket;

pub(crate) use browser::Browser;
pub(crate) use connection::{Broker, BrokerConnection, FrameSize, doubt, is_broker_url, url_without_password};
pub(crate) use consumer::Consumer;
pub(crate) use declare::{DeadLettering, Declaration, QueueKind};
pub(crate) use error::AmqpError;
pub(crate) use forward::{DEATHS, Forwarding};
pub(crate) use incoming::{Death, Incoming};
pub(crate) use inspect::QueueState;
pub(crate) use publisher::{ConfirmedPublisher, HeaderValue, Outgoing, PublishResult};
