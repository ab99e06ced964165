//! Why a command failed, and what the operator does next.

use std::fmt;
use std::io;

use crate::infra::amqp::AmqpError;
use crate::infra::postgres::DbError;
use crate::kernel::{Classified as _, ExitError, ExitStatus, FailureClass, Role, Timestamp, first_lines, rfc3339};

/// Whether everything that was requested exists and is consistent.
pub(super) type Outcome = Result<bool, Failure>;

/// Why a command ended early.
#[derive(Debug)]
pub(super) enum Failure {
    /// The arguments contradict each other.
    Usage(String),
    /// The outbox does not have all events of a time range any more.
    Deleted {
        /// The start of the range.
        since: Timestamp,
        /// The latest creation time of a deleted event.
        deleted: Timestamp,
    },
    Broker(AmqpError),
    Database(Role, DbError),
    /// The broker did not accept a message.
    Refused(String),
    /// A command failed after it had changed something.
    Interrupted {
        /// A sentence without a full stop: `3 dead letters had been removed`.
        done: String,
        by: Box<Failure>,
    },
    /// Standard output could not be written.
    Output(io::Error),
    /// A bug.
    Internal(String),
}

impl Failure {
    fn exit_status(&self) -> ExitStatus {
        match self {
            Self::Usage(_) | Self::Database(_, DbError::Shards(_)) => ExitStatus::Usage,
            Self::Deleted { .. } => ExitStatus::CheckFailed,
            Self::Database(_, e) if e.class() == FailureClass::Bug && !e.is_unmigrated() => ExitStatus::InternalError,
            Self::Broker(_) | Self::Database(..) | Self::Refused(_) => ExitStatus::Unavailable,
            Self::Interrupted { by, .. } => by.exit_status(),
            Self::Output(_) | Self::Internal(_) => ExitStatus::InternalError,
        }
    }
}

impl From<Failure> for ExitError {
    fn from(failure: Failure) -> Self {
        Self::new(failure.exit_status(), failure)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) | Self::Refused(message) | Self::Internal(message) => f.write_str(message),
            Self::Deleted { since, deleted } => write!(
                f,
                "the outbox is complete only for events created after {deleted}: older ones were deleted after \
                 OUTBOX_RETENTION, some of them in the range from {since}. Nothing was changed. Use a later --since, or --all \
                 to republish every event that is left.",
                deleted = rfc3339(*deleted),
                since = rfc3339(*since)
            ),
            Self::Broker(AmqpError::Missing { name }) => write!(
                f,
                "RabbitMQ has no queue {name}. The wallet role declares it when it starts: start that role once, and check that RABBITMQ_URL names the virtual host that it uses."
            ),
            Self::Broker(e) => write!(
                f,
                "cannot use RabbitMQ: {}. Check that it is running and that RABBITMQ_URL is correct, then try again.",
                causes(e)
            ),
            Self::Database(_, DbError::Shards(differ)) => write!(f, "{differ}"),
            Self::Database(role, e) if e.is_unmigrated() => write!(
                f,
                "the {role} database is not up to date: {}. Run `purse migrate --role {role}` first.",
                causes(e)
            ),
            Self::Database(role, e) if e.class() == FailureClass::Bug => {
                write!(f, "the {role} database rejected a statement: {}", causes(e))
            }
            Self::Database(role, e) if e.is_lost_server_behind() => write!(
                f,
                "the {role} database cannot use one of its servers: {}. Check that this server is running, then try again.",
                causes(e)
            ),
            Self::Database(role, e) => write!(
                f,
                "cannot use the {role} database: {}. Check that it is running and that {}_DATABASE_URL is correct, then try again.",
                causes(e),
                role.as_str().to_uppercase()
            ),
            Self::Interrupted { done, by } => {
                write!(f, "{by} {done}; the others were not changed. Run the same command again to continue.")
            }
            Self::Output(e) => write!(f, "cannot write to standard output: {e}"),
        }
    }
}

/// The same as [`chain`](crate::kernel::chain), without causes that the text before them already contains.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut line = String::new();
    for cause in first_lines(error) {
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line.push_str(": ");
            line.push_str(&cause);
        }
    }
    line.trim_end_matches('.').to_owned()
}

impl From<AmqpError> for Failure {
    fn from(e: AmqpError) -> Self {
        Self::Broker(e)
    }
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        Self::Output(e)
    }
}
