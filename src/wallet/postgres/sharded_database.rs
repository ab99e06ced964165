//! The wallet database with a circuit breaker per shard.
//!
//! With Citus each shard is on one of several servers. One that does not respond costs whoever asks it a connection and the time
//! limit of a statement, so it must not be asked by every request. The first work that waits so long trips the breakers of all shards
//! of that server: from then on whatever needs one of them fails at once, and everything else goes on. The hold sweeper alone tries
//! them, and resets the breakers. It also trips those of a server that is down, which every request finds out quickly by itself.
//!
//! Reads trip nothing, because one may take long by itself. Those that wait for one server therefore never have all connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

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
    /// `None`: work for one server may use all connections.
    slots: Option<Slots>,
}

/// Connections that work for one server may use at once.
#[derive(Clone)]
struct Slots {
    /// By the first shard of the server.
    of_servers: Arc<[Arc<Semaphore>]>,
    wait_max: Duration,
}

impl ShardedDatabase {
    pub const fn new(pool: Database, breakers: Breakers) -> Self {
        Self { pool, breakers, slots: None }
    }

    /// The same, and work for one server uses at most half of the `connections_max` at once, for one of which it waits up to
    /// `wait_max`.
    pub fn divided(pool: Database, breakers: Breakers, connections_max: usize, wait_max: Duration) -> Self {
        let half = || Arc::new(Semaphore::new((connections_max / 2).max(1)));
        let of_servers = || breakers.shards.all().map(|_| half()).collect();
        let slots = (breakers.shards != Shards::ONE).then(|| Slots { of_servers: of_servers(), wait_max });
        Self { pool, breakers, slots }
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
        self.breakers.check(shard)?;
        let Some(slot) = self.slot_of(shard).await? else { return self.pool.run(work).await };
        self.breakers.check(shard)?;
        let run = self.pool.run(move |client| {
            let work = work(client);
            Box::pin(async move {
                // Until the work ends, also if its caller is gone by then.
                let _slot = slot;
                work.await
            })
        });
        run.await
    }

    async fn slot_of(&self, shard: Shard) -> Result<Option<OwnedSemaphorePermit>, DbError> {
        let Some(Slots { of_servers, wait_max }) = &self.slots else { return Ok(None) };
        let Some(slots) = of_servers.get(self.breakers.first_of_server(shard)) else { return Ok(None) };
        let slot = timeout(*wait_max, Arc::clone(slots).acquire_owned()).await;
        slot.map(Result::ok).map_err(|_| DbError::Busy)
    }

    /// The same, and trips the breaker if the shard does not respond.
    pub(super) async fn run_and_note_in<T, F>(&self, shard: Shard, work: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Client) -> Work<'c, T> + Send + 'static,
    {
        let result = self.run_in(shard, work).await;
        if result.as_ref().is_err_and(DbError::is_time_limit) {
            self.breakers.trip_server_of(shard);
        }
        result
    }

    /// Whether a unit of work failed because of its shard, so that the same may succeed in others.
    pub(super) fn is_of_shard(&self, shard: Shard, error: &DbError) -> bool {
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
    /// For each shard the bits of those on the same server.
    servers: Arc<[AtomicU32]>,
}

impl Breakers {
    pub fn new(shards: Shards) -> Self {
        let servers = shards.all().map(|shard| AtomicU32::new(shard.bit())).collect();
        Self { shards, tripped: Arc::default(), servers }
    }

    /// Where the shards are: each with the number of its server. The others are each by itself. If that has changed, all breakers are
    /// reset: one may have been tripped with a server that its shard has left.
    pub(super) fn set_servers(&self, servers: &[(Shard, i32)]) {
        let mut has_changed = false;
        for (own, shard) in self.servers.iter().zip(self.shards.all()) {
            let server = servers.iter().find(|(other, _)| *other == shard).map(|(_, server)| server);
            let neighbours = servers.iter().filter(|(_, other)| Some(other) == server);
            let server = neighbours.fold(shard.bit(), |bits, (other, _)| bits | other.bit());
            has_changed |= own.swap(server, Ordering::Relaxed) != server;
        }
        if has_changed {
            self.tripped.store(0, Ordering::Relaxed);
        }
    }

