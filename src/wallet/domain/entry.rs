//! Entries of the ledger.

use crate::kernel::{EntryId, ServiceName, Timestamp, UserId};
use crate::wallet::domain::{
    Act, AmountMinor, BackTransfer, Balance, Draft, EntryHash, EntryKind, Hold, HoldStatus, KeyedRequest, Origin,
    OtherLeg, SaltedTexts, Texts, TextsDigest, TransferLeg,
};

/// An entry as its owner sees it. It is never changed or deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Unique in the whole ledger.
    pub id: EntryId,
    /// The sequence number in the wallet: 1, 2, 3, … without gaps.
    pub seq: i64,
    /// What it does. Histories and statements show credits and debits only.
    pub kind: EntryKind,
    /// Never zero.
    pub amount: AmountMinor,
    /// The balance of the wallet after this entry.
    pub balance_after: Balance,
    /// What is held of that balance after this entry.
    pub held_after: Balance,
    /// Only of captures, voids, expiries and reversals.
    pub acts_on: Option<Box<ActsOn>>,
    /// Only of the legs of transfers.
    pub transfer: Option<TransferLeg>,
    /// Only of a hold.
    pub expires_at: Option<Timestamp>,
    /// For people; no rule depends on them. Empty too if they were erased after the wallet was closed.
    pub texts: Texts,
    /// The service that posted it on behalf of the user; `None`: the user.
    pub posted_by: Option<ServiceName>,
    /// By the clock of the database; never earlier than the previous entry.
    pub created_at: Timestamp,
}

/// The earlier entry on which an entry acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActsOn {
    /// Its sequence number, the number of this act on it, and what this act leaves of it.
    pub origin: Origin,
    pub id: EntryId,
    pub kind: EntryKind,
    /// If it is a hold: the hold as this act left it. Known for what a request posts or replays, not in histories.
    pub hold: Option<Hold>,
}

impl Entry {
    /// Whether `draft` requests exactly this entry. For entries without a digest of their request, which are older than all
    /// acts but credits and debits.
    pub fn is_requested_by(&self, draft: &Draft) -> bool {
        let Act::Post { direction, amount } = draft.act else { return false };
        let texts = draft.texts.as_ref().map(|salted| &salted.texts);
        self.kind == direction.into() && self.amount == amount && self.texts == texts.cloned().unwrap_or_default()
    }

    /// Where a reversal sends the money: `None` unless this entry is a received transfer.
    pub fn back_transfer(&self, leg: impl FnOnce() -> OtherLeg) -> Option<BackTransfer> {
        let is_received = self.kind == EntryKind::Credit && self.acts_on.is_none();
        let TransferLeg { transfer, counterparty } = self.transfer.filter(|_| is_received)?;
        Some(BackTransfer { sender: counterparty, transfer, leg: leg() })
    }

    /// `None` unless this entry is a hold: the hold as it was placed.
    pub fn as_placed_hold(&self) -> Option<Hold> {
        let remaining = Balance::from(self.amount);
        self.hold(HoldStatus::Open, Balance::ZERO, remaining)
    }

    /// `None` unless this entry is a hold.
    pub fn hold(&self, status: HoldStatus, captured: Balance, remaining: Balance) -> Option<Hold> {
        Some(Hold {
            id: self.id,
            status,
            amount: self.amount,
            captured,
            remaining,
            expires_at: self.expires_at?,
            texts: self.texts.clone(),
            created_at: self.created_at,
            posted_by: self.posted_by.clone(),
        })
    }
}

/// A new entry with everything that its row has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEntry {
    /// The owner of the wallet.
    pub user_id: UserId,
    /// What its owner sees of it.
    pub entry: Entry,
    /// Only on the first entry of its posting.
    pub request: Option<KeyedRequest>,
    /// With the digest that the row has.
    pub texts: Option<(SaltedTexts, TextsDigest)>,
    /// Only on the first entry of an atomic group.
    pub group_size: Option<i16>,
    /// Continues the hash of the entry before it.
    pub hash: EntryHash,
}
