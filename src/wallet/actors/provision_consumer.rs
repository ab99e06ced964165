//! Consumes registrations and provisions their wallets.
//!
//! Owns: the consuming connection, the unacknowledged deliveries, at most one batch in flight.
//! Receives: deliveries, the end of a batch, the end of a routing, shutdown.
//! Sends: failed deliveries to the retry router; to the topology keeper, that the queue may be new; it calls
//! `provision_wallets`.
//! Mailbox: control messages; deliveries arrive as a stream, at most as many as the prefetch.
//! Ends: when the subscription ends for any reason; it is restarted with a new connection.
//!
//! While the database is unavailable it pauses: deliveries stay unacknowledged, no attempt is counted, and once the
//! prefetch is full the broker sends no more. It does not subscribe before the database has replied once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt as _, AsyncContext as _, Context, Handler, StreamHandler, WrapFuture as _};
use futures_util::StreamExt as _;
use futures_util::stream::LocalBoxStream;
use slog::{Logger, debug, error, info, warn};

use crate::contracts::PROVISION_QUEUE;
use crate::infra::amqp::{AmqpError, Broker, Consumer, FrameSize, Incoming};
use crate::infra::health::HealthBoard;
use crate::infra::system::{System, random_fraction, random_index};
use crate::infra::telemetry::Spans;
use crate::kernel::{Backoff, DependencyError, IdSource as _, Reminder, chain, fault};
use crate::runtime::{BrokerLink, Draining, EndReason, Lifeline, Shutdown};
use crate::wallet::actors::metrics::ProvisionMetrics;
use crate::wallet::actors::provision_batch::{BatchEnd, Failed, ProvisionBatch, describe};
use crate::wallet::actors::retry_router::RouterHandle;
use crate::wallet::actors::topology_keeper::TopologyHandle;
use crate::wallet::amqp::{DeliveryCopy, DeliveryReader, ProvisionDelivery, Route, provision_queue};
use crate::wallet::application::provision_wallets::ProvisionWallets;

/// Name of the connection in the broker's listings.
const CONNECTION_NAME: &str = "purse wallet: provisioning";
/// Between pings of an unavailable database, and between tries to route a delivery while the router has no connection.
const RETRY_BACKOFF: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(3));

/// From this many earlier deliveries on, a message is suspected of crashing the process. One or two happen to any
/// message that was unacknowledged when a process was stopped.
const SUSPECT_FROM: u32 = 3;
/// Time for all suspects to arrive before one is picked. Otherwise the first to arrive would be picked each time, and
/// that is the culprit once all before it are done.
const SUSPECT_DELAY: Duration = Duration::from_millis(250);

pub(crate) struct ProvisionConsumerDeps {
    pub(crate) broker: Broker,
    pub(crate) reader: DeliveryReader,
    pub(crate) provision: Arc<ProvisionWallets>,
    pub(crate) router: RouterHandle,
    pub(crate) topology: TopologyHandle,
    /// Most unacknowledged deliveries.
    pub(crate) prefetch: u16,
    pub(crate) health: HealthBoard,
    pub(crate) metrics: ProvisionMetrics,
    pub(crate) spans: Spans,
    pub(crate) logger: Logger,
}

pub(crate) struct ProvisionConsumerActor {
    deps: Arc<ProvisionConsumerDeps>,
    link: BrokerLink,
    consumer: Option<Consumer>,
    /// Deliveries that are in no batch yet, oldest first.
    queue: Vec<ProvisionDelivery>,
    batch_in_flight: bool,
    suspects: SuspectGate,
    /// The database is unavailable.
    paused: bool,
    routings_in_flight: usize,
    draining: Draining,
}

/// Whether suspect deliveries may be processed: only [`SUSPECT_DELAY`] after they were first the only ones left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SuspectGate {
    Closed,
    Opening,
    Open,
}

