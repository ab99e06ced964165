//! A posting: the unit that is decided. All of its entries are written, or none.

use crate::kernel::{EntryId, IdempotencyKey, SelfPost, ServiceName, UserId};
use crate::wallet::domain::{Draft, KeyedRequest, OneOrMore, RequestDigest};

/// One draft, or an atomic group of drafts for one wallet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posting {
    /// The owner of the wallet.
    pub user_id: UserId,
    /// Decided in this order; each sees what the one before it would leave.
    pub drafts: OneOrMore<Draft>,
    /// `None` without an idempotency key.
    pub request: Option<KeyedRequest>,
    /// The service that posts on behalf of the user; `None`: the user.
    pub posted_by: Option<ServiceName>,
    /// What it may do if the user posts it.
    pub self_post: SelfPost,
}

impl Posting {
    /// By the user, who may do everything. Its digest is needed only with a key.
    pub fn new(user_id: UserId, drafts: OneOrMore<Draft>, key: Option<IdempotencyKey>) -> Self {
        let request = key.map(|key| KeyedRequest { key, digest: RequestDigest::of(&drafts) });
        Self { user_id, drafts, request, posted_by: None, self_post: SelfPost::CreditAndDebit }
    }

    /// The id of the future first entry.
    pub const fn id(&self) -> EntryId {
        self.drafts.first().id
    }

    /// The owners of the wallets that it changes.
    pub fn wallets(&self) -> impl Iterator<Item = UserId> {
        std::iter::once(self.user_id).chain(self.other_wallet())
    }

    /// The owner of the other wallet that it changes, if it changes one.
    pub fn other_wallet(&self) -> Option<UserId> {
        self.drafts.iter().find_map(|draft| draft.act.other_wallet())
    }
}
