//! Reads of the wallet database.
//!
//! The balance, now or at a time, and one entry cost one index look-up, however long the history is, and one more for the
//! texts of an entry that has any. Entries from before the hash chain have no digest of their texts, so it is tried. A page of the
//! history is read along the primary key until it is full: with a filter by type, or by times that match few entries,
//! that reads every entry in between, in the worst case the whole history of the wallet. A statement looks up its two ends and
//! is then read along the primary key, each page by a connection of its own.

use std::sync::LazyLock;

use async_trait::async_trait;
use tokio_postgres::Row;

use crate::infra::postgres::{Client, DbError, Shard, ShardStatement, begin};
use crate::kernel::{DependencyError, EntryId, Timestamp, UserId};
use crate::wallet::application::history::{HistoryPage, HistoryQuery, SCANNED_MAX};
use crate::wallet::application::queries::{EntryDetails, WalletQueries};
use crate::wallet::application::statement::{Statement, StatementEnd, StatementPeriod};
use crate::wallet::domain::{Balance, Direction, Entry, Funds, MetadataPair, Reference};
use crate::wallet::postgres::rows;
use crate::wallet::postgres::sharded_database::ShardedDatabase;

/// Times become sequence numbers first, by the index on created_at, so that the page is a range of the primary key.
static HISTORY: LazyLock<ShardStatement> = LazyLock::new(|| {
    ShardStatement::composed(format!(
        "-- wallet.ledger.history ($1 user, $2 before seq, $3 type, $4 from, $5 to, $6 rows)
         SELECT {columns}
         FROM (
             SELECT {of_transactions}
             FROM shard.transactions
             WHERE user_id = $1
               AND seq < coalesce($2::bigint, 9223372036854775807)
               AND seq >= CASE WHEN $4::timestamptz IS NULL THEN 0 ELSE coalesce(
                   (SELECT seq FROM shard.transactions WHERE user_id = $1 AND created_at >= $4
                    ORDER BY created_at, seq LIMIT 1), 9223372036854775807) END
               AND seq <= CASE WHEN $5::timestamptz IS NULL THEN 9223372036854775807 ELSE coalesce(
                   (SELECT seq FROM shard.transactions WHERE user_id = $1 AND created_at < $5
                    ORDER BY created_at DESC, seq DESC LIMIT 1), 0) END
               AND type IN ('credit', 'debit') AND ($3::text IS NULL OR type = $3)
             ORDER BY seq DESC LIMIT $6
         ) AS entry
         {joins}
         ORDER BY entry.seq DESC",
        columns = rows::ENTRY,
        of_transactions = rows::ENTRY_COLUMNS,
        joins = rows::ENTRY_JOINS,
    ))
});

static ENTRY: LazyLock<ShardStatement> =
    LazyLock::new(|| one_entry("wallet.ledger.entry ($1 user, $2 id)", "id BETWEEN $2 AND $2 ORDER BY id"));

static TRANSFER: LazyLock<ShardStatement> = LazyLock::new(|| {
    one_entry("wallet.ledger.transfer ($1 user, $2 id)", "transfer_id BETWEEN $2 AND $2 ORDER BY transfer_id")
});

fn one_entry(name: &str, which: &str) -> ShardStatement {
    ShardStatement::composed(format!(
        "-- {name}
         SELECT {columns}, last_act.origin_left_minor AS last_left
         FROM (SELECT {of_transactions} FROM shard.transactions WHERE user_id = $1 AND {which} LIMIT 1) AS entry
         {joins}
         LEFT JOIN LATERAL (
             SELECT origin_left_minor FROM shard.transactions
             WHERE transactions.user_id = entry.user_id AND transactions.origin_seq = entry.seq
             ORDER BY origin_nth DESC LIMIT 1
         ) AS last_act ON true
         WHERE entry.type IN ('credit', 'debit')",
        columns = rows::ENTRY,
        of_transactions = rows::ENTRY_COLUMNS,
        joins = rows::ENTRY_JOINS,
    ))
}

/// Only reversals act on credits and debits, and each says what it left.
fn details(row: &Row) -> Result<EntryDetails, DbError> {
    let entry = rows::entry(row)?;
    let reversed =
        row.try_get::<_, Option<i64>>("last_left")?.map_or(0, |left| entry.amount.cents().saturating_sub(left));
    let reversed = Balance::from_stored(reversed).ok_or(DbError::Corrupt("transactions.origin_left_minor"))?;
    Ok(EntryDetails { entry, reversed })
}

