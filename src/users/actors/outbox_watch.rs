//! Looks at what waits in the outbox, for the metrics.
//!
//! Not the relay: what waits is of most interest while there is no broker, and then the relay is not there.
//!
//! Owns: nothing.
//! Receives: shutdown.
//! Sends: nothing.
//! Mailbox: control messages alone.
//! Ends: on shutdown.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, WrapFuture as _};
use slog::{Logger, debug};

use crate::infra::metrics::number;
use crate::kernel::{DependencyError, chain};
use crate::runtime::{Lifeline, Shutdown};
use crate::users::actors::metrics::DepthMetrics;
use crate::users::application::queries::{OutboxDepth, UserQueries};

/// Time between two looks. Each counts what waits, so a long backlog is looked at no more often than it is scraped.
const EVERY: Duration = Duration::from_secs(5);

/// The watch.
pub struct OutboxWatchActor {
    /// Where it looks.
    pub queries: Arc<dyn UserQueries>,
    /// Where it shows what it sees.
    pub metrics: DepthMetrics,
    /// For looks that fail.
    pub logger: Logger,
    /// Tells the supervisor of the end.
    pub lifeline: Lifeline,
}

impl OutboxWatchActor {
    fn look(&mut self, ctx: &mut Context<Self>) {
        let queries = Arc::clone(&self.queries);
        let looked = async move { queries.outbox_depth().await };
        ctx.spawn(looked.into_actor(self).map(|depth, watch, ctx| {
            watch.show(depth);
            ctx.run_later(EVERY, Self::look);
        }));
    }

    /// A look that fails leaves what was seen last: the probe tells of a database that is away.
    fn show(&self, depth: Result<OutboxDepth, DependencyError>) {
        match depth {
            Ok(depth) => {
                self.metrics.pending.set(number(depth.events));
                self.metrics.oldest.set(depth.oldest_age);
            }
            Err(e) => debug!(self.logger, "the outbox could not be looked at"; "error" => chain(&e)),
        }
    }
}

impl Actor for OutboxWatchActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.look(ctx);
    }
}

impl Handler<Shutdown> for OutboxWatchActor {
    type Result = ();

    fn handle(&mut self, _: Shutdown, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
