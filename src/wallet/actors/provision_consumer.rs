//! Consumes registrations and provisions their wallets.
//!
//! Owns: the consuming connection, the deliveries in hand, at most one batch in flight.
//! Receives: deliveries, the end of a batch, the end of a routing, shutdown.
//! Sends: failed deliveries to the retry router; it calls `provision_wallets`.
//! Mailbox: control messages; deliveries come by a stream, at most the prefetch.
//! Ends: when the subscription ends, whatever the cause; it is built again with a new connection.
//!
//! While the database is away it pauses: what is in hand stays in hand, no attempt is spent, and with the prefetch full
//! the broker sends nothing more. It does not even subscribe before the database has answered once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, StreamHandler, WrapFuture as _,
};
use futures_util::StreamExt as _;
use futures_util::stream::LocalBoxStream;
use slog::{Logger, error, info, warn};
use tokio::sync::oneshot;

use crate::contracts::PROVISION_QUEUE;
use crate::infra::amqp::{AmqpError, Broker, Consumer, Frames, Incoming};
use crate::infra::health::HealthBoard;
use crate::infra::system::{System, draw, roll};
use crate::infra::telemetry::Spans;
use crate::kernel::{Backoff, Classified as _, FailureClass, IdSource as _, chain, fault};
use crate::runtime::{EndReason, Lifeline, Shutdown};
use crate::wallet::actors::metrics::ProvisionMetrics;
use crate::wallet::actors::provision_batch::{BatchEnd, Failed, ProvisionBatch, describe};
use crate::wallet::actors::retry_router::RouterHandle;
use crate::wallet::amqp::{DeliveryReader, FailedDelivery, ProvisionDelivery, Route, topology};
use crate::wallet::application::provision_wallets::ProvisionWallets;

/// Name of the consuming connection in the broker's listings.
const CONNECTION_NAME: &str = "purse wallet: provisioning";
/// The check that it sets.
const CHECK: &str = "rabbitmq";
/// How often an absent database is asked whether it is back.
const PAUSE: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(3));
/// How often a routing is tried again while the router has no connection.
const ROUTE_AGAIN: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(3));

/// From so many unanswered deliveries on a message is under suspicion. One or two of them happen to any message that
/// was in hand when a process was stopped.
const SUSPECT_FROM: u32 = 3;

/// How long the others are given to arrive before lots are drawn among those under suspicion. The first to arrive would
/// be drawn each time otherwise, and that is the culprit once all before it are handled.
const LOTS_AFTER: Duration = Duration::from_millis(250);

/// What a consumer is built from, again and again.
pub struct ProvisionConsumerDeps {
    /// The broker.
    pub broker: Broker,
    /// Reads deliveries.
    pub reader: DeliveryReader,
    /// The use case.
    pub provision: Arc<ProvisionWallets>,
    /// Where failures go.
    pub router: RouterHandle,
    /// Deliveries in hand at once.
    pub prefetch: u16,
    /// Where the broker's state is shown.
    pub health: HealthBoard,
    /// What becomes of deliveries.
    pub metrics: ProvisionMetrics,
    /// For each delivery.
    pub spans: Spans,
    /// For deliveries.
    pub logger: Logger,
}

/// The consumer.
pub struct ProvisionConsumerActor {
    deps: Arc<ProvisionConsumerDeps>,
    consumer: Option<Consumer>,
    waiting: Vec<ProvisionDelivery>,
    working: bool,
    /// Whether lots may be drawn, and whether it is only a matter of time.
    lots: Lots,
    /// Questions to an absent database in a row; `Some` while paused.
    paused: Option<u32>,
    routing: usize,
    stopping: Option<oneshot::Sender<()>>,
    lifeline: Lifeline,
}

/// When a delivery under suspicion may be handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lots {
    NotYet,
    Soon,
    Now,
}

