//! Reads holds: those of one wallet, and those of all wallets that are due.
//!
//! A hold costs one look-up for each of: its entry, its texts, the last act on it, and the act before that. What was captured
//! follows from the last two, however many there are.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::infra::postgres::{DbError, Shard, ShardStatement, Shards, workers};
use crate::kernel::{DependencyError, EntryId, UserId};
use crate::wallet::application::holds::{DueHoldQueries, DueHolds, HoldPage, HoldQueries, HoldQuery, Unread};
use crate::wallet::domain::{Balance, DUE_MAX, Hold, HoldStatus, captured_after};
use crate::wallet::postgres::rows;
use crate::wallet::postgres::sharded_database::ShardedDatabase;

/// Due holds of one pass.
const DUE_ROWS_MAX: usize = 500;
/// Shards may be moved to another server.
const PASSES_PER_LOOK_AT_SERVERS: usize = 15;
/// Longest trial of a shard after which the pass tries another one of its server.
const SLOW_TRIAL: Duration = Duration::from_millis(100);

/// The columns that a statement has to select from `transactions`, as `hold`, for [`hold_statement`].
const HOLD_COLUMNS: &str = "user_id, seq, id, type, amount_minor, expires_at, posted_by, created_at, texts_digest";

/// A statement over `holds`, which selects [`HOLD_COLUMNS`]. Each order is one that
/// only the right index has: while a table is empty, all plans cost the same.
fn hold_statement(name: &str, holds: &str) -> ShardStatement {
    ShardStatement::composed(format!(
        "-- {name}
         SELECT hold.seq, hold.id, hold.amount_minor, hold.expires_at, hold.posted_by, hold.created_at,
                hold.expires_at <= statement_timestamp() AS is_due,
                texts.description, texts.reference, texts.metadata,
                last.type AS last_type, last.amount_minor AS last_amount, last.origin_left_minor AS last_left,
                coalesce(before.origin_left_minor, hold.amount_minor) AS left_before
         FROM ({holds}) AS hold
         LEFT JOIN LATERAL (
             SELECT type, amount_minor, origin_nth, origin_left_minor FROM shard.transactions
             WHERE transactions.user_id = hold.user_id AND transactions.origin_seq = hold.seq
             ORDER BY origin_nth DESC LIMIT 1
         ) AS last ON true
         LEFT JOIN LATERAL (
             SELECT origin_left_minor FROM shard.transactions
             WHERE transactions.user_id = hold.user_id AND transactions.origin_seq = hold.seq
               AND transactions.origin_nth < last.origin_nth
             ORDER BY origin_nth DESC LIMIT 1
         ) AS before ON true
         LEFT JOIN LATERAL (
             SELECT description, reference, metadata FROM shard.entry_texts
             WHERE hold.texts_digest IS NOT NULL AND entry_texts.user_id = hold.user_id
               AND entry_texts.seq BETWEEN hold.seq AND hold.seq
             ORDER BY entry_texts.seq LIMIT 1
         ) AS texts ON true
         WHERE hold.type = 'hold'
         ORDER BY hold.seq DESC"
    ))
}

static OPEN_PAGE: LazyLock<ShardStatement> = LazyLock::new(|| {
    let holds = format!(
        "SELECT entry.* FROM (
             SELECT user_id, seq FROM shard.open_holds
             WHERE user_id = $1 AND seq < coalesce($2::bigint, 9223372036854775807) AND expires_at > statement_timestamp()
             ORDER BY seq DESC LIMIT $3
         ) AS open
         CROSS JOIN LATERAL (
             SELECT {HOLD_COLUMNS} FROM shard.transactions
             WHERE transactions.user_id = open.user_id AND transactions.seq BETWEEN open.seq AND open.seq
             ORDER BY transactions.seq LIMIT 1
         ) AS entry"
    );
    hold_statement("wallet.holds.open ($1 user, $2 before seq, $3 rows)", &holds)
});

static PAGE: LazyLock<ShardStatement> = LazyLock::new(|| {
    let holds = format!(
        "SELECT {HOLD_COLUMNS} FROM shard.transactions
         WHERE user_id = $1 AND type = 'hold' AND seq < coalesce($2::bigint, 9223372036854775807)
         ORDER BY seq DESC LIMIT $3"
    );
    hold_statement("wallet.holds.all ($1 user, $2 before seq, $3 rows)", &holds)
});

static ONE: LazyLock<ShardStatement> = LazyLock::new(|| {
    let holds = format!(
        "SELECT {HOLD_COLUMNS} FROM shard.transactions WHERE user_id = $1 AND id BETWEEN $2 AND $2 ORDER BY id LIMIT 1"
    );
    hold_statement("wallet.holds.one ($1 user, $2 id)", &holds)
});

