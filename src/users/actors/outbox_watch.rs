//! Measures the outbox for the metrics.
//!
//! This is no work for the relay: the backlog matters most during a broker outage, when the relay is down.
//!
//! Owns: nothing.
//! Receives: shutdown.
//! Sends: nothing.
//! Mailbox: control messages only.
//! Ends: on shutdown.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, WrapFuture as _};
use slog::{Logger, debug};

use crate::infra::metrics::gauge_value;
use crate::kernel::{DependencyError, chain};
use crate::runtime::{Lifeline, Shutdown};
use crate::users::actors::metrics::DepthMetrics;
use crate::users::application::queries::{OutboxDepth, UserQueries};

/// Time between two measurements. Each counts all pending events, so it is no shorter than a usual scrape interval.
const INTERVAL: Duration = Duration::from_secs(5);

pub(crate) struct OutboxWatchActor {
    pub(crate) queries: Arc<dyn UserQueries>,
    pub(crate) metrics: DepthMetrics,
    pub(crate) logger: Logger,
    #[expect(dead_code, reason = "held for its drop, which reports the end of this actor")]
    pub(crate) lifeline: Lifeline,
}

impl OutboxWatchActor {
    fn measure(&mut self, ctx: &mut Context<Self>) {
        let queries = Arc::clone(&self.queries);
        let measured = async move { queries.outbox_depth().await };
        ctx.spawn(measured.into_actor(self).map(|depth, watch, ctx| {
            watch.export(depth);
            ctx.run_later(INTERVAL, Self::measure);
        }));
    }

    /// After an error the gauges keep their values: the database probe reports the outage.
    fn export(&self, depth: Result<OutboxDepth, DependencyError>) {
        match depth {
            Ok(depth) => {
                self.metrics.pending.set(gauge_value(depth.events));
                self.metrics.oldest.set(depth.oldest_age);
            }
            Err(e) => debug!(self.logger, "could not read the outbox"; "error" => chain(&e)),
        }
    }
}

impl Actor for OutboxWatchActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.measure(ctx);
    }
}

impl Handler<Shutdown> for OutboxWatchActor {
    type Result = ();

    fn handle(&mut self, _: Shutdown, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
