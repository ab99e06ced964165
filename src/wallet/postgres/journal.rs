//! Writes batches of posts: each in one database transaction, in two round trips whatever its size. A third one reads what used
//! idempotency keys have posted.
//!
//! The order of the statements is critical. One statement locks the wallets; only the next one, whose snapshot is taken
//! after the locks (READ COMMITTED), reads the last entries and the used keys. A lock in the same statement, or a
//! snapshot from before it, loses money. Statements of one round trip are pipelined, and the server still executes them
//! one after the other.
//!
//! The wallets of a batch are those of one shard, and of the shards to which it transfers. It then has each statement once per shard,
//! in the same two round trips and in one transaction: all locks first, then all reads.

use std::collections::hash_map::Entry as MapEntry;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::future::{Future, poll_fn};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Poll;

use async_trait::async_trait;
use futures_util::future::maybe_done;
use tokio::join;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::infra::postgres::{BEGIN, Client, DbError, Shard, ShardStatement, Shards, begin, find_out};
use crate::infra::system::System;
use crate::kernel::{EntryId, IdSource as _, IdempotencyKey, ServiceName, Timestamp, UserId, fault};
use crate::wallet::application::ports::{Journal, JournalError, LockWait, OnExecuted};
use crate::wallet::domain::{
    Act, AmountMinor, Balance, DecidedBatch, Decision, Draft, DueHold, Entry, EntryHash, EntryKind, Hold, HoldStatus,
    KeyOwner, LedgerHead, NamedEntry, NewEntry, OneOrMore, Origin, Posting, RequestDigest, SaltedTexts, UsedKey,
    WalletState, WalletStates, captured_after, decide_batch,
};
use crate::wallet::postgres::multi_insert::{Common, MultiInsert, Parameter};
use crate::wallet::postgres::rows;
use crate::wallet::postgres::sharded_database::ShardedDatabase;

const STEP: &str = "wallet.ledger.post";

pub struct PgJournal {
    database: ShardedDatabase,
}

/// How far a batch came.
#[derive(Default)]
struct Progress {
    /// What was decided, if the commit succeeds; set just before the commit is sent.
    sent: OnceLock<Vec<Decision>>,
    /// The shards of the statements that the server has not executed yet, in their order.
    awaited: Mutex<VecDeque<Shard>>,
    executed: OnExecuted,
}

impl Progress {
    fn awaited(&self) -> MutexGuard<'_, VecDeque<Shard>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Statements in these shards are sent, and nothing else before they are executed.
    fn awaits(&self, shards: impl IntoIterator<Item = Shard>) {
        *self.awaited() = shards.into_iter().collect();
    }

    /// The first statement that is awaited has been executed, or has failed, and with it those that follow.
    fn note<T, E>(&self, result: &Result<T, E>) {
        if result.is_ok() {
            self.awaited().pop_front();
        }
    }

    /// The shard of the statement that failed or got no response.
    fn stopped_in(&self) -> Option<Shard> {
        self.awaited().front().copied()
    }
}

impl PgJournal {
    /// `database` is a pool of its own, so that reads never delay the writer.
    pub const fn new(database: ShardedDatabase) -> Self {
        Self { database }
    }

    /// The error of a batch of which nothing was written. One that waits for rows says nothing about their shard; for another, a lock
    /// is that of a table.
    fn not_done(&self, postings: &[Posting], lock_wait: LockWait, error: DbError, progress: &Progress) -> JournalError {
        let breakers = &self.database.breakers;
        let is_locked = error.is_lock_timeout();
        let is_of_shard = lock_wait == LockWait::SkipLocked && (error.is_out_of_reach() || is_locked);
        let failed = progress.stopped_in().filter(|_| is_of_shard);
        match failed {
            Some(shard) if error.is_time_limit() => breakers.trip_server_of(shard),
            Some(shard) if is_locked => breakers.trip(shard),
            Some(_) | None => {}
        }
        match breakers.needing_them(postings, failed) {
            Some(needs_it) => JournalError::PartNotDone { source: error.at(STEP), needs_it },
            None => JournalError::NotDone(error.at(STEP)),
        }
    }

    /// Whether a commit succeeded whose response was lost.
    async fn find_out(&self, decisions: &[Decision], postings: &[Posting]) -> Result<bool, DbError> {
        let ids = || decisions.iter().zip(postings);
        let posted = ids().find_map(|(decision, posting)| match decision {
            Decision::Post(entries) => Some((posting.user_id, entries.first().id)),
            _ => None,
        });
        // A replay writes nothing, but its entry may exist on this server alone: the commit would have waited for a standby.
        let replayed = ids().find_map(|(decision, posting)| match decision {
            Decision::Replay(entries) => Some((posting.user_id, entries.first().id)),
            _ => None,
        });
        // Without entries, it does not matter.
        let Some((user, id)) = posted.or(replayed) else { return Ok(true) };
        find_out(|| self.look_up(user, id)).await
    }

    /// Looks for one entry of the batch on another connection, under the lock of the wallet. A backend that is still
    /// committing holds that lock, so an absent entry proves that the commit failed.
    async fn look_up(&self, user: UserId, id: EntryId) -> Result<bool, DbError> {
        let shard = self.database.shard_of(user);
        let there = self.database.run(move |client| {
            Box::pin(async move {
                let tx = begin(client).await?;
                tx.query(LOCK_TO_FIND_OUT.of(shard), &[&user.as_uuid()]).await?;
                let found = tx.query_opt(FIND_OUT.of(shard), &[&user.as_uuid(), &id.as_uuid()]).await?;
                // Not a rollback: the commit waits for a synchronous standby, as the commit in doubt should have.
                tx.commit().await?;
                Ok(found.is_some())
            })
        });
        there.await
    }
}

