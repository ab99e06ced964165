//! Reads rows of the ledger. Amounts and balances are checked as strictly as new ones. Texts are not checked again: a rule
//! that became stricter must not hide the history.

use tokio_postgres::Row;

use crate::infra::postgres::DbError;
use crate::kernel::{EntryId, ServiceName, UserId};
use crate::wallet::domain::{
    ActsOn, AmountMinor, Balance, Description, Entry, EntryKind, Funds, Metadata, Origin, Reference, Texts, TransferLeg,
};

/// The columns that a statement has to select from `transactions`, as `entry`, for [`ENTRY_JOINS`] and [`ENTRY`].
pub(super) const ENTRY_COLUMNS: &str = "\
    user_id, seq, id, type, amount_minor, balance_after_minor, held_after_minor, origin_seq, origin_nth, origin_left_minor, \
    transfer_id, counterparty_user_id, expires_at, posted_by, created_at, \
    hash IS NULL OR texts_digest IS NOT NULL AS has_texts";

/// The texts of `entry`, and the entry on which it acts. Entries from before the hash chain have no digest of their texts, so
/// that they are tried. Each order is one that only the right index has: while a table is empty all plans cost the same.
pub(super) const ENTRY_JOINS: &str = "\
    LEFT JOIN LATERAL (
        SELECT description, reference, metadata FROM shard.entry_texts
        WHERE entry.has_texts AND entry_texts.user_id = entry.user_id AND entry_texts.seq BETWEEN entry.seq AND entry.seq
        ORDER BY entry_texts.seq LIMIT 1
    ) AS texts ON true
    LEFT JOIN LATERAL (
        SELECT id, type FROM shard.transactions
        WHERE entry.origin_seq IS NOT NULL AND transactions.user_id = entry.user_id
          AND transactions.seq BETWEEN entry.origin_seq AND entry.origin_seq
        ORDER BY transactions.seq LIMIT 1
    ) AS origin ON true";

/// What [`entry`] reads.
pub(super) const ENTRY: &str = "\
    entry.seq, entry.id, entry.type, entry.amount_minor, entry.balance_after_minor, entry.held_after_minor, \
    entry.origin_seq, entry.origin_nth, entry.origin_left_minor, entry.transfer_id, entry.counterparty_user_id, \
    entry.expires_at, entry.posted_by, entry.created_at, texts.description, texts.reference, texts.metadata, \
    origin.id AS origin_id, origin.type AS origin_type";

pub(super) fn balance(row: &Row, name: &str) -> Result<Balance, DbError> {
    Balance::from_stored(row.try_get(name)?).ok_or(DbError::Corrupt("transactions.balance_after_minor"))
}

/// The columns `balance_after_minor, held_after_minor`.
pub(super) fn funds(row: &Row) -> Result<Funds, DbError> {
    Ok(Funds { balance: balance(row, "balance_after_minor")?, held: balance(row, "held_after_minor")? })
}

pub(super) fn kind(row: &Row, name: &str) -> Result<EntryKind, DbError> {
    EntryKind::parse(row.try_get(name)?).ok_or(DbError::Corrupt("transactions.type"))
}

pub(super) fn amount(row: &Row, name: &str) -> Result<AmountMinor, DbError> {
    AmountMinor::try_new(row.try_get(name)?).map_err(|_| DbError::Corrupt("transactions.amount_minor"))
}

pub(super) fn service(row: &Row, name: &str) -> Result<Option<ServiceName>, DbError> {
    Ok(row.try_get::<_, Option<String>>(name)?.map(ServiceName::from_stored))
}

/// The columns `description, reference, metadata`.
pub(super) fn texts(row: &Row) -> Result<Texts, DbError> {
    named_texts(row, ["description", "reference", "metadata"])
}

/// The same, in columns of other names.
pub(super) fn named_texts(row: &Row, [description, reference, metadata]: [&str; 3]) -> Result<Texts, DbError> {
    Ok(Texts {
        description: row.try_get::<_, Option<String>>(description)?.map(Description::from_stored),
        reference: row.try_get::<_, Option<String>>(reference)?.map(Reference::from_stored),
        metadata: row.try_get::<_, Option<String>>(metadata)?.map(Metadata::from_stored),
    })
}

/// Needs the columns of [`ENTRY`], of any kind of entry but `close`, which has no amount.
pub(super) fn entry(row: &Row) -> Result<Entry, DbError> {
    Ok(Entry {
        id: EntryId::from_uuid(row.try_get("id")?),
        seq: row.try_get("seq")?,
        kind: kind(row, "type")?,
        amount: amount(row, "amount_minor")?,
        balance_after: balance(row, "balance_after_minor")?,
        held_after: balance(row, "held_after_minor")?,
        acts_on: acts_on(row)?.map(Box::new),
        transfer: transfer(row)?,
        expires_at: row.try_get("expires_at")?,
        texts: texts(row)?,
        posted_by: service(row, "posted_by")?,
        created_at: row.try_get("created_at")?,
    })
}

fn acts_on(row: &Row) -> Result<Option<ActsOn>, DbError> {
    let Some(seq) = row.try_get("origin_seq")? else { return Ok(None) };
    let origin = Origin { seq, nth: row.try_get("origin_nth")?, left: row.try_get("origin_left_minor")? };
    let id = EntryId::from_uuid(row.try_get("origin_id")?);
    Ok(Some(ActsOn { origin, id, kind: kind(row, "origin_type")?, hold: None }))
}

fn transfer(row: &Row) -> Result<Option<TransferLeg>, DbError> {
    let Some(transfer) = row.try_get("transfer_id")? else { return Ok(None) };
    let counterparty = UserId::from_uuid(row.try_get("counterparty_user_id")?);
    Ok(Some(TransferLeg { transfer: EntryId::from_uuid(transfer), counterparty }))
}
