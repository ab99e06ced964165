//! Reads rows of the ledger. Amounts and balances are checked as strictly as new ones. Texts are not checked again: a rule
//! that became stricter must not hide the history.

use tokio_postgres::Row;

use crate::infra::postgres::DbError;
use crate::kernel::EntryId;
use crate::wallet::domain::{AmountMinor, Balance, Description, Direction, Entry};

pub(super) fn balance(row: &Row, name: &str) -> Result<Balance, DbError> {
    Balance::from_stored(row.try_get(name)?).ok_or(DbError::Corrupt("transactions.balance_after_minor"))
}

/// Needs the columns `id, seq, type, amount_minor, balance_after_minor, description, created_at`, of a credit or debit.
pub(super) fn entry(row: &Row) -> Result<Entry, DbError> {
    let description: Option<String> = row.try_get("description")?;
    Ok(Entry {
        id: EntryId::from_uuid(row.try_get("id")?),
        seq: row.try_get("seq")?,
        direction: Direction::parse(row.try_get("type")?).ok_or(DbError::Corrupt("transactions.type"))?,
        amount: AmountMinor::try_new(row.try_get("amount_minor")?)
            .map_err(|_| DbError::Corrupt("transactions.amount_minor"))?,
        balance_after: balance(row, "balance_after_minor")?,
        description: description.map(Description::from_stored),
        created_at: row.try_get("created_at")?,
    })
}