#[async_trait]
impl Journal for PgJournal {
    async fn commit(
        &self,
        postings: &[Posting],
        lock_wait: LockWait,
        executed: &OnExecuted,
    ) -> Result<Vec<Decision>, JournalError> {
        if let Some(needs_it) = self.database.breakers.needing_them(postings, None) {
            return Err(JournalError::PartNotDone { source: DbError::OutOfReach.at(STEP), needs_it });
        }
        let (batch, shards) = (postings.to_vec(), self.database.shards());
        let progress = Arc::new(Progress { executed: executed.clone(), ..Progress::default() });
        let of_run = Arc::clone(&progress);
        let committed = self.database.run(move |client| {
            Box::pin(async move {
                let written = write(client, shards, &batch, lock_wait, &of_run).await;
                // For the next user of the connection, if it still works. One that is closed now may not respond.
                if written.as_ref().is_err_and(|e| !e.is_time_limit()) {
                    let _ = client.batch_execute("ROLLBACK").await;
                }
                written
            })
        });
        let committed = committed.await;
        match (committed, progress.sent.get()) {
            (Ok(()), Some(decisions)) => Ok(decisions.clone()),
            // Nothing is written before the commit is sent, nor after an insert that the server rejected.
            (Err(e), None) => Err(self.not_done(postings, lock_wait, e, &progress)),
            (Err(e), Some(_)) if e.is_definite() => Err(self.not_done(postings, lock_wait, e, &progress)),
            (Err(e), Some(decisions)) => match self.find_out(decisions, postings).await {
                Ok(true) => Ok(decisions.clone()),
                Ok(false) => Err(self.not_done(postings, lock_wait, e, &progress)),
                Err(unreachable) => Err(JournalError::Unknown(unreachable.at(STEP))),
            },
            (Ok(()), None) => Err(JournalError::NotDone(DbError::Corrupt("commit without decisions").at(STEP))),
        }
    }
}

/// Begins, locks, reads; decides; inserts, commits.
async fn write(
    client: &Client,
    shards: Shards,
    postings: &[Posting],
    lock_wait: LockWait,
    progress: &Progress,
) -> Result<(), DbError> {
    fault::point("ledger.begun");
    let (mut wallets, now) = read_locked(client, shards, postings, lock_wait, progress).await?;
    fault::point("ledger.locked");
    let DecidedBatch { entries, decisions } =
        decide_batch(&mut wallets, postings, now.unwrap_or(Timestamp::UNIX_EPOCH));
    progress.sent.get_or_init(|| decisions);
    fault::point("ledger.decided");
    insert_and_commit(client, shards, &entries, progress).await?;
    fault::point("ledger.committed");
    Ok(())
}

/// The columns of an entry, in the order of [`EntryColumns::parameters`]. Those that fewer entries need come later.
const ENTRY_COLUMNS: [&str; 20] = [
    "user_id",
    "seq",
    "id",
    "type",
    "amount_minor",
    "balance_after_minor",
    "idempotency_key",
    "request_digest",
    "texts_digest",
    "hash",
    "group_size",
    "created_at",
    "held_after_minor",
    "posted_by",
    "origin_seq",
    "origin_nth",
    "origin_left_minor",
    "transfer_id",
    "counterparty_user_id",
    "expires_at",
];

/// How many of them a credit or debit needs that has the time of its batch and holds nothing.
const OF_PLAIN_ENTRY: usize = 10;
/// The same with the size of its group.
const OF_GROUP: usize = 11;

/// By the number of columns. Each parameter costs time, also if it is null, so the first two have fewer. All rows of a batch have
/// the columns that one of them needs.
static INSERT_ENTRIES: LazyLock<[(usize, MultiInsert); 3]> = LazyLock::new(|| {
    [OF_PLAIN_ENTRY, OF_GROUP, ENTRY_COLUMNS.len()].map(|width| {
        let columns: Vec<_> = ENTRY_COLUMNS.into_iter().take(width).collect();
        let fixed = [("created_at", "$1"), ("held_after_minor", "0")];
        let of_batch = Common { parameters: 1, columns: &fixed, end: "" };
        let common = if width == ENTRY_COLUMNS.len() { Common::default() } else { of_batch };
        (width, MultiInsert::new("wallet.ledger.insert", "shard.transactions", &columns, common))
    })
});

/// The narrowest one with so many columns.
fn insert_entries(needed: usize) -> &'static (usize, MultiInsert) {
    let [narrower @ .., all] = &*INSERT_ENTRIES;
    narrower.iter().find(|(width, _)| *width >= needed).unwrap_or(all)
}

static INSERT_TEXTS: LazyLock<MultiInsert> = LazyLock::new(|| {
    let columns = ["user_id", "seq", "salt", "description", "reference", "metadata"];
    MultiInsert::new("wallet.ledger.insert_texts", "shard.entry_texts", &columns, Common::default())
});

static INSERT_OPEN_HOLDS: LazyLock<MultiInsert> = LazyLock::new(|| {
    let columns = ["user_id", "seq", "id", "left_minor", "expires_at"];
    MultiInsert::new("wallet.ledger.insert_open_holds", "shard.open_holds", &columns, Common::default())
});

/// The row is found by an order that only the right index has, because a statement that changes rows has none. Nobody else
/// changes it: the wallet is locked.
static CAPTURE_OPEN_HOLD: ShardStatement = ShardStatement::new(
    "-- wallet.ledger.capture_open_hold ($1 user, $2 seq, $3 left, $4 acts)
    UPDATE shard.open_holds SET left_minor = $3, acts = $4
    WHERE user_id = $1
      AND ctid = (SELECT ctid FROM shard.open_holds WHERE user_id = $1 AND seq BETWEEN $2 AND $2 ORDER BY seq LIMIT 1)",
);

/// Of all holds that a batch closes: many end at once when they are due.
static CLOSE_OPEN_HOLDS: ShardStatement = ShardStatement::new(
    "-- wallet.ledger.close_open_holds ($1 users, $2 seqs)
    DELETE FROM shard.open_holds WHERE ctid = ANY(ARRAY(
        SELECT place.tid FROM unnest($1::uuid[], $2::bigint[]) AS closed (user_id, seq)
        CROSS JOIN LATERAL (
            SELECT ctid AS tid FROM shard.open_holds
            WHERE open_holds.user_id = closed.user_id AND open_holds.seq BETWEEN closed.seq AND closed.seq
            ORDER BY open_holds.seq LIMIT 1
        ) AS place
    ))",
);

