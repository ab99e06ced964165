//! Creates and finds wallets, with a bounded cache of existing ones.

use std::sync::Arc;

use async_trait::async_trait;
use quick_cache::UnitWeighter;
use quick_cache::sync::Cache;
use uuid::Uuid;

use crate::infra::postgres::Database;
use crate::kernel::{DependencyError, IdSource, Timestamp, UserId, fault};
use crate::wallet::application::ports::WalletStore;

/// Size of the cache. Wallets are never deleted, and a missing one is always looked up. Only a restore from a backup makes
/// it stale; callers notice an empty ledger and look up the wallet.
const CACHED_MAX: u64 = 50_000;
/// Initial capacity of the cache.
const CACHED_EXPECTED: usize = 1_000;

pub struct PgWalletStore {
    lookups: Database,
    provisioning: Database,
    ids: Arc<dyn IdSource>,
    cached: Cache<UserId, Timestamp>,
}

impl PgWalletStore {
    /// Two pools, so that a flood of look-ups never delays provisioning. `ids` gives the wallet ids.
    pub fn new(lookups: Database, provisioning: Database, ids: Arc<dyn IdSource>) -> Self {
        // Memory is allocated as it is needed.
        let cached = Cache::with_weighter(CACHED_EXPECTED, CACHED_MAX, UnitWeighter);
        Self { lookups, provisioning, ids, cached }
    }
}

#[async_trait]
impl WalletStore for PgWalletStore {
    async fn provision(&self, mut users: Vec<UserId>) -> Result<Vec<UserId>, DependencyError> {
        // In the same order everywhere, so that two processes with the same users cannot deadlock.
        users.sort_unstable();
        users.dedup();
        let owners: Vec<Uuid> = users.iter().map(|user| user.as_uuid()).collect();
        let ids: Vec<Uuid> = users.iter().map(|_| self.ids.next_id()).collect();
        let created = self.provisioning.run(move |client| {
            Box::pin(async move {
                let provision = client
                    .prepare_cached(
                        "-- wallet.provision ($1 users, $2 wallet ids)
                         INSERT INTO wallets (user_id, id)
                         SELECT user_id, id FROM unnest($1::uuid[], $2::uuid[]) AS new (user_id, id)
                         ON CONFLICT (user_id) DO NOTHING
                         RETURNING user_id, created_at",
                    )
                    .await?;
                let rows = client.query(&provision, &[&owners, &ids]).await?;
                fault::point("wallet.S12");
                rows.iter()
                    .map(|row| Ok((UserId::from_uuid(row.try_get("user_id")?), row.try_get("created_at")?)))
                    .collect::<Result<Vec<(UserId, Timestamp)>, _>>()
            })
        });
        let created = created.await.map_err(|e| e.at("wallet.provision"))?;
        for (user, created_at) in &created {
            self.cached.insert(*user, *created_at);
        }
        Ok(created.into_iter().map(|(user, _)| user).collect())
    }

    async fn ping(&self) -> Result<(), DependencyError> {
        let pinged = self.provisioning.run(|client| {
            Box::pin(async move {
                // Not `SELECT 1`: an INSERT of no row also fails on a read-only replica and without the right to insert.
                client
                    .batch_execute(
                        "-- wallet.ping
                         INSERT INTO wallets (user_id, id) SELECT NULL::uuid, NULL::uuid WHERE false",
                    )
                    .await?;
                Ok(())
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
        let found = self.lookups.run(move |client| {
            Box::pin(async move {
                let by_user = client
                    .prepare_cached(
                        "-- wallet.created_at
                         SELECT created_at FROM wallets WHERE user_id = $1",
                    )
                    .await?;
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
