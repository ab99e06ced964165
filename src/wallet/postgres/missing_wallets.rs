//! Users who have no wallet, for an operator's comparison with the registrations.

use std::collections::HashSet;

use uuid::Uuid;

use crate::infra::postgres::{Connector, DbError, Session, ShardStatement, Shards};
use crate::kernel::UserId;

static MISSING: ShardStatement = ShardStatement::new(
    "-- wallet.missing_wallets ($1 users)
    SELECT id FROM unnest($1::uuid[]) AS registered (id)
    WHERE NOT EXISTS (SELECT FROM shard.wallets WHERE user_id = registered.id)",
);

pub struct PgMissingWallets {
    session: Session,
    shards: Shards,
}

impl PgMissingWallets {
    /// The runtime user may read the wallets.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn connect(connector: &Connector, application_name: &'static str) -> Result<Self, DbError> {
        let session = Session::open_sharded(connector, application_name).await?;
        Ok(Self { session, shards: connector.shards() })
    }

    /// Those of `users` who have no wallet.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn among(&mut self, users: &[UserId]) -> Result<Vec<UserId>, DbError> {
        let mut missing = HashSet::new();
        let tx = self.session.snapshot().await?;
        for shard in self.shards.all() {
            let here = users.iter().filter(|user| self.shards.of(**user) == shard);
            let here: Vec<Uuid> = here.map(|user| user.as_uuid()).collect();
            for row in tx.query(MISSING.of(shard), &[&here]).await? {
                missing.insert(UserId::from_uuid(row.try_get(0)?));
            }
        }
        tx.commit().await?;
        Ok(users.iter().copied().filter(|user| missing.contains(user)).collect())
    }
}
