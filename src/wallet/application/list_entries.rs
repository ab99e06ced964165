//! Page through one's own history, newest first.

use std::sync::Arc;

use crate::kernel::DependencyError;
use crate::wallet::application::ports::{HistoryQuery, LedgerReader};
use crate::wallet::domain::Entry;

/// The use case and its port.
pub struct ListEntries {
    /// Reads.
    pub ledger: Arc<dyn LedgerReader>,
}

/// One page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryPage {
    /// Newest first.
    pub entries: Vec<Entry>,
    /// Where the next page begins, `None` on the last one.
    pub next: Option<HistoryCursor>,
}

impl HistoryPage {
    /// Cuts a page of `limit` out of up to `limit + 1` entries: the one too many says that there is a next page.
    pub fn cut(mut entries: Vec<Entry>, limit: u16) -> Self {
        let more = entries.len() > usize::from(limit);
        entries.truncate(usize::from(limit));
        let next = entries.last().filter(|_| more).map(|last| HistoryCursor { before_seq: last.seq });
        Self { entries, next }
    }
}

/// A place in a history: the pages after it hold smaller places only, so entries that are posted meanwhile neither
/// shift it nor repeat on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryCursor {
    /// The last place shown.
    pub before_seq: i64,
}

/// A text that is no cursor of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be the nextCursor of an earlier page")]
pub struct CursorRefused;

/// Marks the form, so that a later one can be told apart.
const CURSOR_PREFIX: &str = "v1.";

impl HistoryCursor {
    /// The cursor as clients see it: opaque, safe in a URL.
    pub fn encode(self) -> String {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(format!("{CURSOR_PREFIX}{}", self.before_seq))
    }

    /// Reads a cursor back.
    ///
    /// # Errors
    /// [`CursorRefused`] unless [`encode`](Self::encode) could have made exactly this text.
    pub fn decode(text: &str) -> Result<Self, CursorRefused> {
        use base64::Engine as _;
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorRefused)?;
        let before_seq = std::str::from_utf8(&bytes)
            .ok()
            .and_then(|plain| plain.strip_prefix(CURSOR_PREFIX))
            .and_then(|seq| seq.parse::<i64>().ok())
            .filter(|seq| *seq >= 1)
            .ok_or(CursorRefused)?;
        let cursor = Self { before_seq };
        if cursor.encode() == text { Ok(cursor) } else { Err(CursorRefused) }
    }
}

impl ListEntries {
    /// One page of the history.
    ///
    /// # Errors
    /// [`DependencyError`] when the ledger cannot be read.
    pub async fn execute(&self, query: HistoryQuery) -> Result<HistoryPage, DependencyError> {
        self.ledger.history(query).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{EntryId, Timestamp};
    use crate::wallet::domain::{AmountMinor, Balance, Direction};
    use proptest::prelude::*;
    use uuid::Uuid;

    fn entry(seq: i64) -> Entry {
        Entry {
            id: EntryId::from_uuid(Uuid::nil()),
            seq,
            direction: Direction::Credit,
            amount: AmountMinor::try_new(1).expect("amount"),
            balance_after: Balance::ZERO,
            description: None,
            created_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn the_last_page_has_no_cursor_even_when_it_is_full() {
        let page = HistoryPage::cut(vec![entry(2), entry(1)], 2);
        assert_eq!((page.entries.len(), page.next), (2, None));
    }

    #[test]
    fn one_entry_too_many_makes_a_cursor_at_the_last_one_shown() {
        let page = HistoryPage::cut(vec![entry(3), entry(2), entry(1)], 2);
        assert_eq!((page.entries.len(), page.next), (2, Some(HistoryCursor { before_seq: 2 })));
    }

    #[test]
    fn what_we_did_not_encode_is_no_cursor() {
        use base64::Engine as _;
        let of = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        for text in [
            "",
            "x",
            "!!",
            &of("v1."),
            &of("v1.0"),
            &of("v1.-4"),
            &of("v1.+4"),
            &of("v1.04"),
            &of("v2.4"),
            &of("v1.99999999999999999999"),
            &format!("{}=", of("v1.44")),
        ] {
            assert_eq!(HistoryCursor::decode(text), Err(CursorRefused), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_cursor_comes_back_as_it_was(before_seq in 1..=i64::MAX) {
            let cursor = HistoryCursor { before_seq };
            prop_assert_eq!(HistoryCursor::decode(&cursor.encode()), Ok(cursor));
        }

        #[test]
        fn no_text_makes_the_decoder_panic(text in any::<String>()) {
            let _ = HistoryCursor::decode(&text);
        }
    }
}
