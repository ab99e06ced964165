//! The head of a wallet's ledger, and what follows it.

use crate::kernel::{EntryId, ServiceName, Timestamp, UserId};
use crate::wallet::domain::{
    ActsOn, AmountMinor, Balance, Entry, EntryHash, EntryKind, EntryRefused, HashedEntry, KeyedRequest, NewEntry,
    SaltedTexts, TransferLeg,
};

/// Of the last entry of a wallet, what the next one needs.
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
    /// Whether nothing may follow.
    pub is_closed: bool,
    /// Time of the last entry.
    pub created_at: Option<Timestamp>,
    /// The hash that the next entry continues.
    pub hash: EntryHash,
}

/// What distinguishes the first entry of a posting.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lead<'a> {
    pub(super) request: Option<&'a KeyedRequest>,
    pub(super) group_size: Option<i16>,
}

/// The next entry of a wallet, without what follows from the head.
#[derive(Clone, Debug)]
pub(super) struct Next<'a> {
    pub(super) id: EntryId,
    pub(super) kind: EntryKind,
    pub(super) amount: AmountMinor,
    /// After it.
    pub(super) balance: Balance,
    /// After it.
    pub(super) held: Balance,
    pub(super) acts_on: Option<ActsOn>,
    pub(super) transfer: Option<TransferLeg>,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) texts: Option<SaltedTexts>,
    pub(super) posted_by: Option<&'a ServiceName>,
    pub(super) lead: Lead<'a>,
}

impl Next<'_> {
    /// Nothing but what every entry has.
    pub(super) fn plain(id: EntryId, kind: EntryKind, amount: AmountMinor, balance: Balance, held: Balance) -> Self {
        Self {
            id,
            kind,
            amount,
            balance,
            held,
            acts_on: None,
            transfer: None,
            expires_at: None,
            texts: None,
            posted_by: None,
            lead: Lead::default(),
        }
    }
}

impl LedgerHead {
    /// The head of a wallet without entries.
    pub fn empty(user_id: UserId) -> Self {
        let hash = EntryHash::genesis(user_id);
        let (balance, held) = (Balance::ZERO, Balance::ZERO);
        Self { user_id, seq: 0, balance, held, is_closed: false, created_at: None, hash }
    }

    /// The part of the balance that a debit may use.
    pub fn available(&self) -> i64 {
        self.balance.cents().saturating_sub(self.held.cents())
    }

    /// The time of an entry that is appended at `now`: if the clock has gone back, that of the last entry. Times never
    /// contradict the order.
    pub(super) fn time_of_next(&self, now: Timestamp) -> Timestamp {
        self.created_at.map_or(now, |last| last.max(now))
    }

    /// The next entry, which becomes the head.
    ///
    /// # Errors
    /// [`EntryRefused`] if the wallet has used up its sequence numbers.
    pub(super) fn append(&mut self, next: Next<'_>, now: Timestamp) -> Result<NewEntry, EntryRefused> {
        let Lead { request, group_size } = next.lead;
        let seq = self.seq.checked_add(1).ok_or(EntryRefused::BalanceLimit)?;
        let created_at = self.time_of_next(now);
        let texts = next.texts.map(|texts| {
            let digest = texts.digest();
            (texts, digest)
        });
        let hash = self.hash.next(&HashedEntry {
            user_id: self.user_id,
            seq,
            id: next.id,
            kind: next.kind,
            amount: next.amount.cents(),
            balance_after: next.balance,
            held_after: next.held,
            created_at,
            origin: next.acts_on.as_ref().map(|acts_on| acts_on.origin),
            transfer: next.transfer,
            expires_at: next.expires_at,
            request,
            texts: texts.as_ref().map(|(_, digest)| *digest),
            group_size,
            posted_by: next.posted_by.map(ServiceName::as_str),
        });
        *self = Self {
            user_id: self.user_id,
            seq,
            balance: next.balance,
            held: next.held,
            is_closed: next.kind == EntryKind::Close,
            created_at: Some(created_at),
            hash,
        };
        let entry = Entry {
            id: next.id,
            seq,
            kind: next.kind,
            amount: next.amount,
            balance_after: next.balance,
            held_after: next.held,
            acts_on: next.acts_on.map(Box::new),
            transfer: next.transfer,
            expires_at: next.expires_at,
            texts: texts.as_ref().map(|(salted, _)| salted.texts.clone()).unwrap_or_default(),
            posted_by: next.posted_by.cloned(),
            created_at,
        };
        Ok(NewEntry { user_id: self.user_id, entry, request: request.cloned(), texts, group_size, hash })
    }
}
