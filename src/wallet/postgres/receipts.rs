//! Reads entries with everything that their hashes cover, and the entry before the first of them, whose hash that continues. An
//! entry with texts costs one more look-up.

use async_trait::async_trait;
use tokio_postgres::Row;

use crate::infra::postgres::{DbError, ShardStatement};
use crate::kernel::{DependencyError, EntryId, IdempotencyKey, UserId};
use crate::wallet::application::receipts::{ChainPage, ChainQuery, ReceiptQueries};
use crate::wallet::domain::{
    ChainLink, EntryHash, EntryKind, Origin, Receipt, RecordedEntry, RequestDigest, Salt, SaltedTexts, TextsDigest,
    TransferLeg,
};
use crate::wallet::postgres::rows;
use crate::wallet::postgres::sharded_database::ShardedDatabase;

pub struct PgReceipts {
    database: ShardedDatabase,
}

impl PgReceipts {
    pub const fn new(database: ShardedDatabase) -> Self {
        Self { database }
    }
}

/// A statement with this name that reads the entries of user `$1` which `$rows` selects, oldest first.
macro_rules! entries {
    ($name:literal, $rows:literal) => {
        concat!(
            "-- ",
            $name,
            "
             SELECT entry.*, texts.salt, texts.description, texts.reference, texts.metadata
             FROM (
                 SELECT user_id, seq, id, type, amount_minor, balance_after_minor, held_after_minor, created_at, origin_seq,
                        origin_nth, origin_left_minor, transfer_id, counterparty_user_id, expires_at, idempotency_key,
                        request_digest, texts_digest, group_size, posted_by, hash
                 FROM shard.transactions WHERE user_id = $1 ",
            $rows,
            "
             ) AS entry
             LEFT JOIN LATERAL (
                 SELECT salt, description, reference, metadata FROM shard.entry_texts
                 WHERE (entry.hash IS NULL OR entry.texts_digest IS NOT NULL)
                   AND user_id = $1 AND seq BETWEEN entry.seq AND entry.seq ORDER BY seq LIMIT 1
             ) AS texts ON true
             ORDER BY entry.seq"
        )
    };
}

static RECEIPT: ShardStatement = ShardStatement::new(entries!(
    "wallet.ledger.receipt",
    "AND seq <= (SELECT seq FROM shard.transactions WHERE user_id = $1 AND id BETWEEN $2 AND $2 ORDER BY id LIMIT 1)
    ORDER BY seq DESC LIMIT 2"
));

static HEAD: ShardStatement = ShardStatement::new(entries!("wallet.ledger.head", "ORDER BY seq DESC LIMIT 2"));

static CHAIN: ShardStatement = ShardStatement::new(entries!(
    "wallet.ledger.chain ($1 user, $2 seq of the entry before, $3 rows)",
    "AND seq >= $2 ORDER BY seq LIMIT $3"
));

#[async_trait]
impl ReceiptQueries for PgReceipts {
    async fn receipt(&self, user: UserId, id: EntryId) -> Result<Option<Receipt>, DependencyError> {
        let shard = self.database.shard_of(user);
        let found = self.database.run_in(shard, move |client| {
            Box::pin(async move {
                let with_the_one_before = client.prepare_cached(RECEIPT.of(shard)).await?;
                let found = client.query(&with_the_one_before, &[&user.as_uuid(), &id.as_uuid()]).await?;
                last_proven(&found)
            })
        });
        found.await.map_err(|e| e.at("wallet.ledger.receipt"))
    }

    async fn head(&self, user: UserId) -> Result<Option<Receipt>, DependencyError> {
        let shard = self.database.shard_of(user);
        let found = self.database.run_in(shard, move |client| {
            Box::pin(async move {
                let last_two = client.prepare_cached(HEAD.of(shard)).await?;
                last_proven(&client.query(&last_two, &[&user.as_uuid()]).await?)
            })
        });
        found.await.map_err(|e| e.at("wallet.ledger.head"))
    }

    async fn chain(&self, user: UserId, query: ChainQuery) -> Result<ChainPage, DependencyError> {
        let ChainQuery { after, limit } = query;
        let shard = self.database.shard_of(user);
        let found = self.database.run_in(shard, move |client| {
            Box::pin(async move {
                let page = client.prepare_cached(CHAIN.of(shard)).await?;
                // The entry before the page, and one that shows whether there is a next page.
                let rows_max = i64::from(limit).saturating_add(2);
                let found = client.query(&page, &[&user.as_uuid(), &after, &rows_max]).await?;
                let receipts = linked(&found)?;
                // Without the entry before, the hash that the first one continues would not be known.
                match found.first().map(|row| row.try_get::<_, i64>("seq")).transpose()? {
                    Some(first) if first > after && first > 1 => Err(DbError::Corrupt("transactions.seq")),
                    _ => Ok(receipts.into_iter().filter(|receipt| receipt.entry.seq > after).collect()),
                }
            })
        });
        found.await.map(|found| ChainPage::cut(found, limit)).map_err(|e| e.at("wallet.ledger.chain"))
    }
}

