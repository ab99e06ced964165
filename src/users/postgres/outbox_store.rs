//! The outbox in PostgreSQL. Claims are leases, so no transaction is open while events are published.

use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::infra::postgres::{Database, DbError, begin};
use crate::kernel::{DependencyError, EventId, IdSource, RequestId, TraceParent, fault};
use crate::users::application::ports::{ClaimedBatch, ClaimedEvent, Outbox, Settlement};

/// Maximum stored length of a reason of the broker, in characters.
const LAST_ERROR_CHARS_MAX: usize = 500;

pub struct PgOutbox {
    database: Database,
    ids: std::sync::Arc<dyn IdSource>,
}

impl PgOutbox {
    /// `ids` gives the claim tokens.
    pub const fn new(database: Database, ids: std::sync::Arc<dyn IdSource>) -> Self {
        Self { database, ids }
    }
}

fn read_event(row: &Row) -> Result<ClaimedEvent, DbError> {
    let attempts: i32 = row.try_get("attempts")?;
    let request_id: Option<&str> = row.try_get("request_id")?;
    let traceparent: Option<&str> = row.try_get("traceparent")?;
    Ok(ClaimedEvent {
        id: EventId::from_uuid(row.try_get("id")?),
        kind: row.try_get("type")?,
        payload: row.try_get("payload")?,
        attempts: u32::try_from(attempts).map_err(|_| DbError::Corrupt("outbox.attempts"))?,
        request_id: request_id.and_then(RequestId::parse),
        traceparent: traceparent.and_then(TraceParent::parse),
    })
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

fn uuids(ids: &[EventId]) -> Vec<Uuid> {
    ids.iter().map(|id| id.as_uuid()).collect()
}

#[async_trait]
impl Outbox for PgOutbox {
    async fn claim(&self, batch_max: u32, lease: Duration) -> Result<ClaimedBatch, DependencyError> {
        let token = self.ids.next_id();
        let claimed = self.database.run(move |client| {
            Box::pin(async move {
                // MATERIALIZED: the rows are locked once, whatever the plan of the join. The statement's time, because
                // no index can be searched for clock_timestamp(), which changes from row to row.
                let claim = client
                    .prepare_cached(
                        "-- users.outbox.claim ($1 token, $2 lease in seconds, $3 most rows)
                         WITH due AS MATERIALIZED (
                             SELECT id FROM outbox
                             WHERE status = 'pending' AND next_attempt_at <= statement_timestamp()
                               AND (claimed_until IS NULL OR claimed_until < statement_timestamp())
                             ORDER BY next_attempt_at, id LIMIT $3 FOR UPDATE SKIP LOCKED
                         )
                         UPDATE outbox SET claim_token = $1, claimed_until = clock_timestamp() + make_interval(secs => $2)
                         FROM due WHERE outbox.id = due.id
                         RETURNING outbox.id, type, payload_json::text AS payload, attempts, request_id, traceparent",
                    )
                    .await?;
                let rows = client.query(&claim, &[&token, &seconds(lease), &i64::from(batch_max)]).await?;
                let mut events = rows.iter().map(read_event).collect::<Result<Vec<_>, _>>()?;
                events.sort_unstable_by_key(|event| event.id);
                if !events.is_empty() {
                    fault::point("users.S5");
                }
                Ok(ClaimedBatch { token, events })
            })
        });
        claimed.await.map_err(|e| e.at("users.outbox.claim"))
    }

    async fn settle(&self, token: Uuid, settlement: Settlement) -> Result<u64, DependencyError> {
        let settled = self.database.run(move |client| {
            Box::pin(async move {
                let Settlement { confirmed, refused, unanswered } = settlement;
                let tx = begin(client).await?;
                let mut changed = 0;
                if fault::disabled("outbox.lease_token") {
                    tx.execute("UPDATE outbox SET claim_token = $1, claimed_until = clock_timestamp()", &[&token])
                        .await?;
                }
                if !confirmed.is_empty() {
                    let publish = tx
                        .prepare_cached(
                            "-- users.outbox.published ($1 token, $2 ids)
                             UPDATE outbox SET status = 'published', published_at = clock_timestamp(),
                                    claim_token = NULL, claimed_until = NULL
                             WHERE id = ANY($2) AND claim_token = $1",
                        )
                        .await?;
                    changed += tx.execute(&publish, &[&token, &uuids(&confirmed)]).await?;
                }
                if !refused.is_empty() {
                    let refuse = tx
                        .prepare_cached(
                            "-- users.outbox.refused ($1 token, $2 ids, $3 reasons, $4 waits in seconds)
                             UPDATE outbox SET attempts = attempts + 1, last_error = refused.reason,
                                    next_attempt_at = clock_timestamp() + make_interval(secs => refused.wait),
                                    claim_token = NULL, claimed_until = NULL
                             FROM unnest($2::uuid[], $3::text[], $4::float8[]) AS refused (id, reason, wait)
                             WHERE outbox.id = refused.id AND claim_token = $1",
                        )
                        .await?;
                    let ids: Vec<Uuid> = refused.iter().map(|r| r.id.as_uuid()).collect();
                    let reasons: Vec<String> =
                        refused.iter().map(|r| r.reason.chars().take(LAST_ERROR_CHARS_MAX).collect()).collect();
                    let waits: Vec<f64> = refused.iter().map(|r| seconds(r.retry_in)).collect();
                    changed += tx.execute(&refuse, &[&token, &ids, &reasons, &waits]).await?;
                }
                if !unanswered.is_empty() {
                    let release = tx
                        .prepare_cached(
                            "-- users.outbox.released ($1 token, $2 ids)
                             UPDATE outbox SET claim_token = NULL, claimed_until = NULL
                             WHERE id = ANY($2) AND claim_token = $1",
                        )
                        .await?;
                    changed += tx.execute(&release, &[&token, &uuids(&unanswered)]).await?;
                }
                tx.commit().await?;
                fault::point("users.S8");
                Ok(changed)
            })
        });
        settled.await.map_err(|e| e.at("users.outbox.settle"))
    }
}
