//! The outbox for operators: the backlog, and republishing events.

use std::time::Duration;

use tokio_postgres::Row;
use uuid::Uuid;

use crate::infra::postgres::{Connector, DbError, Session};
use crate::kernel::{EventId, Timestamp};
use crate::users::postgres::outbox_retention::{COUNT_EXPIRED, DELETE_EXPIRED};

/// Shown in `pg_stat_activity`.
const APPLICATION_NAME: &str = "purse outbox";
/// Rows per statement: short transactions, so that the relay never waits for long.
const ROWS_PER_PAGE: i64 = 5_000;
/// Maximum number of different reasons that are shown, the most frequent first.
const REFUSALS_MAX: i64 = 20;

/// The events that are not published yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backlog {
    pub pending: i64,
    /// Claimed by a relay at the moment.
    pub claimed: i64,
    /// Returned or refused by the broker at least once.
    pub refused: i64,
    /// The largest number of attempts of one event.
    pub attempts_max: i32,
    /// When the oldest event was written.
    pub oldest: Option<Timestamp>,
    /// Age of the oldest event in seconds, by the clock of the database.
    pub oldest_seconds: Option<i64>,
    /// The last reasons that the broker gave.
    pub refusals: Vec<Refusal>,
}

/// The pending events that the broker refused last for the same reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason that the broker gave.
    pub error: String,
    pub events: i64,
    /// The largest number of attempts of one event.
    pub attempts_max: i32,
    /// When the first of them is retried.
    pub next_attempt: Timestamp,
}

/// When events were written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeRange {
    /// Inclusive.
    pub since: Option<Timestamp>,
    /// Exclusive.
    pub until: Option<Timestamp>,
}

/// The result of one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReopenedPage {
    /// Rows that were read.
    pub looked_at: i64,
    /// Published events in the time range.
    pub reopened: i64,
    /// `None` after the last page.
    pub next: Option<EventId>,
}

/// An event that was requested by id and exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundEvent {
    pub id: EventId,
    /// Whether it was published before and is pending again; else it was pending all along.
    pub was_published: bool,
}

pub struct PgOutboxBacklog {
    session: Session,
}

