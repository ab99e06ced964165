//! Writes batches of posts: each in one database transaction, in two round trips whatever its size.
//!
//! The order of the statements is critical. One statement locks the wallets; only the next one, whose snapshot is taken
//! after the locks (READ COMMITTED), reads the last entries and the used keys. A lock in the same statement, or a
//! snapshot from before it, loses money. Statements of one round trip are pipelined, and the server still executes them
//! one after the other.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use tokio::join;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};
use uuid::Uuid;

use crate::infra::postgres::{BEGIN, Client, Database, DbError, begin, find_out};
use crate::kernel::{EntryId, IdempotencyKey, Timestamp, UserId, fault};
use crate::wallet::application::ports::{DraftOutcome, Journal, JournalError, LockWait};
use crate::wallet::domain::{Decision, Draft, Entry, LedgerHead, WalletState, decide_batch};
use crate::wallet::postgres::rows;

const STEP: &str = "wallet.ledger.post";

pub struct PgJournal {
    database: Database,
}

/// The outcomes of a batch if its commit succeeds, set just before the commit is sent.
type SentOutcomes = Arc<OnceLock<Vec<DraftOutcome>>>;

impl PgJournal {
    /// `database` is a pool of its own, so that reads never delay the writer.
    pub const fn new(database: Database) -> Self {
        Self { database }
    }

    /// Whether a commit succeeded whose response was lost.
    async fn find_out(&self, outcomes: &[DraftOutcome], drafts: &[Draft]) -> Result<bool, DbError> {
        let ids = || outcomes.iter().zip(drafts);
        let posted = ids().find_map(|(outcome, draft)| match outcome {
            DraftOutcome::Posted(entry) => Some((draft.user_id, entry.id)),
            _ => None,
        });
        // A replay writes nothing, but its entry may exist on this server alone: the commit would have waited for a standby.
        let replayed = ids().find_map(|(outcome, draft)| match outcome {
            DraftOutcome::Replayed(entry) => Some((draft.user_id, entry.id)),
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
                         SELECT seq FROM transactions WHERE user_id = $1 AND id = $2",
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
    async fn commit(&self, drafts: &[Draft], lock_wait: LockWait) -> Result<Vec<DraftOutcome>, JournalError> {
        let batch = drafts.to_vec();
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
            // Nothing is written before the commit is sent, nor when the server responds to it with an error.
            (Err(e), None) => Err(JournalError::NotDone(e.at(STEP))),
            (Err(e), Some(_)) if e.is_definite() => Err(JournalError::NotDone(e.at(STEP))),
            (Err(e), Some(outcomes)) => match self.find_out(outcomes, drafts).await {
                Ok(true) => Ok(outcomes.clone()),
                Ok(false) => Err(JournalError::NotDone(e.at(STEP))),
                Err(unreachable) => Err(JournalError::Unknown(unreachable.at(STEP))),
            },
            (Ok(()), None) => Err(JournalError::NotDone(DbError::Corrupt("commit without outcomes").at(STEP))),
        }
    }
}

/// Begins, locks, reads; decides; inserts, commits. `sent` is set before the commit is sent.
async fn write(client: &Client, drafts: &[Draft], lock_wait: LockWait, sent: &SentOutcomes) -> Result<(), DbError> {
    let statements = Statements::of(client, lock_wait).await?;
    fault::point("ledger.begun");
    let (mut wallets, now) = read_locked(client, &statements, drafts).await?;
    fault::point("ledger.locked");
    let decisions = decide_batch(&mut wallets, drafts, now.unwrap_or(Timestamp::UNIX_EPOCH));
    let outcomes = decisions.into_iter().map(|decision| match decision {
        Decision::Post(entry) => DraftOutcome::Posted(entry),
        Decision::Replay(entry) => DraftOutcome::Replayed(entry),
        Decision::Refuse(refused) => DraftOutcome::Refused(refused),
        Decision::NoWallet => DraftOutcome::NotLocked,
    });
    let outcomes = sent.get_or_init(|| outcomes.collect());
    fault::point("ledger.decided");
    insert_and_commit(client, &statements, drafts, outcomes).await?;
    fault::point("ledger.committed");
    Ok(())
}

/// The statements of a batch, prepared once per connection.
struct Statements {
    lock: Statement,
    heads: Statement,
    used_keys: Statement,
    insert: Statement,
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
            heads: client
                .prepare_cached(
                    "-- wallet.ledger.heads ($1 users)
                     SELECT wallet.user_id, last.seq, last.balance_after_minor, last.created_at, clock_timestamp() AS now
                     FROM unnest($1::uuid[]) AS wallet (user_id)
                     LEFT JOIN LATERAL (
                         SELECT seq, balance_after_minor, created_at FROM transactions
                         WHERE transactions.user_id = wallet.user_id ORDER BY seq DESC LIMIT 1
                     ) AS last ON true",
                )
                .await?,
            used_keys: client
                .prepare_cached(
                    "-- wallet.ledger.used_keys ($1 users, $2 keys)
                     SELECT requested.user_id, requested.key, entry.*
                     FROM unnest($1::uuid[], $2::text[]) AS requested (user_id, key)
                     CROSS JOIN LATERAL (
                         SELECT id, seq, type, amount_minor, balance_after_minor, description, created_at
                         FROM transactions
                         WHERE transactions.user_id = requested.user_id AND transactions.idempotency_key = requested.key
                     ) AS entry",
                )
                .await?,
            insert: client
                .prepare_cached(
                    "-- wallet.ledger.insert
                     INSERT INTO transactions (user_id, seq, id, type, amount_minor, balance_after_minor, description,
                                               idempotency_key, created_at)
                     SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::text[], $5::bigint[], $6::bigint[],
                                          $7::text[], $8::text[], $9::timestamptz[])",
                )
                .await?,
        })
    }
}

