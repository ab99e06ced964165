//! The locked wallets of a batch, as its postings find them.

use std::collections::HashMap;

use crate::kernel::{EntryId, IdempotencyKey, ServiceName, UserId};
use crate::wallet::domain::{DueHold, Entry, EntryKind, LedgerHead, OneOrMore, Posting, RequestDigest};

/// The state of a locked wallet.
#[derive(Clone, Debug)]
pub struct WalletState {
    /// The last entry of the wallet.
    pub head: LedgerHead,
    /// What the idempotency keys of this batch were used for.
    pub used_keys: HashMap<KeyOwner, UsedKey>,
    /// Open holds whose time is over. They end before anything else happens to the wallet.
    pub due: Vec<DueHold>,
    /// Whether further holds may be due, which a later batch ends. Known once those in `due` have ended.
    pub more_due: bool,
    /// The earlier entries that the batch names.
    pub named: HashMap<EntryId, NamedEntry>,
    /// The sender's legs of the transfers that the batch sends back, by the id of the transfer.
    pub sent: HashMap<EntryId, NamedEntry>,
}

impl WalletState {
    /// No key of the batch has been used, no hold is due, and no earlier entry is named.
    pub fn new(head: LedgerHead) -> Self {
        let (named, sent) = (HashMap::new(), HashMap::new());
        Self { head, used_keys: HashMap::new(), due: Vec::new(), more_due: false, named, sent }
    }
}

/// Whose key it is: a service and the user may use the same one for different requests.
pub type KeyOwner = (Option<ServiceName>, IdempotencyKey);

/// The request under a used idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedKey {
    /// `None` on entries that are older than the hash chain.
    pub digest: Option<RequestDigest>,
    /// What the request created.
    pub entries: OneOrMore<Entry>,
}

impl UsedKey {
    pub(super) fn is_of(&self, posting: &Posting) -> bool {
        let Some(digest) = self.digest else {
            // Only single drafts were posted at that time.
            return posting.drafts.count() == 1 && self.entries.first().is_requested_by(posting.drafts.first());
        };
        posting.request.as_ref().is_some_and(|request| request.digest == digest)
    }
}

/// An earlier entry, and what the acts on it so far have left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedEntry {
    pub entry: Entry,
    /// The number of acts on it.
    pub acts: i32,
    /// In cents. Of a hold: what is still held; else what can still be reversed.
    pub left: i64,
    /// What the last act was.
    pub last_act: Option<EntryKind>,
}

/// The locked wallets of a batch.
pub type WalletStates = HashMap<UserId, WalletState>;
