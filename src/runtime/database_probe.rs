//! Asks the database every second how it is.
//!
//! Owns: a connection of its own, so that a busy pool never looks like a dead database.
//! Receives: shutdown.
//! Sends: the state, to the health board.
//! Mailbox: control messages alone.
//! Ends: on shutdown.

use std::time::Duration;

use actix::{Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, WrapFuture as _};
use slog::{Logger, info, warn};

use crate::infra::health::HealthBoard;
use crate::infra::postgres::{Database, DbError};
use crate::kernel::{chain, fault};
use crate::runtime::child::{Lifeline, Shutdown};

/// Time between two questions.
const EVERY: Duration = Duration::from_secs(1);
/// Failures in a row before the database counts as away: one lost packet is no outage.
const AWAY_AFTER: u32 = 2;

/// The probe of one database.
pub struct DatabaseProbeActor {
    /// Over a pool of one.
    pub database: Database,
    /// The check that it sets.
    pub check: &'static str,
    /// Where.
    pub health: HealthBoard,
    /// For the changes.
    pub logger: Logger,
    /// Failures in a row.
    pub failures: u32,
    /// Tells the supervisor of the end.
    pub lifeline: Lifeline,
}

impl DatabaseProbeActor {
    fn ask(&mut self, ctx: &mut Context<Self>) {
        fault::point("database_probe.ask");
        let database = self.database.clone();
        let asked = async move {
            let answer = database.run(|client| {
                Box::pin(async move {
                    client.simple_query("-- health.probe\nSELECT 1").await?;
                    Ok(())
                })
            });
            // Longer than the server's own limits would make a stopped server look merely slow.
            tokio::time::timeout(EVERY, answer).await.unwrap_or(Err(DbError::Deadline))
        };
        ctx.spawn(asked.into_actor(self).map(|answer, probe, ctx| {
            probe.note(answer);
            ctx.run_later(EVERY, Self::ask);
        }));
    }

    fn note(&mut self, answer: Result<(), DbError>) {
        match answer {
            Ok(()) => {
                self.failures = 0;
                if self.health.set(self.check, Ok(())) {
                    info!(self.logger, "the database answers"; "check" => self.check);
                }
            }
            Err(e) => {
                self.failures = self.failures.saturating_add(1);
                let away = self.failures >= AWAY_AFTER;
                if away && self.health.set(self.check, Err("does not answer".to_owned())) {
                    warn!(self.logger, "the database does not answer"; "check" => self.check, "error" => chain(&e));
                }
            }
        }
    }
}

impl Actor for DatabaseProbeActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.ask(ctx);
    }
}

impl Handler<Shutdown> for DatabaseProbeActor {
    type Result = ();

    fn handle(&mut self, _: Shutdown, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
