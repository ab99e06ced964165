//! Entries of the ledger, and posts, which request them.

use crate::kernel::{EntryId, IdempotencyKey, Timestamp, UserId};
use crate::wallet::domain::{AmountMinor, Balance, Description, Direction, EntryRefused};

/// A requested entry, not decided yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The id of the future entry.
    pub id: EntryId,
    /// The owner of the wallet.
    pub user_id: UserId,
    /// Credit or debit.
    pub direction: Direction,
    /// Never zero.
    pub amount: AmountMinor,
    /// For people; no rule depends on it.
    pub description: Option<Description>,
    /// A retry has the same key.
    pub idempotency_key: Option<IdempotencyKey>,
}

/// One row of the ledger, which is never changed or deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Unique in the whole ledger.
    pub id: EntryId,
    /// The sequence number in the wallet: 1, 2, 3, … without gaps.
    pub seq: i64,
    /// Credit or debit.
    pub direction: Direction,
    /// Never zero.
    pub amount: AmountMinor,
    /// The balance of the wallet after this entry.
    pub balance_after: Balance,
    /// For people; no rule depends on it.
    pub description: Option<Description>,
    /// By the clock of the database; never earlier than the previous entry.
    pub created_at: Timestamp,
}

impl Entry {
    /// Whether `draft` requests exactly this entry, so that this entry may be its reply.
    pub fn is_requested_by(&self, draft: &Draft) -> bool {
        self.direction == draft.direction && self.amount == draft.amount && self.description == draft.description
    }
}

/// The head of a wallet's ledger: of its last entry, what the next one needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerHead {
    /// The last sequence number; 0 without entries.
    pub seq: i64,
    /// The current balance.
    pub balance: Balance,
    /// Time of the last entry.
    pub created_at: Option<Timestamp>,
}

impl LedgerHead {
    /// The head of a wallet without entries.
    pub const EMPTY: Self = Self { seq: 0, balance: Balance::ZERO, created_at: None };

    /// The next entry. Its time is `now` or, if the clock has gone back, the time of the last entry: times never
    /// contradict the order.
    ///
    /// # Errors
    /// [`EntryRefused`] if the balance does not allow it.
    pub fn append(&self, draft: &Draft, now: Timestamp) -> Result<Entry, EntryRefused> {
        Ok(Entry {
            id: draft.id,
            seq: self.seq.checked_add(1).ok_or(EntryRefused::BalanceLimit)?,
            direction: draft.direction,
            amount: draft.amount,
            balance_after: self.balance.after(draft.direction, draft.amount)?,
            description: draft.description.clone(),
            created_at: self.created_at.map_or(now, |last| last.max(now)),
        })
    }
}

impl From<&Entry> for LedgerHead {
    fn from(last: &Entry) -> Self {
        Self { seq: last.seq, balance: last.balance_after, created_at: Some(last.created_at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_credit_and_debit_are_directions() {
        for (direction, word) in [(Direction::Credit, "credit"), (Direction::Debit, "debit")] {
            assert_eq!(direction.as_str(), word);
            assert_eq!(Direction::parse(word), Some(direction));
        }
        for word in ["", "Credit", "credit ", "refund"] {
            assert_eq!(Direction::parse(word), None, "{word:?}");
        }
    }
}
