//! Writes batches of posts: each in one database transaction, in two round trips whatever its size.
//!
//! The order of the statements is critical. One statement locks the wallets; only the next one, whose snapshot is taken
//! after the locks (READ COMMITTED), reads the last entries and the used keys. A lock in the same statement, or a
//! snapshot from before it, loses money. Statements of one round trip are pipelined, and the server still executes them
//! one after the other.

use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::sync::{Arc, LazyLock, OnceLock};
use std::task::Poll;

use async_trait::async_trait;
use futures_util::future::maybe_done;
use tokio::join;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};
use uuid::Uuid;

use crate::infra::postgres::{BEGIN, Client, Database, DbError, begin, find_out};
use crate::kernel::{EntryId, IdempotencyKey, Timestamp, UserId, fault};
use crate::wallet::application::ports::{Journal, JournalError, LockWait, PostingOutcome};
use crate::wallet::domain::{
    Decision, EntryHash, LedgerHead, NewEntry, OneOrMore, Posting, RequestDigest, Texts, UsedKey, WalletState,
    WalletStates, decide_batch,
};
use crate::wallet::postgres::multi_insert::{MultiInsert, Parameter};
use crate::wallet::postgres::rows;

const STEP: &str = "wallet.ledger.post";

pub struct PgJournal {
    database: Database,
}

/// The outcomes of a batch if its commit succeeds, set just before the commit is sent.
type SentOutcomes = Arc<OnceLock<Vec<PostingOutcome>>>;

impl PgJournal {
    /// `database` is a pool of its own, so that reads never delay the writer.
    pub const fn new(database: Database) -> Self {
        Self { database }
    }

    /// Whether a commit succeeded whose response was lost.
    async fn find_out(&self, outcomes: &[PostingOutcome], postings: &[Posting]) -> Result<bool, DbError> {
        let ids = || outcomes.iter().zip(postings);
        let posted = ids().find_map(|(outcome, posting)| match outcome {
            PostingOutcome::Posted(entries) => Some((posting.user_id, entries.first().id)),
            _ => None,
        });
        // A replay writes nothing, but its entry may exist on this server alone: the commit would have waited for a standby.
        let replayed = ids().find_map(|(outcome, posting)| match outcome {
            PostingOutcome::Replayed(entries) => Some((posting.user_id, entries.first().id)),
            _ => None,
        });
        // Without entries, it does not matter.
        let Some((user, id)) = posted.or(replayed) else { return Ok(true) };
        find_out(|| self.look_up(user, id)).await
    }

