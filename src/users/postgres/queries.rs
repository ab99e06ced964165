//! Reads of the users database.

use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::Row;

use crate::infra::postgres::{Database, DbError};
use crate::kernel::{DependencyError, UserId};
use crate::users::application::queries::{OutboxDepth, UserQueries};
use crate::users::domain::{EmailAddress, PersonName, User};

pub struct PgUserQueries {
    database: Database,
}

impl PgUserQueries {
    pub const fn new(database: Database) -> Self {
        Self { database }
    }
}

/// Stored values are not checked again: a rule that became stricter must not lock users out of their profile.
pub(super) fn read_user(row: &Row) -> Result<User, DbError> {
    Ok(User {
        id: UserId::from_uuid(row.try_get("id")?),
        first_name: PersonName::from_stored(row.try_get("first_name")?),
        last_name: PersonName::from_stored(row.try_get("last_name")?),
        email: EmailAddress::from_stored(row.try_get("email")?),
        created_at: row.try_get("created_at")?,
    })
}

#[async_trait]
impl UserQueries for PgUserQueries {
    async fn profile(&self, id: UserId) -> Result<Option<User>, DependencyError> {
        let found = self.database.run(move |client| {
            Box::pin(async move {
                let by_id = client
                    .prepare_cached(
                        "-- users.find
                         SELECT id, first_name, last_name, email, created_at FROM users WHERE id = $1",
                    )
                    .await?;
                let row = client.query_opt(&by_id, &[&id.as_uuid()]).await?;
                row.as_ref().map(read_user).transpose()
            })
        });
        found.await.map_err(|e| e.at("users.find"))
    }

    async fn outbox_depth(&self) -> Result<OutboxDepth, DependencyError> {
        let counted = self.database.run(|client| {
            Box::pin(async move {
                // Ids begin with the time of creation, so the smallest pending id is the oldest event, and the index of
                // pending rows has it first.
                let depth = client
                    .prepare_cached(
                        "-- users.outbox.depth
                         SELECT (SELECT count(*) FROM outbox WHERE status = 'pending') AS events,
                                greatest(0, coalesce((
                                    SELECT extract(epoch FROM clock_timestamp() - created_at)
                                    FROM outbox WHERE status = 'pending' ORDER BY id LIMIT 1
                                ), 0))::float8 AS oldest_age_s",
                    )
                    .await?;
                let row = client.query_one(&depth, &[]).await?;
                let (events, oldest_age_s): (i64, f64) = (row.try_get("events")?, row.try_get("oldest_age_s")?);
                Ok(OutboxDepth {
                    events: usize::try_from(events).map_err(|_| DbError::Corrupt("outbox"))?,
                    oldest_age: Duration::try_from_secs_f64(oldest_age_s)
                        .map_err(|_| DbError::Corrupt("outbox.created_at"))?,
                })
            })
        });
        counted.await.map_err(|e| e.at("users.outbox.depth"))
    }
}
