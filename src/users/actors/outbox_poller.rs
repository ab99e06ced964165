//! Relays the outbox, batch after batch, for as long as there is something in it.
//!
//! Owns: the publishing connection, the timer, at most one batch in flight.
//! Receives: wake (a registration was stored), tick (the timer), the end of a batch, shutdown.
//! Sends: nothing; it calls `relay_outbox`.
//! Mailbox: 16 messages; a second wake is dropped on purpose, since one wake relays all there is.
//! Ends: when the broker is away or stops answering; it is built again with a new connection.

use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, WrapFuture as _,
};
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use slog::{Logger, debug, info, warn};
use tokio::sync::oneshot;

use crate::infra::amqp::{AmqpError, Broker};
use crate::infra::health::HealthBoard;
use crate::infra::security::event_signature::EventSignatures;
use crate::infra::system::random_fraction;
use crate::infra::telemetry::Spans;
use crate::kernel::{Classified, DependencyError, FailureClass, chain, fault};
use crate::runtime::{EndReason, Handle, Lifeline, Shutdown};
use crate::users::actors::metrics::RelayMetrics;
use crate::users::amqp::OutboxPublisher;
use crate::users::application::ports::{Outbox, RelayWake};
use crate::users::application::relay_outbox::{RelayOutbox, Relayed};

/// Messages in the mailbox. Ticks and wakes beyond it would say nothing new.
const MAILBOX_MAX: usize = 16;
/// The check that it sets.
const CHECK: &str = "rabbitmq";

/// What a poller is built from, again and again.
pub struct OutboxPollerDeps {
    /// The broker.
    pub broker: Broker,
    /// Signs each event.
    pub signatures: Arc<EventSignatures>,
    /// Where events wait.
    pub outbox: Arc<dyn Outbox>,
    /// Fallback poll.
    pub poll_interval: Duration,
    /// Events of one batch.
    pub batch_max: u32,
    /// How long a claim holds.
    pub lease: Duration,
    /// Where the broker's state is shown.
    pub health: HealthBoard,
    /// What becomes of events.
    pub metrics: RelayMetrics,
    /// For each event.
    pub spans: Spans,
    /// For what happens to batches.
    pub logger: Logger,
}

/// The poller.
pub struct OutboxPollerActor {
    deps: Arc<OutboxPollerDeps>,
    publisher: Option<Arc<OutboxPublisher>>,
    relaying: bool,
    woken_meanwhile: bool,
    stopping: Option<oneshot::Sender<()>>,
    lifeline: Lifeline,
}

/// Something new lies in the outbox.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Wake;

type BatchEnd = Result<Relayed, DependencyError>;

impl OutboxPollerActor {
    /// A poller without a connection; it connects when it starts.
    pub const fn new(deps: Arc<OutboxPollerDeps>, lifeline: Lifeline) -> Self {
        Self { deps, publisher: None, relaying: false, woken_meanwhile: false, stopping: None, lifeline }
    }

    fn end(&mut self, reason: EndReason, ctx: &mut Context<Self>) {
        // A connection that is gone is not blocked.
        self.deps.metrics.blocked.set(0);
        if let EndReason::Unavailable(_) = &reason {
            self.deps.health.set(CHECK, Err("not connected".to_owned()));
        }
        self.lifeline.end(reason);
        ctx.stop();
    }

    fn connected(&mut self, connected: Result<OutboxPublisher, AmqpError>, ctx: &mut Context<Self>) {
        match connected {
            Ok(publisher) => {
                info!(self.deps.logger, "connected to the broker");
                self.deps.health.set(CHECK, Ok(()));
                self.publisher = Some(Arc::new(publisher));
                ctx.run_interval(self.deps.poll_interval, Self::tick);
                self.relay(ctx);
            }
            Err(e) if e.class() == FailureClass::Permanent => self.end(EndReason::Refused(e.to_string()), ctx),
            Err(e) => self.end(EndReason::Unavailable(chain(&e)), ctx),
        }
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        fault::point("outbox_poller.tick");
        if self.publisher.as_ref().is_some_and(|publisher| !publisher.is_open()) {
            self.end(EndReason::Unavailable("the connection to the broker was lost".to_owned()), ctx);
        } else {
            self.relay(ctx);
        }
    }

