//! Lists the open holds of all wallets for operators.

use std::collections::VecDeque;

use tokio_postgres::{Portal, Row, Transaction};

use crate::infra::postgres::{Connector, DbError, Session, ShardStatement, Shards};
use crate::kernel::{EntryId, Timestamp, UserId};

/// Shown in `pg_stat_activity`.
const APPLICATION_NAME: &str = "purse ledger holds";
/// Bounds the memory of this process: as many of each shard.
const HOLDS_PER_FETCH: i32 = 1_000;

static LIST: ShardStatement = ShardStatement::new(
    "-- wallet.holds.list ($1 user or null, $2 overdue only)
    SELECT open.user_id, open.id, hold.amount_minor, open.left_minor, open.acts, hold.created_at, open.expires_at,
           hold.posted_by,
           greatest(extract(epoch FROM statement_timestamp() - open.expires_at), 0)::bigint AS overdue_s
    FROM shard.open_holds AS open
    JOIN shard.transactions AS hold ON hold.user_id = open.user_id AND hold.seq = open.seq
    WHERE ($1::uuid IS NULL OR open.user_id = $1) AND (NOT $2 OR open.expires_at <= statement_timestamp())
    ORDER BY open.expires_at, open.user_id, open.seq",
);

pub struct PgOpenHolds {
    session: Session,
    shards: Shards,
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
        let session = Session::open_sharded(connector, APPLICATION_NAME).await?;
        Ok(Self { session, shards: connector.shards() })
    }

    /// Those of `user`, or of all users; those that end first come first.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn begin(&mut self, user: Option<UserId>, overdue_only: bool) -> Result<OpenHoldCursor<'_>, DbError> {
        let shards = self.shards.to_read(user);
        let user = user.map(UserId::as_uuid);
        let tx = self.session.snapshot().await?;
        let mut lists = Vec::new();
        for shard in shards {
            let list = tx.prepare(LIST.of(shard)).await?;
            let portal = tx.bind(&list, &[&user, &overdue_only]).await?;
            lists.push(List { portal, fetched: VecDeque::new(), is_at_end: false });
        }
        Ok(OpenHoldCursor { tx, lists })
    }
}

/// Running lists, one per shard, of which only a part is in memory.
pub struct OpenHoldCursor<'session> {
    tx: Transaction<'session>,
    lists: Vec<List>,
}

struct List {
    portal: Portal,
    fetched: VecDeque<OpenHold>,
    is_at_end: bool,
}

impl List {
    async fn fetch(&mut self, tx: &Transaction<'_>) -> Result<(), DbError> {
        if self.fetched.is_empty() && !self.is_at_end {
            let holds = tx.query_portal(&self.portal, HOLDS_PER_FETCH).await?;
            self.is_at_end = holds.is_empty();
            self.fetched = holds.iter().map(read).collect::<Result<_, _>>()?;
        }
        Ok(())
    }
}

impl OpenHoldCursor<'_> {
    /// The hold that ends first of those that are left; `None` after the last.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn next(&mut self) -> Result<Option<OpenHold>, DbError> {
        for list in &mut self.lists {
            list.fetch(&self.tx).await?;
        }
        let next = |list: &&mut List| list.fetched.front().map(|hold| (hold.expires_at, hold.user_id));
        let first = self.lists.iter_mut().filter(|list| !list.fetched.is_empty()).min_by_key(next);
        Ok(first.and_then(|list| list.fetched.pop_front()))
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
