//! The wallet role's metrics beside those of its requests.

use crate::infra::metrics::{Counter, Gauge, Histogram, MetricName, Metrics, gauge_value};
use crate::runtime::{blocked_gauge, undeclared_gauge};
use crate::wallet::amqp::Route;
use crate::wallet::application::ports::{PostError, Posted};
use crate::wallet::application::retry_ladder::TIERS;

const DELIVERIES: MetricName = MetricName {
    name: "purse_provision_deliveries_total",
    help: "Settled deliveries of registrations, by result: provisioned, duplicate (the wallet existed), postponed (the shard is out of reach), retried (moved to a retry tier) or dead_lettered.",
};
const RETRIES: MetricName = MetricName {
    name: "purse_provision_retries_total",
    help: "Deliveries moved to a retry tier, by tier number. Their sum equals the `retried` deliveries.",
};
const DEAD_LETTERS: MetricName = MetricName {
    name: "purse_dead_letters",
    help: "Messages in wallet.provision.dlq. Read from the broker, so every process of the role reports the same value.",
};
const POSTS: MetricName =
    MetricName { name: "purse_ledger_posts_total", help: "Posts of every kind that reached the ledger, by result." };
const QUEUE: MetricName =
    MetricName { name: "purse_ledger_queue_posts", help: "Ledger entries being written or waiting to be written." };
const BATCH: MetricName = MetricName { name: "purse_ledger_batch_posts", help: "Posts per database transaction." };
const COMMIT: MetricName = MetricName {
    name: "purse_ledger_commit_duration_seconds",
    help: "Time from starting a batch until its commit is acknowledged, by batch kind: common, set_aside (waits for one wallet that another transaction had locked) or last_resort (one post, waits for all of its wallets).",
};
const SET_ASIDE: MetricName = MetricName {
    name: "purse_ledger_set_aside_total",
    help: "Posts that were set aside, because another transaction had locked a wallet for longer than a few batches. A post counts each time.",
};

const HOLDS: MetricName = MetricName {
    name: "purse_holds_open",
    help: "Open holds of all wallets, counted up to 1000000. Read from the database, so every process of the role reports the same value.",
};
const OVERDUE: MetricName = MetricName {
    name: "purse_holds_overdue_seconds",
    help: "Time since the earliest expiry of a hold whose end is not written yet; 0 without one. Nothing is held meanwhile.",
};

#[derive(Clone)]
pub(crate) struct HoldMetrics {
    pub(super) open: Gauge,
    pub(super) overdue: Gauge,
}

impl HoldMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self { open: metrics.gauge(HOLDS, &[]), overdue: metrics.gauge(OVERDUE, &[]) }
    }
}

#[derive(Clone)]
pub(crate) struct ProvisionMetrics {
    pub(super) provisioned: Counter,
    pub(super) duplicate: Counter,
    postponed: Counter,
    retried: Counter,
    tiers: [Counter; TIERS],
    dead_lettered: Counter,
    pub(super) undeclared: Gauge,
}

impl ProvisionMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let deliveries = |result| metrics.counter(DELIVERIES, &[("result", result)]);
        Self {
            provisioned: deliveries("provisioned"),
            duplicate: deliveries("duplicate"),
            postponed: deliveries("postponed"),
            retried: deliveries("retried"),
            tiers: ["1", "2", "3"].map(|tier| metrics.counter(RETRIES, &[("tier", tier)])),
            dead_lettered: deliveries("dead_lettered"),
            undeclared: undeclared_gauge(metrics, "provisioning"),
        }
    }

    /// Counts a delivery whose copy was confirmed.
    pub(super) fn routed(&self, route: &Route) {
        match route {
            Route::Tier { number, .. } => {
                self.retried.increment(1);
                if let Some(tier) = self.tiers.get(number.saturating_sub(1)) {
                    tier.increment(1);
                }
            }
            Route::Postponed { .. } => self.postponed.increment(1),
            Route::DeadLetter => self.dead_lettered.increment(1),
        }
    }
}

#[derive(Clone)]
pub(crate) struct RouterMetrics {
    pub(super) blocked: Gauge,
}

impl RouterMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self { blocked: blocked_gauge(metrics, "retries") }
    }
}

#[derive(Clone)]
pub(crate) struct TopologyMetrics {
    pub(super) dead_letters: Gauge,
    pub(super) undeclared: Gauge,
}

impl TopologyMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self { dead_letters: metrics.gauge(DEAD_LETTERS, &[]), undeclared: undeclared_gauge(metrics, "topology") }
    }
}

#[derive(Clone)]
pub(crate) struct LedgerMetrics {
    pub(super) batch: Histogram,
    pub(super) commit_common: Histogram,
    pub(super) commit_set_aside: Histogram,
    pub(super) commit_last_resort: Histogram,
    pub(super) set_aside: Counter,
}

impl LedgerMetrics {
    /// Of one lane.
    pub(crate) fn new(metrics: &Metrics, lane: usize) -> Self {
        let lane = lane.to_string();
        let commit = |batch| metrics.histogram(COMMIT, &[("batch", batch), ("lane", &lane)]);
        Self {
            batch: metrics.histogram(BATCH, &[("lane", &lane)]),
            commit_common: commit("common"),
            commit_set_aside: commit("set_aside"),
            commit_last_resort: commit("last_resort"),
            set_aside: metrics.counter(SET_ASIDE, &[("lane", &lane)]),
        }
    }
}

/// One counter per result of a post.
pub(super) struct PostMetrics {
    posted: Counter,
    replayed: Counter,
    settled: Counter,
    refused: Counter,
    no_wallet: Counter,
    overloaded: Counter,
    not_done: Counter,
    outcome_unknown: Counter,
    broke_down: Counter,
}

impl PostMetrics {
    /// Also exports the length of the queue, read from `queued` at each scrape.
    pub(super) fn new(metrics: &Metrics, queued: impl Fn() -> usize + Send + Sync + 'static) -> Self {
        let queue = metrics.gauge(QUEUE, &[]);
        metrics.on_scrape(move || queue.set(gauge_value(queued())));
        let counter = |result| metrics.counter(POSTS, &[("result", result)]);
        Self {
            posted: counter("posted"),
            replayed: counter("replayed"),
            settled: counter("settled"),
            refused: counter("refused"),
            no_wallet: counter("no_wallet"),
            overloaded: counter("overloaded"),
            not_done: counter("not_done"),
            outcome_unknown: counter("outcome_unknown"),
            broke_down: counter("broke_down"),
        }
    }

    pub(super) fn count(&self, result: &Result<Posted, PostError>) {
        let counter = match result {
            Ok(Posted::New(_)) => &self.posted,
            Ok(Posted::Settled) => &self.settled,
            Ok(Posted::Replayed(_)) => &self.replayed,
            Err(PostError::Refused { .. }) => &self.refused,
            Err(PostError::NoWallet) => &self.no_wallet,
            Err(PostError::Overloaded) => &self.overloaded,
            Err(PostError::NotDone) => &self.not_done,
            Err(PostError::OutcomeUnknown) => &self.outcome_unknown,
            Err(PostError::Bug) => &self.broke_down,
        };
        counter.increment(1);
    }
}
