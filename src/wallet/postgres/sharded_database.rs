//! The wallet database with a circuit breaker per shard.
//!
//! With Citus each shard is on one of several servers. One that does not respond costs whoever asks it a connection and the time
//! limit of a statement, so it must not be asked by every request. The first request that waits so long trips the breaker of its
//! shard: from then on whatever needs this shard fails at once, and everything else goes on. The hold sweeper alone tries the shard,
//! and resets the breaker. It also trips that of a shard whose server is down, which every request finds out quickly by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::infra::metrics::{MetricName, Metrics, gauge_value};
use crate::infra::postgres::{Client, Database, DbError, Shard, Shards, Work};
use crate::kernel::UserId;
use crate::wallet::domain::Posting;

const TRIPPED: MetricName = MetricName {
    name: "purse_ledger_shards_unreachable",
    help: "Shards of the ledger whose server is down or does not respond. Requests that need one get 503 at once. Always 0 without WALLET_SHARDS.",
};

/// A pool of connections to the shards. All pools of a process share the breakers.
#[derive(Clone)]
pub struct ShardedDatabase {
    pool: Database,
    pub(super) breakers: Breakers,
}

impl ShardedDatabase {
    pub const fn new(pool: Database, breakers: Breakers) -> Self {
        Self { pool, breakers }
    }

    pub(super) const fn shards(&self) -> Shards {
        self.breakers.shards
    }

    /// The one of the wallet of `user`.
    pub(super) fn shard_of(&self, user: UserId) -> Shard {
        self.shards().of(user)
    }

    /// Runs `work`, which needs only this shard, unless its breaker is tripped.
    pub(super) async fn run_in<T, F>(&self, shard: Shard, work: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Client) -> Work<'c, T> + Send + 'static,
    {
        if self.breakers.is_tripped(shard) { Err(DbError::OutOfReach) } else { self.pool.run(work).await }
    }

    /// The same, and trips the breaker if the shard does not respond.
    pub(super) async fn run_and_note_in<T, F>(&self, shard: Shard, work: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Client) -> Work<'c, T> + Send + 'static,
    {
        let result = self.run_in(shard, work).await;
        if result.as_ref().is_err_and(DbError::is_time_limit) {
            self.breakers.trip(shard);
        }
        result
    }

    /// Whether a unit of work failed because of this shard, so that others may succeed.
    pub(super) fn is_only(&self, shard: Shard, error: &DbError) -> bool {
        self.shards() != Shards::ONE && (error.is_out_of_reach() || self.breakers.is_tripped(shard))
    }

    /// Runs `work` in any shards.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Client) -> Work<'c, T> + Send + 'static,
    {
        self.pool.run(work).await
    }
}

/// Without shards nothing trips: the database as a whole has a probe, and a limit of attempts to connect.
#[derive(Clone)]
pub struct Breakers {
    shards: Shards,
    /// A bit per shard.
    tripped: Arc<AtomicU32>,
}

impl Breakers {
    pub fn new(shards: Shards) -> Self {
        Self { shards, tripped: Arc::default() }
    }

    /// Exports how many are tripped.
    pub fn show(&self, metrics: &Metrics) {
        let (gauge, tripped) = (metrics.gauge(TRIPPED, &[]), Arc::clone(&self.tripped));
        metrics.on_scrape(move || gauge.set(gauge_value(tripped.load(Ordering::Relaxed).count_ones() as usize)));
    }

    /// `shard` does not respond, or its server is down.
    pub(super) fn trip(&self, shard: Shard) {
        self.tripped.fetch_or(shard.bit(), Ordering::Relaxed);
    }

    /// `shard` has responded.
    pub(super) fn reset(&self, shard: Shard) {
        self.tripped.fetch_and(!shard.bit(), Ordering::Relaxed);
    }

    pub(super) fn is_tripped(&self, shard: Shard) -> bool {
        self.tripped.load(Ordering::Relaxed) & shard.bit() != 0
    }

    pub(super) fn is_any_tripped(&self) -> bool {
        self.tripped.load(Ordering::Relaxed) != 0
    }

    /// Of each posting whether it changes a wallet in a shard that is tripped, or in `failed`; `None` if none does, or if there is only
    /// one shard.
    pub(super) fn needing_them(&self, postings: &[Posting], failed: Option<Shard>) -> Option<Vec<bool>> {
        if self.shards == Shards::ONE || (!self.is_any_tripped() && failed.is_none()) {
            return None;
        }
        let is_missing = |wallet| {
            let shard = self.shards.of(wallet);
            Some(shard) == failed || self.is_tripped(shard)
        };
        let needs_one: Vec<bool> = postings.iter().map(|posting| posting.wallets().any(is_missing)).collect();
        needs_one.contains(&true).then_some(needs_one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::EntryId;
    use crate::wallet::domain::{Act, AmountMinor, Draft, OtherLeg, Salt};
    use uuid::Uuid;

    fn user(n: u128) -> UserId {
        UserId::from_uuid(Uuid::from_u128(n))
    }

    fn transfer(from: u128, to: u128) -> Posting {
        let id = EntryId::from_uuid(Uuid::nil());
        let leg = OtherLeg { id, salt: Salt::new([0; 16]) };
        let amount = AmountMinor::try_new(1).expect("amount");
        let act = Act::Transfer { amount, recipient: user(to), recipient_exists: true, leg };
        Posting::new(user(from), Draft { id, act, texts: None }.into(), None)
    }

    #[test]
    fn postings_that_need_a_shard_whose_breaker_is_tripped_are_named_until_it_is_reset() {
        let shards = Shards::new(32).expect("shards");
        let (breakers, postings) = (Breakers::new(shards), [transfer(0, 31), transfer(0, 4), transfer(31, 1)]);
        assert_eq!(breakers.needing_them(&postings, None), None);
        assert_eq!(breakers.needing_them(&postings, Some(shards.of(user(4)))), Some(vec![false, true, false]));
        let shared = breakers.clone();
        shared.trip(shards.of(user(31)));
        shared.trip(shards.of(user(2)));
        assert_eq!(breakers.needing_them(&postings, None), Some(vec![true, false, true]));
        assert_eq!(breakers.needing_them(&postings[1..2], None), None);
        breakers.reset(shards.of(user(31)));
        assert_eq!(breakers.needing_them(&postings, None), None);
        assert!(breakers.is_any_tripped());
    }

    #[test]
    fn without_shards_nothing_trips() {
        let breakers = Breakers::new(Shards::ONE);
        breakers.trip(Shards::ONE.first());
        assert!(!breakers.is_any_tripped());
        assert_eq!(breakers.needing_them(&[transfer(0, 1)], Some(Shards::ONE.first())), None);
    }
}