static DUE: ShardStatement = ShardStatement::new(
    "-- wallet.holds.due ($1 rows)
    SELECT user_id, extract(epoch FROM statement_timestamp() - expires_at)::double precision AS overdue_s
    FROM shard.open_holds WHERE expires_at <= statement_timestamp() ORDER BY expires_at LIMIT $1",
);

/// Before a shard is used again: what a post waits for first.
static TRY: ShardStatement = ShardStatement::new(
    "-- wallet.holds.try ($1 no user)
    SELECT FROM shard.wallets WHERE user_id = $1 FOR UPDATE",
);

/// Bounded, because counting takes time.
static COUNT: ShardStatement = ShardStatement::new(
    "-- wallet.holds.count
    SELECT count(*) AS holds FROM (SELECT FROM shard.open_holds ORDER BY expires_at LIMIT 1000000) AS counted",
);

/// Over a pool that other reads share.
pub struct PgHoldQueries {
    database: ShardedDatabase,
    passes: AtomicUsize,
}

impl PgHoldQueries {
    pub const fn new(database: ShardedDatabase) -> Self {
        Self { database, passes: AtomicUsize::new(0) }
    }

    /// What it finds is used until the next look, and so is what it found before if it fails.
    async fn look_where_shards_are(&self) {
        let shards = self.database.shards();
        if shards != Shards::ONE {
            let found = self.database.run(move |client| Box::pin(async move { Ok(workers(client, shards).await?) }));
            if let Ok(found) = found.await {
                self.database.breakers.set_servers(&found);
            }
        }
    }

    /// Adds what is due in one shard, and sets its breaker.
    async fn add_due(&self, shard: Shard, all: &mut DueHolds) {
        let breakers = &self.database.breakers;
        let was_tripped = breakers.is_tripped(shard);
        let mut due = self.read_due(shard, was_tripped).await;
        // Only the connection to its server may have been lost. The next attempt has another one.
        if !was_tripped && due.as_ref().is_err_and(|e| e.is_out_of_reach() && !e.is_time_limit()) {
            due = self.read_due(shard, was_tripped).await;
        }
        match due {
            Ok(due) => {
                all.users.extend(due.users);
                all.oldest = all.oldest.max(due.oldest);
                all.more |= due.more;
                if was_tripped {
                    breakers.reset(shard);
                }
            }
            Err(e) => {
                if e.is_out_of_reach() {
                    breakers.trip_server_of(shard);
                } else if e.is_lock_timeout() {
                    // No row is waited for, so that the table is locked.
                    breakers.trip(shard);
                }
                all.unread.push(Unread { schema: shard.schema(), error: Some(e.at("wallet.holds.due")) });
            }
        }
    }

    async fn read_due(&self, shard: Shard, is_trial: bool) -> Result<DueHolds, DbError> {
        // The bound is that of a pass, so each shard has its part of it, which is more than a batch of one wallet ends.
        let rows_max = (DUE_ROWS_MAX / usize::from(self.database.shards().count())).max(DUE_MAX.saturating_add(1));
        // A unit of work for each, because another server may have the next one.
        let due = self.database.run(move |client| {
            Box::pin(async move {
                if is_trial {
                    client.query(TRY.of(shard), &[&Uuid::nil()]).await?;
                }
                let due = client.prepare_cached(DUE.of(shard)).await?;
                let rows = i64::try_from(rows_max).unwrap_or(i64::MAX);
                due_holds(&client.query(&due, &[&rows]).await?, rows_max)
            })
        });
        due.await
    }
}

#[async_trait]
impl HoldQueries for PgHoldQueries {
    async fn page(&self, user: UserId, query: HoldQuery) -> Result<HoldPage, DependencyError> {
        let HoldQuery { open_only, before_seq, limit } = query;
        let shard = self.database.shard_of(user);
        let page = if open_only { &OPEN_PAGE } else { &PAGE }.of(shard);
        let found = self.database.run_in(shard, move |client| {
            Box::pin(async move {
                let page = client.prepare_cached(page).await?;
                // One more shows whether there is a next page.
                let rows = i64::from(limit).saturating_add(1);
                let found = client.query(&page, &[&user.as_uuid(), &before_seq, &rows]).await?;
                found.iter().map(|row| Ok((row.try_get("seq")?, hold(row)?))).collect::<Result<Vec<_>, DbError>>()
            })
        });
        found.await.map(|holds| HoldPage::cut(holds, limit)).map_err(|e| e.at("wallet.holds.page"))
    }

    async fn one(&self, user: UserId, id: EntryId) -> Result<Option<Hold>, DependencyError> {
        let shard = self.database.shard_of(user);
        let one = ONE.of(shard);
        let found = self.database.run_in(shard, move |client| {
            Box::pin(async move {
                let one = client.prepare_cached(one).await?;
                let row = client.query_opt(&one, &[&user.as_uuid(), &id.as_uuid()]).await?;
                row.as_ref().map(hold).transpose()
            })
        });
        found.await.map_err(|e| e.at("wallet.holds.one"))
    }
}

