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
mod url;

pub(crate) use browser::Browser;
pub(crate) use connection::{Broker, BrokerConnection, FrameSize};
pub(crate) use consumer::Consumer;
pub(crate) use declare::{DeadLettering, Declaration, QueueKind};
pub(crate) use error::AmqpError;
pub(crate) use forward::{DEATHS, Forwarding};
pub(crate) use incoming::{Death, Incoming};
pub(crate) use inspect::QueueState;
pub(crate) use publisher::{ConfirmedPublisher, HeaderValue, Outgoing, PublishResult};
pub(crate) use url::{broker_urls, broker_urls_problem, doubt, urls_without_passwords};
