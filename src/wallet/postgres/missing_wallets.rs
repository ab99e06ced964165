//! Users who have no wallet, for an operator's comparison with the registrations.

use uuid::Uuid;

use crate::infra::postgres::{Connector, DbError, Session};
use crate::kernel::UserId;

pub struct PgMissingWallets {
    session: Session,
}

impl PgMissingWallets {
    /// The runtime user may read the wallets.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn connect(connector: &Connector, application_name: &'static str) -> Result<Self, DbError> {
        Ok(Self { session: Session::open(connector, application_name).await? })
    }

    /// Those of `users` who have no wallet.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn among(&self, users: &[UserId]) -> Result<Vec<UserId>, DbError> {
        let users: Vec<Uuid> = users.iter().map(|user| user.as_uuid()).collect();
        let rows = self
            .session
            .client()
            .query(
                "-- wallet.missing_wallets ($1 users)
                 SELECT id FROM unnest($1::uuid[]) AS registered (id)
                 WHERE NOT EXISTS (SELECT FROM wallets WHERE user_id = registered.id)",
                &[&users],
            )
            .await?;
        rows.iter().map(|row| Ok(UserId::from_uuid(row.try_get(0)?))).collect()
    }
}
