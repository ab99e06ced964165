//! Database errors and their classes, by SQLSTATE, never by text.

use deadpool_postgres::{PoolError, TimeoutType};
use tokio_postgres::error::{Severity, SqlState};

use crate::kernel::{Classified, DependencyError, FailureClass};

/// Why a unit of work has no result.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The driver's or the server's words.
    #[error("database error")]
    Postgres(#[from] tokio_postgres::Error),
    /// No connection could be had of the pool.
    #[error("no database connection")]
    Pool(#[from] PoolError),
    /// No connection could be opened a moment ago, and it is too early to try again.
    #[error("database was away a moment ago")]
    Away,
    /// It took longer than any unit of work may; its connection was thrown away.
    #[error("database did not answer in time")]
    Deadline,
    /// It panicked; its connection was thrown away.
    #[error("unit of work panicked")]
    Panicked,
    /// A pool cannot be built like this, whatever the database does.
    #[error("database pool")]
    NoPool(#[source] Box<deadpool_postgres::BuildError>),
    /// The store holds what our own rules forbid.
    #[error("stored value breaks a rule: {0}")]
    Corrupt(&'static str),
}

impl Classified for DbError {
    fn class(&self) -> FailureClass {
        match self {
            Self::Postgres(e) | Self::Pool(PoolError::Backend(e)) => class_of(e),
            // Every connection is busy: this request waited long enough, the next one may not have to.
            Self::Pool(PoolError::Timeout(TimeoutType::Wait)) => FailureClass::Transient,
            Self::Pool(_) | Self::Away | Self::Deadline => FailureClass::Unavailable,
            Self::Panicked | Self::NoPool(_) | Self::Corrupt(_) => FailureClass::Bug,
        }
    }
}

impl DbError {
    /// As a port reports it.
    pub fn at(self, step: &'static str) -> DependencyError {
        DependencyError::new(step, self.class(), self)
    }

    /// Whether the server has said that the statement, and with it the transaction, has failed. Without such a word
    /// after a `COMMIT` its outcome is in doubt. A session that is being ended says `FATAL` whether or not its commit
    /// was already on disk, so that is no such word.
    pub fn is_definite(&self) -> bool {
        match self {
            Self::Postgres(e) => e.as_db_error().is_some_and(|e| e.parsed_severity() == Some(Severity::Error)),
            Self::Pool(_) | Self::Away | Self::NoPool(_) | Self::Corrupt(_) => true,
            Self::Deadline | Self::Panicked => false,
        }
    }
}

pub(super) fn class_of(error: &tokio_postgres::Error) -> FailureClass {
    let Some(state) = error.code() else {
        // No SQLSTATE: the connection broke, or never was.
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
        // Connection, authorization, unknown database, resources, shutdown and the like, I/O: the database as a whole.
        s if ["08", "28", "3D", "53", "57", "58"].iter().any(|class| s.code().starts_with(class)) => {
            FailureClass::Unavailable
        }
        _ => FailureClass::Bug,
    }
}

/// The name of the unique constraint or index that the statement ran into, if that is what happened.
pub fn violated_constraint(error: &tokio_postgres::Error) -> Option<&str> {
    error.as_db_error().filter(|e| *e.code() == SqlState::UNIQUE_VIOLATION)?.constraint()
}