/// The last of these entries, if its hash is right. The entry before it is among them.
fn last_proven(rows: &[Row]) -> Result<Option<Receipt>, DbError> {
    if rows.is_empty() {
        return Ok(None);
    }
    let receipt = linked(rows)?.pop().ok_or(DbError::Corrupt("transactions.seq"))?;
    receipt.check().map_err(|_| DbError::Corrupt("transactions.hash"))?;
    Ok(Some(receipt))
}

/// The entries, each with the hash of the one before it. The first row is only there for its hash, unless it is the first entry
/// of the wallet.
fn linked(rows: &[Row]) -> Result<Vec<Receipt>, DbError> {
    let (mut receipts, mut before) = (Vec::with_capacity(rows.len()), None);
    for row in rows {
        let entry = entry(row)?;
        let hash: Option<&[u8]> = row.try_get("hash")?;
        let hash = stored(hash, EntryHash::from_stored, "transactions.hash")?;
        let previous = if entry.seq == 1 { Some(EntryHash::genesis(entry.user_id)) } else { before };
        before = Some(hash.unwrap_or_else(|| entry.seal()));
        if let Some(previous) = previous {
            let link = hash.map(|hash| ChainLink { previous, hash });
            receipts.push(Receipt { texts: texts(row)?, entry, link });
        }
    }
    Ok(receipts)
}

fn entry(row: &Row) -> Result<RecordedEntry, DbError> {
    let key: Option<String> = row.try_get("idempotency_key")?;
    let request_digest: Option<&[u8]> = row.try_get("request_digest")?;
    let texts_digest: Option<&[u8]> = row.try_get("texts_digest")?;
    Ok(RecordedEntry {
        user_id: UserId::from_uuid(row.try_get("user_id")?),
        seq: row.try_get("seq")?,
        id: EntryId::from_uuid(row.try_get("id")?),
        kind: EntryKind::parse(row.try_get("type")?).ok_or(DbError::Corrupt("transactions.type"))?,
        amount: rows::balance(row, "amount_minor")?,
        balance_after: rows::balance(row, "balance_after_minor")?,
        held_after: rows::balance(row, "held_after_minor")?,
        created_at: row.try_get("created_at")?,
        origin: origin(row)?,
        transfer: transfer(row)?,
        expires_at: row.try_get("expires_at")?,
        key: key.map(IdempotencyKey::from_stored),
        request_digest: stored(request_digest, RequestDigest::from_stored, "transactions.request_digest")?,
        texts_digest: stored(texts_digest, TextsDigest::from_stored, "transactions.texts_digest")?,
        group_size: row.try_get("group_size")?,
        posted_by: row.try_get("posted_by")?,
    })
}

/// Bytes that may be absent, but not of another length.
fn stored<T>(bytes: Option<&[u8]>, read: fn(&[u8]) -> Option<T>, column: &'static str) -> Result<Option<T>, DbError> {
    bytes.map(|bytes| read(bytes).ok_or(DbError::Corrupt(column))).transpose()
}

fn origin(row: &Row) -> Result<Option<Origin>, DbError> {
    let seq: Option<i64> = row.try_get("origin_seq")?;
    let Some(seq) = seq else { return Ok(None) };
    Ok(Some(Origin { seq, nth: row.try_get("origin_nth")?, left: row.try_get("origin_left_minor")? }))
}

fn transfer(row: &Row) -> Result<Option<TransferLeg>, DbError> {
    let transfer: Option<uuid::Uuid> = row.try_get("transfer_id")?;
    let Some(transfer) = transfer else { return Ok(None) };
    let counterparty = UserId::from_uuid(row.try_get("counterparty_user_id")?);
    Ok(Some(TransferLeg { transfer: EntryId::from_uuid(transfer), counterparty }))
}

fn texts(row: &Row) -> Result<Option<SaltedTexts>, DbError> {
    let salt: Option<&[u8]> = row.try_get("salt")?;
    let Some(salt) = salt else { return Ok(None) };
    let salt = Salt::new(salt.try_into().map_err(|_| DbError::Corrupt("entry_texts.salt"))?);
    Ok(Some(SaltedTexts { salt, texts: rows::texts(row)? }))
}