type Subscription = (Consumer, LocalBoxStream<'static, Result<Incoming, AmqpError>>);

/// Why there is no subscription.
enum NotSubscribed {
    Database(String),
    Broker(AmqpError),
}

impl ProvisionConsumerActor {
    /// A consumer without a connection; it connects when it starts.
    pub const fn new(deps: Arc<ProvisionConsumerDeps>, lifeline: Lifeline) -> Self {
        Self {
            deps,
            consumer: None,
            waiting: Vec::new(),
            working: false,
            lots: Lots::NotYet,
            paused: None,
            routing: 0,
            stopping: None,
            lifeline,
        }
    }

    fn end(&mut self, reason: EndReason, ctx: &mut Context<Self>) {
        if let EndReason::Unavailable(_) = &reason {
            self.deps.health.set(CHECK, Err("not connected".to_owned()));
        }
        self.lifeline.end(reason);
        ctx.stop();
    }

    fn subscribed(&mut self, subscribed: Result<Subscription, NotSubscribed>, ctx: &mut Context<Self>) {
        match subscribed {
            Ok((consumer, deliveries)) => {
                info!(self.deps.logger, "connected to the broker and consuming"; "prefetch" => self.deps.prefetch);
                self.deps.health.set(CHECK, Ok(()));
                self.consumer = Some(consumer);
                ctx.add_stream(deliveries);
            }
            Err(NotSubscribed::Broker(e)) if e.class() == FailureClass::Permanent => {
                self.end(EndReason::Refused(e.to_string()), ctx);
            }
            Err(NotSubscribed::Broker(e)) => self.end(EndReason::Unavailable(chain(&e)), ctx),
            Err(NotSubscribed::Database(why)) => {
                // Nothing is known of the broker, and nothing is wrong with it.
                self.lifeline.end(EndReason::Unavailable(why));
                ctx.stop();
            }
        }
    }

    /// Begins a batch, unless one is in flight or the database is away.
    fn work(&mut self, ctx: &mut Context<Self>) {
        if self.working || self.paused.is_some() || self.waiting.is_empty() || self.stopping.is_some() {
            return;
        }
        let deliveries = take_batch(&mut self.waiting, self.lots == Lots::Now, draw);
        if deliveries.is_empty() {
            if self.lots == Lots::NotYet {
                self.lots = Lots::Soon;
                ctx.run_later(LOTS_AFTER, |consumer, ctx| {
                    consumer.lots = Lots::Now;
                    consumer.work(ctx);
                });
            }
            return;
        }
        self.working = true;
        let batch = ProvisionBatch {
            provision: Arc::clone(&self.deps.provision),
            reader: self.deps.reader.clone(),
            metrics: self.deps.metrics.clone(),
            spans: self.deps.spans.clone(),
            began: Instant::now(),
            logger: self.deps.logger.clone(),
        };
        let working = self.deps.broker.io().spawn(async move { batch.execute(deliveries).await });
        ctx.spawn(working.into_actor(self).map(|ended, consumer, ctx| match ended {
            Ok(ended) => consumer.batch_ended(ended, ctx),
            Err(_) => consumer.end(EndReason::Panicked, ctx),
        }));
    }

    fn batch_ended(&mut self, ended: BatchEnd, ctx: &mut Context<Self>) {
        self.working = false;
        if let Some(e) = ended.broken {
            return self.end(EndReason::Unavailable(chain(&e)), ctx);
        }
        for failed in ended.failed {
            self.route(failed, ctx);
        }
        if !ended.held.is_empty() {
            let why = ended.away.unwrap_or_default();
            warn!(self.deps.logger, "the database is away; provisioning pauses until it is back"; "error" => why);
            // In front: they came first.
            self.waiting.splice(0..0, ended.held);
            self.pause(0, ctx);
        }
        self.work(ctx);
        self.stop_if_done();
    }

    /// Asks the database again later, until it answers.
    fn pause(&mut self, questions: u32, ctx: &mut Context<Self>) {
        self.paused = Some(questions);
        let wallets = Arc::clone(&self.deps.provision.wallets);
        let asked = async move {
            tokio::time::sleep(PAUSE.delay(questions, roll())).await;
            wallets.ping().await.is_ok()
        };
        ctx.spawn(asked.into_actor(self).map(move |back, consumer, ctx| {
            if back {
                consumer.paused = None;
                info!(consumer.deps.logger, "the database is back; provisioning goes on");
                consumer.work(ctx);
            } else {
                consumer.pause(questions.saturating_add(1), ctx);
            }
        }));
    }

    /// Has a copy published, and acks the original only when the broker has confirmed the copy. Until then the
    /// delivery stays in hand; the others go on without it.
    fn route(&mut self, failed: Failed, ctx: &mut Context<Self>) {
        self.routing = self.routing.saturating_add(1);
        let Failed { delivery, route, reason } = failed;
        let logger = describe(&self.deps.logger, &delivery);
        let copy = FailedDelivery::copy(&delivery, &route, &reason, System.next_id());
        let (router, metrics) = (self.deps.router.clone(), self.deps.metrics.clone());
        let routing = async move {
            let mut tries = 0;
            while let Err(e) = router.route(copy.clone()).await {
                warn!(logger, "a failed delivery could not be routed yet"; "error" => e.to_string());
                tokio::time::sleep(ROUTE_AGAIN.delay(tries, roll())).await;
                tries = tries.saturating_add(1);
            }
            metrics.routed(&route);
            match &route {
                Route::Tier { number, .. } => {
                    warn!(logger, "provisioning failed; trying again later"; "tier" => number, "error" => reason);
                }
                Route::DeadLetter => {
                    error!(logger, "provisioning was given up; the event is a dead letter"; "error" => reason);
                }
            }
            delivery.ack().await
        };
        ctx.spawn(routing.into_actor(self).map(|acked, consumer, ctx| {
            consumer.routing = consumer.routing.saturating_sub(1);
            match acked {
                Ok(()) => consumer.stop_if_done(),
                Err(e) => consumer.end(EndReason::Unavailable(chain(&e)), ctx),
            }
        }));
    }

    fn stop_if_done(&mut self) {
        if self.working || self.routing > 0 {
            return;
        }
        if let Some(done) = self.stopping.take() {
            // Who asked may have given up waiting.
            let _ = done.send(());
        }
    }
}

/// All that wait, without those under suspicion; where only those are left, one of them, by lot, if lots may be drawn.
///
/// A delivery that ends the process takes all that are in hand with it, and after twenty such ends the broker makes
/// dead letters of them all. So one that has come back several times is handled alone and after the others; and by lot,
/// so that an innocent one is not behind the culprit each time.
fn take_batch(
    waiting: &mut Vec<ProvisionDelivery>,
    lots_may_be_drawn: bool,
    draw: impl Fn(usize) -> usize,
) -> Vec<ProvisionDelivery> {
    let (suspects, batch): (Vec<_>, Vec<_>) =
        std::mem::take(waiting).into_iter().partition(|delivery| delivery.unanswered_before >= SUSPECT_FROM);
    *waiting = suspects;
    if batch.is_empty() && !waiting.is_empty() && lots_may_be_drawn {
        return vec![waiting.swap_remove(draw(waiting.len()))];
    }
    batch
}

async fn subscribe(deps: Arc<ProvisionConsumerDeps>) -> Result<Subscription, NotSubscribed> {
    // A delivery that cannot be handled would only be counted: first the database, then the queue.
    deps.provision.wallets.ping().await.map_err(|e| NotSubscribed::Database(chain(&e)))?;
    let subscribing = async {
        let connection = deps.broker.connect(CONNECTION_NAME, Frames::OfTheServer).await?;
        connection.declare(&topology(&deps.reader.ladder)).await?;
        Consumer::subscribe(connection, PROVISION_QUEUE, deps.prefetch).await
    };
    let (consumer, deliveries) = subscribing.await.map_err(NotSubscribed::Broker)?;
    Ok((consumer, deliveries.boxed_local()))
}

impl Actor for ProvisionConsumerActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let subscribing = subscribe(Arc::clone(&self.deps));
        ctx.spawn(subscribing.into_actor(self).map(|subscribed, consumer, ctx| consumer.subscribed(subscribed, ctx)));
    }
}

