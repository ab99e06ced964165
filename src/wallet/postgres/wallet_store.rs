//! Creates and finds wallets, with a bounded cache of existing ones.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use quick_cache::UnitWeighter;
use quick_cache::sync::Cache;
use uuid::Uuid;

use crate::infra::postgres::{DbError, Shard, ShardStatement};
use crate::kernel::{DependencyError, IdSource, Timestamp, UserId, fault};
use crate::wallet::application::ports::{Provisioned, WalletStore};
use crate::wallet::postgres::multi_insert::{Common, MultiInsert, Parameter};
use crate::wallet::postgres::sharded_database::ShardedDatabase;

/// Size of the cache. Wallets are never deleted, and a missing one is always looked up. Only a restore from a backup makes
/// it stale; callers notice an empty ledger and look up the wallet.
const CACHED_MAX: u64 = 50_000;
/// Initial capacity of the cache.
const CACHED_EXPECTED: usize = 1_000;

const PROVISION_STEP: &str = "wallet.provision";

static PROVISION: LazyLock<MultiInsert> = LazyLock::new(|| {
    let end = " ON CONFLICT (user_id) DO NOTHING RETURNING user_id, created_at";
    MultiInsert::new("wallet.provision", "shard.wallets", &["user_id", "id"], Common { end, ..Common::default() })
});

/// Not `SELECT 1`: an INSERT of no row also fails on a read-only replica and without the right to insert.
static PING: ShardStatement = ShardStatement::new(
    "-- wallet.ping
    INSERT INTO shard.wallets (user_id, id) SELECT NULL::uuid, NULL::uuid WHERE false",
);

static CREATED_AT: ShardStatement = ShardStatement::new(
    "-- wallet.created_at
    SELECT created_at FROM shard.wallets WHERE user_id = $1",
);

pub struct PgWalletStore {
    lookups: ShardedDatabase,
    provisioning: ShardedDatabase,
    ids: Arc<dyn IdSource>,
    cached: Cache<UserId, Timestamp>,
}

/// The row of a wallet that is created: its user and its ID.
type NewWallet = [Uuid; 2];

impl PgWalletStore {
    /// Two pools, so that a flood of look-ups never delays provisioning. `ids` gives the wallet ids.
    pub fn new(lookups: ShardedDatabase, provisioning: ShardedDatabase, ids: Arc<dyn IdSource>) -> Self {
        // Memory is allocated as it is needed.
        let cached = Cache::with_weighter(CACHED_EXPECTED, CACHED_MAX, UnitWeighter);
        Self { lookups, provisioning, ids, cached }
    }

    /// Creates wallets of one shard, and returns the users who had none.
    async fn provision_in(&self, shard: Shard, wallets: Vec<NewWallet>) -> Result<Vec<UserId>, DbError> {
        let created = self.provisioning.run_and_note_in(shard, move |client| {
            Box::pin(async move {
                let rows: Vec<_> = wallets.iter().flatten().map(|id| id as Parameter<'_>).collect();
                let mut created = Vec::new();
                for (insert, parameters) in PROVISION.prepare(client, shard, &[], &rows).await? {
                    for row in client.query(&insert, &parameters).await? {
                        created.push((UserId::from_uuid(row.try_get("user_id")?), row.try_get("created_at")?));
                    }
                }
                fault::point("wallet.S12");
                Ok(created)
            })
        });
        let created = created.await?;
        for (user, created_at) in &created {
            self.cached.insert(*user, *created_at);
        }
        Ok(created.into_iter().map(|(user, _)| user).collect())
    }
}

#[async_trait]
impl WalletStore for PgWalletStore {
    async fn provision(&self, mut users: Vec<UserId>) -> Result<Provisioned, DependencyError> {
        // In the same order everywhere, so that two processes with the same users cannot deadlock.
        users.sort_unstable();
        users.dedup();
        let mut of_shards = BTreeMap::<Shard, Vec<NewWallet>>::new();
        for user in users {
            of_shards.entry(self.provisioning.shard_of(user)).or_default().push([user.as_uuid(), self.ids.next_id()]);
        }
        let (mut provisioned, mut failed) = (Provisioned::default(), None);
        // Each is a transaction of its own, so that a shard that fails does not affect the others. What was created beside it is found
        // by the next attempt.
        for (shard, wallets) in of_shards {
            let users: Vec<_> = wallets.iter().map(|[user, _]| UserId::from_uuid(*user)).collect();
            match self.provision_in(shard, wallets).await {
                Ok(created) => provisioned.created.extend(created),
                Err(e) if self.provisioning.is_of_shard(shard, &e) => {
                    let first = || (Vec::new(), e.at(PROVISION_STEP));
                    provisioned.postponed.get_or_insert_with(first).0.extend(users);
                }
                Err(e) => failed = failed.or(Some(e)),
            }
        }
        failed.map_or(Ok(provisioned), |e| Err(e.at(PROVISION_STEP)))
    }

    /// In any shard: wallets of others may be created while one is unavailable.
    async fn ping(&self) -> Result<(), DependencyError> {
        let mut pinged = Err(DbError::OutOfReach);
        for shard in self.provisioning.shards().all() {
            let ping = self.provisioning.run_and_note_in(shard, move |client| {
                Box::pin(async move { Ok(client.batch_execute(PING.of(shard)).await?) })
            });
            pinged = ping.await;
            if pinged.is_ok() {
                break;
            }
        }
        pinged.map_err(|e| e.at("wallet.ping"))
    }

    async fn created_at(&self, user: UserId) -> Result<Option<Timestamp>, DependencyError> {
        if let Some(created_at) = self.cached.get(&user) {
            return Ok(Some(created_at));
        }
        self.look_up(user).await
    }

    async fn look_up(&self, user: UserId) -> Result<Option<Timestamp>, DependencyError> {
        let shard = self.lookups.shard_of(user);
        let by_user = CREATED_AT.of(shard);
        let found = self.lookups.run_in(shard, move |client| {
            Box::pin(async move {
                let by_user = client.prepare_cached(by_user).await?;
                let row = client.query_opt(&by_user, &[&user.as_uuid()]).await?;
                Ok(row.map(|row| row.try_get("created_at")).transpose()?)
            })
        });
        let found: Option<Timestamp> = found.await.map_err(|e| e.at("wallet.created_at"))?;
        match found {
            Some(created_at) => self.cached.insert(user, created_at),
            None => {
                self.cached.remove(&user);
            }
        }
        Ok(found)
    }
}
