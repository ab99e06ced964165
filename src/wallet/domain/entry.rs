//! Entries of the ledger, and drafts, which request them.

use crate::kernel::{EntryId, Timestamp, UserId};
use crate::wallet::domain::{
    AmountMinor, Balance, Description, Direction, EntryHash, EntryKind, EntryRefused, HashedEntry, KeyedRequest, Texts,
    TextsDigest,
};

/// A requested entry, not decided yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The id of the future entry.
    pub id: EntryId,
    /// Credit or debit.
    pub direction: Direction,
    /// Never zero.
    pub amount: AmountMinor,
    /// For people; no rule depends on them.
    pub texts: Option<Texts>,
}

impl Draft {
    /// `None` also without any text.
    pub fn description(&self) -> Option<&Description> {
        self.texts.as_ref().map(|texts| &texts.description)
    }
}

/// A credit or debit as its owner sees it. It is never changed or deleted.
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
    /// For people; no rule depends on it. `None` too if it was erased after the wallet was closed.
    pub description: Option<Description>,
    /// By the clock of the database; never earlier than the previous entry.
    pub created_at: Timestamp,
}

impl Entry {
    /// Whether `draft` requests exactly this entry. For entries without a digest of their request.
    pub fn is_requested_by(&self, draft: &Draft) -> bool {
        self.direction == draft.direction
            && self.amount == draft.amount
            && self.description.as_ref() == draft.description()
    }
}

/// A new entry with everything that its row has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEntry {
    /// The owner of the wallet.
    pub user_id: UserId,
    /// What its owner sees of it.
    pub entry: Entry,
    /// What is held of the balance after this entry.
    pub held_after: Balance,
    /// Only on the first entry of its posting.
    pub request: Option<KeyedRequest>,
    /// With the digest that the row has.
    pub texts: Option<(Texts, TextsDigest)>,
    /// Only on the first entry of an atomic group.
    pub group_size: Option<i16>,
    /// Continues the hash of the entry before it.
    pub hash: EntryHash,
}

/// What distinguishes the first entry of a posting.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lead<'a> {
    pub(super) request: Option<&'a KeyedRequest>,
    pub(super) group_size: Option<i16>,
}

/// The head of a wallet's ledger: of its last entry, what the next one needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerHead {
    /// The owner of the wallet.
    pub user_id: UserId,
    /// The last sequence number; 0 without entries.
    pub seq: i64,
    /// The current balance.
    pub balance: Balance,
    /// What open holds reserve of the balance.
    pub held: Balance,
    /// Time of the last entry.
    pub created_at: Option<Timestamp>,
    /// The hash that the next entry continues.
    pub hash: EntryHash,
}

impl LedgerHead {
    /// The head of a wallet without entries.
    pub fn empty(user_id: UserId) -> Self {
        let hash = EntryHash::genesis(user_id);
        Self { user_id, seq: 0, balance: Balance::ZERO, held: Balance::ZERO, created_at: None, hash }
    }

    /// The next entry. Its time is `now` or, if the clock has gone back, the time of the last entry: times never
    /// contradict the order.
    ///
    /// # Errors
    /// [`EntryRefused`] if the balance, without what is held, does not allow it.
    pub(super) fn append(&self, draft: &Draft, lead: Lead<'_>, now: Timestamp) -> Result<NewEntry, EntryRefused> {
        let Lead { request, group_size } = lead;
        let entry = Entry {
            id: draft.id,
            seq: self.seq.checked_add(1).ok_or(EntryRefused::BalanceLimit)?,
            direction: draft.direction,
            amount: draft.amount,
            balance_after: self.balance.after(draft.direction, draft.amount, self.held)?,
            description: draft.description().cloned(),
            created_at: self.created_at.map_or(now, |last| last.max(now)),
        };
        let texts = draft.texts.as_ref().map(|texts| (texts.clone(), texts.digest()));
        let hash = self.hash.next(&HashedEntry {
            user_id: self.user_id,
            seq: entry.seq,
            id: entry.id,
            kind: EntryKind::from(entry.direction),
            amount: entry.amount.cents(),
            balance_after: entry.balance_after,
            held_after: self.held,
            created_at: entry.created_at,
            origin: None,
            transfer: None,
            expires_at: None,
            request,
            texts: texts.as_ref().map(|(_, digest)| *digest),
            group_size,
            posted_by: None,
        });
        Ok(NewEntry {
            user_id: self.user_id,
            entry,
            held_after: self.held,
            request: request.cloned(),
            texts,
            group_size,
            hash,
        })
    }
}

impl From<&NewEntry> for LedgerHead {
    fn from(last: &NewEntry) -> Self {
        Self {
            user_id: last.user_id,
            seq: last.entry.seq,
            balance: last.entry.balance_after,
            held: last.held_after,
            created_at: Some(last.entry.created_at),
            hash: last.hash,
        }
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
        for word in ["", "Credit", "credit ", "refund", "hold"] {
            assert_eq!(Direction::parse(word), None, "{word:?}");
        }
    }
}