impl PgOutboxBacklog {
    /// The runtime user has the rights that this needs.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn connect(connector: &Connector) -> Result<Self, DbError> {
        Ok(Self { session: Session::open(connector, APPLICATION_NAME).await? })
    }

    /// The backlog, in one snapshot.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn status(&mut self) -> Result<Backlog, DbError> {
        let tx = self.session.snapshot().await?;
        let totals = tx
            .query_one(
                "-- users.backlog.status
                 SELECT count(*) AS pending, count(*) FILTER (WHERE claimed_until >= clock_timestamp()) AS claimed,
                        count(*) FILTER (WHERE attempts > 0) AS refused, coalesce(max(attempts), 0) AS attempts_max,
                        min(created_at) AS oldest,
                        extract(epoch FROM clock_timestamp() - min(created_at))::bigint AS oldest_seconds
                 FROM outbox WHERE status = 'pending'",
                &[],
            )
            .await?;
        let refusals = tx
            .query(
                "-- users.backlog.rejections ($1 most rows)
                 SELECT last_error, count(*) AS events, max(attempts) AS attempts_max, min(next_attempt_at) AS next_attempt
                 FROM outbox WHERE status = 'pending' AND last_error IS NOT NULL
                 GROUP BY last_error ORDER BY count(*) DESC, last_error LIMIT $1",
                &[&REFUSALS_MAX],
            )
            .await?;
        Ok(Backlog {
            pending: totals.try_get("pending")?,
            claimed: totals.try_get("claimed")?,
            refused: totals.try_get("refused")?,
            attempts_max: totals.try_get("attempts_max")?,
            oldest: totals.try_get("oldest")?,
            oldest_seconds: totals.try_get("oldest_seconds")?,
            refusals: refusals.iter().map(read_refusal).collect::<Result<_, _>>()?,
        })
    }

    /// The latest creation time of all events that were deleted because of their age. `None` if none ever was.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn deleted_until(&self) -> Result<Option<Timestamp>, DbError> {
        let read = "-- users.backlog.deleted_until
             SELECT max(deleted_until) FROM outbox_retention";
        Ok(self.session.client().query_one(read, &[]).await?.try_get(0)?)
    }

    /// Deletes the next page of events that were published more than `retention` ago, and returns their number and whether
    /// this was the last page.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn delete_expired_page(&self, retention: Duration) -> Result<(i64, bool), DbError> {
        let deleted =
            self.session.client().query_one(DELETE_EXPIRED, &[&retention.as_secs_f64(), &ROWS_PER_PAGE]).await?;
        let deleted: i64 = deleted.try_get(0)?;
        Ok((deleted, deleted < ROWS_PER_PAGE))
    }

    /// The number of events that were published more than `retention` ago.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn count_expired(&self, retention: Duration) -> Result<i64, DbError> {
        Ok(self.session.client().query_one(COUNT_EXPIRED, &[&retention.as_secs_f64()]).await?.try_get(0)?)
    }

    /// The number of events by the statistics of PostgreSQL; 0 before it has collected any.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn estimate(&self) -> Result<i64, DbError> {
        let estimate = "-- users.backlog.estimate
             SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'outbox'::regclass";
        Ok(self.session.client().query_one(estimate, &[]).await?.try_get(0)?)
    }

    /// Makes the published events of the next page pending again if they were written in `range`. Pages are in the order
    /// of ids, so each event is read once.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn reopen_page(&self, after: Option<EventId>, range: TimeRange) -> Result<ReopenedPage, DbError> {
        let page = self
            .session
            .client()
            .query_one(
                "-- users.backlog.reopen_page ($1 after id, $2 since, $3 until, $4 most rows)
                 WITH page AS MATERIALIZED (
                     SELECT id, created_at FROM outbox WHERE id > $1 ORDER BY id LIMIT $4
                 ), reopened AS (
                     UPDATE outbox SET status = 'pending', published_at = NULL, attempts = 0, last_error = NULL,
                            next_attempt_at = clock_timestamp()
                     FROM page WHERE outbox.id = page.id AND status = 'published'
                       AND ($2::timestamptz IS NULL OR page.created_at >= $2)
                       AND ($3::timestamptz IS NULL OR page.created_at < $3)
                     RETURNING outbox.id
                 )
                 SELECT (SELECT count(*) FROM page) AS looked_at, (SELECT count(*) FROM reopened) AS reopened,
                        (SELECT id FROM page ORDER BY id DESC LIMIT 1) AS last",
                &[&start(after), &range.since, &range.until, &ROWS_PER_PAGE],
            )
            .await?;
        read_page(&page)
    }

    /// What [`Self::reopen_page`] would do.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn count_page(&self, after: Option<EventId>, range: TimeRange) -> Result<ReopenedPage, DbError> {
        let page = self
            .session
            .client()
            .query_one(
                "-- users.backlog.count_page ($1 after id, $2 since, $3 until, $4 most rows)
                 WITH page AS MATERIALIZED (
                     SELECT id, created_at, status FROM outbox WHERE id > $1 ORDER BY id LIMIT $4
                 )
                 SELECT count(*) AS looked_at, (SELECT id FROM page ORDER BY id DESC LIMIT 1) AS last,
                        count(*) FILTER (WHERE status = 'published'
                                           AND ($2::timestamptz IS NULL OR created_at >= $2)
                                           AND ($3::timestamptz IS NULL OR created_at < $3)) AS reopened
                 FROM page",
                &[&start(after), &range.since, &range.until, &ROWS_PER_PAGE],
            )
            .await?;
        read_page(&page)
    }

    /// Makes the published ones of these events pending again, and returns those that exist.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn reopen_named(&self, ids: &[EventId]) -> Result<Vec<FoundEvent>, DbError> {
        let rows = self
            .session
            .client()
            .query(
                "-- users.backlog.reopen_named ($1 ids)
                 WITH reopened AS (
                     UPDATE outbox SET status = 'pending', published_at = NULL, attempts = 0, last_error = NULL,
                            next_attempt_at = clock_timestamp()
                     WHERE id = ANY($1) AND status = 'published' RETURNING id
                 )
                 SELECT outbox.id, reopened.id IS NOT NULL AS was_published
                 FROM outbox LEFT JOIN reopened USING (id) WHERE outbox.id = ANY($1) ORDER BY outbox.id",
                &[&uuids(ids)],
            )
            .await?;
        rows.iter().map(read_named).collect()
    }

    /// What [`Self::reopen_named`] would do.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn find_named(&self, ids: &[EventId]) -> Result<Vec<FoundEvent>, DbError> {
        let find = "-- users.backlog.find_named ($1 ids)
             SELECT id, status = 'published' AS was_published FROM outbox WHERE id = ANY($1) ORDER BY id";
        let rows = self.session.client().query(find, &[&uuids(ids)]).await?;
        rows.iter().map(read_named).collect()
    }
}

/// No event has the nil id.
fn start(after: Option<EventId>) -> Uuid {
    after.map_or(Uuid::nil(), EventId::as_uuid)
}

fn uuids(ids: &[EventId]) -> Vec<Uuid> {
    ids.iter().map(|id| id.as_uuid()).collect()
}

fn read_page(row: &Row) -> Result<ReopenedPage, DbError> {
    let looked_at: i64 = row.try_get("looked_at")?;
    let last: Option<Uuid> = row.try_get("last")?;
    let next = last.filter(|_| looked_at == ROWS_PER_PAGE).map(EventId::from_uuid);
    Ok(ReopenedPage { looked_at, reopened: row.try_get("reopened")?, next })
}

fn read_refusal(row: &Row) -> Result<Refusal, DbError> {
    Ok(Refusal {
        error: row.try_get("last_error")?,
        events: row.try_get("events")?,
        attempts_max: row.try_get("attempts_max")?,
        next_attempt: row.try_get("next_attempt")?,
    })
}

fn read_named(row: &Row) -> Result<FoundEvent, DbError> {
    Ok(FoundEvent { id: EventId::from_uuid(row.try_get("id")?), was_published: row.try_get("was_published")? })
}