impl StreamHandler<Result<Incoming, AmqpError>> for ProvisionConsumerActor {
    fn handle(&mut self, delivery: Result<Incoming, AmqpError>, ctx: &mut Self::Context) {
        fault::point("provision_consumer.delivery");
        match delivery {
            Ok(incoming) => {
                self.waiting.push(self.deps.reader.open(incoming));
                self.work(ctx);
            }
            Err(e) => self.end(EndReason::Unavailable(chain(&e)), ctx),
        }
    }

    fn finished(&mut self, ctx: &mut Self::Context) {
        // Cancelled by us on shutdown, or by the broker: the queue was deleted.
        if self.stopping.is_none() && self.consumer.is_some() {
            self.end(EndReason::Unavailable("the subscription ended".to_owned()), ctx);
        }
    }
}

impl Handler<Shutdown> for ProvisionConsumerActor {
    type Result = actix::ResponseFuture<()>;

    fn handle(&mut self, shutdown: Shutdown, _: &mut Self::Context) -> Self::Result {
        let consumer = self.consumer.take();
        let (done, all_done) = oneshot::channel();
        self.stopping = Some(done);
        self.stop_if_done();
        Box::pin(async move {
            if let Some(consumer) = &consumer {
                // A connection that does not hear it is closed below all the same.
                let _ = consumer.cancel().await;
            }
            // What cannot be settled by then, because the database hangs or the broker takes no copies, comes again.
            let _ = tokio::time::timeout(shutdown.grace / 2, all_done).await;
            if let Some(consumer) = consumer {
                consumer.close().await;
            }
        })
    }
}