static LOCK_TO_FIND_OUT: ShardStatement = ShardStatement::new(
    "-- wallet.ledger.find_out.lock ($1 user)
    SELECT FROM shard.wallets WHERE user_id = $1 FOR UPDATE",
);

static FIND_OUT: ShardStatement = ShardStatement::new(
    "-- wallet.ledger.find_out ($1 user, $2 entry)
    SELECT seq FROM shard.transactions WHERE user_id = $1 AND id BETWEEN $2 AND $2 ORDER BY id LIMIT 1",
);

static LOCK_ONE: ShardStatement = ShardStatement::new(
    "-- wallet.ledger.lock_one ($1 user)
    SELECT user_id FROM shard.wallets WHERE user_id = $1 FOR UPDATE",
);

static LOCK_FREE: ShardStatement = ShardStatement::new(
    "-- wallet.ledger.lock_free ($1 users)
    SELECT user_id FROM shard.wallets WHERE user_id = ANY($1) ORDER BY user_id FOR UPDATE SKIP LOCKED",
);

static LOCK_ALL: ShardStatement = ShardStatement::new(
    "-- wallet.ledger.lock ($1 users)
    SELECT user_id FROM shard.wallets WHERE user_id = ANY($1) ORDER BY user_id FOR UPDATE",
);

/// The statements that lock the wallet that is waited for, before any other, and the others.
fn locks(lock_wait: LockWait) -> (&'static ShardStatement, &'static ShardStatement) {
    if fault::disabled("ledger.row_lock") {
        return (&UNLOCKED_ONE, &UNLOCKED);
    }
    match lock_wait {
        LockWait::SkipLocked | LockWait::WaitForOne(_) => (&LOCK_ONE, &LOCK_FREE),
        LockWait::WaitForAll => (&LOCK_ONE, &LOCK_ALL),
    }
}

static UNLOCKED_ONE: ShardStatement = ShardStatement::new("SELECT user_id FROM shard.wallets WHERE user_id = $1");

static UNLOCKED: ShardStatement = ShardStatement::new("SELECT user_id FROM shard.wallets WHERE user_id = ANY($1)");

/// The last entries, and with each of them the holds that are due, at most 100 per wallet: a wallet that holds nothing costs
/// nothing more. The time of a hold is compared together with its user, which only the index over the holds of one user can do:
/// the one over the due holds of all wallets looks better while there are few. The time is that at which the server began this
/// statement, which is after the locks. All entries of a batch share it.
static HEADS: ShardStatement = ShardStatement::new(
    "-- wallet.ledger.heads ($1 users)
    SELECT wallet.user_id, last.seq, last.id, last.type, last.balance_after_minor, last.held_after_minor, last.created_at,
           last.hash, statement_timestamp() AS now, due.seq AS due_seq, due.id AS due_id, due.left_minor AS due_left,
           due.acts AS due_acts
    FROM unnest($1::uuid[]) AS wallet (user_id)
    LEFT JOIN LATERAL (
        SELECT seq, id, type, balance_after_minor, held_after_minor, created_at, hash FROM shard.transactions
        WHERE transactions.user_id = wallet.user_id ORDER BY seq DESC LIMIT 1
    ) AS last ON true
    LEFT JOIN LATERAL (
        SELECT seq, id, left_minor, acts FROM shard.open_holds
        WHERE last.held_after_minor > 0 AND open_holds.user_id = wallet.user_id
          AND (open_holds.user_id, open_holds.expires_at) <= (wallet.user_id, statement_timestamp())
        ORDER BY open_holds.expires_at LIMIT 100
    ) AS due ON true",
);

/// Where the entries of a used key are. The order of each look-up is one that only the right index has: while the table is empty,
/// every index that begins with `user_id` costs the same, and the plan made then is kept.
static USED_KEYS: ShardStatement = ShardStatement::new(
    "-- wallet.ledger.used_keys ($1 users, $2 keys)
    SELECT requested.user_id, NULL::text AS service, requested.key, first.seq, first.size, first.request_digest
    FROM unnest($1::uuid[], $2::text[]) AS requested (user_id, key)
    CROSS JOIN LATERAL (
        SELECT seq, coalesce(group_size, 1) AS size, request_digest FROM shard.transactions
        WHERE transactions.user_id = requested.user_id
          AND transactions.idempotency_key BETWEEN requested.key AND requested.key AND posted_by IS NULL
        ORDER BY idempotency_key LIMIT 1
    ) AS first",
);

/// The same for keys of services.
static SERVICE_KEYS: ShardStatement = ShardStatement::new(
    "-- wallet.ledger.service_keys ($1 users, $2 services, $3 keys)
    SELECT requested.user_id, requested.service, requested.key, first.seq, first.size, first.request_digest
    FROM unnest($1::uuid[], $2::text[], $3::text[]) AS requested (user_id, service, key)
    CROSS JOIN LATERAL (
        SELECT seq, coalesce(group_size, 1) AS size, request_digest FROM shard.transactions
        WHERE transactions.user_id = requested.user_id
          AND transactions.posted_by BETWEEN requested.service AND requested.service
          AND transactions.idempotency_key BETWEEN requested.key AND requested.key
        ORDER BY posted_by, idempotency_key LIMIT 1
    ) AS first",
);

