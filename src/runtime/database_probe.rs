//! Checks every second whether the database does what requests need.
//!
//! Owns: its own connection, so that an exhausted pool does not look like an unavailable database.
//! Receives: shutdown.
//! Sends: nothing; it updates the health board.
//! Mailbox: control messages only.
//! Ends: on shutdown.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, WrapFuture as _};
use slog::{Logger, info, warn};

use crate::infra::health::HealthBoard;
use crate::infra::postgres::{COMMIT, Database, DbError};
use crate::kernel::{Classified as _, FailureClass, chain, fault};
use crate::runtime::child::{Lifeline, Shutdown};

/// Time between two probes, and the time limit of each.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two probes that commit, while there is no doubt. A commit costs a flush of the server's log, and a number of
/// the transactions that it can count.
const COMMIT_INTERVAL: Duration = Duration::from_secs(10);
/// Failures in a row before the check fails: one lost packet is no outage.
const DOWN_AFTER: u32 = 2;

pub struct DatabaseProbeDeps {
    /// A pool with one connection, which ends a unit of work after [`PROBE_INTERVAL`].
    pub database: Database,
    /// They need what requests need, and change nothing.
    pub statements: String,
    /// The health check to update.
    pub check: &'static str,
    pub health: HealthBoard,
    pub logger: Logger,
}

pub struct DatabaseProbeActor {
    deps: Arc<DatabaseProbeDeps>,
    failures_in_a_row: u32,
    /// Whether a session that was open failed since the last success.
    lost_a_session: bool,
    /// When a probe last committed.
    committed_at: Option<Instant>,
    _lifeline: Lifeline,
}

/// Why a probe failed.
enum Failed {
    /// The statements.
    Statements(DbError),
    /// A commit was not confirmed.
    Commit(DbError),
}

impl DatabaseProbeActor {
    pub const fn new(deps: Arc<DatabaseProbeDeps>, lifeline: Lifeline) -> Self {
        Self { deps, failures_in_a_row: 0, lost_a_session: false, committed_at: None, _lifeline: lifeline }
    }

    fn probe(&mut self, ctx: &mut Context<Self>) {
        fault::point("database_probe.probe");
        let commits = self.failures_in_a_row > 0
            || self.deps.database.is_a_commit_in_doubt()
            || self.committed_at.is_none_or(|at| at.elapsed() >= COMMIT_INTERVAL);
        if commits {
            self.committed_at = Some(Instant::now());
        }
        let deps = Arc::clone(&self.deps);
        let probed = async move { deps.probe(commits).await };
        ctx.spawn(probed.into_actor(self).map(|result, actor, ctx| {
            actor.update_health(result);
            ctx.run_later(PROBE_INTERVAL, Self::probe);
        }));
    }

    fn update_health(&mut self, result: Result<(), Failed>) {
        let was_down = self.failures_in_a_row >= DOWN_AFTER;
        let e = match result {
            Ok(()) => {
                self.failures_in_a_row = 0;
                if was_down && std::mem::take(&mut self.lost_a_session) {
                    // Those that were opened meanwhile may belong to a server that was replaced by another.
                    self.deps.database.distrust_open_sessions();
                }
                if self.deps.health.set(self.deps.check, Ok(())) && was_down {
                    info!(self.deps.logger, "the database responds again"; "check" => self.deps.check);
                }
                return;
            }
            Err(e) => e,
        };
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        self.lost_a_session |= e.is_of_a_session();
        if self.failures_in_a_row < DOWN_AFTER {
            return;
        }
        if !was_down && self.lost_a_session {
            // The server may have hung. When it wakes, it may have been replaced by another.
            self.deps.database.distrust_open_sessions();
        }
        let (details, message, error) = e.outage();
        if self.deps.health.set(self.deps.check, Err(details.to_owned())) {
            warn!(self.deps.logger, "{message}"; "check" => self.deps.check, "error" => chain(error));
        }
    }
}

impl DatabaseProbeDeps {
    async fn probe(&self, commits: bool) -> Result<(), Failed> {
        let run = |statements: &str| {
            let statements = statements.to_owned();
            let query =
                self.database.run(move |client| Box::pin(async move { Ok(client.batch_execute(&statements).await?) }));
            // Opening a session has its own limit, which is longer.
            async move { tokio::time::timeout(PROBE_INTERVAL, query).await.unwrap_or(Err(DbError::Deadline)) }
        };
        run(&self.statements).await.map_err(Failed::Statements)?;
        if !commits {
            return Ok(());
        }
        match run(COMMIT).await {
            Ok(()) => self.database.commits_are_confirmed(),
            // The account may not execute the function. Requests do not need it.
            Err(e) if e.is_unmigrated() => self.database.commits_are_confirmed(),
            Err(e) => return Err(Failed::Commit(e)),
        }
        Ok(())
    }
}

impl Failed {
    /// Whether a session failed that was open.
    const fn is_of_a_session(&self) -> bool {
        let (Self::Statements(e) | Self::Commit(e)) = self;
        matches!(e, DbError::Postgres(_) | DbError::NotReplicated | DbError::Deadline)
    }

    /// What an outage is called on the health board, and in the log, and why it is one.
    fn outage(&self) -> (&'static str, &'static str, &DbError) {
        let (details, message) = match self {
            Self::Commit(_) => ("confirms no commits", "the database confirms no commits"),
            Self::Statements(e) if e.is_read_only() => ("accepts no writes", "the database accepts no writes"),
            Self::Statements(e) => match e.class() {
                FailureClass::Unavailable | FailureClass::Transient => {
                    ("does not respond", "the database does not respond")
                }
                FailureClass::Refused | FailureClass::Permanent | FailureClass::Bug => {
                    ("rejects statements", "the database rejects what requests need")
                }
            },
        };
        let (Self::Statements(e) | Self::Commit(e)) = self;
        (details, message, e)
    }
}

impl Actor for DatabaseProbeActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.probe(ctx);
    }
}

impl Handler<Shutdown> for DatabaseProbeActor {
    type Result = ();

    fn handle(&mut self, _: Shutdown, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