    /// The bits of all shards on the server of `shard`.
    pub(super) fn server_of(&self, shard: Shard) -> u32 {
        let number = shard.bit().trailing_zeros();
        self.servers.get(number as usize).map_or(0, |server| server.load(Ordering::Relaxed))
    }

    /// The number of the first shard on the same server.
    fn first_of_server(&self, shard: Shard) -> usize {
        self.server_of(shard).trailing_zeros() as usize
    }

    /// Exports how many are tripped.
    pub fn show(&self, metrics: &Metrics) {
        let (gauge, tripped) = (metrics.gauge(TRIPPED, &[]), Arc::clone(&self.tripped));
        metrics.on_scrape(move || gauge.set(gauge_value(tripped.load(Ordering::Relaxed).count_ones() as usize)));
    }

    /// `shard` alone does not respond: a table is locked.
    pub(super) fn trip(&self, shard: Shard) {
        self.tripped.fetch_or(shard.bit(), Ordering::Relaxed);
    }

    /// The server that has `shard` does not respond, or is down.
    pub(super) fn trip_server_of(&self, shard: Shard) {
        self.tripped.fetch_or(self.server_of(shard), Ordering::Relaxed);
    }

    /// `shard` has responded.
    pub(super) fn reset(&self, shard: Shard) {
        self.tripped.fetch_and(!shard.bit(), Ordering::Relaxed);
    }

    pub(super) fn is_tripped(&self, shard: Shard) -> bool {
        self.tripped.load(Ordering::Relaxed) & shard.bit() != 0
    }

    /// An error if the breaker of `shard` is tripped.
    fn check(&self, shard: Shard) -> Result<(), DbError> {
        if self.is_tripped(shard) { Err(DbError::OutOfReach) } else { Ok(()) }
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
    fn all_shards_of_a_server_trip_together_and_are_reset_one_by_one() {
        let shards = Shards::new(4).expect("shards");
        let (breakers, shard) = (Breakers::new(shards), |n| shards.of(user(n)));
        let tripped = |breakers: &Breakers| (0..4).filter(|n| breakers.is_tripped(shard(*n))).collect::<Vec<_>>();
        breakers.trip_server_of(shard(1));
        assert_eq!(tripped(&breakers), [1], "where they are is not known yet");
        let servers = [(shard(0), 7), (shard(1), 8), (shard(2), 7), (shard(3), 8)];
        breakers.set_servers(&servers);
        assert_eq!(tripped(&breakers), [0; 0], "now it is, and which of them failed is not");
        breakers.trip_server_of(shard(3));
        breakers.set_servers(&servers);
        assert_eq!(tripped(&breakers), [1, 3]);
        breakers.reset(shard(1));
        breakers.trip(shard(2));
        assert_eq!(tripped(&breakers), [2, 3]);
        assert_eq!([0, 1, 2, 3].map(|n| breakers.first_of_server(shard(n))), [0, 1, 0, 1]);
        breakers.set_servers(&[(shard(0), 7), (shard(1), 7)]);
        breakers.trip_server_of(shard(3));
        assert_eq!(tripped(&breakers), [3], "it is no longer known to be beside another one");
    }

    #[test]
    fn without_shards_nothing_trips() {
        let breakers = Breakers::new(Shards::ONE);
        breakers.trip(Shards::ONE.first());
        breakers.trip_server_of(Shards::ONE.first());
        assert!(!breakers.is_any_tripped());
        assert_eq!(breakers.needing_them(&[transfer(0, 1)], Some(Shards::ONE.first())), None);
    }
}
