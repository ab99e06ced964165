//! Deletes published events whose retention is over.

use std::time::Duration;

use async_trait::async_trait;

use crate::infra::postgres::{Database, DbError};
use crate::kernel::DependencyError;
use crate::users::application::ports::PublishedEvents;

/// Deletes one batch, by a function of the database: the runtime user may delete nothing else. The function also notes the
/// latest creation time of all events that were ever deleted, so that a republication can tell whether the outbox still has
/// everything that it is asked for.
pub(super) const DELETE_EXPIRED: &str = "-- users.outbox.delete_expired ($1 retention in seconds, $2 most rows)
    SELECT delete_expired_events($1, $2)";

/// The events that [`DELETE_EXPIRED`] would delete, in all batches.
pub(super) const COUNT_EXPIRED: &str = "-- users.outbox.count_expired ($1 retention in seconds)
    SELECT count(*) FROM outbox
    WHERE status = 'published' AND published_at < statement_timestamp() - make_interval(secs => $1)
      AND created_at < statement_timestamp() - make_interval(secs => $1)";

pub struct PgPublishedEvents {
    database: Database,
}

impl PgPublishedEvents {
    pub const fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl PublishedEvents for PgPublishedEvents {
    async fn delete_expired(&self, retention: Duration, most: u32) -> Result<u64, DependencyError> {
        let deleted = self.database.run(move |client| {
            Box::pin(async move {
                let delete = client.prepare_cached(DELETE_EXPIRED).await?;
                let row = client.query_one(&delete, &[&retention.as_secs_f64(), &i64::from(most)]).await?;
                let count: i64 = row.try_get(0)?;
                u64::try_from(count).map_err(|_| DbError::Corrupt("outbox"))
            })
        });
        deleted.await.map_err(|e| e.at("users.outbox.delete_expired"))
    }
}
