//! Creates and finds wallets, with a bounded cache of existing ones.

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use quick_cache::UnitWeighter;
use quick_cache::sync::Cache;
use uuid::Uuid;

use crate::infra::postgres::{Database, DbError, ShardStatement, Shards};
use crate::kernel::{DependencyError, IdSource, Timestamp, UserId, fault};
use crate::wallet::application::ports::WalletStore;
use crate::wallet::postgres::multi_insert::{Common, MultiInsert, Parameter};

/// Size of the cache. Wallets are never deleted, and a missing one is always looked up. Only a restore from a backup makes
/// it stale; callers notice an empty ledger and look up the wallet.
const CACHED_MAX: u64 = 50_000;
/// Initial capacity of the cache.
const CACHED_EXPECTED: usize = 1_000;

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
    lookups: Database,
    provisioning: Database,
    shards: Shards,
    ids: Arc<dyn IdSource>,
    cached: Cache<UserId, Timestamp>,
}

impl PgWalletStore {
    /// Two pools, so that a flood of look-ups never delays provisioning. `ids` gives the wallet ids.
    pub fn new(lookups: Database, provisioning: Database, shards: Shards, ids: Arc<dyn IdSource>) -> Self {
        // Memory is allocated as it is needed.
        let cached = Cache::with_weighter(CACHED_EXPECTED, CACHED_MAX, UnitWeighter);
        Self { lookups, provisioning, shards, ids, cached }
    }
}

#[async_trait]
impl WalletStore for PgWalletStore {
    async fn provision(&self, mut users: Vec<UserId>) -> Result<Vec<UserId>, DependencyError> {
        // In the same order everywhere, so that two processes with the same users cannot deadlock.
        users.sort_unstable();
        users.dedup();
        let wallets: Vec<(UserId, [Uuid; 2])> =
            users.into_iter().map(|user| (user, [user.as_uuid(), self.ids.next_id()])).collect();
        let shards = self.shards;
        let created = self.provisioning.run(move |client| {
            Box::pin(async move {
                let mut inserts = Vec::new();
                for shard in shards.all() {
                    let here = wallets.iter().filter(|(user, _)| shards.of(*user) == shard);
                    let rows: Vec<_> = here.flat_map(|(_, [user, id])| [user as Parameter<'_>, id]).collect();
                    inserts.extend(PROVISION.prepare(client, shard, &[], &rows).await?);
                }
                let (mut created, mut failed) = (Vec::new(), None);
                // Each is a transaction of its own, so that a shard whose server is down does not affect the others. What was
                // created beside one that fails is found by the next attempt.
                for (insert, parameters) in &inserts {
                    match client.query(insert, parameters).await {
                        Ok(rows) => {
                            for row in rows {
                                created.push((UserId::from_uuid(row.try_get("user_id")?), row.try_get("created_at")?));
                            }
                        }
                        Err(e) => failed = failed.or(Some(e)),
                    }
                }
                fault::point("wallet.S12");
                failed.map_or(Ok(created), |e| Err(DbError::Postgres(e)))
            })
        });
        let created = created.await.map_err(|e| e.at("wallet.provision"))?;
        for (user, created_at) in &created {
            self.cached.insert(*user, *created_at);
        }
        Ok(created.into_iter().map(|(user, _)| user).collect())
    }

    /// In any shard: wallets of others may be created while one is unavailable.
    async fn ping(&self) -> Result<(), DependencyError> {
        let shards = self.shards;
        let pinged = self.provisioning.run(move |client| {
            Box::pin(async move {
                let mut pinged = client.batch_execute(PING.of(shards.first())).await;
                for shard in shards.all().skip(1) {
                    if pinged.is_ok() {
                        break;
                    }
                    pinged = client.batch_execute(PING.of(shard)).await;
                }
                Ok(pinged?)
            })
        });
        pinged.await.map_err(|e| e.at("wallet.ping"))
    }

    async fn created_at(&self, user: UserId) -> Result<Option<Timestamp>, DependencyError> {
        if let Some(created_at) = self.cached.get(&user) {
            return Ok(Some(created_at));
        }
        self.look_up(user).await
    }

    async fn look_up(&self, user: UserId) -> Result<Option<Timestamp>, DependencyError> {
        let by_user = CREATED_AT.of(self.shards.of(user));
        let found = self.lookups.run(move |client| {
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
