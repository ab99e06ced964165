//! Database errors and their classes, by severity and SQLSTATE and never by text.

use tokio_postgres::error::{Severity, SqlState};

use crate::infra::postgres::connect::OpenError;
use crate::infra::postgres::layout::ShardsDiffer;
use crate::kernel::{Classified, DependencyError, FailureClass};

/// Why a unit of work failed.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// An error of the server or of the connection.
    #[error("database error")]
    Postgres(#[from] tokio_postgres::Error),
    /// The response to a `COMMIT` was not a success. Whatever the server reports, the transaction may be committed: a server
    /// that commits on another one reports an ordinary error when the other's response is lost.
    #[error("commit is in doubt")]
    InDoubt(#[source] tokio_postgres::Error),
    /// The server reported a commit as a success, but stopped waiting for the standby that should have it.
    #[error("commit is on no standby")]
    NotReplicated,
    /// No session could be opened.
    #[error("no database session")]
    Open(#[from] OpenError),
    /// Every connection of the pool stayed in use.
    #[error("no database connection was free in time")]
    Busy,
    /// A connection attempt has just failed, and it is too early for the next one.
    #[error("database was unreachable a moment ago")]
    Unreachable,
    /// The shard did not respond, and has not been reached since.
    #[error("shard is out of reach")]
    OutOfReach,
    /// The unit of work took too long; its connection was closed.
    #[error("database did not respond in time")]
    Deadline,
    /// The unit of work panicked; its connection was closed.
    #[error("unit of work panicked")]
    Panicked,
    /// The parameters of the pool are invalid.
    #[error("database pool")]
    NoPool(#[source] Box<deadpool::managed::BuildError>),
    /// The tables would be looked for where they are not.
    #[error(transparent)]
    Shards(#[from] ShardsDiffer),
    /// The database contains a value that the domain forbids.
    #[error("stored value breaks a rule: {0}")]
    Corrupt(&'static str),
}

impl Classified for DbError {
    fn class(&self) -> FailureClass {
        match self {
            Self::Postgres(e) => class_of(e),
            // Every connection is busy. The next request may get one.
            Self::Busy => FailureClass::Transient,
            Self::InDoubt(_)
            | Self::NotReplicated
            | Self::Open(_)
            | Self::Unreachable
            | Self::OutOfReach
            | Self::Deadline => FailureClass::Unavailable,
            Self::Shards(_) => FailureClass::Permanent,
            Self::Panicked | Self::NoPool(_) | Self::Corrupt(_) => FailureClass::Bug,
        }
    }
}

impl DbError {
    /// The error that a port reports; `step` names the operation.
    pub fn at(self, step: &'static str) -> DependencyError {
        DependencyError::new(step, self.class(), self)
    }

    /// Whether the server reported that the statement failed, and the transaction with it. `FATAL` is no such report: a
    /// session that is terminated reports it whether or not its commit is already on disk.
    pub fn is_definite(&self) -> bool {
        match self {
            Self::Postgres(e) => Report::of(e).is_some_and(|report| report.is_definite()),
            _ => self.is_of_this_process(),
        }
    }

    /// Whether this process has found it itself, without a statement whose outcome it does not know.
    fn is_of_this_process(&self) -> bool {
        match self {
            Self::Open(_)
            | Self::Busy
            | Self::Unreachable
            | Self::OutOfReach
            | Self::NoPool(_)
            | Self::Shards(_)
            | Self::Corrupt(_) => true,
            Self::Postgres(_) | Self::InDoubt(_) | Self::NotReplicated | Self::Deadline | Self::Panicked => false,
        }
    }

    /// What the server reported of a statement.
    fn report(&self) -> Option<Report<'_>> {
        match self {
            Self::Postgres(e) => Report::of(e),
            _ => None,
        }
    }

    /// Whether the database accepts no writes.
    pub fn is_read_only(&self) -> bool {
        match self {
            Self::Postgres(e) => e.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION),
            Self::Open(e) => e.is_read_only(),
            _ => false,
        }
    }

    /// Whether a statement was ended by its time limit. Then the session is closed.
    pub fn is_time_limit(&self) -> bool {
        match self {
            Self::Postgres(e) => e.code() == Some(&SqlState::QUERY_CANCELED),
            Self::Deadline => true,
            _ => false,
        }
    }

    /// Whether a row or a table stayed locked.
    pub fn is_lock_timeout(&self) -> bool {
        matches!(self, Self::Postgres(e) if e.code() == Some(&SqlState::LOCK_NOT_AVAILABLE))
    }

    /// Whether the server reports that it has no connection to a server behind it.
    pub fn is_lost_server_behind(&self) -> bool {
        self.report().is_some_and(|report| !report.ends_session && report.is_in(&["08"]))
    }

    /// Whether what a statement needs is out of reach, and not the server of the session: that reports so, or its statement got no
    /// response. A lost session says nothing about it.
    pub fn is_out_of_reach(&self) -> bool {
        self.is_time_limit() || self.report().is_some_and(|report| report.is_about_a_server_behind())
    }

    /// Whether a commit may have been sent and was not confirmed.
    pub(super) fn leaves_a_commit_in_doubt(&self) -> bool {
        matches!(self, Self::InDoubt(_) | Self::NotReplicated | Self::Deadline)
    }

    /// Whether the connection was lost, or the server did not even report that a statement passed its time limit there, which
    /// is shorter.
    pub(super) fn is_silence(&self) -> bool {
        match self {
            Self::Postgres(e) | Self::InDoubt(e) => {
                e.is_closed() || std::error::Error::source(e).is_some_and(<dyn std::error::Error>::is::<std::io::Error>)
            }
            Self::Deadline => true,
            _ => false,
        }
    }

    /// What becomes of the session that a unit of work ended on with this error.
    pub(super) fn fate(&self) -> SessionFate {
        match self {
            Self::Postgres(e) | Self::InDoubt(e) => Report::of(e).map_or(SessionFate::Close, |report| report.fate()),
            _ if self.is_of_this_process() => SessionFate::Keep,
            _ => SessionFate::Close,
        }
    }
}

/// What becomes of a session after a unit of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionFate {
    /// It goes back to the pool.
    Keep,
    Close,
    /// It is closed, and so is each session of the process that was opened before, when its turn comes: the reason
    /// probably applies to them too.
    CloseAll,
}

pub(super) fn class_of(error: &tokio_postgres::Error) -> FailureClass {
    // Without a report the connection was lost.
    Report::of(error).map_or(FailureClass::Unavailable, |report| report.class())
}

/// What the server reported.
#[derive(Clone, Copy, Debug)]
struct Report<'e> {
    state: &'e str,
    /// The session ended with it: `FATAL`, `PANIC`, or a severity that is not known.
    ends_session: bool,
    /// The function of the server that raised the error: a name, not a text for people, and never translated.
    routine: &'e str,
}

/// How the server finds that a prepared statement would return other columns than before.
const STALE_PLAN: &str = "RevalidateCachedQuery";

impl<'e> Report<'e> {
    fn of(error: &'e tokio_postgres::Error) -> Option<Self> {
        let report = error.as_db_error()?;
        Some(Self {
            state: report.code().code(),
            ends_session: report.parsed_severity() != Some(Severity::Error),
            routine: report.routine().unwrap_or_default(),
        })
    }

    fn is_one_of(&self, states: &[&str]) -> bool {
        states.contains(&self.state)
    }

    fn is_in(&self, classes: &[&str]) -> bool {
        classes.iter().any(|class| self.state.starts_with(class))
    }

    fn is_stale_plan(&self) -> bool {
        self.state == "0A000" && self.routine == STALE_PLAN
    }

    /// The server or a pooler in front of it no longer is what the session was opened on: read-only (25006), a prepared
    /// statement that it does not know (26000) or already has (42P05), a prepared statement from before a migration.
    fn is_another_server(&self) -> bool {
        self.is_one_of(&["25006", "26000", "42P05"]) || self.is_stale_plan()
    }

    fn class(&self) -> FailureClass {
        // Connection (08), transaction state (25, 2D, 3B), authorization (28), unknown database (3D), resources (53),
        // operator intervention (57), I/O (58): about the session or the database as a whole. Of class 40 one is too.
        let about_the_session = self.ends_session
            || self.is_another_server()
            || self.state == "40003"
            || self.is_in(&["08", "25", "28", "2D", "3B", "3D", "53", "57", "58"]);
        // Serialization and deadlock (40), a cancelled statement, a lock or an object in use (55), an old snapshot (72).
        let about_the_moment = self.state == "57014" || self.is_in(&["40", "55", "72"]);
        match (about_the_moment && !self.ends_session && self.state != "40003", about_the_session) {
            (true, _) => FailureClass::Transient,
            (false, true) => FailureClass::Unavailable,
            (false, false) => FailureClass::Bug,
        }
    }

    /// About one behind the server of the session, since the session goes on.
    fn is_about_a_server_behind(&self) -> bool {
        !self.ends_session && self.class() == FailureClass::Unavailable && !self.is_another_server()
    }

    /// Of 08007 and 40003 not even the server knows.
    fn is_definite(&self) -> bool {
        !self.ends_session && self.state != "40003" && !self.is_in(&["08"])
    }

    fn fate(&self) -> SessionFate {
        if self.is_another_server() || self.is_one_of(&["57P01", "57P02", "57P03", "57P04"]) {
            return SessionFate::CloseAll;
        }
        // Out of memory (53200) and internal errors (XX) leave a session that is better not used again. So does a cancelled statement
        // (57014): a server that waits for another one, which does not respond, is not ready for the next one.
        let is_doubtful = self.is_one_of(&["40003", "53200", "57014"])
            || self.is_in(&["08", "25", "28", "2D", "3B", "3D", "58", "XX"]);
        if self.ends_session || is_doubtful { SessionFate::Close } else { SessionFate::Keep }
    }
}

/// The name of the unique constraint or index that the statement violated.
pub fn violated_constraint(error: &tokio_postgres::Error) -> Option<&str> {
    error.as_db_error().filter(|e| *e.code() == SqlState::UNIQUE_VIOLATION)?.constraint()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(state: &str) -> Report<'_> {
        Report { state, ends_session: false, routine: "" }
    }

    #[test]
    fn each_sqlstate_at_use_has_its_class_and_its_fate_for_the_session() {
        use FailureClass::{Bug, Transient, Unavailable};
        use SessionFate::{Close, CloseAll, Keep};
        for (state, class, fate) in [
            // Another server than before.
            ("25006", Unavailable, CloseAll),
            ("26000", Unavailable, CloseAll),
            ("42P05", Unavailable, CloseAll),
            ("57P01", Unavailable, CloseAll),
            ("57P02", Unavailable, CloseAll),
            ("57P03", Unavailable, CloseAll),
            ("57P04", Unavailable, CloseAll),
            // The session.
            ("08000", Unavailable, Close),
            ("08006", Unavailable, Close),
            ("08P01", Unavailable, Close),
            ("25001", Unavailable, Close),
            ("25P01", Unavailable, Close),
            ("25P02", Unavailable, Close),
            ("25P03", Unavailable, Close),
            ("25P04", Unavailable, Close),
            ("28000", Unavailable, Close),
            ("2D000", Unavailable, Close),
            ("3B001", Unavailable, Close),
            ("3D000", Unavailable, Close),
            ("40003", Unavailable, Close),
            ("53200", Unavailable, Close),
            ("57P05", Unavailable, Keep),
            ("58030", Unavailable, Close),
            // The server, but not the session.
            ("53100", Unavailable, Keep),
            ("53300", Unavailable, Keep),
            // The moment.
            ("40000", Transient, Keep),
            ("40001", Transient, Keep),
            ("40P01", Transient, Keep),
            ("55000", Transient, Keep),
            ("55006", Transient, Keep),
            ("55P03", Transient, Keep),
            ("57014", Transient, Close),
            ("72000", Transient, Keep),
            // The statement.
            ("0A000", Bug, Keep),
            ("22003", Bug, Keep),
            ("22023", Bug, Keep),
            ("23505", Bug, Keep),
            ("42501", Bug, Keep),
            ("42601", Bug, Keep),
            ("42703", Bug, Keep),
            ("42704", Bug, Keep),
            ("42P01", Bug, Keep),
            ("54000", Bug, Keep),
            ("XX000", Bug, Close),
            ("XX001", Bug, Close),
        ] {
            assert_eq!((error(state).class(), error(state).fate()), (class, fate), "{state}");
        }
        let stale = Report { routine: STALE_PLAN, ..error("0A000") };
        assert_eq!((stale.class(), stale.fate()), (Unavailable, CloseAll));
    }

    #[test]
    fn a_server_behind_is_meant_only_by_errors_of_servers_that_leave_the_session_open() {
        for state in ["08006", "53300", "57P01"] {
            assert!(error(state).is_about_a_server_behind(), "{state}");
            assert!(!Report { ends_session: true, ..error(state) }.is_about_a_server_behind(), "{state}");
        }
        for state in ["23505", "25006", "26000", "55P03", "57014"] {
            assert!(!error(state).is_about_a_server_behind(), "{state}");
        }
    }

    #[test]
    fn whatever_ends_a_session_says_nothing_about_the_statement() {
        for state in [
            "0A000", "22023", "25P02", "25P04", "26000", "40001", "40003", "42501", "42704", "42P05", "54000", "55000",
            "55006", "57014", "57P05", "72000", "F0000", "XX000", "XX001",
        ] {
            let fatal = Report { ends_session: true, ..error(state) };
            assert_eq!(fatal.class(), FailureClass::Unavailable, "{state}");
            assert_ne!(fatal.fate(), SessionFate::Keep, "{state}");
        }
    }
}
