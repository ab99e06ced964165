//! What can be read of a wallet's hash chain.

use async_trait::async_trait;

use crate::kernel::{DependencyError, EntryId, UserId};
use crate::wallet::domain::{Receipt, SaltedTexts};

/// Reads one user's ledger with everything that its hashes cover. PostgreSQL implements it.
#[async_trait]
pub trait ReceiptQueries: Send + Sync {
    /// Of an entry of any kind; `None` also for another user's. An entry that does not match its hash is an error: it must not
    /// be signed.
    async fn receipt(&self, user: UserId, id: EntryId) -> Result<Option<Receipt>, DependencyError>;
    /// The same of the last entry; `None` without entries.
    async fn head(&self, user: UserId) -> Result<Option<Receipt>, DependencyError>;
    /// Entries of every kind as they are stored: nothing is checked, because the caller is going to.
    async fn chain(&self, user: UserId, query: ChainQuery) -> Result<ChainPage, DependencyError>;
}

/// Bytes of texts per page, so that a page of entries with the longest texts is not much larger than one of plain entries.
const TEXT_BYTES_MAX: usize = 256 << 10;

/// Which entries of the wallet, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainQuery {
    /// Only entries with larger sequence numbers.
    pub after: i64,
    /// At most this many.
    pub limit: u16,
}

/// Consecutive entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainPage {
    /// Oldest first.
    pub receipts: Vec<Receipt>,
    /// Where the next page begins; `None` on the last page.
    pub next_after: Option<i64>,
}

impl ChainPage {
    /// Cuts a page out of `found`, which has one entry more than `limit` if there is a next page. A page with many long texts
    /// ends early.
    pub fn cut(mut found: Vec<Receipt>, limit: u16) -> Self {
        let (mut bytes, mut fitting) = (0_usize, 0_usize);
        for receipt in found.iter().take(usize::from(limit)) {
            bytes = bytes.saturating_add(receipt.texts.as_ref().map_or(0, text_bytes));
            if bytes > TEXT_BYTES_MAX && fitting > 0 {
                break;
            }
            fitting = fitting.saturating_add(1);
        }
        let has_next = found.len() > fitting;
        found.truncate(fitting);
        let last = found.last().map(|receipt| receipt.entry.seq);
        Self { receipts: found, next_after: last.filter(|_| has_next) }
    }
}

fn text_bytes(salted: &SaltedTexts) -> usize {
    salted.texts.parts().into_iter().flatten().map(str::len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Timestamp;
    use crate::wallet::domain::{Balance, Description, EntryKind, RecordedEntry, Salt, Texts};
    use uuid::Uuid;

    /// Entries 1 to `count`, each with `bytes` of texts.
    fn entries(count: i64, bytes: usize) -> Vec<Receipt> {
        let entry = |seq| RecordedEntry {
            user_id: UserId::from_uuid(Uuid::nil()),
            seq,
            id: EntryId::from_uuid(Uuid::nil()),
            kind: EntryKind::Credit,
            amount: Balance::ZERO,
            balance_after: Balance::ZERO,
            held_after: Balance::ZERO,
            created_at: Timestamp::UNIX_EPOCH,
            origin: None,
            transfer: None,
            expires_at: None,
            key: None,
            request_digest: None,
            texts_digest: None,
            group_size: None,
            posted_by: None,
        };
        let texts = || SaltedTexts {
            salt: Salt::new([0; 16]),
            texts: Texts::of_description(Some(Description::from_stored("x".repeat(bytes)))),
        };
        (1..=count).map(|seq| Receipt { entry: entry(seq), texts: Some(texts()), link: None }).collect()
    }

    fn cut(count: i64, bytes: usize, limit: u16) -> (usize, Option<i64>) {
        let page = ChainPage::cut(entries(count, bytes), limit);
        (page.receipts.len(), page.next_after)
    }

    #[test]
    fn a_page_ends_at_its_limit_and_says_where_the_next_one_begins() {
        assert_eq!(cut(0, 0, 3), (0, None));
        assert_eq!(cut(3, 0, 3), (3, None));
        assert_eq!(cut(4, 0, 3), (3, Some(3)));
    }

    #[test]
    fn a_page_of_long_texts_ends_early_and_has_at_least_one_entry() {
        assert_eq!(cut(5, TEXT_BYTES_MAX / 2, 4), (2, Some(2)));
        assert_eq!(cut(2, TEXT_BYTES_MAX / 2, 4), (2, None));
        assert_eq!(cut(2, TEXT_BYTES_MAX + 1, 4), (1, Some(1)));
    }
}
