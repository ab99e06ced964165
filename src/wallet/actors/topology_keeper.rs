//! Declares the role's exchanges, queues and bindings, and declares again what was deleted.
//!
//! Owns: a connection that nothing else uses, because a refused declaration closes its channel; the state of each
//! declaration.
//! Receives: its timer, a request to declare at once, the end of a pass, shutdown.
//! Sends: nothing; it updates the health board and the gauges.
//! Mailbox: control messages only. Further requests are dropped on purpose, since one pass declares everything.
//! Ends: when the broker is unavailable, or refuses a declaration at the start of the process.
//!
//! One declaration does not decide about another: what the broker refuses is reported and retried at longer and longer
//! intervals, and provisioning needs its own queue only.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, WrapFuture as _};
use slog::{Logger, debug, error, info};

use crate::infra::amqp::{AmqpError, Broker};
use crate::infra::health::HealthBoard;
use crate::infra::system::random_fraction;
use crate::kernel::{Backoff, Classified as _, FailureClass, chain, fault};
use crate::runtime::{BrokerLink, Handle, Lifeline, Shutdown};
use crate::wallet::actors::metrics::TopologyMetrics;
use crate::wallet::amqp::{Pass, TopologyDeclarer, topology};
use crate::wallet::application::retry_ladder::RetryLadder;

const MAILBOX_MAX: usize = 16;
/// Deleting an exchange or a binding closes no connection, so only declaring it again restores it: events are
/// unroutable for at most this long.
const DECLARE_INTERVAL: Duration = Duration::from_secs(5);
/// Delays before a refused declaration is tried again.
const REFUSED_BACKOFF: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(30));

pub(crate) struct TopologyKeeperDeps {
    pub(crate) broker: Broker,
    pub(crate) ladder: Arc<RetryLadder>,
    pub(crate) health: HealthBoard,
    pub(crate) metrics: TopologyMetrics,
    pub(crate) logger: Logger,
}

pub(crate) struct TopologyKeeperActor {
    deps: Arc<TopologyKeeperDeps>,
    link: BrokerLink,
    /// `None` while a pass runs, which then has it.
    declarer: Option<TopologyDeclarer>,
    /// In the order of the declarations.
    refusals: Vec<Option<Refusal>>,
    first_pass: bool,
    requested: bool,
}

/// The state of a declaration that failed the last time.
struct Refusal {
    times: u32,
    retry_at: Instant,
    /// For the health check.
    summary: String,
    /// As logged.
    error: String,
}

/// Something may be missing.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct DeclareNow;

impl TopologyKeeperActor {
    pub(crate) fn new(deps: Arc<TopologyKeeperDeps>, lifeline: Lifeline) -> Self {
        let link = BrokerLink::new(lifeline, deps.logger.clone())
            .with_health(deps.health.clone(), "topology")
            .with_undeclared_gauge(deps.metrics.undeclared.clone());
        let declarations = topology(&deps.ladder);
        let refusals = declarations.iter().map(|_| None).collect();
        let declarer = Some(TopologyDeclarer::new(deps.broker.clone(), declarations));
        Self { deps, link, declarer, refusals, first_pass: true, requested: false }
    }

    /// Begins a pass over everything that is due, unless one is running.
    fn declare(&mut self, ctx: &mut Context<Self>) {
        fault::point("topology_keeper.pass");
        let Some(mut declarer) = self.declarer.take() else {
            self.requested = true;
            return;
        };
        self.requested = false;
        let now = Instant::now();
        let due: Vec<bool> =
            self.refusals.iter().map(|refusal| refusal.as_ref().is_none_or(|r| r.retry_at <= now)).collect();
        let pass = async move {
            let declared = declarer.declare(&due).await;
            (declarer, declared)
        };
        ctx.spawn(pass.into_actor(self).map(|(declarer, declared), keeper, ctx| {
            keeper.declarer = Some(declarer);
            match declared {
                Ok(pass) => keeper.pass_ended(pass, ctx),
                Err(e) => keeper.link.fail(e, ctx),
            }
        }));
    }

    fn pass_ended(&mut self, pass: Pass, ctx: &mut Context<Self>) {
        let first_pass = std::mem::replace(&mut self.first_pass, false);
        if let Some(dead_letters) = pass.dead_letters {
            self.deps.metrics.dead_letters.set(dead_letters);
        }
        for (refusal, result) in self.refusals.iter_mut().zip(pass.results) {
            match result {
                // Not due.
                None => {}
                Some(Ok(())) => {
                    if let Some(refusal) = refusal.take() {
                        info!(self.deps.logger, "broker accepts the declaration again"; "error" => refusal.error);
                    }
                }
                // At the start of the process its supervisor ends it: nothing relies on it yet.
                Some(Err(e)) if first_pass && self.link.is_first_start() && e.class() == FailureClass::Permanent => {
                    return self.link.fail(e, ctx);
                }
                Some(Err(e)) => *refusal = Some(refused(&self.deps.logger, refusal.take(), &e)),
            }
        }
        let summaries: Vec<&str> = self.refusals.iter().flatten().map(|refusal| refusal.summary.as_str()).collect();
        self.link.undeclared(&summaries);
        if self.requested {
            self.declare(ctx);
        }
    }
}

/// Logs a rejection when it begins or its reason changes. The health check and the gauge show that it lasts.
fn refused(logger: &Logger, before: Option<Refusal>, e: &AmqpError) -> Refusal {
    let error = chain(e);
    let times = before.as_ref().map_or(0, |refusal| refusal.times.saturating_add(1));
    let delay = REFUSED_BACKOFF.delay(times, random_fraction());
    if before.is_some_and(|refusal| refusal.error == error) {
        debug!(logger, "still cannot be declared at the broker"; "error" => &error);
    } else {
        error!(logger, "cannot be declared at the broker; retrying while the rest of the process keeps running"; "error" => &error);
    }
    Refusal { times, retry_at: Instant::now() + delay, summary: e.summary(), error }
}

impl Actor for TopologyKeeperActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX_MAX);
        self.declare(ctx);
        ctx.run_interval(DECLARE_INTERVAL, Self::declare);
    }
}

impl Handler<DeclareNow> for TopologyKeeperActor {
    type Result = ();

    fn handle(&mut self, _: DeclareNow, ctx: &mut Self::Context) {
        self.declare(ctx);
    }
}

impl Handler<Shutdown> for TopologyKeeperActor {
    type Result = actix::ResponseFuture<()>;

    fn handle(&mut self, _: Shutdown, _: &mut Self::Context) -> Self::Result {
        let declarer = self.declarer.take();
        Box::pin(async move {
            if let Some(declarer) = declarer {
                declarer.close().await;
            }
        })
    }
}

/// Sends to the running keeper.
#[derive(Clone, Default)]
pub(crate) struct TopologyHandle(pub(crate) Handle<TopologyKeeperActor>);

impl TopologyHandle {
    /// Has everything declared that is missing, soon.
    pub(crate) fn declare_now(&self) {
        if let Some(keeper) = self.0.get() {
            // A full mailbox holds requests already, and a restarted keeper begins with a pass.
            let _ = keeper.try_send(DeclareNow);
        }
    }
}