type Subscription = (Consumer, LocalBoxStream<'static, Result<Incoming, AmqpError>>);

enum SubscribeError {
    Database(DependencyError),
    Broker(AmqpError),
}

impl ProvisionConsumerActor {
    pub(crate) fn new(deps: Arc<ProvisionConsumerDeps>, lifeline: Lifeline) -> Self {
        let link = BrokerLink::new(lifeline, deps.logger.clone())
            .with_health(deps.health.clone(), "provisioning")
            .with_undeclared_gauge(deps.metrics.undeclared.clone());
        Self {
            deps,
            link,
            consumer: None,
            queue: Vec::new(),
            batch_in_flight: false,
            suspects: SuspectGate::Closed,
            paused: false,
            routings_in_flight: 0,
            draining: Draining::default(),
        }
    }

    fn subscribed(&mut self, subscribed: Result<Subscription, SubscribeError>, ctx: &mut Context<Self>) {
        match subscribed {
            Ok((consumer, deliveries)) => {
                info!(self.deps.logger, "connected to the broker and consuming"; "prefetch" => self.deps.prefetch);
                self.link.connected(consumer.connection().clone());
                self.consumer = Some(consumer);
                ctx.add_stream(deliveries);
                // If the queue is new, it has no binding.
                self.deps.topology.declare_now();
            }
            Err(SubscribeError::Broker(e)) => self.link.fail(e, ctx),
            Err(SubscribeError::Database(e)) => self.link.end_unreported(EndReason::Unavailable(chain(&e)), ctx),
        }
    }

    /// Begins a batch, unless one is in flight, the database is unavailable, or a shutdown has begun.
    fn work(&mut self, ctx: &mut Context<Self>) {
        if self.batch_in_flight || self.paused || self.queue.is_empty() || self.draining.has_begun() {
            return;
        }
        let deliveries = take_batch(&mut self.queue, self.suspects == SuspectGate::Open, random_index);
        if deliveries.is_empty() {
            if self.suspects == SuspectGate::Closed {
                self.suspects = SuspectGate::Opening;
                ctx.run_later(SUSPECT_DELAY, |consumer, ctx| {
                    consumer.suspects = SuspectGate::Open;
                    consumer.work(ctx);
                });
            }
            return;
        }
        self.batch_in_flight = true;
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
            Err(_) => consumer.link.end(EndReason::Panicked, ctx),
        }));
    }

    fn batch_ended(&mut self, ended: BatchEnd, ctx: &mut Context<Self>) {
        self.batch_in_flight = false;
        if let Some(e) = ended.ack_error {
            return self.link.fail(e, ctx);
        }
        for failed in ended.failed {
            self.route(failed, ctx);
        }
        if !ended.not_processed.is_empty() {
            let error = ended.outage.unwrap_or_default();
            warn!(self.deps.logger, "database unavailable; provisioning pauses until it is back"; "error" => error);
            // In front, because they are the oldest.
            self.queue.splice(0..0, ended.not_processed);
            self.paused = true;
            self.resume_when_database_replies(0, ctx);
        }
        self.work(ctx);
        self.finish_if_idle();
    }

    fn resume_when_database_replies(&mut self, failed_pings: u32, ctx: &mut Context<Self>) {
        let wallets = Arc::clone(&self.deps.provision.wallets);
        let pinged = async move {
            tokio::time::sleep(RETRY_BACKOFF.delay(failed_pings, random_fraction())).await;
            wallets.ping().await
        };
        ctx.spawn(pinged.into_actor(self).map(move |pinged, consumer, ctx| {
            if pinged.is_ok() {
                consumer.paused = false;
                info!(consumer.deps.logger, "database is back; provisioning resumes");
                consumer.work(ctx);
            } else {
                consumer.resume_when_database_replies(failed_pings.saturating_add(1), ctx);
            }
        }));
    }

    /// Has a copy published, and acks the original only when the broker has confirmed the copy. Until then the
    /// delivery stays unacknowledged; other deliveries do not wait for it.
    fn route(&mut self, failed: Failed, ctx: &mut Context<Self>) {
        self.routings_in_flight = self.routings_in_flight.saturating_add(1);
        let Failed { delivery, route, reason } = failed;
        let logger = describe(&self.deps.logger, &delivery);
        let copy = DeliveryCopy::new(&delivery, &route, &reason, System.next_id());
        let (router, metrics) = (self.deps.router.clone(), self.deps.metrics.clone());
        let routing = async move {
            let mut tries = 0;
            let reminder = Reminder::default();
            while let Err(e) = router.route(copy.clone()).await {
                if reminder.is_due() {
                    warn!(logger, "could not route a failed delivery yet"; "error" => e.to_string());
                }
                tokio::time::sleep(RETRY_BACKOFF.delay(tries, random_fraction())).await;
                tries = tries.saturating_add(1);
            }
            metrics.routed(&route);
            match &route {
                Route::Tier { number, .. } => {
                    warn!(logger, "provisioning failed; trying again later"; "tier" => number, "error" => reason);
                }
                // The sweeper reports the shard, once for all of them.
                Route::Postponed { .. } => {
                    debug!(logger, "provisioning is postponed: a shard is out of reach"; "error" => reason);
                }
                Route::DeadLetter => {
                    error!(logger, "provisioning failed permanently; event moved to the dead-letter queue"; "error" => reason);
                }
            }
            delivery.ack().await
        };
        ctx.spawn(routing.into_actor(self).map(|acked, consumer, ctx| {
            consumer.routings_in_flight = consumer.routings_in_flight.saturating_sub(1);
            match acked {
                Ok(()) => consumer.finish_if_idle(),
                Err(e) => consumer.link.fail(e, ctx),
            }
        }));
    }

    fn finish_if_idle(&mut self) {
        if !self.batch_in_flight && self.routings_in_flight == 0 {
            self.draining.finish();
        }
    }
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
                self.queue.push(self.deps.reader.open(incoming));
                self.work(ctx);
            }
            Err(e) => self.link.fail(e, ctx),
        }
    }

    fn finished(&mut self, ctx: &mut Self::Context) {
        // Cancelled by the shutdown, or else by the broker because the queue was deleted.
        if !self.draining.has_begun() {
            self.link.end(EndReason::Unavailable("the subscription ended".to_owned()), ctx);
        }
    }
}