#[async_trait]
impl DueHoldQueries for PgHoldQueries {
    async fn due(&self) -> DueHolds {
        let breakers = &self.database.breakers;
        let pass = self.passes.fetch_add(1, Ordering::Relaxed);
        // A shard that was moved away must not trip, and not stay tripped, with its old server.
        if breakers.is_any_tripped() || pass.is_multiple_of(PASSES_PER_LOOK_AT_SERVERS) {
            self.look_where_shards_are().await;
        }
        let (mut tripped, others): (Vec<Shard>, Vec<Shard>) =
            self.database.shards().all().partition(|shard| breakers.is_tripped(*shard));
        let mut all = DueHolds::default();
        for shard in others {
            // Unless another one of its server has tripped it since.
            if breakers.is_tripped(shard) {
                all.unread.push(Unread { schema: shard.schema(), error: None });
            } else {
                self.add_due(shard, &mut all).await;
                if breakers.is_tripped(shard) {
                    self.look_where_shards_are().await;
                }
            }
        }
        // A server that is down reports that at once. One that does not respond costs the time limit of a statement, and so only one
        // such trial of it is made in each pass, of another shard each time.
        let first = pass.checked_rem(tripped.len()).unwrap_or(0);
        tripped.rotate_left(first);
        let mut silent = 0;
        for shard in tripped {
            if silent & breakers.server_of(shard) != 0 {
                all.unread.push(Unread { schema: shard.schema(), error: None });
                continue;
            }
            let began = Instant::now();
            self.add_due(shard, &mut all).await;
            if began.elapsed() > SLOW_TRIAL {
                silent |= breakers.server_of(shard);
            }
        }
        all
    }

    async fn count_open(&self) -> Result<usize, DependencyError> {
        // A part of them is not their number.
        if self.database.breakers.is_any_tripped() {
            return Err(DbError::OutOfReach.at("wallet.holds.count"));
        }
        let shards = self.database.shards();
        let counted = self.database.run(move |client| {
            Box::pin(async move {
                let mut all = 0_usize;
                for shard in shards.all() {
                    let count = client.prepare_cached(COUNT.of(shard)).await?;
                    let holds: i64 = client.query_one(&count, &[]).await?.try_get("holds")?;
                    all = all.saturating_add(usize::try_from(holds).unwrap_or(0));
                }
                Ok(all)
            })
        });
        counted.await.map_err(|e| e.at("wallet.holds.count"))
    }
}

/// `rows_max` is the bound of the statement that found them.
fn due_holds(rows: &[Row], rows_max: usize) -> Result<DueHolds, DbError> {
    let mut due = DueHolds { more: rows.len() >= rows_max, ..DueHolds::default() };
    let mut holds_of = HashMap::<Uuid, usize>::new();
    for row in rows {
        let user = row.try_get("user_id")?;
        let holds = holds_of.entry(user).or_default();
        *holds = holds.saturating_add(1);
        if *holds == 1 {
            due.users.push(UserId::from_uuid(user));
        }
        due.more |= *holds > DUE_MAX;
    }
    if let Some(oldest) = rows.first() {
        due.oldest = Duration::try_from_secs_f64(oldest.try_get("overdue_s")?).unwrap_or_default();
    }
    Ok(due)
}

fn hold(row: &Row) -> Result<Hold, DbError> {
    let balance = |cents| Balance::from_stored(cents).ok_or(DbError::Corrupt("transactions.origin_left_minor"));
    let amount = rows::amount(row, "amount_minor")?;
    let last_left: Option<i64> = row.try_get("last_left")?;
    let (status, captured, remaining) = if let Some(left) = last_left {
        let kind = rows::kind(row, "last_type")?;
        let captured = captured_after(amount, row.try_get("left_before")?, kind, row.try_get("last_amount")?);
        (HoldStatus::after(kind, left), captured, left)
    } else {
        (HoldStatus::Open, Some(Balance::ZERO), amount.cents())
    };
    let is_over = status == HoldStatus::Open && row.try_get("is_due")?;
    Ok(Hold {
        id: EntryId::from_uuid(row.try_get("id")?),
        status: if is_over { HoldStatus::Expired } else { status },
        amount,
        captured: captured.ok_or(DbError::Corrupt("transactions.origin_left_minor"))?,
        remaining: balance(if is_over { 0 } else { remaining })?,
        expires_at: row.try_get("expires_at")?,
        texts: rows::texts(row)?,
        created_at: row.try_get("created_at")?,
        posted_by: rows::service(row, "posted_by")?,
    })
}
