//! Relays the outbox to the broker, batch after batch, until it is empty.
//!
//! Owns: the publishing connection, the poll timer, at most one batch in flight.
//! Receives: wake (an event was stored), tick (the timer), the end of a batch, shutdown.
//! Sends: nothing; it calls `relay_outbox`.
//! Mailbox: 16 messages. Further wakes are dropped on purpose, since one wake relays the whole outbox.
//! Ends: when the broker is unavailable, sends no confirms, or rejects everything on this connection; it is restarted with
//! a new one.
//!
//! After a batch of which nothing was confirmed it pauses, whatever wakes it: each further batch would be read, published
//! and written back for nothing.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, WrapFuture as _};
use slog::{Logger, debug, error, info, warn};

use crate::infra::amqp::{AmqpError, Broker};
use crate::infra::health::HealthBoard;
use crate::infra::security::event_signature::EventSignatures;
use crate::infra::system::random_fraction;
use crate::infra::telemetry::Spans;
use crate::kernel::{Backoff, DependencyError, Reminder, chain, fault};
use crate::runtime::{BrokerLink, Draining, EndReason, Handle, Lifeline, Rejections, Shutdown};
use crate::users::actors::metrics::RelayMetrics;
use crate::users::amqp::OutboxPublisher;
use crate::users::application::ports::{Outbox, RelayWake};
use crate::users::application::relay_outbox::{RelayOutbox, Relayed};

const MAILBOX_MAX: usize = 16;
/// Pauses after batches of which nothing was confirmed. Short, because what is due waits when the broker takes events
/// again.
const PAUSE_BACKOFF: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(2));

pub(crate) struct OutboxPollerDeps {
    pub(crate) broker: Broker,
    pub(crate) signatures: Arc<EventSignatures>,
    pub(crate) outbox: Arc<dyn Outbox>,
    /// Finds events that no wake announced.
    pub(crate) poll_interval: Duration,
    pub(crate) batch_max: u32,
    /// How long a claimed batch belongs to this process alone.
    pub(crate) lease: Duration,
    pub(crate) health: HealthBoard,
    pub(crate) metrics: RelayMetrics,
    pub(crate) spans: Spans,
    pub(crate) logger: Logger,
}

pub(crate) struct OutboxPollerActor {
    deps: Arc<OutboxPollerDeps>,
    link: BrokerLink,
    publisher: Option<Arc<OutboxPublisher>>,
    relaying: bool,
    woken_while_relaying: bool,
    rejections: Rejections,
    /// Batches in a row of which nothing was confirmed.
    futile: u32,
    pausing: bool,
    refusals: Reminder,
    failures: Reminder,
    draining: Draining,
}

/// The outbox has a new event.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Wake;

impl OutboxPollerActor {
    pub(crate) fn new(deps: Arc<OutboxPollerDeps>, lifeline: Lifeline) -> Self {
        let link = BrokerLink::new(lifeline, deps.logger.clone())
            .with_health(deps.health.clone(), "outbox")
            .until_proven()
            .with_gauge(deps.metrics.blocked.clone())
            .with_undeclared_gauge(deps.metrics.undeclared.clone());
        let draining = Draining::default();
        Self {
            deps,
            link,
            publisher: None,
            relaying: false,
            woken_while_relaying: false,
            rejections: Rejections::default(),
            futile: 0,
            pausing: false,
            refusals: Reminder::default(),
            failures: Reminder::default(),
            draining,
        }
    }

    fn connected(&mut self, connected: Result<OutboxPublisher, AmqpError>, ctx: &mut Context<Self>) {
        match connected {
            Ok(publisher) => {
                info!(self.deps.logger, "connected to the broker");
                self.link.connected(publisher.connection().clone());
                self.publisher = Some(Arc::new(publisher));
                ctx.run_interval(self.deps.poll_interval, Self::tick);
                self.relay(ctx);
            }
            Err(e) => self.link.fail(e, ctx),
        }
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        fault::point("outbox_poller.tick");
        if !self.link.end_if_lost(ctx) {
            self.relay(ctx);
        }
    }

    /// Begins a batch unless one is in flight. The batch is a task of the IO runtime: it completes whatever happens to
    /// this actor, so a claim is never left half settled.
    fn relay(&mut self, ctx: &mut Context<Self>) {
        let Some(publisher) = self.publisher.clone().filter(|_| !self.draining.has_begun()) else { return };
        if self.relaying {
            self.woken_while_relaying = true;
            return;
        }
        if self.pausing {
            return;
        }
        // If it is blocked, the timer tries again.
        if self.link.is_blocked() {
            return;
        }
        self.relaying = true;
        self.woken_while_relaying = false;
        let relay = RelayOutbox {
            outbox: Arc::clone(&self.deps.outbox),
            publisher,
            batch_max: self.deps.batch_max,
            lease: self.deps.lease,
        };
        let batch = self.deps.broker.io().spawn(async move { relay.execute(random_fraction()).await });
        ctx.spawn(batch.into_actor(self).map(|ended, poller, ctx| match ended {
            Ok(ended) => poller.batch_ended(&ended, ctx),
            Err(_) => poller.link.end(EndReason::Panicked, ctx),
        }));
    }

