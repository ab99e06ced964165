//! What actors with a connection to the broker share: they report its state, end when it is lost, and close it on
//! shutdown.

use actix::{Actor, ActorContext as _, Context};
use slog::{Logger, info, warn};

use crate::infra::amqp::{AmqpError, BrokerConnection};
use crate::infra::health::HealthBoard;
use crate::infra::metrics::{Gauge, MetricName, Metrics, gauge_value};
use crate::kernel::{Classified as _, FailureClass, chain};
use crate::runtime::child::{EndReason, Lifeline};

const HEALTH_CHECK: &str = "rabbitmq";
const BLOCKED: MetricName = MetricName {
    name: "purse_broker_connection_blocked",
    help: "1 while the broker blocks publishing on this connection because of a memory or disk alarm, else 0.",
};
const UNDECLARED: MetricName = MetricName {
    name: "purse_broker_undeclared",
    help: "Exchanges, queues and bindings whose declaration the broker rejects, for example because they exist with different arguments.",
};

/// An actor's connection to the broker, with the actor's lifeline: without the connection the actor ends.
pub(crate) struct BrokerLink {
    connection: Option<BrokerConnection>,
    /// With the part of the check that is this actor's.
    health: Option<(HealthBoard, &'static str)>,
    blocked: Option<Gauge>,
    undeclared: Option<Gauge>,
    rejecting: bool,
    /// Whether the connection is known to do its work. Until then the health check is not `ok`.
    proven: bool,
    lifeline: Lifeline,
    logger: Logger,
}

/// The gauge of a connection that declares something, for [`BrokerLink::with_undeclared_gauge`].
pub(crate) fn undeclared_gauge(metrics: &Metrics, connection: &'static str) -> Gauge {
    metrics.gauge(UNDECLARED, &[("connection", connection)])
}

/// The gauge of a publishing connection, for [`BrokerLink::with_gauge`].
pub(crate) fn blocked_gauge(metrics: &Metrics, connection: &'static str) -> Gauge {
    metrics.gauge(BLOCKED, &[("connection", connection)])
}

/// Counts batches on one connection of which the broker rejected something and confirmed nothing.
///
/// RabbitMQ 3.10 rejects everything from a channel that published while its queue had no leader, until the node of that
/// leader is back, and confirms the same messages on a fresh channel. A full queue rejects on every channel.
#[derive(Debug, Default)]
pub(crate) struct Rejections(u32);

impl Rejections {
    /// After this many in a row, the connection is replaced.
    const GIVE_UP_AFTER: u32 = 2;

    /// Whether to replace the connection.
    pub(crate) fn after_batch(&mut self, confirmed: bool, rejected: bool) -> bool {
        if confirmed {
            self.0 = 0;
        } else if rejected {
            self.0 = self.0.saturating_add(1);
        }
        self.0 >= Self::GIVE_UP_AFTER
    }

    /// Whether the last batch that had an outcome was rejected.
    pub(crate) const fn any(&self) -> bool {
        self.0 > 0
    }
}

impl BrokerLink {
    /// A link that is not connected yet.
    pub(crate) const fn new(lifeline: Lifeline, logger: Logger) -> Self {
        Self {
            connection: None,
            health: None,
            blocked: None,
            undeclared: None,
            rejecting: false,
            proven: true,
            lifeline,
            logger,
        }
    }

    /// Keeps the health check as it was before, until [`prove`](Self::prove). A broker without a majority of its nodes
    /// accepts connections and confirms nothing, so that being connected says little.
    pub(crate) fn until_proven(self) -> Self {
        Self { proven: false, ..self }
    }

    /// The connection did its work, or there was none.
    pub(crate) const fn prove(&mut self) {
        self.proven = true;
    }

    /// Reports the state of the connection as this part of the health check of the broker.
    pub(crate) fn with_health(self, health: HealthBoard, part: &'static str) -> Self {
        Self { health: Some((health, part)), ..self }
    }

    /// Reports in `undeclared` how many declarations the broker refuses.
    pub(crate) fn with_undeclared_gauge(self, undeclared: Gauge) -> Self {
        Self { undeclared: Some(undeclared), ..self }
    }

    /// Reports in `blocked` whether publishing is blocked.
    pub(crate) fn with_gauge(self, blocked: Gauge) -> Self {
        Self { blocked: Some(blocked), ..self }
    }

    pub(crate) fn connected(&mut self, connection: BrokerConnection) {
        self.undeclared(&[]);
        self.connection = Some(connection);
    }

    /// Whether this is the actor's first start in this process.
    pub(crate) const fn is_first_start(&self) -> bool {
        self.lifeline.is_first_start()
    }

    /// Reports what the broker does not let this connection declare.
    pub(crate) fn undeclared(&self, summaries: &[&str]) {
        if let Some(gauge) = &self.undeclared {
            gauge.set(gauge_value(summaries.len()));
        }
        self.report(if summaries.is_empty() { Ok(()) } else { Err(summaries.join("; ")) });
    }

    /// Reports whether the broker rejects everything that is published on this connection.
    pub(crate) fn set_rejecting(&mut self, rejecting: bool) {
        self.rejecting = rejecting;
        self.is_blocked();
    }

    /// Whether the broker blocks publishing. Call it before each publish: it also updates the gauge, the health check
    /// and the log.
    pub(crate) fn is_blocked(&self) -> bool {
        let Some(connection) = &self.connection else { return false };
        let blocked = connection.is_blocked();
        self.show_blocked(blocked);
        if self.rejecting && !blocked {
            self.report(Err("messages are rejected by their queue".to_owned()));
        } else if blocked {
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

    /// Ends the actor because a step at the broker failed; its supervisor restarts it with a new connection.
    pub(crate) fn fail<A: Actor<Context = Context<A>>>(&mut self, e: AmqpError, ctx: &mut Context<A>) {
        let summary = e.summary();
        match &e {
            AmqpError::Differs { .. } | AmqpError::NotDeclared { .. } => self.undeclared(&[&summary]),
            AmqpError::Missing { .. }
            | AmqpError::NotConnected { .. }
            | AmqpError::NoAddress { .. }
            | AmqpError::Failed { .. }
            | AmqpError::TimedOut { .. }
            | AmqpError::Closed { .. } => {
                self.report(Err(summary));
            }
        }
        self.end_unreported(e.into(), ctx);
    }

    /// Ends the actor because of the broker or of a bug; its supervisor restarts it with a new connection.
    pub(crate) fn end<A: Actor<Context = Context<A>>>(&mut self, reason: EndReason, ctx: &mut Context<A>) {
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

    /// Returns whether this changed the actor's part of the check.
    fn report(&self, state: Result<(), String>) -> bool {
        if state.is_ok() && !self.proven {
            return false;
        }
        self.health.as_ref().is_some_and(|(health, part)| health.set_part(HEALTH_CHECK, part, state))
    }
}

impl From<AmqpError> for EndReason {
    fn from(e: AmqpError) -> Self {
        if e.class() == FailureClass::Permanent { Self::Refused(e.to_string()) } else { Self::Unavailable(chain(&e)) }
    }
}
