//! One batch of deliveries: creates the wallets, acks what succeeded, and decides where failed ones go. A unit of work,
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
use crate::wallet::application::ports::Provisioned;
use crate::wallet::application::provision_wallets::ProvisionWallets;

#[derive(Clone)]
pub(super) struct ProvisionBatch {
    pub(super) provision: Arc<ProvisionWallets>,
    pub(super) reader: DeliveryReader,
    pub(super) metrics: ProvisionMetrics,
    pub(super) spans: Spans,
    pub(super) began: Instant,
    pub(super) logger: Logger,
}

/// A delivery that must be routed before it may be acked.
pub(super) struct Failed {
    pub(super) delivery: ProvisionDelivery,
    pub(super) route: Route,
    pub(super) reason: String,
}

#[derive(Default)]
pub(super) struct BatchEnd {
    pub(super) failed: Vec<Failed>,
    /// Because the database is unavailable: to be processed again, without counting an attempt.
    pub(super) not_processed: Vec<ProvisionDelivery>,
    /// The error behind `not_processed`.
    pub(super) outage: Option<String>,
    /// The first ack that failed. The connection is not worth keeping.
    pub(super) ack_error: Option<AmqpError>,
}

impl ProvisionBatch {
    pub(super) async fn execute(&self, deliveries: Vec<ProvisionDelivery>) -> BatchEnd {
        fault::point("wallet.S10");
        let mut end = BatchEnd::default();
        let mut readable = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            match catch_unwind(AssertUnwindSafe(|| self.reader.user(&delivery))) {
                Ok(Ok(user)) => readable.push((user, delivery)),
                // A retry cannot make it readable.
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
        match self.create(users).await {
            Ok(provisioned) => self.settle(readable, provisioned, end).await,
            Err(e) if e.class() == FailureClass::Unavailable => end.not_processed(readable, &e),
            // One of them may be the cause: each on its own, so that the others do not fail with it.
            Err(_) if readable.len() > 1 => {
                for (user, delivery) in readable {
                    match self.create(vec![user]).await {
                        Ok(provisioned) => self.settle(vec![(user, delivery)], provisioned, end).await,
                        Err(e) if e.class() == FailureClass::Unavailable => {
                            end.not_processed(vec![(user, delivery)], &e);
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

    /// Creates the missing wallets. A panic is an error of these deliveries only.
    async fn create(&self, users: Vec<UserId>) -> Result<Provisioned, DependencyError> {
        let created = async {
            for user in &users {
                fault::point_of("wallet.provision", user);
            }
            self.provision.execute(users).await
        };
        AssertUnwindSafe(created).catch_unwind().await.unwrap_or_else(|_| Err(panicked()))
    }

    async fn settle(&self, readable: Vec<(UserId, ProvisionDelivery)>, provisioned: Provisioned, end: &mut BatchEnd) {
        let Provisioned { mut created, postponed } = provisioned;
        for (user, delivery) in readable {
            if let Some((users, e)) = &postponed
                && users.contains(&user)
            {
                let route = Route::postponed(&self.reader.ladder);
                end.failed.push(Failed { delivery, route, reason: chain(e) });
                continue;
            }
            let logger = describe(&self.logger, &delivery).new(slog::o!("user_id" => user.to_string()));
            // Removed, because a second delivery for the same user in this batch is a duplicate.
            if let Some(index) = created.iter().position(|other| *other == user) {
                created.swap_remove(index);
                self.metrics.provisioned.increment(1);
                info!(logger, "wallet provisioned");
            } else {
                self.metrics.duplicate.increment(1);
                debug!(logger, "wallet already exists");
            }
            self.trace(&delivery, false);
            if let Err(e) = delivery.ack().await {
                // It is redelivered, and then the wallet exists.
                end.ack_error.get_or_insert(e);
            }
            fault::point("wallet.S13");
        }
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

impl BatchEnd {
    fn not_processed(&mut self, readable: Vec<(UserId, ProvisionDelivery)>, e: &DependencyError) {
        self.not_processed.extend(readable.into_iter().map(|(_, delivery)| delivery));
        self.outage.get_or_insert_with(|| chain(e));
    }
}

fn panicked() -> DependencyError {
    // The panic hook has logged where and why.
    DependencyError::new("wallet.provision", FailureClass::Bug, "the handler panicked")
}

/// A logger with the ids of a delivery.
pub(super) fn describe(logger: &Logger, delivery: &ProvisionDelivery) -> Logger {
    logger.new(slog::o!(
        "event_id" => delivery.event_id.as_deref().map(printable),
        "request_id" => delivery.request_id.as_ref().map(ToString::to_string),
        "trace_id" => delivery.traceparent.as_ref().map(|t| t.trace_id().to_owned()),
        "attempt" => delivery.attempt.count(),
    ))
}

/// A `message_id` may be any text: its publisher chose it.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}
