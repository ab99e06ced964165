//! What actors with a connection to the broker share: they report its state, end when it is lost, and close it on
//! shutdown.

use actix::{Actor, ActorContext as _, Context};
use slog::{Logger, info, warn};

use crate::infra::amqp::{AmqpError, BrokerConnection};
use crate::infra::health::HealthBoard;
use crate::infra::metrics::{Gauge, MetricName, Metrics};
use crate::kernel::{Classified as _, FailureClass, chain};
use crate::runtime::child::{EndReason, Lifeline};

const HEALTH_CHECK: &str = "rabbitmq";
const BLOCKED: MetricName = MetricName {
    name: "purse_broker_connection_blocked",
    help: "1 while the broker blocks publishing on this connection because of a memory or disk alarm, else 0.",
};

/// An actor's connection to the broker, with the actor's lifeline: without the connection the actor ends.
pub(crate) struct BrokerLink {
    connection: Option<BrokerConnection>,
    health: Option<HealthBoard>,
    blocked: Option<Gauge>,
    lifeline: Lifeline,
    logger: Logger,
}

/// The gauge of a publishing connection, for [`BrokerLink::with_gauge`].
pub(crate) fn blocked_gauge(metrics: &Metrics, connection: &'static str) -> Gauge {
    metrics.gauge(BLOCKED, &[("connection", connection)])
}

impl BrokerLink {
    /// A link that is not connected yet.
    pub(crate) const fn new(lifeline: Lifeline, logger: Logger) -> Self {
        Self { connection: None, health: None, blocked: None, lifeline, logger }
    }

    /// Reports the state of the connection to the health check of the broker.
    pub(crate) fn with_health(self, health: HealthBoard) -> Self {
        Self { health: Some(health), ..self }
    }

    /// Reports in `blocked` whether publishing is blocked.
    pub(crate) fn with_gauge(self, blocked: Gauge) -> Self {
        Self { blocked: Some(blocked), ..self }
    }

    pub(crate) fn connected(&mut self, connection: BrokerConnection) {
        self.report(Ok(()));
        self.connection = Some(connection);
    }

    /// Whether the broker blocks publishing. Call it before each publish: it also updates the gauge, the health check
    /// and the log.
    pub(crate) fn is_blocked(&self) -> bool {
        let Some(connection) = &self.connection else { return false };
        let blocked = connection.is_blocked();
        self.show_blocked(blocked);
        if blocked {
            if self.report(Err("publishing is blocked: memory or disk alarm".to_owned())) {
                warn!(
                    self.logger,
                    "broker blocks publishing because of a memory or disk alarm; messages wait until it ends"
                );
            }
        } else if self.report(Ok(())) {
            info!(self.logger, "broker accepts messages again");
        }
        blocked
    }

    /// Ends the actor if the connection is lost, and returns whether it is.
    pub(crate) fn end_if_lost<A: Actor<Context = Context<A>>>(&mut self, ctx: &mut Context<A>) -> bool {
        let lost = self.connection.as_ref().is_some_and(|connection| !connection.is_open());
        if lost {
            self.end(EndReason::Unavailable("connection to the broker lost".to_owned()), ctx);
        }
        lost
    }

    /// Ends the actor because of the broker or of a bug; its supervisor restarts it with a new connection.
    pub(crate) fn end<A: Actor<Context = Context<A>>>(&mut self, reason: impl Into<EndReason>, ctx: &mut Context<A>) {
        let reason = reason.into();
        if let EndReason::Unavailable(_) = &reason {
            self.report(Err("not connected".to_owned()));
        }
        self.end_unreported(reason, ctx);
    }

    /// Ends the actor for a reason that says nothing about the broker.
    pub(crate) fn end_unreported<A: Actor<Context = Context<A>>>(&mut self, reason: EndReason, ctx: &mut Context<A>) {
        // A closed connection is not blocked.
        self.show_blocked(false);
        self.lifeline.end(reason);
        ctx.stop();
    }

    /// Closes the connection when the returned future is awaited.
    pub(crate) fn close(&mut self) -> impl Future<Output = ()> + use<> {
        let connection = self.connection.take();
        async move {
            if let Some(connection) = connection {
                connection.close().await;
            }
        }
    }

    fn show_blocked(&self, blocked: bool) {
        if let Some(gauge) = &self.blocked {
            gauge.set(u8::from(blocked));
        }
    }

    /// Returns whether this changed the check.
    fn report(&self, state: Result<(), String>) -> bool {
        self.health.as_ref().is_some_and(|health| health.set(HEALTH_CHECK, state))
    }
}

impl From<AmqpError> for EndReason {
    fn from(e: AmqpError) -> Self {
        if e.class() == FailureClass::Permanent { Self::Refused(e.to_string()) } else { Self::Unavailable(chain(&e)) }
    }
}
