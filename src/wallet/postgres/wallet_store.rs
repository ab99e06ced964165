//! Wallets in PostgreSQL, and the bounded memory of those known to exist.

use std::sync::Arc;

use async_trait::async_trait;
use quick_cache::UnitWeighter;
use quick_cache::sync::Cache;
use uuid::Uuid;

use crate::infra::postgres::Database;
use crate::kernel::{DependencyError, IdSource, Timestamp, UserId, fault};
use crate::wallet::application::ports::WalletStore;

/// Wallets that are remembered. Only their existence is: a wallet is never removed, so this cannot grow stale, and an
/// absent one is always looked up.
const REMEMBERED_MAX: u64 = 50_000;
/// Wallets that there is room for from the start.
const REMEMBERED_EXPECTED: usize = 1_000;

/// [`WalletStore`] over the wallet database.
pub struct PgWalletStore {
    lookups: Database,
    provisioning: Database,
    ids: Arc<dyn IdSource>,
    remembered: Cache<UserId, Timestamp>,
}

impl PgWalletStore {
    /// Requests look wallets up over one pool, and new ones are made over the other, so that a flood of requests never
    /// makes an event fail. Wallet ids come from `ids`.
    pub fn new(lookups: Database, provisioning: Database, ids: Arc<dyn IdSource>) -> Self {
        // Room is made as it is needed, not for all of them at once.
        let remembered = Cache::with_weighter(REMEMBERED_EXPECTED, REMEMBERED_MAX, UnitWeighter);
        Self { lookups, provisioning, ids, remembered }
    }
}

#[async_trait]
impl WalletStore for PgWalletStore {
    async fn provision(&self, mut users: Vec<UserId>) -> Result<Vec<UserId>, DependencyError> {
        // In one order everywhere, so that two processes with the same users cannot lock each other out.
        users.sort_unstable();
        users.dedup();
        let owners: Vec<Uuid> = users.iter().map(|user| user.as_uuid()).collect();
        let ids: Vec<Uuid> = users.iter().map(|_| self.ids.next_id()).collect();
        let made = self.provisioning.run(move |client| {
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
        let made = made.await.map_err(|e| e.at("wallet.provision"))?;
        for (user, created_at) in &made {
            self.remembered.insert(*user, *created_at);
        }
        Ok(made.into_iter().map(|(user, _)| user).collect())
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
        if let Some(created_at) = self.remembered.get(&user) {
            return Ok(Some(created_at));
        }
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
        if let Some(created_at) = found {
            self.remembered.insert(user, created_at);
        }
        Ok(found)
    }
}