/// The entries of used keys. Of an act on a hold, what it left of the hold comes along, as it was then. A statement of its own,
/// because keys are seldom used, and starting it costs more than looking for a key.
static REPLAYED: LazyLock<ShardStatement> = LazyLock::new(|| {
    ShardStatement::composed(format!(
        "-- wallet.ledger.replayed ($1 users, $2 first sequence numbers, $3 sizes)
         SELECT requested.user_id, requested.seq AS first_seq, {columns}, held.*
         FROM unnest($1::uuid[], $2::bigint[], $3::integer[]) AS requested (user_id, seq, size)
         CROSS JOIN LATERAL (
             SELECT {of_transactions} FROM shard.transactions
             WHERE transactions.user_id = requested.user_id
               AND transactions.seq BETWEEN requested.seq AND requested.seq + requested.size - 1
             ORDER BY seq LIMIT 100
         ) AS entry
         {joins}
         LEFT JOIN LATERAL (
             SELECT hold.amount_minor AS hold_amount, hold.expires_at AS hold_expires_at, hold.created_at AS hold_created_at,
                    hold.posted_by AS hold_posted_by, coalesce(before.origin_left_minor, hold.amount_minor) AS hold_left_before,
                    texts.description AS hold_description, texts.reference AS hold_reference, texts.metadata AS hold_metadata
             FROM (
                 SELECT seq, amount_minor, expires_at, created_at, posted_by, texts_digest FROM shard.transactions
                 WHERE entry.origin_seq IS NOT NULL AND origin.type = 'hold' AND transactions.user_id = requested.user_id
                   AND transactions.seq BETWEEN entry.origin_seq AND entry.origin_seq
                 ORDER BY transactions.seq LIMIT 1
             ) AS hold
             LEFT JOIN LATERAL (
                 SELECT origin_left_minor FROM shard.transactions
                 WHERE transactions.user_id = requested.user_id AND transactions.origin_seq = entry.origin_seq
                   AND transactions.origin_nth < entry.origin_nth
                 ORDER BY origin_nth DESC LIMIT 1
             ) AS before ON true
             LEFT JOIN LATERAL (
                 SELECT description, reference, metadata FROM shard.entry_texts
                 WHERE hold.texts_digest IS NOT NULL AND entry_texts.user_id = requested.user_id
                   AND entry_texts.seq BETWEEN hold.seq AND hold.seq
                 ORDER BY entry_texts.seq LIMIT 1
             ) AS texts ON true
         ) AS held ON true",
        columns = rows::ENTRY,
        of_transactions = rows::ENTRY_COLUMNS,
        joins = rows::ENTRY_JOINS,
    ))
});

/// What captures, voids and reversals name, with the last act on it.
static NAMED: LazyLock<ShardStatement> = LazyLock::new(|| {
    named_entries(
        "wallet.ledger.named ($1 users, $2 entries)",
        "transactions.id BETWEEN requested.id AND requested.id AND type <> 'close' ORDER BY transactions.id LIMIT 1",
    )
});

/// The sender's legs of transfers that are sent back.
static SENT: LazyLock<ShardStatement> = LazyLock::new(|| {
    named_entries(
        "wallet.ledger.sent ($1 senders, $2 transfers)",
        "transactions.transfer_id BETWEEN requested.id AND requested.id ORDER BY transfer_id LIMIT 1",
    )
});

fn named_entries(name: &str, which: &str) -> ShardStatement {
    ShardStatement::composed(format!(
        "-- {name}
         SELECT requested.user_id, requested.id AS requested_id, {columns}, last.type AS last_type, last.origin_nth AS last_nth,
                last.origin_left_minor AS last_left
         FROM unnest($1::uuid[], $2::uuid[]) AS requested (user_id, id)
         CROSS JOIN LATERAL (
             SELECT {of_transactions} FROM shard.transactions WHERE transactions.user_id = requested.user_id AND {which}
         ) AS entry
         {joins}
         LEFT JOIN LATERAL (
             SELECT type, origin_nth, origin_left_minor FROM shard.transactions
             WHERE transactions.user_id = requested.user_id AND transactions.origin_seq = entry.seq
             ORDER BY origin_nth DESC LIMIT 1
         ) AS last ON true",
        columns = rows::ENTRY,
        of_transactions = rows::ENTRY_COLUMNS,
        joins = rows::ENTRY_JOINS,
    ))
}

/// What a batch asks of one shard.
struct Requests<'p> {
    shard: Shard,
    /// In the order in which they are locked.
    users: Vec<Uuid>,
    /// The wallet that is waited for, and the others.
    waited_for: Option<Uuid>,
    others: Vec<Uuid>,
    /// Users and what is asked of their wallets, in columns.
    keys: (Vec<Uuid>, Vec<&'p str>),
    service_keys: (Vec<Uuid>, Vec<&'p str>, Vec<&'p str>),
    named: (Vec<Uuid>, Vec<Uuid>),
    sent: (Vec<Uuid>, Vec<Uuid>),
}

impl<'p> Requests<'p> {
    /// Of each shard, in the order in which they are locked.
    fn of(shards: Shards, postings: &'p [Posting], lock_wait: LockWait) -> Vec<Self> {
        let users = requested(postings.iter().flat_map(Posting::wallets), |user| Some(user.as_uuid()));
        let keys = requested(postings, |posting| match posting.posted_by {
            None => Some((posting.user_id.as_uuid(), posting.request.as_ref()?.key.as_str())),
            Some(_) => None,
        });
        let service_keys = requested(postings, |posting| {
            let service = posting.posted_by.as_ref()?;
            Some((posting.user_id.as_uuid(), service.as_str(), posting.request.as_ref()?.key.as_str()))
        });
        let named = requested(drafts(postings), |(user, draft)| Some((user, draft.act.named_entry()?.as_uuid())));
        let sent = requested(drafts(postings), |(_, draft)| match draft.act {
            Act::Reverse { back: Some(back), .. } => Some((back.sender.as_uuid(), back.transfer.as_uuid())),
            _ => None,
        });
        let waited_for = match lock_wait {
            LockWait::WaitForOne(wallet) => Some(wallet.as_uuid()),
            LockWait::SkipLocked | LockWait::WaitForAll => None,
        };
        let touched = Touched::of(shards, users.iter().copied());
        let of_shard = |shard: Shard| {
            let users: Vec<Uuid> = users.iter().copied().filter(|user| touched.is_of(*user, shard)).collect();
            let waited_for = waited_for.filter(|wallet| users.binary_search(wallet).is_ok());
            Self {
                shard,
                others: users.iter().copied().filter(|user| Some(*user) != waited_for).collect(),
                waited_for,
                users,
                keys: keys.iter().copied().filter(|(user, _)| touched.is_of(*user, shard)).collect(),
                service_keys: service_keys.iter().copied().filter(|(user, ..)| touched.is_of(*user, shard)).collect(),
                named: named.iter().copied().filter(|(user, _)| touched.is_of(*user, shard)).collect(),
                sent: sent.iter().copied().filter(|(user, _)| touched.is_of(*user, shard)).collect(),
            }
        };
        touched.shards.iter().map(|shard| of_shard(*shard)).collect()
    }

