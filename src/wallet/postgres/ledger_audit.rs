//! Recounts the ledger: the database adds up, wallet after wallet, and only sums travel.

use tokio_postgres::{Portal, Row, Transaction};
use uuid::Uuid;

use crate::infra::postgres::{Connector, DbError, Session};
use crate::kernel::UserId;
use crate::wallet::domain::{Difference, WalletAudit};

/// Shown in `pg_stat_activity`.
const APPLICATION_NAME: &str = "purse ledger verify";
/// Wallets that are fetched at once; what keeps the memory of this process bounded.
const WALLETS_A_FETCH: i32 = 1_000;

/// The ledger as it was at one moment, open for a recount.
pub struct PgLedgerAudit {
    session: Session,
}

/// What there is to recount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerSize {
    /// Wallets, also those without an entry.
    pub wallets: i64,
    /// Entries, as the database estimates them; 0 where it has not counted yet.
    pub entries_estimate: i64,
}

impl PgLedgerAudit {
    /// Connects as the runtime user, who may read both tables.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn connect(connector: &Connector) -> Result<Self, DbError> {
        Ok(Self { session: Session::open(connector, APPLICATION_NAME).await? })
    }

    /// Begins to recount every wallet with an entry, or that of `user` alone. All of it is of one moment, whatever is
    /// posted meanwhile.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn begin(&mut self, user: Option<UserId>) -> Result<Recount<'_>, DbError> {
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
        // One window for all, so that the entries are sorted once, by the primary key. `min` of an array finds the
        // first by its first element and brings the rest along. Sums are numeric: nothing in them can overflow, and
        // what leaves the range of a bigint is cut off there.
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
        Ok(Recount { tx, portal, size })
    }
}

/// A recount under way. The database computes as much as is asked for, so neither side ever holds all of it.
pub struct Recount<'session> {
    tx: Transaction<'session>,
    portal: Portal,
    size: LedgerSize,
}

impl Recount<'_> {
    /// How much there is to recount.
    pub const fn size(&self) -> LedgerSize {
        self.size
    }

    /// The next wallets; none after the last.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn next(&self) -> Result<Vec<WalletAudit>, DbError> {
        let wallets = self.tx.query_portal(&self.portal, WALLETS_A_FETCH).await?;
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
        recounted_balance: row.try_get("recounted")?,
        place: difference(row, "place")?,
        balance: difference(row, "balance")?,
        negative: row.try_get("negative")?,
        time: row.try_get("time")?,
    })
}

fn difference(row: &Row, column: &str) -> Result<Option<Difference>, DbError> {
    let found: Option<Vec<i64>> = row.try_get(column)?;
    match found.as_deref() {
        None => Ok(None),
        Some(&[seq, stored, recounted]) => Ok(Some(Difference { seq, stored, recounted })),
        Some(_) => Err(DbError::Corrupt("wallet.audit.recount")),
    }
}
