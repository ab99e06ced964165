//! Checks every second whether the database does what requests need.
//!
//! Owns: its own connection, so that an exhausted pool does not look like an unavailable database.
//! Receives: shutdown.
//! Sends: nothing; it updates the health board.
//! Mailbox: control messages only.
//! Ends: on shutdown.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, WrapFuture as _};
use slog::{Logger, info, warn};

use crate::infra::health::HealthBoard;
use crate::infra::postgres::{Database, DbError};
use crate::kernel::{Classified as _, FailureClass, chain, fault};
use crate::runtime::child::{Lifeline, Shutdown};

/// Time between two probes, and the time limit of each.
const INTERVAL: Duration = Duration::from_secs(1);
/// Failures in a row before the check fails: one lost packet is no outage.
const DOWN_AFTER: u32 = 2;

pub struct DatabaseProbeDeps {
    /// A pool with one connection.
    pub database: Database,
    /// They need what requests need, and change nothing.
    pub statements: &'static str,
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
    _lifeline: Lifeline,
}

impl DatabaseProbeActor {
    pub const fn new(deps: Arc<DatabaseProbeDeps>, lifeline: Lifeline) -> Self {
        Self { deps, failures_in_a_row: 0, lost_a_session: false, _lifeline: lifeline }
    }

    fn probe(&mut self, ctx: &mut Context<Self>) {
        fault::point("database_probe.probe");
        let (database, statements) = (self.deps.database.clone(), self.deps.statements);
        let probed = async move {
            let query =
                database.run(move |client| Box::pin(async move { Ok(client.batch_execute(statements).await?) }));
            // The time limits of the server are longer, and would make a stopped server look merely slow.
            tokio::time::timeout(INTERVAL, query).await.unwrap_or(Err(DbError::Deadline))
        };
        ctx.spawn(probed.into_actor(self).map(|result, actor, ctx| {
            actor.update_health(result);
            ctx.run_later(INTERVAL, Self::probe);
        }));
    }

    fn update_health(&mut self, result: Result<(), DbError>) {
        let DatabaseProbeDeps { database, check, health, logger, .. } = &*self.deps;
        match result {
            Ok(()) => {
                let was_down = self.failures_in_a_row >= DOWN_AFTER;
                self.failures_in_a_row = 0;
                if was_down && std::mem::take(&mut self.lost_a_session) {
                    // Those that are open may belong to a server that has hung and was replaced by another.
                    database.distrust_open_sessions();
                }
                if health.set(check, Ok(())) && was_down {
                    info!(logger, "the database responds again"; "check" => check);
                }
            }
            Err(e) => {
                self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
                self.lost_a_session |= matches!(e, DbError::Postgres(_) | DbError::Deadline);
                let down = self.failures_in_a_row >= DOWN_AFTER;
                let (details, message) = outage(&e);
                if down && health.set(check, Err(details.to_owned())) {
                    warn!(logger, "{message}"; "check" => check, "error" => chain(&e));
                }
            }
        }
    }
}

/// What an outage is called on the health board, and in the log.
fn outage(e: &DbError) -> (&'static str, &'static str) {
    match e.class() {
        _ if e.is_read_only() => ("accepts no writes", "the database accepts no writes"),
        FailureClass::Unavailable | FailureClass::Transient => ("does not respond", "the database does not respond"),
        FailureClass::Refused | FailureClass::Permanent | FailureClass::Bug => {
            ("rejects statements", "the database rejects what requests need")
        }
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
