//! Moves failed deliveries to the retry ladder or the dead letters, and keeps the broker's topology declared.
//!
//! Owns: the publishing connection, the copies to publish, at most one batch in flight.
//! Receives: a copy to publish, the end of a batch, its timers (connection, topology), shutdown.
//! Sends: the result of a publish, to its caller.
//! Mailbox: bounded by the prefetch, since each unacknowledged delivery publishes one copy at a time.
//! Ends: when the broker is unavailable or confirms nothing; the restarted actor connects and declares again.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, WrapFuture as _};
use slog::{Logger, info};
use tokio::sync::oneshot;

use crate::infra::amqp::{AmqpError, Broker};
use crate::kernel::fault;
use crate::runtime::{BrokerLink, EndReason, Handle, Lifeline, Shutdown};
use crate::wallet::actors::metrics::RouterMetrics;
use crate::wallet::amqp::{DeliveryCopy, RetryPublisher, RouteError};
use crate::wallet::application::retry_ladder::RetryLadder;

const CONNECTION_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Deleting an exchange or a binding closes no connection, so only declaring it again restores it: events are
/// unroutable for at most this long.
const DECLARE_INTERVAL: Duration = Duration::from_secs(5);

pub(crate) struct RetryRouterDeps {
    pub(crate) broker: Broker,
    pub(crate) ladder: Arc<RetryLadder>,
    pub(crate) metrics: RouterMetrics,
    pub(crate) logger: Logger,
}

pub(crate) struct RetryRouterActor {
    deps: Arc<RetryRouterDeps>,
    link: BrokerLink,
    publisher: Option<Arc<RetryPublisher>>,
    queue: Vec<Publish>,
    publishing: bool,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Publish {
    copy: DeliveryCopy,
    result: oneshot::Sender<Result<(), RouteError>>,
}

impl RetryRouterActor {
    pub(crate) fn new(deps: Arc<RetryRouterDeps>, lifeline: Lifeline) -> Self {
        let link = BrokerLink::new(lifeline, deps.logger.clone()).with_gauge(deps.metrics.blocked.clone());
        Self { deps, link, publisher: None, queue: Vec::new(), publishing: false }
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
                // Now too, so that the gauge of dead letters has a value at once.
                self.declare(ctx);
                ctx.run_interval(DECLARE_INTERVAL, Self::declare);
                self.publish(ctx);
            }
            Err(e) => self.link.end(e, ctx),
        }
    }

    fn declare(&mut self, ctx: &mut Context<Self>) {
        let Some(publisher) = self.publisher.clone() else { return };
        // A refused declaration closes the channel, and a batch in flight would lose its confirms.
        if self.publishing || self.link.is_blocked() {
            return;
        }
        let deps = Arc::clone(&self.deps);
        let declared = async move { publisher.declare(&deps.ladder).await };
        ctx.spawn(declared.into_actor(self).map(|declared, router, ctx| match declared {
            Ok(dead_letters) => router.deps.metrics.dead_letters.set(dead_letters),
            Err(e) => router.link.end(e, ctx),
        }));
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
        let (copies, callers): (Vec<_>, Vec<_>) = self.queue.drain(..).map(|p| (p.copy, p.result)).unzip();
        let batch = self.deps.broker.io().spawn(async move {
            let results = publisher.publish(copies).await;
            let failure = results.iter().find_map(|result| result.clone().err());
            for (caller, result) in callers.into_iter().zip(results) {
                // A caller that is gone has lost its delivery, which the broker redelivers.
                let _ = caller.send(result);
            }
            failure
        });
        ctx.spawn(batch.into_actor(self).map(|ended, router, ctx| {
            router.publishing = false;
            match ended {
                Ok(None) => router.publish(ctx),
                Ok(Some(_)) if router.link.is_blocked() => {}
                // A new connection redeclares the queues, which also restores a deleted one.
                Ok(Some(failure)) => router.link.end(EndReason::Unavailable(failure.to_string()), ctx),
                Err(_) => router.link.end(EndReason::Panicked, ctx),
            }
        }));
    }
}

impl Actor for RetryRouterActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let deps = Arc::clone(&self.deps);
        let connecting = async move { RetryPublisher::connect(&deps.broker, &deps.ladder).await };
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
