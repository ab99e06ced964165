//! The pages of a wallet's history, newest first, and the cursors between them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::kernel::Timestamp;
use crate::wallet::domain::{Direction, Entry, MetadataPair, Reference};

/// Which entries of a wallet a page shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Only sequence numbers below this one.
    pub before_seq: Option<i64>,
    pub direction: Option<Direction>,
    /// Inclusive.
    pub from: Option<Timestamp>,
    /// Exclusive.
    pub to: Option<Timestamp>,
    pub reference: Option<Reference>,
    /// All of them have to match.
    pub metadata: Vec<MetadataPair>,
    pub limit: u16,
}

/// Entries with texts that one page with a filter by texts looks at. The page may have fewer than `limit` entries, or none, and
/// a next page all the same.
pub const SCANNED_MAX: u16 = 5_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryPage {
    /// Newest first.
    pub entries: Vec<Entry>,
    /// `None` on the last page.
    pub next: Option<HistoryCursor>,
}

impl HistoryPage {
    /// Makes a page of `limit` from up to `limit + 1` entries; the extra entry means that there is a next page. So does
    /// `scanned_to`: what is before that sequence number was not looked at.
    pub fn cut(mut entries: Vec<Entry>, limit: u16, scanned_to: Option<i64>) -> Self {
        let more = entries.len() > usize::from(limit);
        entries.truncate(usize::from(limit));
        let next = if more { entries.last().map(|last| last.seq) } else { scanned_to };
        Self { entries, next: next.map(|before_seq| HistoryCursor { before_seq }) }
    }
}

/// A position in a history. Later pages have smaller sequence numbers only, so new entries neither shift nor repeat
/// items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryCursor {
    /// The sequence number of the last entry shown; at least 1.
    pub before_seq: i64,
}

/// The text is not a cursor that this service issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be the nextCursor of an earlier page")]
pub struct CursorRefused;

/// Version of the encoding.
const CURSOR_PREFIX: &str = "v1.";

impl HistoryCursor {
    /// The cursor as clients see it: opaque and URL-safe.
    pub fn encode(self) -> String {
        URL_SAFE_NO_PAD.encode(format!("{CURSOR_PREFIX}{}", self.before_seq))
    }

    /// # Errors
    /// [`CursorRefused`] unless [`encode`](Self::encode) could have produced exactly this text.
    pub fn decode(text: &str) -> Result<Self, CursorRefused> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorRefused)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::EntryId;
    use crate::wallet::domain::{AmountMinor, Balance, EntryKind, Texts};
    use proptest::prelude::*;
    use uuid::Uuid;

    fn entry(seq: i64) -> Entry {
        Entry {
            id: EntryId::from_uuid(Uuid::nil()),
            seq,
            kind: EntryKind::Credit,
            amount: AmountMinor::try_new(1).expect("amount"),
            balance_after: Balance::ZERO,
            held_after: Balance::ZERO,
            acts_on: None,
            transfer: None,
            expires_at: None,
            texts: Texts::default(),
            posted_by: None,
            created_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn the_last_page_has_no_cursor_even_when_it_is_full() {
        let page = HistoryPage::cut(vec![entry(2), entry(1)], 2, None);
        assert_eq!((page.entries.len(), page.next), (2, None));
    }

    #[test]
    fn one_extra_entry_makes_a_cursor_at_the_last_entry_shown() {
        for scanned_to in [None, Some(1)] {
            let page = HistoryPage::cut(vec![entry(3), entry(2), entry(1)], 2, scanned_to);
            assert_eq!((page.entries.len(), page.next), (2, Some(HistoryCursor { before_seq: 2 })));
        }
    }

    #[test]
    fn a_page_whose_scan_ended_early_has_a_cursor_where_it_ended_even_when_it_is_empty() {
        for entries in [vec![], vec![entry(9)], vec![entry(9), entry(8)]] {
            let page = HistoryPage::cut(entries.clone(), 2, Some(5));
            assert_eq!((page.entries, page.next), (entries, Some(HistoryCursor { before_seq: 5 })));
        }
    }

    #[test]
    fn a_text_that_we_did_not_encode_is_not_a_cursor() {
        let of = |text: &str| URL_SAFE_NO_PAD.encode(text);
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
        fn decoding_an_encoded_cursor_gives_the_same_cursor(before_seq in 1..=i64::MAX) {
            let cursor = HistoryCursor { before_seq };
            prop_assert_eq!(HistoryCursor::decode(&cursor.encode()), Ok(cursor));
        }

        #[test]
        fn the_decoder_never_panics(text in any::<String>()) {
            let _ = HistoryCursor::decode(&text);
        }
    }
}