    /// Begins a batch unless one is in flight. The batch is a task of the IO runtime: it ends whatever becomes of this
    /// actor, so a claim is never left half settled.
    fn relay(&mut self, ctx: &mut Context<Self>) {
        let Some(publisher) = self.publisher.clone().filter(|_| self.stopping.is_none()) else { return };
        if self.relaying {
            self.woken_meanwhile = true;
            return;
        }
        if self.is_blocked(&publisher) {
            return;
        }
        self.relaying = true;
        self.woken_meanwhile = false;
        let relay = RelayOutbox {
            outbox: Arc::clone(&self.deps.outbox),
            publisher,
            batch_max: self.deps.batch_max,
            lease: self.deps.lease,
        };
        let batch = self.deps.broker.io().spawn(async move { relay.execute(random_fraction()).await });
        ctx.spawn(batch.into_actor(self).map(|ended, poller, ctx| match ended {
            Ok(ended) => poller.batch_ended(&ended, ctx),
            Err(_) => poller.end(EndReason::Panicked, ctx),
        }));
    }

    /// Whether the broker takes nothing at the moment; the timer comes back to it.
    fn is_blocked(&self, publisher: &OutboxPublisher) -> bool {
        let blocked = publisher.is_blocked();
        self.deps.metrics.blocked.set(u8::from(blocked));
        if blocked {
            if self.deps.health.set(CHECK, Err("takes no messages: short of memory or disk".to_owned())) {
                warn!(self.deps.logger, "the broker takes no messages; they wait in the outbox until it does");
            }
            return true;
        }
        if self.deps.health.set(CHECK, Ok(())) {
            info!(self.deps.logger, "the broker takes messages again");
        }
        false
    }

    fn batch_ended(&mut self, ended: &BatchEnd, ctx: &mut Context<Self>) {
        self.relaying = false;
        let again = match ended {
            Ok(relayed) => {
                self.deps.metrics.count(relayed);
                self.log(relayed);
                if relayed.unanswered > 0
                    && !self.publisher.as_ref().is_some_and(|publisher| self.is_blocked(publisher))
                {
                    return self.end(EndReason::Unavailable("the broker does not confirm".to_owned()), ctx);
                }
                relayed.more_likely || self.woken_meanwhile
            }
            Err(e) => {
                // The timer comes back to it; leases give the claim back if there was one.
                warn!(self.deps.logger, "outbox could not be relayed"; "error" => chain(e));
                false
            }
        };
        if let Some(done) = self.stopping.take() {
            // Who asked may have given up waiting.
            let _ = done.send(());
        } else if again {
            self.relay(ctx);
        }
    }

    fn log(&self, relayed: &Relayed) {
        let logger = &self.deps.logger;
        if relayed.confirmed > 0 {
            debug!(logger, "events published"; "count" => relayed.confirmed);
        }
        if let Some(words) = &relayed.first_refusal {
            slog::error!(logger, "events were refused by the broker and stay pending"; "count" => relayed.refused, "error" => words);
        }
        if relayed.unanswered > 0 {
            warn!(logger, "events were not confirmed and stay pending"; "count" => relayed.unanswered);
        }
        if relayed.lost_to_others > 0 {
            warn!(logger, "events were taken over by another process after their lease had ended"; "count" => relayed.lost_to_others);
        }
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
        let publisher = self.publisher.take();
        let (done, batch_done) = oneshot::channel();
        let waiting = self.relaying;
        self.stopping = Some(done);
        Box::pin(async move {
            if waiting {
                // Ends with the batch, or with this actor.
                let _ = batch_done.await;
            }
            close(publisher).await;
        })
    }
}

/// Says goodbye to the broker once nobody else holds the connection.
fn close(publisher: Option<Arc<OutboxPublisher>>) -> LocalBoxFuture<'static, ()> {
    async move {
        if let Some(publisher) = publisher.and_then(Arc::into_inner) {
            publisher.close().await;
        }
    }
    .boxed_local()
}

/// [`RelayWake`] to whichever poller there is at the moment.
#[derive(Clone, Default)]
pub struct RelayWaker(pub Handle<OutboxPollerActor>);

impl RelayWake for RelayWaker {
    fn wake(&self) {
        if let Some(poller) = self.0.get() {
            // Full means that wakes are waiting; gone means that the next one begins with a look.
            let _ = poller.try_send(Wake);
        }
    }
}