static ENTRIES: LazyLock<ShardStatement> = LazyLock::new(|| {
    ShardStatement::composed(format!(
        "-- wallet.ledger.entries ($1 user, $2 first seq, $3 last seq, $4 rows)
         SELECT {columns}
         FROM (
             SELECT {of_transactions}
             FROM shard.transactions WHERE user_id = $1 AND seq BETWEEN $2 AND $3 ORDER BY seq LIMIT $4
         ) AS entry
         {joins}
         WHERE entry.type IN ('credit', 'debit')
         ORDER BY entry.seq",
        columns = rows::ENTRY,
        of_transactions = rows::ENTRY_COLUMNS,
        joins = rows::ENTRY_JOINS,
    ))
});

static BALANCE: ShardStatement = ShardStatement::new(
    "-- wallet.ledger.balance
    SELECT balance_after_minor, held_after_minor FROM shard.transactions WHERE user_id = $1 ORDER BY seq DESC LIMIT 1",
);

/// Without what the holds reserve that are due: their end is not written yet.
static BALANCE_BESIDE_HOLDS: ShardStatement = ShardStatement::new(
    "-- wallet.ledger.balance_beside_holds
    SELECT last.balance_after_minor, last.held_after_minor - coalesce(due.left_minor, 0) AS held_after_minor
    FROM (
        SELECT user_id, balance_after_minor, held_after_minor FROM shard.transactions
        WHERE user_id = $1 ORDER BY seq DESC LIMIT 1
    ) AS last
    LEFT JOIN LATERAL (
        SELECT sum(left_minor)::bigint AS left_minor FROM (
            SELECT left_minor FROM shard.open_holds
            WHERE open_holds.user_id = last.user_id
              AND (open_holds.user_id, open_holds.expires_at) <= (last.user_id, statement_timestamp())
            ORDER BY open_holds.expires_at
        ) AS due
    ) AS due ON true",
);

static BALANCE_AT: ShardStatement = ShardStatement::new(
    "-- wallet.ledger.balance_at
    SELECT balance_after_minor, held_after_minor FROM shard.transactions
    WHERE user_id = $1 AND created_at <= $2
    ORDER BY created_at DESC, seq DESC LIMIT 1",
);

static LOCK_OF_STATEMENT: ShardStatement = ShardStatement::new(
    "-- wallet.ledger.statement.lock
    SELECT FROM shard.wallets WHERE user_id = $1 FOR UPDATE",
);

static ENDS_OF_STATEMENT: ShardStatement = ShardStatement::new(
    "-- wallet.ledger.statement ($1 user, $2 from, $3 to)
    SELECT opening.seq AS opening_seq, opening.balance_after_minor AS opening_balance,
           closing.seq AS closing_seq, closing.balance_after_minor AS closing_balance,
           statement_timestamp() AS read_at
    FROM (VALUES ($1::uuid)) AS wallet (user_id)
    LEFT JOIN LATERAL (
        SELECT seq, balance_after_minor FROM shard.transactions
        WHERE transactions.user_id = wallet.user_id AND created_at < $2
        ORDER BY created_at DESC, seq DESC LIMIT 1
    ) AS opening ON true
    LEFT JOIN LATERAL (
        SELECT seq, balance_after_minor FROM shard.transactions
        WHERE transactions.user_id = wallet.user_id AND created_at < $3
        ORDER BY created_at DESC, seq DESC LIMIT 1
    ) AS closing ON true",
);

/// One statement reads the holds, because a statement sees one moment. Most wallets hold nothing, and do not pay for it.
async fn balance(client: &Client, shard: Shard, user: UserId) -> Result<Funds, DbError> {
    let funds = last_funds(client, BALANCE.of(shard), user).await?;
    if funds.held == Balance::ZERO { Ok(funds) } else { last_funds(client, BALANCE_BESIDE_HOLDS.of(shard), user).await }
}

async fn last_funds(client: &Client, statement: &str, user: UserId) -> Result<Funds, DbError> {
    let last = client.prepare_cached(statement).await?;
    let row = client.query_opt(&last, &[&user.as_uuid()]).await?;
    row.map_or(Ok(Funds::NONE), |row| rows::funds(&row))
}