impl Handler<Shutdown> for ProvisionConsumerActor {
    type Result = actix::ResponseFuture<()>;

    fn handle(&mut self, shutdown: Shutdown, _: &mut Self::Context) -> Self::Result {
        let consumer = self.consumer.take();
        let drained = self.draining.begin();
        self.finish_if_idle();
        let closed = self.link.close();
        Box::pin(async move {
            if let Some(consumer) = consumer {
                // After an error the connection is closed below all the same.
                let _ = consumer.cancel().await;
            }
            // What is not acked by then, because the database hangs or the broker accepts no copies, is redelivered.
            let _ = tokio::time::timeout(shutdown.grace / 2, drained).await;
            closed.await;
        })
    }
}

async fn subscribe(deps: Arc<ProvisionConsumerDeps>) -> Result<Subscription, SubscribeError> {
    // Without the database each delivery would only be counted as failed, so it comes first.
    deps.provision.wallets.ping().await.map_err(SubscribeError::Database)?;
    let subscribing = async {
        let connection = deps.broker.connect(CONNECTION_NAME, FrameSize::ServerDefault).await?;
        // Nothing else: where failed deliveries go does not decide whether healthy ones are consumed.
        connection.declare(&[provision_queue()]).await?;
        Consumer::subscribe(connection, PROVISION_QUEUE, deps.prefetch).await
    };
    let (consumer, deliveries) = subscribing.await.map_err(SubscribeError::Broker)?;
    Ok((consumer, deliveries.boxed_local()))
}

/// Takes all deliveries except suspects; if only suspects are left and `suspects_allowed`, one of them at random.
///
/// A delivery that crashes the process makes the broker redeliver all unacknowledged ones, and after twenty crashes all
/// of them would become dead letters. So a suspect is processed alone and after the others; and in random order, so that
/// an innocent one is not behind the culprit each time. `pick` returns an index below its argument.
fn take_batch(
    queue: &mut Vec<ProvisionDelivery>,
    suspects_allowed: bool,
    pick: impl Fn(usize) -> usize,
) -> Vec<ProvisionDelivery> {
    let (suspects, batch): (Vec<_>, Vec<_>) =
        std::mem::take(queue).into_iter().partition(|delivery| delivery.earlier_deliveries >= SUSPECT_FROM);
    *queue = suspects;
    if batch.is_empty() && !queue.is_empty() && suspects_allowed {
        return vec![queue.swap_remove(pick(queue.len()))];
    }
    batch
}
