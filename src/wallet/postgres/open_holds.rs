//! Lists the open holds of all wallets for operators.

use tokio_postgres::{Portal, Row, Transaction};

use crate::infra::postgres::{Connector, DbError, Session};
use crate::kernel::{EntryId, Timestamp, UserId};

/// Shown in `pg_stat_activity`.
const APPLICATION_NAME: &str = "purse ledger holds";
/// Bounds the memory of this process.
const HOLDS_PER_FETCH: i32 = 1_000;

pub struct PgOpenHolds {
    session: Session,
}

/// An open hold, or one whose time is over although the ledger has no entry that ends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenHold {
    pub user_id: UserId,
    pub id: EntryId,
    /// In cents, as placed.
    pub amount: i64,
    /// In cents, still held.
    pub remaining: i64,
    pub captures: i32,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    /// Since it should have ended; 0 before.
    pub overdue_s: i64,
    /// The service that placed it; `None`: the user.
    pub posted_by: Option<String>,
}

impl PgOpenHolds {
    /// The runtime user may read all tables.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn connect(connector: &Connector) -> Result<Self, DbError> {
        Ok(Self { session: Session::open(connector, APPLICATION_NAME).await? })
    }

    /// Those of `user`, or of all users; those that end first come first.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn begin(&mut self, user: Option<UserId>, overdue_only: bool) -> Result<OpenHoldCursor<'_>, DbError> {
        let user = user.map(UserId::as_uuid);
        let tx = self.session.snapshot().await?;
        let list = tx
            .prepare(
                "-- wallet.holds.list ($1 user or null, $2 overdue only)
                 SELECT open.user_id, open.id, hold.amount_minor, open.left_minor, open.acts, hold.created_at, open.expires_at,
                        hold.posted_by,
                        greatest(extract(epoch FROM statement_timestamp() - open.expires_at), 0)::bigint AS overdue_s
                 FROM open_holds AS open
                 JOIN transactions AS hold ON hold.user_id = open.user_id AND hold.seq = open.seq
                 WHERE ($1::uuid IS NULL OR open.user_id = $1) AND (NOT $2 OR open.expires_at <= statement_timestamp())
                 ORDER BY open.expires_at, open.user_id, open.seq",
            )
            .await?;
        let portal = tx.bind(&list, &[&user, &overdue_only]).await?;
        Ok(OpenHoldCursor { tx, portal })
    }
}

/// A running list, of which only a part is in memory.
pub struct OpenHoldCursor<'session> {
    tx: Transaction<'session>,
    portal: Portal,
}

impl OpenHoldCursor<'_> {
    /// The next holds; empty after the last.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn next(&self) -> Result<Vec<OpenHold>, DbError> {
        let holds = self.tx.query_portal(&self.portal, HOLDS_PER_FETCH).await?;
        holds.iter().map(read).collect()
    }
}

fn read(row: &Row) -> Result<OpenHold, DbError> {
    Ok(OpenHold {
        user_id: UserId::from_uuid(row.try_get("user_id")?),
        id: EntryId::from_uuid(row.try_get("id")?),
        amount: row.try_get("amount_minor")?,
        remaining: row.try_get("left_minor")?,
        captures: row.try_get("acts")?,
        created_at: row.try_get("created_at")?,
        expires_at: row.try_get("expires_at")?,
        overdue_s: row.try_get("overdue_s")?,
        posted_by: row.try_get("posted_by")?,
    })
}
