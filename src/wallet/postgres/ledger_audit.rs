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
/// Services that [`Posters`] names.
const SERVICES_MAX: usize = 20;

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
    /// Entries of the whole ledger that are older than the hash chain.
    pub unhashed_entries: i64,
}

impl PgLedgerAudit {
    /// The runtime user may read all tables.
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
                        (SELECT unhashed_entries FROM hash_chain) AS unhashed,
                        (SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'transactions'::regclass) AS entries",
                &[&user],
            )
            .await?;
        let size = LedgerSize {
            wallets: size.try_get("wallets")?,
            entries_estimate: size.try_get("entries")?,
            unhashed_entries: size.try_get("unhashed")?,
        };
        let recount = tx.prepare(include_str!("recount.sql")).await?;
        let portal = tx.bind(&recount, &[&user]).await?;
        Ok(AuditCursor { tx, portal, size, user })
    }
}

/// Who posted how many entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Posters {
    /// Entries that users posted themselves. Expiries are nobody's.
    pub by_users: i64,
    /// Those with the most entries, at most [`SERVICES_MAX`] of them.
    pub services: Vec<(String, i64)>,
    /// The number of other services, and that of their entries.
    pub others: (i64, i64),
}

/// A running audit. PostgreSQL computes only what is fetched, so neither side ever holds all of it.
pub struct AuditCursor<'session> {
    tx: Transaction<'session>,
    portal: Portal,
    size: LedgerSize,
    user: Option<Uuid>,
}

impl AuditCursor<'_> {
    pub const fn size(&self) -> LedgerSize {
        self.size
    }

    /// Who posted the entries that are audited.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn posters(&self) -> Result<Posters, DbError> {
        let rows = self
            .tx
            .query(
                "-- wallet.audit.posters ($1 user or null, $2 services at most)
                 WITH poster AS (
                     SELECT posted_by, count(*) AS entries FROM transactions
                     WHERE type <> 'expire' AND ($1::uuid IS NULL OR user_id = $1) GROUP BY posted_by
                 ),
                 ranked AS (
                     SELECT posted_by, entries, CASE WHEN posted_by IS NULL THEN 0
                            ELSE row_number() OVER (PARTITION BY posted_by IS NULL ORDER BY entries DESC, posted_by) END AS place
                     FROM poster
                 )
                 SELECT CASE WHEN place <= $2 THEN posted_by END AS service, place > $2 AS is_other,
                        count(*) AS posters, sum(entries)::bigint AS entries
                 FROM ranked GROUP BY 1, 2, least(place, $2 + 1) ORDER BY least(place, $2 + 1)",
                &[&self.user, &i64::try_from(SERVICES_MAX).unwrap_or(i64::MAX)],
            )
            .await?;
        let mut posters = Posters::default();
        for row in rows {
            let entries: i64 = row.try_get("entries")?;
            match (row.try_get::<_, Option<String>>("service")?, row.try_get("is_other")?) {
                (Some(service), _) => posters.services.push((service, entries)),
                (None, true) => posters.others = (row.try_get("posters")?, entries),
                (None, false) => posters.by_users = entries,
            }
        }
        Ok(posters)
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
        chained: row.try_get("chained")?,
        has_wallet: row.try_get("has_wallet")?,
        stored_balance: row.try_get("stored")?,
        computed_balance: row.try_get("recounted")?,
        sequence: difference(row, "place")?,
        balance: difference(row, "balance")?,
        negative: row.try_get("negative")?,
        time: row.try_get("time")?,
        held: difference(row, "held")?,
        chain: row.try_get("chain")?,
        texts: row.try_get("texts")?,
        origin: row.try_get("origin")?,
        transfer: row.try_get("transfer")?,
        closed: row.try_get("closed")?,
        open_holds: row.try_get("open_holds")?,
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
