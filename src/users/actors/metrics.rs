//! The users role's metrics beside those of its requests.

use crate::infra::metrics::{Counter, Gauge, Histogram, MetricName, Metrics, counter_value, gauge_value};
use crate::runtime::{blocked_gauge, undeclared_gauge};
use crate::users::application::relay_outbox::Relayed;

const EVENTS: MetricName = MetricName {
    name: "purse_outbox_events_total",
    help: "Events sent to the broker, by result: published, refused (rejected or unroutable) or unanswered (not confirmed in time). Refused and unanswered events stay pending.",
};
const BATCH: MetricName = MetricName { name: "purse_outbox_batch_events", help: "Events per batch of the relay." };
const PENDING: MetricName = MetricName {
    name: "purse_outbox_pending_events",
    help: "Unpublished events in the outbox. Read from the database, so every process of the role reports the same value.",
};
const OLDEST: MetricName = MetricName {
    name: "purse_outbox_oldest_age_seconds",
    help: "Age of the oldest unpublished event; 0 when none is pending.",
};
const PRUNED: MetricName = MetricName {
    name: "purse_outbox_pruned_events_total",
    help: "Published events that this process deleted because they were older than OUTBOX_RETENTION.",
};
const QUEUE: MetricName =
    MetricName { name: "purse_hash_queue_jobs", help: "Passwords being hashed or verified, or waiting for it." };
const DURATION: MetricName = MetricName {
    name: "purse_hash_duration_seconds",
    help: "Time to hash or verify a password, without the time in the queue.",
};

#[derive(Clone)]
pub(crate) struct RelayMetrics {
    published: Counter,
    refused: Counter,
    unanswered: Counter,
    batch: Histogram,
    pub(super) blocked: Gauge,
    pub(super) undeclared: Gauge,
}

impl RelayMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let events = |result| metrics.counter(EVENTS, &[("result", result)]);
        Self {
            published: events("published"),
            refused: events("refused"),
            unanswered: events("unanswered"),
            batch: metrics.histogram(BATCH, &[]),
            blocked: blocked_gauge(metrics, "outbox"),
            undeclared: undeclared_gauge(metrics, "outbox"),
        }
    }

    /// Counts a batch, unless it was empty.
    pub(super) fn count(&self, relayed: &Relayed) {
        if relayed.claimed > 0 {
            self.batch.record(gauge_value(relayed.claimed));
            self.published.increment(counter_value(relayed.confirmed));
            self.refused.increment(counter_value(relayed.refused));
            self.unanswered.increment(counter_value(relayed.unanswered));
        }
    }
}

/// Of the outbox watch.
#[derive(Clone)]
pub(crate) struct DepthMetrics {
    pub(super) pending: Gauge,
    pub(super) oldest: Gauge,
}

impl DepthMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self { pending: metrics.gauge(PENDING, &[]), oldest: metrics.gauge(OLDEST, &[]) }
    }
}

/// Of the outbox pruner.
pub(crate) fn pruned_counter(metrics: &Metrics) -> Counter {
    metrics.counter(PRUNED, &[])
}

#[derive(Clone)]
pub(crate) struct HashMetrics {
    pub(super) hash: Histogram,
    pub(super) verify: Histogram,
}

impl HashMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let duration = |work| metrics.histogram(DURATION, &[("work", work)]);
        Self { hash: duration("hash"), verify: duration("compare") }
    }
}

/// Exports the number of hashing jobs, read from `jobs` at each scrape.
pub(super) fn export_hash_queue(metrics: &Metrics, jobs: impl Fn() -> usize + Send + Sync + 'static) {
    let queue = metrics.gauge(QUEUE, &[]);
    metrics.on_scrape(move || queue.set(gauge_value(jobs())));
}
