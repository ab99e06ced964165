//! What the wallet role measures beside its requests.

use crate::infra::metrics::{Counter, Gauge, Histogram, MetricName, Metrics, gauge_value};
use crate::wallet::amqp::Route;
use crate::wallet::application::ports::{PostError, Posted};
use crate::wallet::application::retry_ladder::TIERS;

const DELIVERIES: MetricName = MetricName {
    name: "purse_provision_deliveries_total",
    help: "Settled deliveries of registrations: provisioned, duplicate (the wallet was there), retried (into a tier) or dead_lettered.",
};
const RETRIES: MetricName = MetricName {
    name: "purse_provision_retries_total",
    help: "Deliveries that went into a retry tier, by its number; the sum is the `retried` of the deliveries.",
};
const DEAD_LETTERS: MetricName = MetricName {
    name: "purse_dead_letters",
    help: "Messages in wallet.provision.dlq; of the broker, so every process of the role shows the same.",
};
const BLOCKED: MetricName = MetricName {
    name: "purse_broker_connection_blocked",
    help: "1 while the broker takes nothing from this connection, because it is short of memory or disk.",
};
const POSTS: MetricName = MetricName {
    name: "purse_ledger_posts_total",
    help: "Credits and debits that reached the ledger, by what came of them.",
};
const QUEUE: MetricName =
    MetricName { name: "purse_ledger_queue_posts", help: "Posts that wait to be written or are being written." };
const BATCH: MetricName = MetricName { name: "purse_ledger_batch_posts", help: "Posts of one database transaction." };
const COMMIT: MetricName = MetricName {
    name: "purse_ledger_commit_duration_seconds",
    help: "Time from the begin of a batch to the commit's answer, by whether it is the common batch or a set-aside wallet's own.",
};

/// Of the provisioning.
#[derive(Clone)]
pub struct ProvisionMetrics {
    /// A wallet was made.
    pub(super) provisioned: Counter,
    /// It was there already.
    pub(super) duplicate: Counter,
    retried: Counter,
    tiers: [Counter; TIERS],
    dead_lettered: Counter,
}

impl ProvisionMetrics {
    /// Takes its handles.
    pub fn new(metrics: &Metrics) -> Self {
        let deliveries = |result| metrics.counter(DELIVERIES, &[("result", result)]);
        Self {
            provisioned: deliveries("provisioned"),
            duplicate: deliveries("duplicate"),
            retried: deliveries("retried"),
            tiers: ["1", "2", "3"].map(|tier| metrics.counter(RETRIES, &[("tier", tier)])),
            dead_lettered: deliveries("dead_lettered"),
        }
    }

    /// Counts a delivery whose copy has arrived where it had to go.
    pub(super) fn routed(&self, route: &Route) {
        match route {
            Route::Tier { number, .. } => {
                self.retried.increment(1);
                if let Some(tier) = self.tiers.get(number.saturating_sub(1)) {
                    tier.increment(1);
                }
            }
            Route::DeadLetter => self.dead_lettered.increment(1),
        }
    }
}

/// Of the retry router.
#[derive(Clone)]
pub struct RouterMetrics {
    /// Messages in the dead-letter queue.
    pub(super) dead_letters: Gauge,
    /// Whether the publishing connection is blocked.
    pub(super) blocked: Gauge,
}

impl RouterMetrics {
    /// Takes its handles.
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            dead_letters: metrics.gauge(DEAD_LETTERS, &[]),
            blocked: metrics.gauge(BLOCKED, &[("connection", "retries")]),
        }
    }
}

/// Of the ledger's writer.
#[derive(Clone)]
pub struct LedgerMetrics {
    /// Posts of a batch.
    pub(super) batch: Histogram,
    /// Of the common batch.
    pub(super) commit_common: Histogram,
    /// Of a set-aside wallet.
    pub(super) commit_set_aside: Histogram,
}

impl LedgerMetrics {
    /// Takes its handles.
    pub fn new(metrics: &Metrics) -> Self {
        let commit = |batch| metrics.histogram(COMMIT, &[("batch", batch)]);
        Self {
            batch: metrics.histogram(BATCH, &[]),
            commit_common: commit("common"),
            commit_set_aside: commit("set_aside"),
        }
    }
}

/// Of what came of each post.
pub(super) struct PostMetrics {
    posted: Counter,
    replayed: Counter,
    refused: Counter,
    no_wallet: Counter,
    overloaded: Counter,
    not_done: Counter,
    outcome_unknown: Counter,
    broke_down: Counter,
}

impl PostMetrics {
    /// Takes its handles, and shows how many posts there are as `posts` tells when asked.
    pub(super) fn new(metrics: &Metrics, posts: impl Fn() -> usize + Send + Sync + 'static) -> Self {
        let queue = metrics.gauge(QUEUE, &[]);
        metrics.on_scrape(move || queue.set(gauge_value(posts())));
        let counter = |result| metrics.counter(POSTS, &[("result", result)]);
        Self {
            posted: counter("posted"),
            replayed: counter("replayed"),
            refused: counter("refused"),
            no_wallet: counter("no_wallet"),
            overloaded: counter("overloaded"),
            not_done: counter("not_done"),
            outcome_unknown: counter("outcome_unknown"),
            broke_down: counter("broke_down"),
        }
    }

    /// Counts a post.
    pub(super) fn count(&self, result: &Result<Posted, PostError>) {
        let counter = match result {
            Ok(Posted::New(_)) => &self.posted,
            Ok(Posted::Replayed(_)) => &self.replayed,
            Err(PostError::Refused(_)) => &self.refused,
            Err(PostError::NoWallet) => &self.no_wallet,
            Err(PostError::Overloaded) => &self.overloaded,
            Err(PostError::NotDone) => &self.not_done,
            Err(PostError::OutcomeUnknown) => &self.outcome_unknown,
            Err(PostError::Bug) => &self.broke_down,
        };
        counter.increment(1);
    }
}