    /// Looks for one entry of the batch on another connection, under the lock of the wallet. A backend that is still
    /// committing holds that lock, so an absent entry proves that the commit failed.
    async fn look_up(&self, user: UserId, id: EntryId) -> Result<bool, DbError> {
        let there = self.database.run(move |client| {
            Box::pin(async move {
                let tx = begin(client).await?;
                tx.query(
                    "-- wallet.ledger.find_out.lock
                     SELECT FROM wallets WHERE user_id = $1 FOR UPDATE",
                    &[&user.as_uuid()],
                )
                .await?;
                let found = tx
                    .query_opt(
                        "-- wallet.ledger.find_out
                         SELECT seq FROM transactions WHERE user_id = $1 AND id BETWEEN $2 AND $2 ORDER BY id LIMIT 1",
                        &[&user.as_uuid(), &id.as_uuid()],
                    )
                    .await?;
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
    async fn commit(&self, postings: &[Posting], lock_wait: LockWait) -> Result<Vec<PostingOutcome>, JournalError> {
        let batch = postings.to_vec();
        let sent = SentOutcomes::default();
        let sent_by_run = Arc::clone(&sent);
        let committed = self.database.run(move |client| {
            Box::pin(async move {
                let written = write(client, &batch, lock_wait, &sent_by_run).await;
                if written.is_err() {
                    // For the next user of the connection, if it still works.
                    let _ = client.batch_execute("ROLLBACK").await;
                }
                written
            })
        });
        match (committed.await, sent.get()) {
            (Ok(()), Some(outcomes)) => Ok(outcomes.clone()),
            // Nothing is written before the commit is sent, nor after an insert that the server rejected.
            (Err(e), None) => Err(JournalError::NotDone(e.at(STEP))),
            (Err(e), Some(_)) if e.is_definite() => Err(JournalError::NotDone(e.at(STEP))),
            (Err(e), Some(outcomes)) => match self.find_out(outcomes, postings).await {
                Ok(true) => Ok(outcomes.clone()),
                Ok(false) => Err(JournalError::NotDone(e.at(STEP))),
                Err(unreachable) => Err(JournalError::Unknown(unreachable.at(STEP))),
            },
            (Ok(()), None) => Err(JournalError::NotDone(DbError::Corrupt("commit without outcomes").at(STEP))),
        }
    }
}

/// Begins, locks, reads; decides; inserts, commits. `sent` is set before the commit is sent.
async fn write(client: &Client, postings: &[Posting], lock_wait: LockWait, sent: &SentOutcomes) -> Result<(), DbError> {
    let statements = Statements::of(client, lock_wait).await?;
    fault::point("ledger.begun");
    let (mut wallets, now) = read_locked(client, &statements, postings).await?;
    fault::point("ledger.locked");
    let decisions = decide_batch(&mut wallets, postings, now.unwrap_or(Timestamp::UNIX_EPOCH));
    let outcomes = decisions.iter().map(|decision| match decision {
        Decision::Post(entries) => PostingOutcome::Posted(entries.map(|new| new.entry.clone())),
        Decision::Replay(entries) => PostingOutcome::Replayed(entries.clone()),
        Decision::Refuse(refused) => PostingOutcome::Refused(*refused),
        Decision::NoWallet => PostingOutcome::NotLocked,
    });
    sent.get_or_init(|| outcomes.collect());
    fault::point("ledger.decided");
    insert_and_commit(client, &decisions).await?;
    fault::point("ledger.committed");
    Ok(())
}

/// Entries of a batch that share its time and have what every credit and debit has. Most have: another time only after the
/// clock has gone back.
static INSERT_PLAIN_ENTRIES: LazyLock<MultiInsert<10>> = LazyLock::new(|| {
    let columns = "transactions (user_id, seq, id, type, amount_minor, balance_after_minor, idempotency_key, request_digest, \
                   texts_digest, hash, created_at, held_after_minor)";
    MultiInsert::new("wallet.ledger.insert", columns, 1, ", $1, 0")
});

static INSERT_ENTRIES: LazyLock<MultiInsert<13>> = LazyLock::new(|| {
    let columns = "transactions (user_id, seq, id, type, amount_minor, balance_after_minor, idempotency_key, request_digest, \
                   texts_digest, hash, created_at, held_after_minor, group_size)";
    MultiInsert::new("wallet.ledger.insert", columns, 0, "")
});

static INSERT_TEXTS: LazyLock<MultiInsert<4>> = LazyLock::new(|| {
    MultiInsert::new("wallet.ledger.insert_texts", "entry_texts (user_id, seq, salt, description)", 0, "")
});

/// The statements of a batch, prepared once per connection.
struct Statements {
    lock: Statement,
    heads: Statement,
    used_keys: Statement,
}

impl Statements {
    async fn of(client: &Client, lock_wait: LockWait) -> Result<Self, DbError> {
        let lock = match lock_wait {
            _ if fault::disabled("ledger.row_lock") => "SELECT user_id FROM wallets WHERE user_id = ANY($1)",
            LockWait::SkipLocked => {
                "-- wallet.ledger.lock_free ($1 users)
                 SELECT user_id FROM wallets WHERE user_id = ANY($1) ORDER BY user_id FOR UPDATE SKIP LOCKED"
            }
            LockWait::Wait => {
                "-- wallet.ledger.lock ($1 users)
                 SELECT user_id FROM wallets WHERE user_id = ANY($1) ORDER BY user_id FOR UPDATE"
            }
        };
        Ok(Self {
            lock: client.prepare_cached(lock).await?,
            heads: client.prepare_cached(HEADS).await?,
            used_keys: client.prepare_cached(USED_KEYS).await?,
        })
    }
}

/// The time is that at which the server began this statement, which is after the locks. All entries of a batch share it.
const HEADS: &str = "-- wallet.ledger.heads ($1 users)
    SELECT wallet.user_id, last.seq, last.id, last.balance_after_minor, last.held_after_minor, last.created_at, last.hash,
           statement_timestamp() AS now
    FROM unnest($1::uuid[]) AS wallet (user_id)
    LEFT JOIN LATERAL (
        SELECT seq, id, balance_after_minor, held_after_minor, created_at, hash FROM transactions
        WHERE transactions.user_id = wallet.user_id ORDER BY seq DESC LIMIT 1
    ) AS last ON true";

/// The order of each look-up is one that only the right index has: while the table is empty, every index that begins with
/// `user_id` costs the same, and the plan made then is kept.
const USED_KEYS: &str = "-- wallet.ledger.used_keys ($1 users, $2 keys)
    SELECT requested.user_id, requested.key, first.request_digest, entry.*, texts.description
    FROM unnest($1::uuid[], $2::text[]) AS requested (user_id, key)
    CROSS JOIN LATERAL (
        SELECT seq, coalesce(group_size, 1) AS size, request_digest FROM transactions
        WHERE transactions.user_id = requested.user_id
          AND transactions.idempotency_key BETWEEN requested.key AND requested.key AND posted_by IS NULL
        ORDER BY idempotency_key LIMIT 1
    ) AS first
    CROSS JOIN LATERAL (
        SELECT id, seq, type, amount_minor, balance_after_minor, created_at, hash IS NULL OR texts_digest IS NOT NULL AS has_texts
        FROM transactions
        WHERE transactions.user_id = requested.user_id AND transactions.seq BETWEEN first.seq AND first.seq + first.size - 1
        ORDER BY seq LIMIT 100
    ) AS entry
    LEFT JOIN LATERAL (
        SELECT description FROM entry_texts
        WHERE entry.has_texts AND entry_texts.user_id = requested.user_id AND entry_texts.seq BETWEEN entry.seq AND entry.seq
        ORDER BY entry_texts.seq LIMIT 1
    ) AS texts ON true";

/// Locks the wallets of the batch in the order of their keys and reads, in the same round trip, their last entries, the
/// entries with an idempotency key of the batch, and the time of the database.
async fn read_locked(
    client: &Client,
    statements: &Statements,
    postings: &[Posting],
) -> Result<(WalletStates, Option<Timestamp>), DbError> {
    let mut users: Vec<Uuid> = postings.iter().map(|posting| posting.user_id.as_uuid()).collect();
    users.sort_unstable();
    users.dedup();
    let with_key = || postings.iter().filter_map(|p| Some((p.user_id.as_uuid(), p.request.as_ref()?.key.as_str())));
    let mut requested: Vec<(Uuid, &str)> = with_key().collect();
    // A key that two postings of the batch have would return its entries twice.
    requested.sort_unstable();
    requested.dedup();
    let (key_users, keys): (Vec<Uuid>, Vec<&str>) = requested.into_iter().unzip();
    let parameters: [&(dyn ToSql + Sync); 1] = [&users];
    let used = async {
        if keys.is_empty() { Ok(Vec::new()) } else { client.query(&statements.used_keys, &[&key_users, &keys]).await }
    };
    // The driver sends each statement when it is first polled, so they reach the server in this order.
    let (begun, locked, heads, used) = join!(
        biased;
        client.batch_execute(BEGIN),
        client.query(&statements.lock, &parameters),
        client.query(&statements.heads, &parameters),
        used,
    );
    begun?;
    let locked: HashSet<Uuid> = locked?.iter().map(|row| row.try_get("user_id")).collect::<Result<_, _>>()?;
    states(&locked, &heads?, &used?)
}

/// The states of the wallets in `locked`. Rows of others were read without a lock and are ignored.
fn states(
    locked: &HashSet<Uuid>,
    heads: &[Row],
    used_keys: &[Row],
) -> Result<(WalletStates, Option<Timestamp>), DbError> {
    let mut wallets = WalletStates::with_capacity(locked.len());
    let mut now = None;
    for row in heads {
        let user: Uuid = row.try_get("user_id")?;
        if !locked.contains(&user) {
            continue;
        }
        let user = UserId::from_uuid(user);
        now = Some(row.try_get("now")?).max(now);
        wallets.insert(user, WalletState::new(head(user, row)?));
    }
    // The entries of a key are consecutive.
    let same_key = |a: &Row, b: &Row| {
        let of = |row: &Row| Some((row.try_get::<_, Uuid>("user_id").ok()?, row.try_get::<_, String>("key").ok()?));
        of(a) == of(b)
    };
    for rows in used_keys.chunk_by(same_key) {
        let Some(first) = rows.first() else { continue };
        if let Some(wallet) = wallets.get_mut(&UserId::from_uuid(first.try_get("user_id")?)) {
            let digest = match first.try_get::<_, Option<&[u8]>>("request_digest")? {
                None => None,
                Some(bytes) => {
                    Some(RequestDigest::from_stored(bytes).ok_or(DbError::Corrupt("transactions.request_digest"))?)
                }
            };
            let entries = rows.iter().map(rows::entry).collect::<Result<Vec<_>, _>>()?;
            let entries = OneOrMore::collect(entries).ok_or(DbError::Corrupt("transactions.group_size"))?;
            wallet.used_keys.insert(IdempotencyKey::from_stored(first.try_get("key")?), UsedKey { digest, entries });
        }
    }
    Ok((wallets, now))
}

fn head(user_id: UserId, row: &Row) -> Result<LedgerHead, DbError> {
    let Some(seq) = row.try_get::<_, Option<i64>>("seq")? else { return Ok(LedgerHead::empty(user_id)) };
    let balance = rows::balance(row, "balance_after_minor")?;
    let held = rows::balance(row, "held_after_minor")?;
    let created_at = row.try_get("created_at")?;
    let hash = match row.try_get::<_, Option<&[u8]>>("hash")? {
        Some(bytes) => EntryHash::from_stored(bytes).ok_or(DbError::Corrupt("transactions.hash"))?,
        None => EntryHash::sealed(user_id, seq, EntryId::from_uuid(row.try_get("id")?), balance, created_at),
    };
    Ok(LedgerHead { user_id, seq, balance, held, created_at: Some(created_at), hash })
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
    new: &'a NewEntry,
}

impl<'a> EntryColumns<'a> {
    fn of(new: &'a NewEntry) -> Self {
        let request = new.request.as_ref();
        Self {
            user_id: new.user_id.as_uuid(),
            id: new.entry.id.as_uuid(),
            kind: new.entry.direction.as_str(),
            amount: new.entry.amount.cents(),
            balance: new.entry.balance_after.cents(),
            held: new.held_after.cents(),
            key: request.map(|request| request.key.as_str()),
            request_digest: request.map(|request| &request.digest.as_bytes()[..]),
            texts_digest: new.texts.as_ref().map(|(_, digest)| &digest.as_bytes()[..]),
            hash: new.hash.as_bytes(),
            new,
        }
    }

    /// Whether the entry has its batch's time, and no column but those of a plain one.
    fn is_plain(&self, time: Timestamp) -> bool {
        self.new.entry.created_at == time && self.held == 0 && self.new.group_size.is_none()
    }

    fn plain_parameters(&self) -> [Parameter<'_>; 10] {
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
        ]
    }

    fn parameters(&self) -> [Parameter<'_>; 13] {
        let [user, seq, id, kind, amount, balance, key, request, texts, hash] = self.plain_parameters();
        let new = self.new;
        [
            user,
            seq,
            id,
            kind,
            amount,
            balance,
            key,
            request,
            texts,
            hash,
            &new.entry.created_at,
            &self.held,
            &new.group_size,
        ]
    }
}

/// The columns of the texts of a new entry.
struct TextColumns<'a> {
    user_id: Uuid,
    seq: i64,
    salt: &'a [u8],
    description: &'a str,
}

impl<'a> TextColumns<'a> {
    fn of(new: &'a NewEntry, texts: &'a Texts) -> Self {
        Self {
            user_id: new.user_id.as_uuid(),
            seq: new.entry.seq,
            salt: texts.salt.as_bytes(),
            description: texts.description.as_str(),
        }
    }

    fn parameters(&self) -> [Parameter<'_>; 4] {
        [&self.user_id, &self.seq, &self.salt, &self.description]
    }
}

/// One round trip. If an insert fails, the commit after it rolls the transaction back.
async fn insert_and_commit(client: &Client, decisions: &[Decision]) -> Result<(), DbError> {
    let new = || {
        let posted = decisions.iter().filter_map(|d| if let Decision::Post(new) = d { Some(new) } else { None });
        posted.flat_map(OneOrMore::iter)
    };
    let entries: Vec<_> = new().map(EntryColumns::of).collect();
    let time = new().map(|new| new.entry.created_at).max();
    let mut inserts = match &time {
        None => Vec::new(),
        Some(time) if entries.iter().all(|entry| entry.is_plain(*time)) => {
            let rows: Vec<_> = entries.iter().map(EntryColumns::plain_parameters).collect();
            INSERT_PLAIN_ENTRIES.prepare(client, &[time], &rows).await?
        }
        Some(_) => {
            let rows: Vec<_> = entries.iter().map(EntryColumns::parameters).collect();
            INSERT_ENTRIES.prepare(client, &[], &rows).await?
        }
    };
    let texts: Vec<_> =
        new().filter_map(|new| new.texts.as_ref().map(|(texts, _)| TextColumns::of(new, texts))).collect();
    let rows: Vec<_> = texts.iter().map(TextColumns::parameters).collect();
    inserts.extend(INSERT_TEXTS.prepare(client, &[], &rows).await?);
    let inserts = inserts.iter().map(|(statement, parameters)| client.execute(statement, parameters));
    let (inserted, committed) = join!(biased; all_in_order(inserts), client.batch_execute("COMMIT"));
    for result in inserted {
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
