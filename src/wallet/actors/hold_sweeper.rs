//! Ends holds that are due in wallets to which nothing else happens, and measures holds for the metrics.
//!
//! Owns: at most one pass in flight.
//! Receives: shutdown.
//! Sends: nothing; it calls `expire_holds`, which posts to the ledger.
//! Mailbox: control messages only.
//! Ends: on shutdown. Posts in flight are the ledger writer's, which completes them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, WrapFuture as _};
use slog::{Logger, debug, info, warn};

use crate::infra::metrics::gauge_value;
use crate::kernel::{DependencyError, Reminder, chain, fault};
use crate::runtime::{Lifeline, Shutdown};
use crate::wallet::actors::metrics::HoldMetrics;
use crate::wallet::application::holds::{DueHolds, ExpireHolds, Unread};

/// Time between two passes, unless more is due than one pass ends.
const INTERVAL: Duration = Duration::from_secs(1);
/// Time between two counts of all open holds, which is no shorter than a usual scrape interval.
const COUNT_INTERVAL: Duration = Duration::from_secs(15);

pub(crate) struct HoldSweeperDeps {
    pub(crate) expire_holds: ExpireHolds,
    pub(crate) metrics: HoldMetrics,
    pub(crate) logger: Logger,
    pub(crate) unread: Reminder,
}

pub(crate) struct HoldSweeperActor {
    deps: Arc<HoldSweeperDeps>,
    /// `None` before the first count.
    counted_at: Option<Instant>,
    /// How long the earliest due hold has been overdue; the longest since a pass has read everything.
    oldest: Duration,
    /// Whether a shard was reported that could not be read.
    is_any_unread: bool,
    _lifeline: Lifeline,
}

/// What a pass has found.
struct Pass {
    due: DueHolds,
    /// `None` if it was not the time to count.
    open: Option<Result<usize, DependencyError>>,
}

impl HoldSweeperActor {
    pub(crate) const fn new(deps: Arc<HoldSweeperDeps>, lifeline: Lifeline) -> Self {
        Self { deps, counted_at: None, oldest: Duration::ZERO, is_any_unread: false, _lifeline: lifeline }
    }

    fn sweep(&mut self, ctx: &mut Context<Self>) {
        fault::point("hold_sweeper.sweep");
        let deps = Arc::clone(&self.deps);
        let counts = self.counted_at.is_none_or(|at| at.elapsed() >= COUNT_INTERVAL);
        let pass = async move {
            let due = deps.expire_holds.execute().await;
            let open = if counts { Some(deps.expire_holds.holds.count_open().await) } else { None };
            Pass { due, open }
        };
        ctx.spawn(pass.into_actor(self).map(|pass, sweeper, ctx| {
            let more = sweeper.export(pass);
            ctx.run_later(if more { Duration::ZERO } else { INTERVAL }, Self::sweep);
        }));
    }

    /// What could not be read keeps its values. Returns whether more is due that the ledger can take now.
    fn export(&mut self, Pass { due, open }: Pass) -> bool {
        let HoldSweeperDeps { expire_holds, metrics, logger, unread } = &*self.deps;
        if let Some(open) = open {
            self.counted_at = Some(Instant::now());
            match open {
                Ok(open) => metrics.open.set(gauge_value(open)),
                Err(e) => debug!(logger, "could not count the open holds"; "error" => chain(&e)),
            }
        }
        self.oldest = if due.unread.is_empty() { due.oldest } else { due.oldest.max(self.oldest) };
        metrics.overdue.set(self.oldest.as_secs_f64());
        for Unread { schema, error } in &due.unread {
            // Without shards, the database probe reports the outage.
            if let (Some(schema), Some(error)) = (schema, error)
                && unread.is_due()
            {
                self.is_any_unread = true;
                warn!(logger, "shard cannot be read"; "schema" => schema, "shards" => due.unread.len(), "error" => chain(error));
            }
        }
        if due.unread.is_empty() {
            unread.reset();
            if std::mem::take(&mut self.is_any_unread) {
                info!(logger, "all shards can be read again");
            }
        }
        due.more && !expire_holds.ledger.is_busy()
    }
}

impl Actor for HoldSweeperActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.sweep(ctx);
    }
}

impl Handler<Shutdown> for HoldSweeperActor {
    type Result = ();

    fn handle(&mut self, _: Shutdown, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
