//! The registered users page by page, for an operator's comparison with the wallets.

use uuid::Uuid;

use crate::infra::postgres::{Connector, DbError, Session};
use crate::kernel::UserId;

/// Users per statement.
const ROWS_PER_PAGE: i64 = 5_000;

pub struct PgRegistrations {
    session: Session,
}

impl PgRegistrations {
    /// The runtime user has the rights that this needs.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn connect(connector: &Connector, application_name: &'static str) -> Result<Self, DbError> {
        Ok(Self { session: Session::open(connector, application_name).await? })
    }

    /// The newest users with a smaller id than `before`, newest first. Those of the last minute are left out, because
    /// their wallets may be on the way. Empty after the last page.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn page(&self, before: Option<UserId>) -> Result<Vec<UserId>, DbError> {
        let before = before.map_or(Uuid::max(), UserId::as_uuid);
        let rows = self
            .session
            .client()
            .query(
                "-- users.registrations.page ($1 before id, $2 most rows)
                 SELECT id FROM users WHERE id < $1 AND created_at < clock_timestamp() - interval '1 minute'
                 ORDER BY id DESC LIMIT $2",
                &[&before, &ROWS_PER_PAGE],
            )
            .await?;
        rows.iter().map(|row| Ok(UserId::from_uuid(row.try_get(0)?))).collect()
    }
}
