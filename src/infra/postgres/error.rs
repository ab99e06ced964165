//! Database errors and their classes, by SQLSTATE and never by text.

use deadpool_postgres::{PoolError, TimeoutType};
use tokio_postgres::error::{Severity, SqlState};

use crate::kernel::{Classified, DependencyError, FailureClass};

/// Why a unit of work failed.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// An error of the server or of the connection.
    #[error("database error")]
    Postgres(#[from] tokio_postgres::Error),
    /// The pool could not provide a connection.
    #[error("no database connection")]
    Pool(#[from] PoolError),
    /// A connection attempt has just failed, and it is too early for the next one.
    #[error("database was unreachable a moment ago")]
    Unreachable,
    /// The unit of work took too long; its connection was closed.
    #[error("database did not respond in time")]
    Deadline,
    /// The unit of work panicked; its connection was closed.
    #[error("unit of work panicked")]
    Panicked,
    /// The parameters of the pool are invalid.
    #[error("database pool")]
    NoPool(#[source] Box<deadpool_postgres::BuildError>),
    /// The database contains a value that the domain forbids.
    #[error("stored value breaks a rule: {0}")]
    Corrupt(&'static str),
}

impl Classified for DbError {
    fn class(&self) -> FailureClass {
        match self {
            Self::Postgres(e) | Self::Pool(PoolError::Backend(e)) => class_of(e),
            // Every connection is busy. The next request may get one.
            Self::Pool(PoolError::Timeout(TimeoutType::Wait)) => FailureClass::Transient,
            Self::Pool(_) | Self::Unreachable | Self::Deadline => FailureClass::Unavailable,
            Self::Panicked | Self::NoPool(_) | Self::Corrupt(_) => FailureClass::Bug,
        }
    }
}

impl DbError {
    /// The error that a port reports; `step` names the operation.
    pub fn at(self, step: &'static str) -> DependencyError {
        DependencyError::new(step, self.class(), self)
    }

    /// Whether the server reported that the statement failed, and the transaction with it. Without such a report after
    /// `COMMIT`, the outcome is unknown. `FATAL` is no such report: a session that is terminated reports it whether or not
    /// its commit is already on disk.
    pub fn is_definite(&self) -> bool {
        match self {
            Self::Postgres(e) => e.as_db_error().is_some_and(|e| e.parsed_severity() == Some(Severity::Error)),
            Self::Pool(_) | Self::Unreachable | Self::NoPool(_) | Self::Corrupt(_) => true,
            Self::Deadline | Self::Panicked => false,
        }
    }
}

pub(super) fn class_of(error: &tokio_postgres::Error) -> FailureClass {
    let Some(state) = error.code() else {
        // No SQLSTATE: the connection was lost or never established.
        return FailureClass::Unavailable;
    };
    match state {
        s if *s == SqlState::T_R_SERIALIZATION_FAILURE
            || *s == SqlState::T_R_DEADLOCK_DETECTED
            || *s == SqlState::LOCK_NOT_AVAILABLE
            || *s == SqlState::QUERY_CANCELED =>
        {
            FailureClass::Transient
        }
        s if *s == SqlState::READ_ONLY_SQL_TRANSACTION || *s == SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT => {
            FailureClass::Unavailable
        }
        // Connection, authorization, unknown database, resources, operator intervention, I/O: the database as a whole.
        s if ["08", "28", "3D", "53", "57", "58"].iter().any(|class| s.code().starts_with(class)) => {
            FailureClass::Unavailable
        }
        _ => FailureClass::Bug,
    }
}

/// The name of the unique constraint or index that the statement violated.
pub fn violated_constraint(error: &tokio_postgres::Error) -> Option<&str> {
    error.as_db_error().filter(|e| *e.code() == SqlState::UNIQUE_VIOLATION)?.constraint()
}