/// Locks the wallets of the batch in the order of their keys and reads, in the same round trip, their last entries, the
/// entries with an idempotency key of the batch, and the time of the database.
async fn read_locked(
    client: &Client,
    statements: &Statements,
    drafts: &[Draft],
) -> Result<(HashMap<UserId, WalletState>, Option<Timestamp>), DbError> {
    let mut users: Vec<Uuid> = drafts.iter().map(|draft| draft.user_id.as_uuid()).collect();
    users.sort_unstable();
    users.dedup();
    let with_key = || drafts.iter().filter_map(|d| Some((d.user_id.as_uuid(), d.idempotency_key.as_ref()?.as_str())));
    let (key_users, keys): (Vec<Uuid>, Vec<&str>) = with_key().unzip();
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
) -> Result<(HashMap<UserId, WalletState>, Option<Timestamp>), DbError> {
    let mut wallets = HashMap::with_capacity(locked.len());
    let mut now = None;
    for row in heads {
        let user: Uuid = row.try_get("user_id")?;
        if !locked.contains(&user) {
            continue;
        }
        let head = match row.try_get::<_, Option<i64>>("seq")? {
            None => LedgerHead::EMPTY,
            Some(seq) => LedgerHead {
                seq,
                balance: rows::balance(row, "balance_after_minor")?,
                created_at: Some(row.try_get("created_at")?),
            },
        };
        now = Some(row.try_get("now")?).max(now);
        wallets.insert(UserId::from_uuid(user), WalletState::new(head));
    }
    for row in used_keys {
        let key = IdempotencyKey::from_stored(row.try_get("key")?);
        if let Some(wallet) = wallets.get_mut(&UserId::from_uuid(row.try_get("user_id")?)) {
            wallet.used_keys.insert(key, rows::entry(row)?);
        }
    }
    Ok((wallets, now))
}

/// New entries as columns, for one statement whatever their number.
#[derive(Default)]
struct Columns<'a> {
    user_id: Vec<Uuid>,
    seq: Vec<i64>,
    id: Vec<Uuid>,
    kind: Vec<&'static str>,
    amount: Vec<i64>,
    balance: Vec<i64>,
    description: Vec<Option<&'a str>>,
    key: Vec<Option<&'a str>>,
    created_at: Vec<Timestamp>,
}

impl<'a> Columns<'a> {
    fn push(&mut self, draft: &'a Draft, entry: &'a Entry) {
        self.user_id.push(draft.user_id.as_uuid());
        self.seq.push(entry.seq);
        self.id.push(entry.id.as_uuid());
        self.kind.push(entry.direction.as_str());
        self.amount.push(entry.amount.cents());
        self.balance.push(entry.balance_after.cents());
        self.description.push(entry.description.as_ref().map(crate::wallet::domain::Description::as_str));
        self.key.push(draft.idempotency_key.as_ref().map(IdempotencyKey::as_str));
        self.created_at.push(entry.created_at);
    }
}

/// One round trip. If the insert fails, the commit after it rolls the transaction back.
async fn insert_and_commit(
    client: &Client,
    statements: &Statements,
    drafts: &[Draft],
    outcomes: &[DraftOutcome],
) -> Result<(), DbError> {
    let mut new = Columns::default();
    for (draft, outcome) in drafts.iter().zip(outcomes) {
        if let DraftOutcome::Posted(entry) = outcome {
            new.push(draft, entry);
        }
    }
    let insert = async {
        if new.id.is_empty() {
            return Ok(0);
        }
        client
            .execute(
                &statements.insert,
                &[
                    &new.user_id,
                    &new.seq,
                    &new.id,
                    &new.kind,
                    &new.amount,
                    &new.balance,
                    &new.description,
                    &new.key,
                    &new.created_at,
                ],
            )
            .await
    };
    let (inserted, committed) = join!(biased; insert, client.batch_execute("COMMIT"));
    inserted?;
    committed?;
    Ok(())
}
