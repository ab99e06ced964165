//! Takes failed deliveries to the retry ladder or the dead letters, and keeps the broker's topology as it is declared.
//!
//! Owns: the publishing connection, the copies that wait, at most one batch in flight.
//! Receives: a copy to publish, the end of a batch, shutdown; its timer, to look at the connection and the topology.
//! Sends: the broker's answer, to whoever asked.
//! Mailbox: bounded by the prefetch, since each waiting delivery asks once at a time.
//! Ends: when the broker is away or stops answering; it is built again with a new connection and fresh declarations.

use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, WrapFuture as _,
};
use slog::{Logger, info};
use tokio::sync::oneshot;

use crate::infra::amqp::{AmqpError, Broker};
use crate::kernel::{Classified, FailureClass, chain, fault};
use crate::runtime::{EndReason, Handle, Lifeline, Shutdown};
use crate::wallet::actors::metrics::RouterMetrics;
use crate::wallet::amqp::{FailedDelivery, RetryPublisher, RouteError};
use crate::wallet::application::retry_ladder::RetryLadder;

/// How often an idle connection is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the topology is declared again. Who deletes an exchange or a binding leaves both connections alive, and
/// events would be unroutable until somebody noticed.
const DECLARE_EVERY: Duration = Duration::from_secs(5);

/// What a router is built from, again and again.
pub struct RetryRouterDeps {
    /// The broker.
    pub broker: Broker,
    /// The tiers.
    pub ladder: Arc<RetryLadder>,
    /// For the connection and the dead letters.
    pub metrics: RouterMetrics,
    /// For connections.
    pub logger: Logger,
}

/// The router.
pub struct RetryRouterActor {
    deps: Arc<RetryRouterDeps>,
    publisher: Option<Arc<RetryPublisher>>,
    waiting: Vec<Publish>,
    publishing: bool,
    lifeline: Lifeline,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Publish {
    copy: FailedDelivery,
    answer: oneshot::Sender<Result<(), RouteError>>,
}

impl RetryRouterActor {
    /// A router without a connection; it connects when it starts.
    pub const fn new(deps: Arc<RetryRouterDeps>, lifeline: Lifeline) -> Self {
        Self { deps, publisher: None, waiting: Vec::new(), publishing: false, lifeline }
    }

    fn end(&mut self, reason: EndReason, ctx: &mut Context<Self>) {
        // A connection that is gone is not blocked.
        self.deps.metrics.blocked.set(0);
        self.lifeline.end(reason);
        ctx.stop();
    }

    fn connected(&mut self, connected: Result<RetryPublisher, AmqpError>, ctx: &mut Context<Self>) {
        match connected {
            Ok(publisher) => {
                info!(self.deps.logger, "connected to the broker");
                self.publisher = Some(Arc::new(publisher));
                ctx.run_interval(LOOK_EVERY, |router, ctx| {
                    if router.publisher.as_ref().is_some_and(|publisher| !publisher.is_open()) {
                        router.end(EndReason::Unavailable("the connection to the broker was lost".to_owned()), ctx);
                    } else {
                        router.publish(ctx);
                    }
                });
                // Once at once: the first look must not wait.
                self.declare(ctx);
                ctx.run_interval(DECLARE_EVERY, Self::declare);
                self.publish(ctx);
            }
            Err(e) => self.broker_failed(&e, ctx),
        }
    }

    fn broker_failed(&mut self, e: &AmqpError, ctx: &mut Context<Self>) {
        match e.class() {
            FailureClass::Permanent => self.end(EndReason::Refused(e.to_string()), ctx),
            _ => self.end(EndReason::Unavailable(chain(e)), ctx),
        }
    }

    fn declare(&mut self, ctx: &mut Context<Self>) {
        // A batch in flight would lose its answers with the channel if a declaration were refused.
        let free = |publisher: &Arc<RetryPublisher>| !self.publishing && !publisher.is_blocked();
        let Some(publisher) = self.publisher.clone().filter(free) else { return };
        let deps = Arc::clone(&self.deps);
        let declared = async move { publisher.declare(&deps.ladder).await };
        ctx.spawn(declared.into_actor(self).map(|declared, router, ctx| match declared {
            Ok(dead_letters) => router.deps.metrics.dead_letters.set(dead_letters),
            Err(e) => router.broker_failed(&e, ctx),
        }));
    }

    /// Publishes all that waits, unless a batch is in flight or the broker takes nothing at the moment.
    fn publish(&mut self, ctx: &mut Context<Self>) {
        // Whoever no longer waits has lost the delivery, and it comes again.
        self.waiting.retain(|publish| !publish.answer.is_closed());
        let Some(publisher) = self.publisher.clone() else { return };
        let blocked = publisher.is_blocked();
        self.deps.metrics.blocked.set(u8::from(blocked));
        if self.publishing || self.waiting.is_empty() || blocked {
            return;
        }
        self.publishing = true;
        let (copies, answers): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().map(|p| (p.copy, p.answer)).unzip();
        let batch = self.deps.broker.io().spawn(async move {
            let results = publisher.publish(copies).await;
            let failure = results.iter().find_map(|result| result.clone().err());
            for (answer, result) in answers.into_iter().zip(results) {
                // Who asked may be gone; the original is delivered again then.
                let _ = answer.send(result);
            }
            failure
        });
        ctx.spawn(batch.into_actor(self).map(|ended, router, ctx| {
            router.publishing = false;
            match ended {
                Ok(None) => router.publish(ctx),
                Ok(Some(_)) if router.publisher.as_ref().is_some_and(|publisher| publisher.is_blocked()) => {}
                // A new connection declares its queues anew: the cure for a deleted one too.
                Ok(Some(failure)) => router.end(EndReason::Unavailable(failure.to_string()), ctx),
                Err(_) => router.end(EndReason::Panicked, ctx),
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
        self.waiting.push(publish);
        self.publish(ctx);
    }
}

impl Handler<Shutdown> for RetryRouterActor {
    type Result = actix::ResponseFuture<()>;

    fn handle(&mut self, _: Shutdown, _: &mut Self::Context) -> Self::Result {
        // The consumer, which alone asks, has been stopped before.
        let publisher = self.publisher.take();
        Box::pin(async move {
            if let Some(publisher) = publisher.and_then(Arc::into_inner) {
                publisher.close().await;
            }
        })
    }
}

/// The way to whichever router there is at the moment.
#[derive(Clone, Default)]
pub struct RouterHandle(pub Handle<RetryRouterActor>);

impl RouterHandle {
    /// Publishes a copy, and returns when the broker has confirmed it.
    ///
    /// # Errors
    /// [`RouteError`]; the copy may have arrived all the same if there was no answer.
    pub async fn route(&self, copy: FailedDelivery) -> Result<(), RouteError> {
        let router = self.0.get().ok_or(RouteError::Unanswered)?;
        let (answer, answered) = oneshot::channel();
        router.send(Publish { copy, answer }).await.map_err(|_| RouteError::Unanswered)?;
        answered.await.unwrap_or(Err(RouteError::Unanswered))
    }
}
