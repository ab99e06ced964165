//! Removes data that would grow without bound: expired rate limit counters, in memory and in the database, and recorded
//! durations between scrapes.
//!
//! Owns: nothing. Receives: shutdown. Sends: nothing. Mailbox: control messages only. Ends: on shutdown.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext as _, AsyncContext as _, Context, Handler};

use crate::infra::http::Sweep;
use crate::infra::metrics::Metrics;
use crate::runtime::child::{Lifeline, Shutdown};

const SWEEP_INTERVAL: Duration = Duration::from_mins(1);
/// Short, because every request adds a recorded duration.
const AGGREGATE_INTERVAL: Duration = Duration::from_secs(5);

pub struct HousekeeperActor {
    sweeps: Vec<Arc<dyn Sweep>>,
    metrics: Metrics,
    _lifeline: Lifeline,
}

impl HousekeeperActor {
    pub const fn new(sweeps: Vec<Arc<dyn Sweep>>, metrics: Metrics, lifeline: Lifeline) -> Self {
        Self { sweeps, metrics, _lifeline: lifeline }
    }
}

impl Actor for HousekeeperActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(SWEEP_INTERVAL, |keeper, _| keeper.sweeps.iter().for_each(|sweep| sweep.sweep()));
        ctx.run_interval(AGGREGATE_INTERVAL, |keeper, _| keeper.metrics.aggregate());
    }
}

impl Handler<Shutdown> for HousekeeperActor {
    type Result = ();

    fn handle(&mut self, _: Shutdown, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
