//! Deletes published events whose retention is over, so that the outbox does not grow with every registration.
//!
//! Each process of the role does this, in batches that skip rows which another process is deleting. A pass ends with the
//! first failure, so nothing is tried more than once per minute while the database is away.
//!
//! Owns: nothing.
//! Receives: shutdown.
//! Sends: nothing.
//! Mailbox: control messages only.
//! Ends: on shutdown.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, WrapFuture as _};
use slog::{Logger, debug, info, warn};

use crate::infra::metrics::Counter;
use crate::kernel::{Classified as _, DependencyError, FailureClass, chain};
use crate::runtime::{Lifeline, Shutdown};
use crate::users::application::ports::PublishedEvents;

/// Time between two passes.
pub(crate) const PRUNE_INTERVAL: Duration = Duration::from_mins(1);
/// Rows per statement: milliseconds, of which a request waits for a connection at most once.
const BATCH_MAX: u32 = 1_000;
/// Time between two batches, so that catching up leaves most of the database to requests.
const PAUSE: Duration = Duration::from_millis(200);

pub(crate) struct OutboxPrunerActor {
    pub(crate) events: Arc<dyn PublishedEvents>,
    pub(crate) retention: Duration,
    /// Time between two passes.
    pub(crate) interval: Duration,
    pub(crate) pruned: Counter,
    pub(crate) logger: Logger,
    #[expect(dead_code, reason = "held for its drop, which reports the end of this actor")]
    pub(crate) lifeline: Lifeline,
}

impl OutboxPrunerActor {
    /// Deletes a batch; `before` is how many events this pass has deleted already.
    fn prune(&mut self, before: u64, ctx: &mut Context<Self>) {
        let (events, retention) = (Arc::clone(&self.events), self.retention);
        let deleted = async move { events.delete_expired(retention, BATCH_MAX).await };
        ctx.spawn(deleted.into_actor(self).map(move |deleted, pruner, ctx| {
            let total = before.saturating_add(*deleted.as_ref().unwrap_or(&0));
            if pruner.goes_on(deleted) {
                ctx.run_later(PAUSE, move |pruner, ctx| pruner.prune(total, ctx));
                return;
            }
            if total > 0 {
                info!(pruner.logger, "deleted published events that are older than OUTBOX_RETENTION"; "events" => total);
            }
            ctx.run_later(pruner.interval, |pruner, ctx| pruner.prune(0, ctx));
        }));
    }

    /// Counts a batch, and returns whether there may be another.
    fn goes_on(&self, deleted: Result<u64, DependencyError>) -> bool {
        match deleted {
            Ok(deleted) => {
                self.pruned.increment(deleted);
                return deleted == u64::from(BATCH_MAX);
            }
            // The database probe reports the outage.
            Err(e) if e.class() == FailureClass::Unavailable => {
                debug!(self.logger, "could not delete old events"; "error" => chain(&e));
            }
            Err(e) => warn!(self.logger, "could not delete old events; the outbox grows"; "error" => chain(&e)),
        }
        false
    }
}

impl Actor for OutboxPrunerActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.prune(0, ctx);
    }
}

impl Handler<Shutdown> for OutboxPrunerActor {
    type Result = ();

    fn handle(&mut self, _: Shutdown, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use super::*;
    use crate::infra::metrics::{MetricName, Metrics};

    /// Returns these results one after the other, then zeros; notes what it was asked for.
    #[derive(Default)]
    struct Scripted {
        results: Mutex<VecDeque<Result<u64, FailureClass>>>,
        asked: Mutex<Vec<(Duration, u32)>>,
    }

    #[async_trait::async_trait]
    impl PublishedEvents for Scripted {
        async fn delete_expired(&self, retention: Duration, most: u32) -> Result<u64, DependencyError> {
            self.asked.lock().expect("not poisoned").push((retention, most));
            let next = self.results.lock().expect("not poisoned").pop_front().unwrap_or(Ok(0));
            next.map_err(|class| DependencyError::new("users.outbox.delete_expired", class, "away"))
        }
    }

    #[actix::test]
    async fn after_an_outage_the_next_pass_deletes_the_rest() {
        let results =
            [Ok(1_000), Ok(5), Err(FailureClass::Unavailable), Err(FailureClass::Transient), Ok(1_000), Ok(7)];
        let events = Arc::new(Scripted { results: Mutex::new(results.into()), ..Scripted::default() });
        let metrics = Metrics::try_new().expect("metrics");
        let pruner = OutboxPrunerActor {
            events: Arc::clone(&events) as Arc<dyn PublishedEvents>,
            retention: Duration::from_hours(2),
            interval: Duration::from_millis(5),
            pruned: metrics.counter(MetricName { name: "pruned_total", help: "Pruned." }, &[]),
            logger: Logger::root(slog::Discard, slog::o!()),
            lifeline: Lifeline::unsupervised(),
        };
        let pruner = pruner.start();
        for _ in 0..600 {
            // One more than the script has, so that the last result was counted.
            if events.asked.lock().expect("not poisoned").len() > 6 {
                break;
            }
            actix::clock::sleep(Duration::from_millis(50)).await;
        }
        assert!(metrics.text().contains("pruned_total 2012\n"), "{}", metrics.text());
        let asked = events.asked.lock().expect("not poisoned").clone();
        assert!(asked.iter().all(|asked| *asked == (Duration::from_hours(2), BATCH_MAX)), "{asked:?}");
        pruner.send(Shutdown { grace: Duration::ZERO }).await.expect("stopped");
        assert!(!pruner.connected(), "it still runs");
    }
}
