//! Reads of the wallet database.
//!
//! The balance, now or at a time, and one entry cost one index look-up, however long the history is, and one more for the
//! texts of an entry that has any. Entries from before the hash chain have no digest of their texts, so it is tried. A page of the
//! history is read along the primary key until it is full: with a filter by type, or by times that match few entries,
//! that reads every entry in between, in the worst case the whole history of the wallet.

use std::sync::LazyLock;

use async_trait::async_trait;
use tokio_postgres::Row;

use crate::infra::postgres::{Database, DbError};
use crate::kernel::{DependencyError, EntryId, Timestamp, UserId};
use crate::wallet::application::history::{HistoryPage, HistoryQuery};
use crate::wallet::application::queries::{EntryDetails, WalletQueries};
use crate::wallet::domain::{Balance, Direction};
use crate::wallet::postgres::rows;

/// Times become sequence numbers first, by the index on created_at, so that the page is a range of the primary key.
static HISTORY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "-- wallet.ledger.history ($1 user, $2 before seq, $3 type, $4 from, $5 to, $6 rows)
         SELECT {columns}
         FROM (
             SELECT {of_transactions}
             FROM transactions
             WHERE user_id = $1
               AND seq < coalesce($2::bigint, 9223372036854775807)
               AND seq >= CASE WHEN $4::timestamptz IS NULL THEN 0 ELSE coalesce(
                   (SELECT seq FROM transactions WHERE user_id = $1 AND created_at >= $4
                    ORDER BY created_at, seq LIMIT 1), 9223372036854775807) END
               AND seq <= CASE WHEN $5::timestamptz IS NULL THEN 9223372036854775807 ELSE coalesce(
                   (SELECT seq FROM transactions WHERE user_id = $1 AND created_at < $5
                    ORDER BY created_at DESC, seq DESC LIMIT 1), 0) END
               AND type IN ('credit', 'debit') AND ($3::text IS NULL OR type = $3)
             ORDER BY seq DESC LIMIT $6
         ) AS entry
         {joins}
         ORDER BY entry.seq DESC",
        columns = rows::ENTRY,
        of_transactions = rows::ENTRY_COLUMNS,
        joins = rows::ENTRY_JOINS,
    )
});

static ENTRY: LazyLock<String> =
    LazyLock::new(|| one_entry("wallet.ledger.entry ($1 user, $2 id)", "id BETWEEN $2 AND $2 ORDER BY id"));

static TRANSFER: LazyLock<String> = LazyLock::new(|| {
    one_entry("wallet.ledger.transfer ($1 user, $2 id)", "transfer_id BETWEEN $2 AND $2 ORDER BY transfer_id")
});

fn one_entry(name: &str, which: &str) -> String {
    format!(
        "-- {name}
         SELECT {columns}, last_act.origin_left_minor AS last_left
         FROM (SELECT {of_transactions} FROM transactions WHERE user_id = $1 AND {which} LIMIT 1) AS entry
         {joins}
         LEFT JOIN LATERAL (
             SELECT origin_left_minor FROM transactions
             WHERE transactions.user_id = entry.user_id AND transactions.origin_seq = entry.seq
             ORDER BY origin_nth DESC LIMIT 1
         ) AS last_act ON true
         WHERE entry.type IN ('credit', 'debit')",
        columns = rows::ENTRY,
        of_transactions = rows::ENTRY_COLUMNS,
        joins = rows::ENTRY_JOINS,
    )
}

/// Only reversals act on credits and debits, and each says what it left.
fn details(row: &Row) -> Result<EntryDetails, DbError> {
    let entry = rows::entry(row)?;
    let reversed =
        row.try_get::<_, Option<i64>>("last_left")?.map_or(0, |left| entry.amount.cents().saturating_sub(left));
    let reversed = Balance::from_stored(reversed).ok_or(DbError::Corrupt("transactions.origin_left_minor"))?;
    Ok(EntryDetails { entry, reversed })
}

pub struct PgWalletQueries {
    database: Database,
}

impl PgWalletQueries {
    pub const fn new(database: Database) -> Self {
        Self { database }
    }

    /// `by_id` is one of the statements of [`one_entry`].
    async fn one_entry(&self, by_id: &'static str, user: UserId, id: EntryId) -> Result<Option<EntryDetails>, DbError> {
        let found = self.database.run(move |client| {
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
    async fn balance(&self, user: UserId) -> Result<Balance, DependencyError> {
        let balance = self.database.run(move |client| {
            Box::pin(async move {
                let last = client
                    .prepare_cached(
                        "-- wallet.ledger.balance
                         SELECT balance_after_minor FROM transactions WHERE user_id = $1 ORDER BY seq DESC LIMIT 1",
                    )
                    .await?;
                let row = client.query_opt(&last, &[&user.as_uuid()]).await?;
                row.map_or(Ok(Balance::ZERO), |row| rows::balance(&row, "balance_after_minor"))
            })
        });
        balance.await.map_err(|e| e.at("wallet.ledger.balance"))
    }

    async fn balance_at(&self, user: UserId, at: Timestamp) -> Result<Balance, DependencyError> {
        let balance = self.database.run(move |client| {
            Box::pin(async move {
                let last_then = client
                    .prepare_cached(
                        "-- wallet.ledger.balance_at
                         SELECT balance_after_minor FROM transactions
                         WHERE user_id = $1 AND created_at <= $2
                         ORDER BY created_at DESC, seq DESC LIMIT 1",
                    )
                    .await?;
                let row = client.query_opt(&last_then, &[&user.as_uuid(), &at]).await?;
                row.map_or(Ok(Balance::ZERO), |row| rows::balance(&row, "balance_after_minor"))
            })
        });
        balance.await.map_err(|e| e.at("wallet.ledger.balance_at"))
    }

    async fn history(&self, user: UserId, query: HistoryQuery) -> Result<HistoryPage, DependencyError> {
        let limit = query.limit;
        let entries = self.database.run(move |client| {
            Box::pin(async move {
                // Times become sequence numbers first, by the index on created_at, so that the page is a range of the
                // primary key.
                let page = client.prepare_cached(&HISTORY).await?;
                let found = client
                    .query(
                        &page,
                        &[
                            &user.as_uuid(),
                            &query.before_seq,
                            &query.direction.map(Direction::as_str),
                            &query.from,
                            &query.to,
                            &(i64::from(query.limit).saturating_add(1)), // one more shows whether there is a next page
                        ],
                    )
                    .await?;
                found.iter().map(rows::entry).collect::<Result<Vec<_>, _>>()
            })
        });
        entries.await.map(|entries| HistoryPage::cut(entries, limit)).map_err(|e| e.at("wallet.ledger.history"))
    }

    async fn entry(&self, user: UserId, id: EntryId) -> Result<Option<EntryDetails>, DependencyError> {
        self.one_entry(&ENTRY, user, id).await.map_err(|e| e.at("wallet.ledger.entry"))
    }

    async fn transfer(&self, user: UserId, id: EntryId) -> Result<Option<EntryDetails>, DependencyError> {
        self.one_entry(&TRANSFER, user, id).await.map_err(|e| e.at("wallet.ledger.transfer"))
    }
}