    /// The locks of all shards come before the first read.
    fn locks(&self, lock_wait: LockWait) -> impl Iterator<Item = Read<'_>> {
        let (lock_one, lock) = locks(lock_wait);
        let one = self.waited_for.as_ref().map(|user| self.read(Asked::Lock, lock_one, vec![user]));
        let others = (!self.others.is_empty()).then(|| self.read(Asked::Lock, lock, vec![&self.others]));
        one.into_iter().chain(others)
    }

    fn reads(&self) -> impl Iterator<Item = Read<'_>> {
        let (keys, service_keys) = (&self.keys, &self.service_keys);
        [
            Some(self.read(Asked::Heads, &HEADS, vec![&self.users])),
            (!keys.0.is_empty()).then(|| self.read(Asked::Keys, &USED_KEYS, vec![&keys.0, &keys.1])),
            (!service_keys.0.is_empty()).then(|| {
                self.read(Asked::Keys, &SERVICE_KEYS, vec![&service_keys.0, &service_keys.1, &service_keys.2])
            }),
            (!self.named.0.is_empty()).then(|| self.read(Asked::Named, &NAMED, vec![&self.named.0, &self.named.1])),
            (!self.sent.0.is_empty()).then(|| self.read(Asked::Sent, &SENT, vec![&self.sent.0, &self.sent.1])),
        ]
        .into_iter()
        .flatten()
    }

    fn read<'r>(&self, asked: Asked, statement: &'static ShardStatement, parameters: Vec<Parameter<'r>>) -> Read<'r> {
        Read { asked, shard: self.shard, text: statement.of(self.shard), parameters }
    }
}

/// The shards of some wallets.
struct Touched {
    all: Shards,
    /// In ascending order, each once.
    shards: Vec<Shard>,
}

impl Touched {
    fn of(all: Shards, users: impl IntoIterator<Item = Uuid>) -> Self {
        Self { all, shards: requested(users, |user| Some(all.of(UserId::from_uuid(user)))) }
    }

    /// Whether this wallet, one of those, is in `shard`.
    fn is_of(&self, user: Uuid, shard: Shard) -> bool {
        self.shards.len() == 1 || self.all.of(UserId::from_uuid(user)) == shard
    }
}

/// What the rows of a [`Read`] are.
#[derive(Clone, Copy)]
enum Asked {
    Lock,
    Heads,
    Keys,
    Named,
    Sent,
}

/// A statement of the first round trip.
struct Read<'r> {
    asked: Asked,
    shard: Shard,
    text: &'static str,
    parameters: Vec<Parameter<'r>>,
}

/// Locks the wallets of the batch and reads, in the same round trip, their last entries, what the batch names, and the time of
/// the database. A wallet that the batch waits for is locked first, so that it waits while it holds no other; or each of them
/// is waited for in the order of the shards and keys. A batch that waits for none begins in the shard of its users: if that does not
/// respond, nothing is locked in another.
async fn read_locked(
    client: &Client,
    shards: Shards,
    postings: &[Posting],
    lock_wait: LockWait,
    progress: &Progress,
) -> Result<(WalletStates, Option<Timestamp>), DbError> {
    let mut requests = Requests::of(shards, postings, lock_wait);
    let is_first = |requests: &Requests<'_>| match lock_wait {
        LockWait::SkipLocked => postings.first().is_some_and(|posting| shards.of(posting.user_id) == requests.shard),
        LockWait::WaitForOne(_) => requests.waited_for.is_some(),
        LockWait::WaitForAll => false,
    };
    requests.sort_by_key(|requests| !is_first(requests));
    let reads = requests.iter().flat_map(|requests| requests.locks(lock_wait));
    let reads: Vec<_> = reads.chain(requests.iter().flat_map(Requests::reads)).collect();
    // All are prepared before the first is sent: preparing is a round trip of its own.
    let mut statements = Vec::with_capacity(reads.len());
    for read in &reads {
        statements.push(client.prepare_cached(read.text).await?);
    }
    // The driver sends each statement when it is first polled, so they reach the server in this order.
    let found = statements.iter().zip(&reads).map(async |(statement, read)| {
        let rows = client.query(statement, &read.parameters).await;
        progress.note(&rows);
        rows
    });
    let begun = async {
        client.batch_execute(BEGIN).await?;
        progress.awaits(reads.iter().map(|read| read.shard));
        Ok::<_, DbError>(())
    };
    let (begun, found) = join!(biased; begun, all_in_order(found));
    begun?;
    let mut locked = HashSet::new();
    let (mut heads, mut used, mut named, mut sent) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (read, rows) in reads.iter().zip(found) {
        let rows = rows?;
        match read.asked {
            Asked::Lock => {
                for row in &rows {
                    locked.insert(row.try_get::<_, Uuid>("user_id")?);
                }
            }
            Asked::Heads => heads.extend(rows),
            Asked::Keys => used.extend(rows.iter().map(FoundKey::of).collect::<Result<Vec<_>, _>>()?),
            Asked::Named => named.extend(rows),
            Asked::Sent => sent.extend(rows),
        }
    }
    let (mut wallets, now) = states(&locked, &heads)?;
    add_used_keys(client, shards, &mut wallets, used, progress).await?;
    for row in named {
        if let Some(wallet) = wallets.get_mut(&UserId::from_uuid(row.try_get("user_id")?)) {
            wallet.named.insert(EntryId::from_uuid(row.try_get("requested_id")?), named_entry(&row)?);
        }
    }
    for row in sent {
        if let Some(wallet) = wallets.get_mut(&UserId::from_uuid(row.try_get("user_id")?)) {
            wallet.sent.insert(EntryId::from_uuid(row.try_get("requested_id")?), named_entry(&row)?);
        }
    }
    Ok((wallets, now))
}

