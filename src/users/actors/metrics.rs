//! What the users role measures beside its requests.

use crate::infra::metrics::{Counter, Gauge, Histogram, MetricName, Metrics, counter_value, gauge_value};
use crate::users::application::relay_outbox::Relayed;

const EVENTS: MetricName = MetricName {
    name: "purse_outbox_events_total",
    help: "Events that the relay took to the broker: published, refused (also as unroutable) or unanswered; the last two stay pending.",
};
const BATCH: MetricName =
    MetricName { name: "purse_outbox_batch_events", help: "Events that one batch of the relay claimed." };
const PENDING: MetricName = MetricName {
    name: "purse_outbox_pending_events",
    help: "Events in the outbox that are not published; of the database, so every process of the role shows the same.",
};
const OLDEST: MetricName = MetricName {
    name: "purse_outbox_oldest_age_seconds",
    help: "Age of the oldest event that is not published; 0 while nothing waits.",
};
const BLOCKED: MetricName = MetricName {
    name: "purse_broker_connection_blocked",
    help: "1 while the broker takes nothing from this connection, because it is short of memory or disk.",
};
const QUEUE: MetricName =
    MetricName { name: "purse_hash_queue_jobs", help: "Passwords that wait to be hashed or compared, or are in hand." };
const DURATION: MetricName = MetricName {
    name: "purse_hash_duration_seconds",
    help: "Time that a thread took to hash or compare a password, without the wait for it.",
};

/// Of the relay.
#[derive(Clone)]
pub struct RelayMetrics {
    published: Counter,
    refused: Counter,
    unanswered: Counter,
    batch: Histogram,
    /// Whether the publishing connection is blocked.
    pub(super) blocked: Gauge,
}

impl RelayMetrics {
    /// Takes its handles.
    pub fn new(metrics: &Metrics) -> Self {
        let events = |result| metrics.counter(EVENTS, &[("result", result)]);
        Self {
            published: events("published"),
            refused: events("refused"),
            unanswered: events("unanswered"),
            batch: metrics.histogram(BATCH, &[]),
            blocked: metrics.gauge(BLOCKED, &[("connection", "outbox")]),
        }
    }

    /// Counts a batch, unless there was nothing to relay.
    pub(super) fn count(&self, relayed: &Relayed) {
        if relayed.claimed > 0 {
            self.batch.record(gauge_value(relayed.claimed));
            self.published.increment(counter_value(relayed.confirmed));
            self.refused.increment(counter_value(relayed.refused));
            self.unanswered.increment(counter_value(relayed.unanswered));
        }
    }
}

/// Of what waits in the outbox.
#[derive(Clone)]
pub struct DepthMetrics {
    pub(super) pending: Gauge,
    pub(super) oldest: Gauge,
}

impl DepthMetrics {
    /// Takes its handles.
    pub fn new(metrics: &Metrics) -> Self {
        Self { pending: metrics.gauge(PENDING, &[]), oldest: metrics.gauge(OLDEST, &[]) }
    }
}

/// Of the hashing threads.
#[derive(Clone)]
pub struct HashMetrics {
    pub(super) hash: Histogram,
    pub(super) compare: Histogram,
}

impl HashMetrics {
    /// Takes its handles.
    pub fn new(metrics: &Metrics) -> Self {
        let duration = |work| metrics.histogram(DURATION, &[("work", work)]);
        Self { hash: duration("hash"), compare: duration("compare") }
    }
}

/// Shows how many jobs there are, as `jobs` tells when asked.
pub(super) fn show_hash_queue(metrics: &Metrics, jobs: impl Fn() -> usize + Send + Sync + 'static) {
    let queue = metrics.gauge(QUEUE, &[]);
    metrics.on_scrape(move || queue.set(gauge_value(jobs())));
}
