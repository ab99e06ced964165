//! What can go wrong at the broker.

use std::fmt;
use std::time::Duration;

use lapin::ErrorKind;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};

use crate::kernel::{Classified, FailureClass, chain};

/// Why a step at the broker failed. After any of them the connection must not be used again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AmqpError {
    #[error("{step}")]
    Failed {
        step: &'static str,
        #[source]
        source: Box<lapin::Error>,
    },
    /// The virtual host is named, because a slip in the last part of the URL is a common reason; and each address with
    /// its own error, because any of them may be the one that is wrong.
    #[error("connecting to RabbitMQ, virtual host {virtual_host:?}: {}", listed(attempts))]
    NotConnected { virtual_host: String, attempts: Vec<Attempt> },
    #[error("looking up the host: {reason}")]
    NoAddress { reason: String },
    #[error("{step}: no reply within {limit:?}")]
    TimedOut { step: &'static str, limit: Duration },
    /// An exchange or queue differs from what is declared; no retry can change that. `reply` is the broker's reply
    /// text, which names the argument.
    #[error(
        "{name} already exists at the broker with different arguments ({reply}). Delete it there once it is empty, or give purse its own virtual host"
    )]
    Differs { name: String, reply: String },
    /// The broker refuses a declaration for another reason, for example a missing permission or a node that is down, or
    /// does not answer it.
    #[error("{name} cannot be declared: {reason}")]
    NotDeclared { name: String, reason: String },
    #[error("the broker has no queue {name}")]
    Missing { name: String },
    #[error("{step}: the connection is closed")]
    Closed { step: &'static str },
}

/// A failed attempt to connect.
#[derive(Debug)]
pub(crate) struct Attempt {
    /// Host and port.
    pub(crate) at: String,
    pub(crate) error: AmqpError,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, chain(&self.error))
    }
}

fn listed(attempts: &[Attempt]) -> String {
    attempts.iter().map(Attempt::to_string).collect::<Vec<_>>().join("; ")
}

impl Classified for AmqpError {
    fn class(&self) -> FailureClass {
        match self {
            Self::Differs { .. } => FailureClass::Permanent,
            // A missing queue may be declared again at any time, a permission granted, a node started.
            Self::Missing { .. }
            | Self::NotDeclared { .. }
            | Self::NotConnected { .. }
            | Self::NoAddress { .. }
            | Self::Failed { .. }
            | Self::TimedOut { .. }
            | Self::Closed { .. } => FailureClass::Unavailable,
        }
    }
}

impl AmqpError {
    pub(super) fn failed(step: &'static str, source: lapin::Error) -> Self {
        Self::Failed { step, source: Box::new(source) }
    }

    /// [`Missing`](Self::Missing) if the broker replied that there is no `queue`, else the same error.
    pub(super) fn or_missing(self, queue: &str) -> Self {
        let Self::Failed { source, .. } = &self else { return self };
        match source.kind() {
            ErrorKind::ProtocolError(e) if matches!(e.kind(), AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND)) => {
                Self::Missing { name: queue.to_owned() }
            }
            _ => self,
        }
    }

    /// For a health check, which needs no token: without the broker's own words.
    pub(crate) fn summary(&self) -> String {
        match self {
            Self::Differs { name, .. } => format!("{name} exists with different arguments"),
            Self::NotDeclared { name, .. } => format!("{name} cannot be declared"),
            Self::Missing { .. }
            | Self::NotConnected { .. }
            | Self::NoAddress { .. }
            | Self::Failed { .. }
            | Self::TimedOut { .. }
            | Self::Closed { .. } => "not connected".to_owned(),
        }
    }

    /// [`Differs`](Self::Differs) if the broker replied that `name` exists with different arguments,
    /// [`NotDeclared`](Self::NotDeclared) if it refused the declaration for another reason or did not answer it, else
    /// the same error.
    pub(super) fn or_not_declared(self, name: &str) -> Self {
        let not_declared = |reason: String| Self::NotDeclared { name: name.to_owned(), reason };
        let Self::Failed { source, .. } = &self else {
            return if matches!(self, Self::TimedOut { .. }) { not_declared(self.to_string()) } else { self };
        };
        match source.kind() {
            ErrorKind::ProtocolError(e)
                if matches!(
                    e.kind(),
                    AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED)
                        | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED)
                ) =>
            {
                Self::Differs { name: name.to_owned(), reply: e.get_message().to_string() }
            }
            ErrorKind::ProtocolError(e) if matches!(e.kind(), AMQPErrorKind::Soft(_)) => {
                not_declared(e.get_message().to_string())
            }
            _ => self,
        }
    }
}