fn drafts(postings: &[Posting]) -> impl Iterator<Item = (Uuid, &Draft)> {
    postings.iter().flat_map(|posting| posting.drafts.iter().map(|draft| (posting.user_id.as_uuid(), draft)))
}

/// What a batch asks for, once each: what two of its postings ask for would be returned twice.
fn requested<T, R: Ord>(from: impl IntoIterator<Item = T>, what: impl FnMut(T) -> Option<R>) -> Vec<R> {
    let mut requested: Vec<R> = from.into_iter().filter_map(what).collect();
    requested.sort_unstable();
    requested.dedup();
    requested
}

/// The states of the wallets in `locked`. Rows of others were read without a lock and are ignored. The time is that of the last
/// statement, which comes after every lock also where shards have clocks of their own. A hold that falls due between two of the
/// statements ends with the next batch.
fn states(locked: &HashSet<Uuid>, heads: &[Row]) -> Result<(WalletStates, Option<Timestamp>), DbError> {
    let mut wallets = WalletStates::with_capacity(locked.len());
    let mut now = None;
    for row in heads {
        let user: Uuid = row.try_get("user_id")?;
        if !locked.contains(&user) {
            continue;
        }
        let user = UserId::from_uuid(user);
        now = Some(row.try_get("now")?).max(now);
        let due = due_hold(row)?;
        // A wallet has a row per hold that is due.
        match wallets.entry(user) {
            MapEntry::Occupied(mut wallet) => wallet.get_mut().due.extend(due),
            MapEntry::Vacant(wallet) => wallet.insert(WalletState::new(head(user, row)?)).due.extend(due),
        }
    }
    Ok((wallets, now))
}

fn due_hold(row: &Row) -> Result<Option<DueHold>, DbError> {
    let Some(seq) = row.try_get("due_seq")? else { return Ok(None) };
    let left = AmountMinor::try_new(row.try_get("due_left")?).map_err(|_| DbError::Corrupt("open_holds.left_minor"))?;
    let id = EntryId::from_uuid(row.try_get("due_id")?);
    Ok(Some(DueHold { seq, id, left, acts: row.try_get("due_acts")?, expiry: EntryId::from_uuid(System.next_id()) }))
}

/// A used key, and where its entries are.
struct FoundKey {
    user: Uuid,
    owner: KeyOwner,
    seq: i64,
    size: i32,
    digest: Option<RequestDigest>,
}

impl FoundKey {
    fn of(row: &Row) -> Result<Self, DbError> {
        let digest = match row.try_get::<_, Option<&[u8]>>("request_digest")? {
            None => None,
            Some(bytes) => {
                Some(RequestDigest::from_stored(bytes).ok_or(DbError::Corrupt("transactions.request_digest"))?)
            }
        };
        let service = row.try_get::<_, Option<String>>("service")?.map(ServiceName::from_stored);
        Ok(Self {
            user: row.try_get("user_id")?,
            owner: (service, IdempotencyKey::from_stored(row.try_get("key")?)),
            seq: row.try_get("seq")?,
            size: row.try_get("size")?,
            digest,
        })
    }
}

/// Reads the entries of the keys that were found. Keys of wallets that are not locked are ignored.
async fn add_used_keys(
    client: &Client,
    shards: Shards,
    wallets: &mut WalletStates,
    mut found: Vec<FoundKey>,
    progress: &Progress,
) -> Result<(), DbError> {
    found.retain(|key| wallets.contains_key(&UserId::from_uuid(key.user)));
    if found.is_empty() {
        return Ok(());
    }
    let touched = Touched::of(shards, found.iter().map(|key| key.user));
    let mut entries = HashMap::<(Uuid, i64), Vec<Entry>>::new();
    for shard in &touched.shards {
        let here = || found.iter().filter(|key| touched.is_of(key.user, *shard));
        let users: Vec<Uuid> = here().map(|key| key.user).collect();
        let seqs: Vec<i64> = here().map(|key| key.seq).collect();
        let sizes: Vec<i32> = here().map(|key| key.size).collect();
        let replayed = client.prepare_cached(REPLAYED.of(*shard)).await?;
        progress.awaits([*shard]);
        let rows = client.query(&replayed, &[&users, &seqs, &sizes]).await;
        progress.note(&rows);
        for row in rows? {
            let key = (row.try_get("user_id")?, row.try_get("first_seq")?);
            entries.entry(key).or_default().push(posted_entry(&row)?);
        }
    }
    for FoundKey { user, owner, seq, digest, .. } in found {
        let entries = entries.remove(&(user, seq)).and_then(OneOrMore::collect);
        let entries = entries.ok_or(DbError::Corrupt("transactions.group_size"))?;
        if let Some(wallet) = wallets.get_mut(&UserId::from_uuid(user)) {
            wallet.used_keys.insert(owner, UsedKey { digest, entries });
        }
    }
    Ok(())
}

/// An entry as it was in the response to the request that posted it.
fn posted_entry(row: &Row) -> Result<Entry, DbError> {
    let mut entry = rows::entry(row)?;
    let (kind, amount) = (entry.kind, entry.amount.cents());
    if let Some(acts_on) = entry.acts_on.as_mut().filter(|acts_on| acts_on.kind == EntryKind::Hold) {
        let held = rows::amount(row, "hold_amount")?;
        let captured = captured_after(held, row.try_get("hold_left_before")?, kind, amount);
        let in_range = |cents: Option<Balance>| cents.ok_or(DbError::Corrupt("transactions.origin_left_minor"));
        acts_on.hold = Some(Hold {
            id: acts_on.id,
            status: HoldStatus::after(kind, acts_on.origin.left),
            amount: held,
            captured: in_range(captured)?,
            remaining: in_range(Balance::from_stored(acts_on.origin.left))?,
            expires_at: row.try_get("hold_expires_at")?,
            texts: rows::named_texts(row, ["hold_description", "hold_reference", "hold_metadata"])?,
            created_at: row.try_get("hold_created_at")?,
            posted_by: rows::service(row, "hold_posted_by")?,
        });
    }
    Ok(entry)
}

