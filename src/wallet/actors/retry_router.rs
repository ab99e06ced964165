//! Moves failed deliveries to the retry ladder or the dead letters.
//!
//! Owns: the publishing connection, the copies to publish, at most one batch in flight.
//! Receives: a copy to publish, the end of a batch, its timer (the state of the connection), shutdown.
//! Sends: the result of a publish, to its caller; to the topology keeper, that a queue is missing.
//! Mailbox: bounded by the prefetch, since each unacknowledged delivery publishes one copy at a time.
//! Ends: when the broker is unavailable, confirms nothing, or rejects everything on this connection; the restarted actor
//! has a new one.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, WrapFuture as _};
use slog::{Logger, info};
use tokio::sync::oneshot;

use crate::infra::amqp::{AmqpError, Broker};
use crate::infra::health::HealthBoard;
use crate::kernel::fault;
use crate::runtime::{BrokerLink, EndReason, Handle, Lifeline, Rejections, Shutdown};
use crate::wallet::actors::metrics::RouterMetrics;
use crate::wallet::actors::topology_keeper::TopologyHandle;
use crate::wallet::amqp::{DeliveryCopy, RetryPublisher, RouteError};

const CONNECTION_CHECK_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) struct RetryRouterDeps {
    pub(crate) broker: Broker,
    pub(crate) topology: TopologyHandle,
    pub(crate) health: HealthBoard,
    pub(crate) metrics: RouterMetrics,
    pub(crate) logger: Logger,
}

pub(crate) struct RetryRouterActor {
    deps: Arc<RetryRouterDeps>,
    link: BrokerLink,
    publisher: Option<Arc<RetryPublisher>>,
    queue: Vec<Publish>,
    publishing: bool,
    rejections: Rejections,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Publish {
    copy: DeliveryCopy,
    result: oneshot::Sender<Result<(), RouteError>>,
}

impl RetryRouterActor {
    pub(crate) fn new(deps: Arc<RetryRouterDeps>, lifeline: Lifeline) -> Self {
        let link = BrokerLink::new(lifeline, deps.logger.clone())
            .with_health(deps.health.clone(), "retries")
            .with_gauge(deps.metrics.blocked.clone());
        Self { deps, link, publisher: None, queue: Vec::new(), publishing: false, rejections: Rejections::default() }
    }

    fn connected(&mut self, connected: Result<RetryPublisher, AmqpError>, ctx: &mut Context<Self>) {
        match connected {
            Ok(publisher) => {
                info!(self.deps.logger, "connected to the broker");
                self.link.connected(publisher.connection().clone());
                self.publisher = Some(Arc::new(publisher));
                ctx.run_interval(CONNECTION_CHECK_INTERVAL, |router, ctx| {
                    if !router.link.end_if_lost(ctx) {
                        router.publish(ctx);
                    }
                });
                self.publish(ctx);
            }
            Err(e) => self.link.fail(e, ctx),
        }
    }

    /// Publishes all queued copies, unless a batch is in flight or the broker blocks publishing.
    fn publish(&mut self, ctx: &mut Context<Self>) {
        // A caller that is gone has lost its delivery, which the broker redelivers.
        self.queue.retain(|publish| !publish.result.is_closed());
        let Some(publisher) = self.publisher.clone() else { return };
        if self.link.is_blocked() || self.publishing || self.queue.is_empty() {
            return;
        }
        self.publishing = true;
        // Last, because publishing one may close the channel: a copy for a tier must not be in doubt for that.
        self.queue.sort_by_key(|publish| publish.copy.is_dead_letter());
        let (copies, callers): (Vec<_>, Vec<_>) = self.queue.drain(..).map(|p| (p.copy, p.result)).unzip();
        let batch = self.deps.broker.io().spawn(async move {
            let results = publisher.publish(copies).await;
            let ended = Ended::of(&results);
            for (caller, result) in callers.into_iter().zip(results) {
                // A caller that is gone has lost its delivery, which the broker redelivers.
                let _ = caller.send(result);
            }
            ended
        });
        ctx.spawn(batch.into_actor(self).map(|ended, router, ctx| {
            router.publishing = false;
            match ended {
                Ok(ended) => router.batch_ended(ended, ctx),
                Err(_) => router.link.end(EndReason::Panicked, ctx),
            }
        }));
    }

    /// Callers keep their deliveries and try again, so only the connection has to be decided about.
    fn batch_ended(&mut self, ended: Ended, ctx: &mut Context<Self>) {
        if ended.unroutable > 0 {
            self.deps.topology.declare_now();
        }
        let give_up = self.rejections.after_batch(ended.confirmed > 0, ended.rejected > 0);
        self.link.set_rejecting(self.rejections.any());
        if ended.unconfirmed > 0 && !self.link.is_blocked() {
            self.link.end(EndReason::Unavailable(RouteError::Unconfirmed.to_string()), ctx);
        } else if give_up {
            self.link.end_unreported(EndReason::Unavailable(RouteError::Rejected.to_string()), ctx);
        } else {
            self.publish(ctx);
        }
    }
}

/// How many copies of a batch ended how.
#[derive(Clone, Copy, Debug, Default)]
struct Ended {
    confirmed: usize,
    unroutable: usize,
    rejected: usize,
    unconfirmed: usize,
}

impl Ended {
    fn of(results: &[Result<(), RouteError>]) -> Self {
        let mut ended = Self::default();
        for result in results {
            let count = match result {
                Ok(()) => &mut ended.confirmed,
                Err(RouteError::Unroutable(_)) => &mut ended.unroutable,
                Err(RouteError::Rejected) => &mut ended.rejected,
                Err(RouteError::Unconfirmed) => &mut ended.unconfirmed,
            };
            *count = count.saturating_add(1);
        }
        ended
    }
}

impl Actor for RetryRouterActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let deps = Arc::clone(&self.deps);
        let connecting = async move { RetryPublisher::connect(&deps.broker).await };
        ctx.spawn(connecting.into_actor(self).map(|connected, router, ctx| router.connected(connected, ctx)));
    }
}

impl Handler<Publish> for RetryRouterActor {
    type Result = ();

    fn handle(&mut self, publish: Publish, ctx: &mut Self::Context) {
        fault::point("retry_router.publish");
        self.queue.push(publish);
        self.publish(ctx);
    }
}

impl Handler<Shutdown> for RetryRouterActor {
    type Result = actix::ResponseFuture<()>;

    fn handle(&mut self, _: Shutdown, _: &mut Self::Context) -> Self::Result {
        // The consumer, which is the only caller, has been stopped before.
        self.publisher = None;
        Box::pin(self.link.close())
    }
}

/// Sends copies to the running router.
#[derive(Clone, Default)]
pub(crate) struct RouterHandle(pub(crate) Handle<RetryRouterActor>);

impl RouterHandle {
    /// Publishes a copy, and returns when the broker has confirmed it. After [`RouteError::Unconfirmed`] the copy may
    /// have arrived all the same.
    pub(crate) async fn route(&self, copy: DeliveryCopy) -> Result<(), RouteError> {
        let router = self.0.get().ok_or(RouteError::Unconfirmed)?;
        let (result, published) = oneshot::channel();
        router.send(Publish { copy, result }).await.map_err(|_| RouteError::Unconfirmed)?;
        published.await.unwrap_or(Err(RouteError::Unconfirmed))
    }
}
