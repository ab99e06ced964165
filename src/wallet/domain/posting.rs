//! A posting: the unit that is decided. All of its entries are written, or none.

use crate::kernel::{EntryId, Timestamp, UserId};
use crate::wallet::domain::entry::Lead;
use crate::wallet::domain::{Draft, EntryRefused, KeyedRequest, LedgerHead, NewEntry, OneOrMore};

/// One draft, or an atomic group of drafts for one wallet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posting {
    /// The owner of the wallet.
    pub user_id: UserId,
    /// Decided in this order; each sees what the one before it would leave.
    pub drafts: OneOrMore<Draft>,
    /// `None` without an idempotency key.
    pub request: Option<KeyedRequest>,
}

impl Posting {
    /// The id of the future first entry.
    pub const fn id(&self) -> EntryId {
        self.drafts.first().id
    }

    /// The entries of this posting after `head`, decided in order. The first one has the key and, in a group, its size.
    ///
    /// # Errors
    /// [`EntryRefused`] of the first draft that a rule refuses.
    pub(super) fn append_to(&self, head: LedgerHead, now: Timestamp) -> Result<OneOrMore<NewEntry>, EntryRefused> {
        let group_size = i16::try_from(self.drafts.count()).ok().filter(|size| *size > 1);
        let first = head.append(self.drafts.first(), Lead { request: self.request.as_ref(), group_size }, now)?;
        let mut head = LedgerHead::from(&first);
        let rest = self.drafts.iter().skip(1).map(|draft| {
            let entry = head.append(draft, Lead::default(), now)?;
            head = LedgerHead::from(&entry);
            Ok(entry)
        });
        let rest = rest.collect::<Result<Vec<_>, EntryRefused>>()?;
        Ok(OneOrMore::new(first, rest))
    }
}