fn named_entry(row: &Row) -> Result<NamedEntry, DbError> {
    let entry = rows::entry(row)?;
    let Some(acts) = row.try_get("last_nth")? else {
        return Ok(NamedEntry { acts: 0, left: entry.amount.cents(), last_act: None, entry });
    };
    Ok(NamedEntry { acts, left: row.try_get("last_left")?, last_act: Some(rows::kind(row, "last_type")?), entry })
}

fn head(user_id: UserId, row: &Row) -> Result<LedgerHead, DbError> {
    let Some(seq) = row.try_get::<_, Option<i64>>("seq")? else { return Ok(LedgerHead::empty(user_id)) };
    let balance = rows::balance(row, "balance_after_minor")?;
    let held = rows::balance(row, "held_after_minor")?;
    let is_closed = rows::kind(row, "type")? == EntryKind::Close;
    let created_at = row.try_get("created_at")?;
    let hash = match row.try_get::<_, Option<&[u8]>>("hash")? {
        Some(bytes) => EntryHash::from_stored(bytes).ok_or(DbError::Corrupt("transactions.hash"))?,
        None => EntryHash::sealed(user_id, seq, EntryId::from_uuid(row.try_get("id")?), balance, created_at),
    };
    Ok(LedgerHead { user_id, seq, balance, held, is_closed, created_at: Some(created_at), hash })
}

/// The columns of a new entry as parameters have to be: each a value that can be borrowed.
struct EntryColumns<'a> {
    user_id: Uuid,
    id: Uuid,
    kind: &'static str,
    amount: i64,
    balance: i64,
    held: i64,
    key: Option<&'a str>,
    request_digest: Option<&'a [u8]>,
    texts_digest: Option<&'a [u8]>,
    hash: &'a [u8],
    posted_by: Option<&'a str>,
    origin_seq: Option<i64>,
    origin_nth: Option<i32>,
    origin_left: Option<i64>,
    transfer_id: Option<Uuid>,
    counterparty: Option<Uuid>,
    new: &'a NewEntry,
}

impl<'a> EntryColumns<'a> {
    fn of(new: &'a NewEntry) -> Self {
        let (entry, request) = (&new.entry, new.request.as_ref());
        let origin = entry.acts_on.as_ref().map(|acts_on| acts_on.origin);
        Self {
            user_id: new.user_id.as_uuid(),
            id: entry.id.as_uuid(),
            kind: entry.kind.as_str(),
            amount: entry.amount.cents(),
            balance: entry.balance_after.cents(),
            held: entry.held_after.cents(),
            key: request.map(|request| request.key.as_str()),
            request_digest: request.map(|request| &request.digest.as_bytes()[..]),
            texts_digest: new.texts.as_ref().map(|(_, digest)| &digest.as_bytes()[..]),
            hash: new.hash.as_bytes(),
            posted_by: entry.posted_by.as_ref().map(ServiceName::as_str),
            origin_seq: origin.map(|origin| origin.seq),
            origin_nth: origin.map(|origin| origin.nth),
            origin_left: origin.map(|origin| origin.left),
            transfer_id: entry.transfer.map(|leg| leg.transfer.as_uuid()),
            counterparty: entry.transfer.map(|leg| leg.counterparty.as_uuid()),
            new,
        }
    }

    /// How many columns the entry needs. `time` is that of its batch, which it seldom has not: after the clock has gone back.
    fn needed(&self, time: Timestamp) -> usize {
        let is_plain = self.new.entry.created_at == time
            && self.held == 0
            && self.posted_by.is_none()
            && self.origin_seq.is_none()
            && self.transfer_id.is_none()
            && self.new.entry.expires_at.is_none();
        match (is_plain, self.new.group_size) {
            (true, None) => OF_PLAIN_ENTRY,
            (true, Some(_)) => OF_GROUP,
            (false, _) => ENTRY_COLUMNS.len(),
        }
    }

    fn parameters(&self) -> [Parameter<'_>; 20] {
        [
            &self.user_id,
            &self.new.entry.seq,
            &self.id,
            &self.kind,
            &self.amount,
            &self.balance,
            &self.key,
            &self.request_digest,
            &self.texts_digest,
            &self.hash,
            &self.new.group_size,
            &self.new.entry.created_at,
            &self.held,
            &self.posted_by,
            &self.origin_seq,
            &self.origin_nth,
            &self.origin_left,
            &self.transfer_id,
            &self.counterparty,
            &self.new.entry.expires_at,
        ]
    }
}

/// The columns of the texts of a new entry.
struct TextColumns<'a> {
    user_id: Uuid,
    seq: i64,
    salt: &'a [u8],
    parts: [Option<&'a str>; 3],
}

impl<'a> TextColumns<'a> {
    fn of(new: &'a NewEntry, texts: &'a SaltedTexts) -> Self {
        let (user_id, seq) = (new.user_id.as_uuid(), new.entry.seq);
        Self { user_id, seq, salt: texts.salt.as_bytes(), parts: texts.texts.parts() }
    }

    fn parameters(&self) -> [Parameter<'_>; 6] {
        let [description, reference, metadata] = &self.parts;
        [&self.user_id, &self.seq, &self.salt, description, reference, metadata]
    }
}

/// What a batch leaves of a hold in the list of open holds.
enum OpenHold {
    Placed { user_id: Uuid, seq: i64, id: Uuid, left: i64, expires_at: Option<Timestamp> },
    Captured { user_id: Uuid, seq: i64, left: i64, acts: i32 },
    Closed { user_id: Uuid, seq: i64 },
}

