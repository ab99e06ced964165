//! Audits the ledger: PostgreSQL adds up the entries of each wallet, and only the results are fetched.

use tokio_postgres::{Portal, Row, Transaction};
use uuid::Uuid;

use crate::infra::postgres::{Connector, DbError, Session};
use crate::kernel::UserId;
use crate::wallet::domain::{Difference, WalletAudit};

/// Shown in `pg_stat_activity`.
const APPLICATION_NAME: &str = "purse ledger verify";
/// Bounds the memory of this process.
const WALLETS_PER_FETCH: i32 = 1_000;

pub struct PgLedgerAudit {
    session: Session,
}

/// The size of an audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerSize {
    /// Includes wallets without entries.
    pub wallets: i64,
    /// By the statistics of PostgreSQL; 0 before it has collected any.
    pub entries_estimate: i64,
}

impl PgLedgerAudit {
    /// The runtime user may read both tables.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn connect(connector: &Connector) -> Result<Self, DbError> {
        Ok(Self { session: Session::open(connector, APPLICATION_NAME).await? })
    }

    /// Audits every wallet with an entry, or only that of `user`, in one snapshot.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn begin(&mut self, user: Option<UserId>) -> Result<AuditCursor<'_>, DbError> {
        let user = user.map(UserId::as_uuid);
        let tx = self.session.snapshot().await?;
        let size = tx
            .query_one(
                "-- wallet.audit.size ($1 user or null)
                 SELECT (SELECT count(*) FROM wallets WHERE $1::uuid IS NULL OR user_id = $1) AS wallets,
                        (SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'transactions'::regclass) AS entries",
                &[&user],
            )
            .await?;
        let size = LedgerSize { wallets: size.try_get("wallets")?, entries_estimate: size.try_get("entries")? };
        // One window for all, so that the entries are sorted once, by the primary key. `min` of an array compares the
        // first elements and returns the others along with them. Sums are numeric, which cannot overflow, and are
        // clamped to the range of a bigint.
        let recount = tx
            .prepare(
                "-- wallet.audit.recount ($1 user or null)
                 SELECT user_id, count(*) AS entries,
                        EXISTS (SELECT FROM wallets WHERE wallets.user_id = entry.user_id) AS has_wallet,
                        max(balance_after_minor) FILTER (WHERE is_last) AS stored,
                        max(running) FILTER (WHERE is_last) AS recounted,
                        min(ARRAY[seq, seq, place]) FILTER (WHERE seq <> place) AS place,
                        min(ARRAY[seq, balance_after_minor, running]) FILTER (WHERE balance_after_minor <> running) AS balance,
                        min(seq) FILTER (WHERE balance_after_minor < 0 OR running < 0) AS negative,
                        min(seq) FILTER (WHERE created_at < previous) AS time
                 FROM (
                     SELECT user_id, seq, balance_after_minor, created_at,
                            row_number() OVER wallet AS place,
                            least(greatest(sum(CASE type WHEN 'credit' THEN amount_minor ELSE -amount_minor END) OVER wallet,
                                           -9223372036854775808), 9223372036854775807)::bigint AS running,
                            lag(created_at) OVER wallet AS previous,
                            lead(seq) OVER wallet IS NULL AS is_last
                     FROM transactions WHERE $1::uuid IS NULL OR user_id = $1
                     WINDOW wallet AS (PARTITION BY user_id ORDER BY seq ROWS UNBOUNDED PRECEDING)
                 ) AS entry
                 GROUP BY user_id",
            )
            .await?;
        let portal = tx.bind(&recount, &[&user]).await?;
        Ok(AuditCursor { tx, portal, size })
    }
}

/// A running audit. PostgreSQL computes only what is fetched, so neither side ever holds all of it.
pub struct AuditCursor<'session> {
    tx: Transaction<'session>,
    portal: Portal,
    size: LedgerSize,
}

impl AuditCursor<'_> {
    pub const fn size(&self) -> LedgerSize {
        self.size
    }

    /// The next wallets; empty after the last.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn next(&self) -> Result<Vec<WalletAudit>, DbError> {
        let wallets = self.tx.query_portal(&self.portal, WALLETS_PER_FETCH).await?;
        wallets.iter().map(read).collect()
    }
}

fn read(row: &Row) -> Result<WalletAudit, DbError> {
    let user_id: Uuid = row.try_get("user_id")?;
    Ok(WalletAudit {
        user_id: UserId::from_uuid(user_id),
        entries: row.try_get("entries")?,
        has_wallet: row.try_get("has_wallet")?,
        stored_balance: row.try_get("stored")?,
        computed_balance: row.try_get("recounted")?,
        sequence: difference(row, "place")?,
        balance: difference(row, "balance")?,
        negative: row.try_get("negative")?,
        time: row.try_get("time")?,
    })
}

fn difference(row: &Row, column: &str) -> Result<Option<Difference>, DbError> {
    let found: Option<Vec<i64>> = row.try_get(column)?;
    match found.as_deref() {
        None => Ok(None),
        Some(&[seq, stored, computed]) => Ok(Some(Difference { seq, stored, computed })),
        Some(_) => Err(DbError::Corrupt("wallet.audit.recount")),
    }
}
