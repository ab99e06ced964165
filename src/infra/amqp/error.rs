//! What can go wrong at the broker.

use std::time::Duration;

use lapin::ErrorKind;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};

use crate::kernel::{Classified, FailureClass};

/// Why a step at the broker did not succeed. Whatever it is, the connection is not used any more.
#[derive(Debug, thiserror::Error)]
pub enum AmqpError {
    /// The broker or the connection said so.
    #[error("{step}")]
    Failed {
        /// What was being done.
        step: &'static str,
        /// lapin's words.
        #[source]
        source: Box<lapin::Error>,
    },
    /// No answer.
    #[error("{step}: no answer within {limit:?}")]
    TimedOut {
        /// What was being done.
        step: &'static str,
        /// How long was waited.
        limit: Duration,
    },
    /// The broker has something of this name that differs from what we declare; no later try can change it.
    #[error(
        "{name} exists at the broker with other arguments than purse declares ({reply}). Delete it there once it is empty, or give purse a virtual host of its own"
    )]
    Differs {
        /// The exchange or queue.
        name: String,
        /// The broker's reply text, which names the argument.
        reply: String,
    },
    /// The broker has no queue of this name.
    #[error("the broker has no queue {name}")]
    Missing {
        /// The queue.
        name: String,
    },
    /// The channel or the connection is gone.
    #[error("{step}: the connection is closed")]
    Closed {
        /// What was being done.
        step: &'static str,
    },
}

impl Classified for AmqpError {
    fn class(&self) -> FailureClass {
        match self {
            Self::Differs { .. } | Self::Missing { .. } => FailureClass::Permanent,
            Self::Failed { .. } | Self::TimedOut { .. } | Self::Closed { .. } => FailureClass::Unavailable,
        }
    }
}

impl AmqpError {
    pub(super) fn failed(step: &'static str, source: lapin::Error) -> Self {
        Self::Failed { step, source: Box::new(source) }
    }

    /// The same failure, after a question about `queue`: told apart where the broker has none of that name.
    pub(super) fn or_missing(self, queue: &str) -> Self {
        let Self::Failed { source, .. } = &self else { return self };
        match source.kind() {
            ErrorKind::ProtocolError(e) if matches!(e.kind(), AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND)) => {
                Self::Missing { name: queue.to_owned() }
            }
            _ => self,
        }
    }

    /// The same failure, after a declaration of `name`: told apart where the broker has it with other arguments.
    pub(super) fn or_differs(self, name: &str) -> Self {
        let Self::Failed { source, .. } = &self else { return self };
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
            _ => self,
        }
    }
}
