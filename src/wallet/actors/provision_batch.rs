//! One batch of deliveries: wallets for those that can be read, and what is to become of the others. A unit of work,
//! not an actor.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt as _;
use slog::{Logger, debug, info};

use crate::infra::amqp::AmqpError;
use crate::infra::telemetry::{Span, SpanName, Spans};
use crate::kernel::{Classified as _, DependencyError, FailureClass, UserId, chain, fault};
use crate::wallet::actors::metrics::ProvisionMetrics;
use crate::wallet::amqp::{DeliveryReader, ProvisionDelivery, Route};
use crate::wallet::application::provision_wallets::ProvisionWallets;

/// What a batch needs.
#[derive(Clone)]
pub(super) struct ProvisionBatch {
    pub(super) provision: Arc<ProvisionWallets>,
    pub(super) reader: DeliveryReader,
    pub(super) metrics: ProvisionMetrics,
    pub(super) spans: Spans,
    pub(super) began: Instant,
    pub(super) logger: Logger,
}

/// A delivery that has to be routed before it may be acked.
pub(super) struct Failed {
    pub(super) delivery: ProvisionDelivery,
    pub(super) route: Route,
    pub(super) reason: String,
}

/// How a batch ended.
#[derive(Default)]
pub(super) struct BatchEnd {
    /// To be routed.
    pub(super) failed: Vec<Failed>,
    /// The database is away: to be tried again as they are, with no attempt spent.
    pub(super) held: Vec<ProvisionDelivery>,
    /// Why, for the log.
    pub(super) away: Option<String>,
    /// An ack that the broker did not hear: the connection is not worth keeping.
    pub(super) broken: Option<AmqpError>,
}

impl ProvisionBatch {
    pub(super) async fn execute(&self, deliveries: Vec<ProvisionDelivery>) -> BatchEnd {
        fault::point("wallet.S10");
        let mut end = BatchEnd::default();
        let mut readable = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            match catch_unwind(AssertUnwindSafe(|| self.reader.user(&delivery))) {
                Ok(Ok(user)) => readable.push((user, delivery)),
                // No later try can make it readable.
                Ok(Err(poison)) => {
                    self.trace(&delivery, true);
                    end.failed.push(Failed { delivery, route: Route::DeadLetter, reason: poison.to_string() });
                }
                Err(_) => self.fail(delivery, &panicked(), &mut end),
            }
        }
        if !readable.is_empty() {
            self.provision(readable, &mut end).await;
        }
        end
    }

    async fn provision(&self, readable: Vec<(UserId, ProvisionDelivery)>, end: &mut BatchEnd) {
        let users = readable.iter().map(|(user, _)| *user).collect();
        match self.make(users).await {
            Ok(made) => self.settle(readable, &made, end).await,
            Err(e) if e.class() == FailureClass::Unavailable => Self::hold(readable, &e, end),
            // One of them may be the reason: each alone, so that the others are not held up.
            Err(_) if readable.len() > 1 => {
                for (user, delivery) in readable {
                    match self.make(vec![user]).await {
                        Ok(made) => self.settle(vec![(user, delivery)], &made, end).await,
                        Err(e) if e.class() == FailureClass::Unavailable => {
                            Self::hold(vec![(user, delivery)], &e, end);
                        }
                        Err(e) => self.fail(delivery, &e, end),
                    }
                }
            }
            Err(e) => {
                for (_, delivery) in readable {
                    self.fail(delivery, &e, end);
                }
            }
        }
    }

    /// Makes the wallets. A panic on the way is the failure of this batch and nothing else's.
    async fn make(&self, users: Vec<UserId>) -> Result<Vec<UserId>, DependencyError> {
        let made = async {
            for user in &users {
                fault::point_of("wallet.provision", user);
            }
            self.provision.execute(users).await
        };
        AssertUnwindSafe(made).catch_unwind().await.unwrap_or_else(|_| Err(panicked()))
    }

    async fn settle(&self, readable: Vec<(UserId, ProvisionDelivery)>, made: &[UserId], end: &mut BatchEnd) {
        let mut made = made.to_vec();
        for (user, delivery) in readable {
            let logger = describe(&self.logger, &delivery).new(slog::o!("user_id" => user.to_string()));
            // Two deliveries for one user in one batch: one of them has made it.
            if let Some(index) = made.iter().position(|m| *m == user) {
                made.swap_remove(index);
                self.metrics.provisioned.increment(1);
                info!(logger, "wallet provisioned");
            } else {
                self.metrics.duplicate.increment(1);
                debug!(logger, "wallet was there already");
            }
            self.trace(&delivery, false);
            if let Err(e) = delivery.ack().await {
                // It comes again, and then the wallet is there already.
                end.broken.get_or_insert(e);
            }
            fault::point("wallet.S13");
        }
    }

    fn hold(readable: Vec<(UserId, ProvisionDelivery)>, e: &DependencyError, end: &mut BatchEnd) {
        end.held.extend(readable.into_iter().map(|(_, delivery)| delivery));
        end.away.get_or_insert_with(|| chain(e));
    }

    fn trace(&self, delivery: &ProvisionDelivery, failed: bool) {
        if let Some(trace) = &delivery.traceparent {
            self.spans.record(|| Span {
                name: SpanName::Provision,
                trace,
                took: self.began.elapsed(),
                failed,
                attributes: vec![("purse.attempt", delivery.attempt.count().to_string())],
            });
        }
    }

    fn fail(&self, delivery: ProvisionDelivery, e: &DependencyError, end: &mut BatchEnd) {
        let route = Route::after(&self.reader.ladder, delivery.attempt);
        self.trace(&delivery, true);
        end.failed.push(Failed { delivery, route, reason: chain(e) });
    }
}

fn panicked() -> DependencyError {
    // The panic hook has logged where and why.
    DependencyError::new("wallet.provision", FailureClass::Bug, "the handler panicked")
}

/// A logger that names a delivery.
pub(super) fn describe(logger: &Logger, delivery: &ProvisionDelivery) -> Logger {
    logger.new(slog::o!(
        "event_id" => delivery.event_id.as_deref().map(printable),
        "request_id" => delivery.request_id.as_ref().map(ToString::to_string),
        "trace_id" => delivery.traceparent.as_ref().map(|t| t.trace_id().to_owned()),
        "attempt" => delivery.attempt.count(),
    ))
}

/// A `message_id` is whatever its publisher wrote.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}