/// The newest [`SCANNED_MAX`] texts that `which` selects in the order of an index, and of those the first entries that match. A
/// row of its own says where the scan ended, if it did.
fn by_texts(name: &str, which: &str, order: &[&str]) -> ShardStatement {
    let order_by =
        |table: &str| order.iter().map(|column| format!("{table}{column} DESC")).collect::<Vec<_>>().join(", ");
    let (order, order_of_text) = (order_by(""), order_by("text."));
    ShardStatement::composed(format!(
        "-- {name} ($1 user, $2 before seq, $3 type, $4 from, $5 to, $6 rows, $7 scanned rows, $8 metadata, $9 reference)
         SELECT scan.scanned_to, {columns}
         FROM (VALUES ($1::uuid,
             coalesce($2::bigint, 9223372036854775807) - 1,
             CASE WHEN $4::timestamptz IS NULL THEN 0 ELSE coalesce(
                 (SELECT seq FROM shard.transactions WHERE user_id = $1 AND created_at >= $4
                  ORDER BY created_at, seq LIMIT 1), 9223372036854775807) END,
             CASE WHEN $5::timestamptz IS NULL THEN 9223372036854775807 ELSE coalesce(
                 (SELECT seq FROM shard.transactions WHERE user_id = $1 AND created_at < $5
                  ORDER BY created_at DESC, seq DESC LIMIT 1), 0) END
         )) AS wanted (user_id, before, first, last)
         CROSS JOIN LATERAL (
             SELECT CASE count(*) WHEN $7 THEN min(seq) END AS scanned_to
             FROM (
                 SELECT seq FROM shard.entry_texts
                 WHERE entry_texts.user_id = wanted.user_id AND {which}
                   AND seq >= wanted.first AND seq <= least(wanted.before, wanted.last)
                 ORDER BY {order} LIMIT $7
             ) AS scanned
         ) AS scan
         LEFT JOIN LATERAL (
             SELECT named.* FROM (
                 SELECT user_id, seq, metadata, reference FROM shard.entry_texts
                 WHERE entry_texts.user_id = wanted.user_id AND {which}
                   AND seq >= greatest(wanted.first, scan.scanned_to) AND seq <= least(wanted.before, wanted.last)
                 ORDER BY {order} LIMIT $7
             ) AS text
             CROSS JOIN LATERAL (
                 SELECT {of_transactions}
                 FROM shard.transactions
                 WHERE transactions.user_id = text.user_id AND transactions.seq BETWEEN text.seq AND text.seq
                 ORDER BY transactions.seq LIMIT 1
             ) AS named
             WHERE (SELECT bool_and(strpos(coalesce(text.metadata, ''), pair) > 0) FROM unnest($8::text[]) AS pair) IS NOT FALSE
               AND named.type IN ('credit', 'debit') AND ($3::text IS NULL OR named.type = $3)
             ORDER BY {order_of_text} LIMIT $6
         ) AS entry ON true
         {joins}
         ORDER BY entry.seq DESC",
        columns = rows::ENTRY,
        of_transactions = rows::ENTRY_COLUMNS,
        joins = rows::ENTRY_JOINS,
    ))
}

static BY_REFERENCE: LazyLock<ShardStatement> = LazyLock::new(|| {
    by_texts("wallet.ledger.history_by_reference", "reference BETWEEN $9 AND $9", &["reference", "seq"])
});

static BY_METADATA: LazyLock<ShardStatement> =
    LazyLock::new(|| by_texts("wallet.ledger.history_by_metadata", "$9::text IS NULL", &["seq"]));

async fn history_by_seq(
    client: &Client,
    shard: Shard,
    user: UserId,
    query: &HistoryQuery,
) -> Result<HistoryPage, DbError> {
    let page = client.prepare_cached(HISTORY.of(shard)).await?;
    let direction = query.direction.map(Direction::as_str);
    let rows = i64::from(query.limit).saturating_add(1); // one more shows whether there is a next page
    let found =
        client.query(&page, &[&user.as_uuid(), &query.before_seq, &direction, &query.from, &query.to, &rows]).await?;
    let entries = found.iter().map(rows::entry).collect::<Result<Vec<_>, _>>()?;
    Ok(HistoryPage::cut(entries, query.limit, None))
}

async fn history_by_texts(
    client: &Client,
    shard: Shard,
    user: UserId,
    query: &HistoryQuery,
) -> Result<HistoryPage, DbError> {
    let reference = query.reference.as_ref().map(Reference::as_str);
    let statement = if reference.is_some() { &*BY_REFERENCE } else { &*BY_METADATA };
    let page = client.prepare_cached(statement.of(shard)).await?;
    let direction = query.direction.map(Direction::as_str);
    let rows = i64::from(query.limit).saturating_add(1);
    let metadata: Vec<&str> = query.metadata.iter().map(MetadataPair::as_str).collect();
    let found = client
        .query(
            &page,
            &[
                &user.as_uuid(),
                &query.before_seq,
                &direction,
                &query.from,
                &query.to,
                &rows,
                &i64::from(SCANNED_MAX),
                &metadata,
                &reference,
            ],
        )
        .await?;
    let scanned_to = found.first().map(|row| row.try_get("scanned_to")).transpose()?.flatten();
    let mut entries = Vec::with_capacity(found.len());
    for row in &found {
        // One row has no entry if none matches.
        if row.try_get::<_, Option<i64>>("seq")?.is_some() {
            entries.push(rows::entry(row)?);
        }
    }
    Ok(HistoryPage::cut(entries, query.limit, scanned_to))
}

pub struct PgWalletQueries {
    database: ShardedDatabase,
}

impl PgWalletQueries {
    pub const fn new(database: ShardedDatabase) -> Self {
        Self { database }
    }

