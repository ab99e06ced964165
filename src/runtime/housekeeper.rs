//! Sweeps what would grow for ever: the counts of the rate limits, here and in the database, and measured durations that
//! nobody asks for.
//!
//! Owns: nothing. Receives: shutdown. Sends: nothing. Mailbox: control messages alone. Ends: on shutdown.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext as _, AsyncContext as _, Context, Handler};

use crate::infra::http::Sweep;
use crate::infra::metrics::Metrics;
use crate::runtime::child::{Lifeline, Shutdown};

/// Time between two sweeps.
const EVERY: Duration = Duration::from_mins(1);
/// Time between two looks at the metrics: at ten thousand requests a second there are that many numbers more each second.
const TIDY_EVERY: Duration = Duration::from_secs(5);

/// Sweeps each of its chores in turn.
pub struct HousekeeperActor {
    /// What is swept.
    pub chores: Vec<Arc<dyn Sweep>>,
    /// What is tidied.
    pub metrics: Metrics,
    /// Tells the supervisor of the end.
    pub lifeline: Lifeline,
}

impl Actor for HousekeeperActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(EVERY, |keeper, _| keeper.chores.iter().for_each(|chore| chore.sweep()));
        ctx.run_interval(TIDY_EVERY, |keeper, _| keeper.metrics.tidy());
    }
}

impl Handler<Shutdown> for HousekeeperActor {
    type Result = ();

    fn handle(&mut self, _: Shutdown, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