    fn batch_ended(&mut self, ended: &Result<Relayed, DependencyError>, ctx: &mut Context<Self>) {
        self.relaying = false;
        self.draining.finish();
        // Without the database nothing is known about the broker, so that it is not blamed.
        if ended.as_ref().map_or(true, |relayed| relayed.unanswered == 0) {
            self.link.prove();
        }
        match ended {
            Ok(relayed) => {
                self.failures.reset();
                self.deps.metrics.count(relayed);
                if relayed.confirmed > 0 {
                    self.futile = 0;
                    self.refusals.reset();
                }
                self.log(relayed);
                let give_up = self.rejections.after_batch(relayed.confirmed > 0, relayed.rejected > 0);
                self.link.set_rejecting(self.rejections.any());
                if relayed.unanswered > 0 && !self.link.is_blocked() {
                    self.link.end(EndReason::Unavailable("broker did not confirm".to_owned()), ctx);
                } else if give_up {
                    let why = "events are rejected on this connection".to_owned();
                    self.link.end_unreported(EndReason::Unavailable(why), ctx);
                } else if relayed.is_futile() {
                    self.pause(ctx);
                } else if relayed.more_likely || self.woken_while_relaying {
                    self.relay(ctx);
                }
            }
            // The timer tries again. Events that were claimed become free when their lease ends.
            Err(e) => {
                self.link.is_blocked();
                if self.failures.is_due() {
                    warn!(self.deps.logger, "could not relay the outbox"; "error" => chain(e));
                } else {
                    debug!(self.deps.logger, "still cannot relay the outbox"; "error" => chain(e));
                }
            }
        }
    }
}

impl OutboxPollerActor {
    fn log(&mut self, relayed: &Relayed) {
        let logger = &self.deps.logger;
        if relayed.confirmed > 0 {
            debug!(logger, "events published"; "count" => relayed.confirmed);
        }
        if let Some(reason) = &relayed.first_refusal {
            if self.refusals.is_due() {
                error!(logger, "events were refused by the broker and stay pending"; "count" => relayed.refused, "error" => reason);
            } else {
                debug!(logger, "events are still refused by the broker"; "count" => relayed.refused, "error" => reason);
            }
        }
        if relayed.unanswered > 0 {
            warn!(logger, "events were not confirmed and stay pending"; "count" => relayed.unanswered);
        }
        if relayed.lost_to_others > 0 {
            warn!(logger, "events were taken over by another process after their lease expired"; "count" => relayed.lost_to_others);
        }
    }

    fn pause(&mut self, ctx: &mut Context<Self>) {
        self.pausing = true;
        ctx.run_later(PAUSE_BACKOFF.delay(self.futile, random_fraction()), |poller, ctx| {
            poller.pausing = false;
            poller.relay(ctx);
        });
        self.futile = self.futile.saturating_add(1);
    }
}

impl Actor for OutboxPollerActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX_MAX);
        let deps = Arc::clone(&self.deps);
        let connecting = async move {
            OutboxPublisher::connect(&deps.broker, Arc::clone(&deps.signatures), deps.spans.clone()).await
        };
        ctx.spawn(connecting.into_actor(self).map(|connected, poller, ctx| poller.connected(connected, ctx)));
    }
}

impl Handler<Wake> for OutboxPollerActor {
    type Result = ();

    fn handle(&mut self, _: Wake, ctx: &mut Self::Context) {
        fault::point("outbox_poller.wake");
        self.relay(ctx);
    }
}

impl Handler<Shutdown> for OutboxPollerActor {
    type Result = actix::ResponseFuture<()>;

    fn handle(&mut self, _: Shutdown, _: &mut Self::Context) -> Self::Result {
        let drained = self.draining.begin();
        if !self.relaying {
            self.draining.finish();
        }
        let closed = self.link.close();
        Box::pin(async move {
            drained.await;
            closed.await;
        })
    }
}

/// [`RelayWake`] to the running poller.
#[derive(Clone, Default)]
pub(crate) struct RelayWaker(pub(crate) Handle<OutboxPollerActor>);

impl RelayWake for RelayWaker {
    fn wake(&self) {
        if let Some(poller) = self.0.get() {
            // A full mailbox holds wakes already, and a restarted poller begins with a batch.
            let _ = poller.try_send(Wake);
        }
    }
}