    /// `by_id` is one of the statements of [`one_entry`].
    async fn one_entry(
        &self,
        by_id: &'static ShardStatement,
        user: UserId,
        id: EntryId,
    ) -> Result<Option<EntryDetails>, DbError> {
        let shard = self.database.shard_of(user);
        let by_id = by_id.of(shard);
        let found = self.database.run_in(shard, move |client| {
            Box::pin(async move {
                let by_id = client.prepare_cached(by_id).await?;
                let row = client.query_opt(&by_id, &[&user.as_uuid(), &id.as_uuid()]).await?;
                row.as_ref().map(details).transpose()
            })
        });
        found.await
    }
}

#[async_trait]
impl WalletQueries for PgWalletQueries {
    async fn balance(&self, user: UserId) -> Result<Funds, DependencyError> {
        let shard = self.database.shard_of(user);
        let balance = self.database.run_in(shard, move |client| Box::pin(balance(client, shard, user)));
        balance.await.map_err(|e| e.at("wallet.ledger.balance"))
    }

    async fn balance_at(&self, user: UserId, at: Timestamp) -> Result<Funds, DependencyError> {
        let shard = self.database.shard_of(user);
        let balance = self.database.run_in(shard, move |client| {
            Box::pin(async move {
                let last_then = client.prepare_cached(BALANCE_AT.of(shard)).await?;
                let row = client.query_opt(&last_then, &[&user.as_uuid(), &at]).await?;
                row.map_or(Ok(Funds::NONE), |row| rows::funds(&row))
            })
        });
        balance.await.map_err(|e| e.at("wallet.ledger.balance_at"))
    }

    async fn history(&self, user: UserId, query: HistoryQuery) -> Result<HistoryPage, DependencyError> {
        let has_filter_by_text = query.reference.is_some() || !query.metadata.is_empty();
        let shard = self.database.shard_of(user);
        let page = self.database.run_in(shard, move |client| {
            Box::pin(async move {
                if has_filter_by_text {
                    history_by_texts(client, shard, user, &query).await
                } else {
                    history_by_seq(client, shard, user, &query).await
                }
            })
        });
        page.await.map_err(|e| e.at("wallet.ledger.history"))
    }

    async fn statement(&self, user: UserId, period: StatementPeriod) -> Result<Statement, DependencyError> {
        let shard = self.database.shard_of(user);
        let statement = self.database.run_in(shard, move |client| {
            Box::pin(async move {
                let tx = begin(client).await?;
                let lock = tx.prepare_cached(LOCK_OF_STATEMENT.of(shard)).await?;
                let ends = tx.prepare_cached(ENDS_OF_STATEMENT.of(shard)).await?;
                // A batch that writes to the wallet has this lock from before the time of its entries until its commit. So every
                // entry with a time before that of the next statement is visible to that statement.
                tx.query(&lock, &[&user.as_uuid()]).await?;
                let row = tx.query_one(&ends, &[&user.as_uuid(), &period.from(), &period.to()]).await?;
                tx.commit().await?;
                let end = |seq: &str, balance: &str| match row.try_get::<_, Option<i64>>(seq)? {
                    Some(seq) => Ok::<_, DbError>(StatementEnd { seq, balance: rows::balance(&row, balance)? }),
                    None => Ok(StatementEnd { seq: 0, balance: Balance::ZERO }),
                };
                Ok(Statement {
                    period,
                    opening: end("opening_seq", "opening_balance")?,
                    closing: end("closing_seq", "closing_balance")?,
                    read_at: row.try_get("read_at")?,
                })
            })
        });
        statement.await.map_err(|e| e.at("wallet.ledger.statement"))
    }

    async fn entries(&self, user: UserId, first: i64, last: i64) -> Result<Vec<Entry>, DependencyError> {
        let shard = self.database.shard_of(user);
        let entries = self.database.run_in(shard, move |client| {
            Box::pin(async move {
                let range = client.prepare_cached(ENTRIES.of(shard)).await?;
                let rows = last.saturating_sub(first).saturating_add(1);
                let found = client.query(&range, &[&user.as_uuid(), &first, &last, &rows]).await?;
                found.iter().map(rows::entry).collect::<Result<Vec<_>, _>>()
            })
        });
        entries.await.map_err(|e| e.at("wallet.ledger.entries"))
    }

    async fn entry(&self, user: UserId, id: EntryId) -> Result<Option<EntryDetails>, DependencyError> {
        self.one_entry(&ENTRY, user, id).await.map_err(|e| e.at("wallet.ledger.entry"))
    }

    async fn transfer(&self, user: UserId, id: EntryId) -> Result<Option<EntryDetails>, DependencyError> {
        self.one_entry(&TRANSFER, user, id).await.map_err(|e| e.at("wallet.ledger.transfer"))
    }
}
