//! An entry of the ledger, and the post that asks for one.

use crate::kernel::{EntryId, Timestamp, UserId};
use crate::wallet::domain::{AmountMinor, Balance, Description, IdempotencyKey};

/// Which way money moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Into the wallet.
    Credit,
    /// Out of the wallet.
    Debit,
}

impl Direction {
    /// The word in the API and in the ledger's `type` column.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Credit => "credit",
            Self::Debit => "debit",
        }
    }

    /// Reads that word.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Credit, Self::Debit].into_iter().find(|d| d.as_str() == text)
    }
}

/// A post as a client asks for it: an entry that is not decided yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The id that the entry will have.
    pub id: EntryId,
    /// Whose wallet.
    pub user_id: UserId,
    /// Which way.
    pub direction: Direction,
    /// How much.
    pub amount: AmountMinor,
    /// The client's note.
    pub description: Option<Description>,
    /// The client's name for this attempt.
    pub idempotency_key: Option<IdempotencyKey>,
}

/// One row of the ledger. Never changed, never deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: EntryId,
    /// Its place in the wallet: 1, 2, 3, … without a gap.
    pub seq: i64,
    /// Which way.
    pub direction: Direction,
    /// How much.
    pub amount: AmountMinor,
    /// What the wallet held afterwards.
    pub balance_after: Balance,
    /// The client's note.
    pub description: Option<Description>,
    /// When it was decided; never earlier than the entry before it.
    pub created_at: Timestamp,
}

impl Entry {
    /// Whether `draft` asks for exactly what this entry did, so that it may be answered by it.
    pub fn answers(&self, draft: &Draft) -> bool {
        self.direction == draft.direction && self.amount == draft.amount && self.description == draft.description
    }
}

/// The last entry of a wallet, as far as the next one needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Place of the last entry, 0 without one.
    pub seq: i64,
    /// What the wallet holds.
    pub balance: Balance,
    /// When the last entry was decided.
    pub created_at: Option<Timestamp>,
}

impl Head {
    /// A wallet without entries.
    pub const EMPTY: Self = Self { seq: 0, balance: Balance::ZERO, created_at: None };

    /// The entry that `draft` becomes after this one. The time is `now`, or the last entry's where a clock went
    /// backwards, so that times never contradict the order.
    ///
    /// # Errors
    /// [`EntryRefused`] by the balance.
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

impl From<&Entry> for Head {
    fn from(last: &Entry) -> Self {
        Self { seq: last.seq, balance: last.balance_after, created_at: Some(last.created_at) }
    }
}

/// Why the ledger says no to a post. Nothing is written then, and no key is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryRefused {
    /// The debit is larger than the balance.
    #[error("debit exceeds the balance")]
    InsufficientFunds,
    /// The credit would lift the balance over 2⁵³−1.
    #[error("credit exceeds the largest balance")]
    BalanceLimit,
    /// The key already stands for another request.
    #[error("idempotency key was used for another request")]
    IdempotencyKeyReused,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_direction_has_the_word_of_the_api_and_no_other_word_is_one() {
        for (direction, word) in [(Direction::Credit, "credit"), (Direction::Debit, "debit")] {
            assert_eq!(direction.as_str(), word);
            assert_eq!(Direction::parse(word), Some(direction));
        }
        for word in ["", "Credit", "credit ", "refund"] {
            assert_eq!(Direction::parse(word), None, "{word:?}");
        }
    }
}
