//! The outbox as an operator sees it: what waits in it, and published events put back so that they wait again.

use tokio_postgres::Row;
use uuid::Uuid;

use crate::infra::postgres::{Connector, DbError, Session};
use crate::kernel::{EventId, Timestamp};

/// Shown in `pg_stat_activity`.
const APPLICATION_NAME: &str = "purse outbox";
/// Rows that are looked at in one statement: each is a short transaction, so that the relay never waits for long.
const ROWS_A_PAGE: i64 = 5_000;
/// Different words of the broker that are told, most frequent first.
const REFUSALS_MAX: i64 = 20;

/// What waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// Events that are not published.
    pub pending: i64,
    /// Those of them that a relay has in hand just now.
    pub claimed: i64,
    /// Those of them that the broker has given back or refused at least once.
    pub refused: i64,
    /// The most attempts that one of them has spent.
    pub attempts_max: i32,
    /// When the oldest of them was written.
    pub oldest: Option<Timestamp>,
    /// How long ago that was, in seconds, by the database's clock.
    pub oldest_seconds: Option<i64>,
    /// The last words of the broker on them.
    pub refusals: Vec<Refusal>,
}

/// What the broker said the last time, to how many of the events that wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its words.
    pub error: String,
    /// How many events.
    pub events: i64,
    /// The most attempts that one of those has spent.
    pub attempts_max: i32,
    /// When the next of them is tried again.
    pub next_attempt: Timestamp,
}

/// When events were written; the beginning is included, the end is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Not before this moment.
    pub since: Option<Timestamp>,
    /// Before this moment.
    pub until: Option<Timestamp>,
}

/// What became of one page of the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReopenedPage {
    /// Rows that were looked at.
    pub looked_at: i64,
    /// Published events among them that fit.
    pub reopened: i64,
    /// Where the next page begins; `None` after the last one.
    pub next: Option<EventId>,
}

/// An event that was asked for by its id and is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its id.
    pub id: EventId,
    /// Whether it was published, so that it could be put back; else it waits anyway.
    pub was_published: bool,
}

/// The outbox, open for an operator.
pub struct PgOutboxBacklog {
    session: Session,
}

impl PgOutboxBacklog {
    /// Connects as the runtime user, whose rights suffice.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn connect(connector: &Connector) -> Result<Self, DbError> {
        Ok(Self { session: Session::open(connector, APPLICATION_NAME).await? })
    }

    /// What waits.
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
                "-- users.backlog.refusals ($1 most rows)
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

    /// About how many events the outbox holds, as the database estimates it; 0 where it has not counted yet.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn estimate(&self) -> Result<i64, DbError> {
        let estimate = "-- users.backlog.estimate
             SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'outbox'::regclass";
        Ok(self.session.client().query_one(estimate, &[]).await?.try_get(0)?)
    }

    /// Puts the published events of the next page back that were written in that time; a relay publishes them again as
    /// if they were new. The pages follow the ids, so that each event is met once.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn reopen_page(&self, after: Option<EventId>, written: Written) -> Result<ReopenedPage, DbError> {
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
                &[&start(after), &written.since, &written.until, &ROWS_A_PAGE],
            )
            .await?;
        read_page(&page)
    }

    /// What [`Self::reopen_page`] would do.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn count_page(&self, after: Option<EventId>, written: Written) -> Result<ReopenedPage, DbError> {
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
                &[&start(after), &written.since, &written.until, &ROWS_A_PAGE],
            )
            .await?;
        read_page(&page)
    }

    /// Puts those of the named events back that are published, and returns those that are there at all.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn reopen_named(&self, ids: &[EventId]) -> Result<Vec<Named>, DbError> {
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
    pub async fn find_named(&self, ids: &[EventId]) -> Result<Vec<Named>, DbError> {
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
    let next = last.filter(|_| looked_at == ROWS_A_PAGE).map(EventId::from_uuid);
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

fn read_named(row: &Row) -> Result<Named, DbError> {
    Ok(Named { id: EventId::from_uuid(row.try_get("id")?), was_published: row.try_get("was_published")? })
}