impl OpenHold {
    /// The changes of a batch, the last one of each hold. A batch cannot name a hold that it places.
    fn changes(entries: &[NewEntry]) -> Vec<Self> {
        let mut last = BTreeMap::new();
        for NewEntry { user_id, entry, .. } in entries {
            let user_id = user_id.as_uuid();
            if entry.kind == EntryKind::Hold {
                let (id, left, expires_at) = (entry.id.as_uuid(), entry.amount.cents(), entry.expires_at);
                last.insert((user_id, entry.seq), Self::Placed { user_id, seq: entry.seq, id, left, expires_at });
            }
            let Some(acts_on) = entry.acts_on.as_ref().filter(|acts_on| acts_on.kind == EntryKind::Hold) else {
                continue;
            };
            let Origin { seq, nth, left } = acts_on.origin;
            let change = if left == 0 {
                Self::Closed { user_id, seq }
            } else {
                Self::Captured { user_id, seq, left, acts: nth }
            };
            last.insert((user_id, seq), change);
        }
        last.into_values().collect()
    }

    const fn user_id(&self) -> Uuid {
        let (Self::Placed { user_id, .. } | Self::Captured { user_id, .. } | Self::Closed { user_id, .. }) = self;
        *user_id
    }

    /// Only of placed ones.
    fn placed_parameters(&self) -> Option<[Parameter<'_>; 5]> {
        match self {
            Self::Placed { user_id, seq, id, left, expires_at } => Some([user_id, seq, id, left, expires_at]),
            Self::Captured { .. } | Self::Closed { .. } => None,
        }
    }

    /// The owner and the sequence number, only of closed ones.
    const fn closed(&self) -> Option<(Uuid, i64)> {
        match self {
            Self::Closed { user_id, seq } => Some((*user_id, *seq)),
            Self::Placed { .. } | Self::Captured { .. } => None,
        }
    }
}

/// One round trip. If an insert fails, the commit after it rolls the transaction back.
async fn insert_and_commit(
    client: &Client,
    shards: Shards,
    new: &[NewEntry],
    progress: &Progress,
) -> Result<(), DbError> {
    let entries: Vec<_> = new.iter().map(EntryColumns::of).collect();
    let texts: Vec<_> =
        new.iter().filter_map(|new| new.texts.as_ref().map(|(texts, _)| TextColumns::of(new, texts))).collect();
    let holds = OpenHold::changes(new);
    let touched = Touched::of(shards, entries.iter().map(|entry| entry.user_id));
    let time_of = |shard: &Shard| {
        let here = entries.iter().filter(|entry| touched.is_of(entry.user_id, *shard));
        here.map(|entry| entry.new.entry.created_at).max()
    };
    let times: Vec<_> = touched.shards.iter().filter_map(|shard| Some((*shard, time_of(shard)?))).collect();
    let closed_in = |shard: &Shard| {
        let closed = holds.iter().filter_map(OpenHold::closed).filter(|(user, _)| touched.is_of(*user, *shard));
        let (users, seqs): (Vec<Uuid>, Vec<i64>) = closed.unzip();
        (!users.is_empty()).then_some((*shard, users, seqs))
    };
    let closed: Vec<_> = touched.shards.iter().filter_map(closed_in).collect();
    let (mut writes, mut shards_of_writes) = (Vec::new(), Vec::new());
    for (shard, time) in &times {
        let here = |user: Uuid| touched.is_of(user, *shard);
        let entries = || entries.iter().filter(|entry| here(entry.user_id));
        let (width, insert) = insert_entries(entries().map(|entry| entry.needed(*time)).max().unwrap_or(0));
        let rows: Vec<_> = entries().flat_map(|entry| entry.parameters().into_iter().take(*width)).collect();
        let shared: &[Parameter<'_>] = if *width == ENTRY_COLUMNS.len() { &[] } else { &[time] };
        writes.extend(insert.prepare(client, *shard, shared, &rows).await?);
        let rows: Vec<_> = texts.iter().filter(|texts| here(texts.user_id)).flat_map(TextColumns::parameters).collect();
        writes.extend(INSERT_TEXTS.prepare(client, *shard, &[], &rows).await?);
        let holds = || holds.iter().filter(|hold| here(hold.user_id()));
        let rows: Vec<_> = holds().filter_map(OpenHold::placed_parameters).flatten().collect();
        writes.extend(INSERT_OPEN_HOLDS.prepare(client, *shard, &[], &rows).await?);
        for hold in holds() {
            if let OpenHold::Captured { user_id, seq, left, acts } = hold {
                let capture = client.prepare_cached(CAPTURE_OPEN_HOLD.of(*shard)).await?;
                writes.push((capture, vec![user_id, seq, left, acts]));
            }
        }
        shards_of_writes.resize(writes.len(), *shard);
    }
    for (shard, users, seqs) in &closed {
        writes.push((client.prepare_cached(CLOSE_OPEN_HOLDS.of(*shard)).await?, vec![users, seqs]));
        shards_of_writes.push(*shard);
    }
    progress.awaits(shards_of_writes);
    let writes = writes.iter().map(async |(statement, parameters)| {
        let written = client.execute(statement, parameters).await;
        progress.note(&written);
        written
    });
    let written = async {
        let written = all_in_order(writes).await;
        if written.iter().all(Result::is_ok) {
            progress.executed.call();
        }
        written
    };
    let (written, committed) = join!(biased; written, client.batch_execute("COMMIT"));
    for result in written {
        result?;
    }
    committed.map_err(DbError::InDoubt)
}

/// Completes when all futures have. Its first poll polls each of them once, in their order, which is what sends a statement.
async fn all_in_order<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut all: Vec<_> = futures.map(|future| Box::pin(maybe_done(future))).collect();
    poll_fn(|context| {
        let mut pending = false;
        for future in &mut all {
            pending |= future.as_mut().poll(context).is_pending();
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    all.iter_mut().filter_map(|future| future.as_mut().take_output()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_group_needs_its_size_and_every_insert_has_what_is_needed() {
        assert_eq!(ENTRY_COLUMNS[OF_PLAIN_ENTRY..OF_GROUP], ["group_size"]);
        for needed in [OF_PLAIN_ENTRY, OF_GROUP, ENTRY_COLUMNS.len()] {
            assert_eq!(insert_entries(needed).0, needed);
        }
    }
}
