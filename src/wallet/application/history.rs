//! The pages of a wallet's history, newest first, and the cursors between them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::kernel::{Timestamp, UserId};
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

/// A position in a list. Later pages have smaller sequence numbers only, so new entries neither shift nor repeat items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryCursor {
    /// The sequence number of the last entry shown; at least 1.
    pub before_seq: i64,
}

/// A list that has pages. A cursor names the list and the wallet, so that it is refused elsewhere: there it would skip items or
/// show none, and nobody would notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PagedList {
    /// What it lists.
    pub kind: ListKind,
    /// The owner of the wallet, whether the user or a service asks.
    pub user: UserId,
}

/// What a [`PagedList`] has in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// The history.
    Transactions,
    /// Open holds, or all of them.
    Holds,
}

impl ListKind {
    /// As in cursors.
    const fn number(self) -> u8 {
        match self {
            Self::Transactions => 1,
            Self::Holds => 2,
        }
    }
}

/// The text is not a cursor that this service issued for the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be the nextCursor of an earlier page of this list")]
pub struct CursorRefused;

/// Version of the encoding: this byte, the kind of the list, the 16 bytes of the user and 8 of the sequence number.
const CURSOR_VERSION: u8 = 2;

/// How cursors begin that release 0.1.0 issued, which had one list only. Cursors do not expire.
const CURSOR_PREFIX_OF_0_1: &str = "v1.";

impl PagedList {
    /// A cursor as clients see it: opaque and URL-safe.
    pub fn encode(self, cursor: HistoryCursor) -> String {
        let (user, seq) = (self.user.as_uuid().into_bytes(), cursor.before_seq.to_be_bytes());
        URL_SAFE_NO_PAD.encode([&[CURSOR_VERSION, self.kind.number()][..], &user, &seq].concat())
    }

    /// # Errors
    /// [`CursorRefused`] unless [`encode`](Self::encode) or release 0.1.0 could have produced exactly this text.
    pub fn decode(self, text: &str) -> Result<HistoryCursor, CursorRefused> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorRefused)?;
        let seq = match bytes.last_chunk() {
            Some(seq) if bytes.first() == Some(&CURSOR_VERSION) => Some(i64::from_be_bytes(*seq)),
            _ => std::str::from_utf8(&bytes)
                .ok()
                .and_then(|plain| plain.strip_prefix(CURSOR_PREFIX_OF_0_1))
                .and_then(|seq| seq.parse().ok()),
        };
        let before_seq = seq.filter(|seq| *seq >= 1).ok_or(CursorRefused)?;
        let cursor = HistoryCursor { before_seq };
        let is_known = self.encode(cursor) == text || self.encode_as_0_1(cursor).is_some_and(|old| old == text);
        if is_known { Ok(cursor) } else { Err(CursorRefused) }
    }

    fn encode_as_0_1(self, cursor: HistoryCursor) -> Option<String> {
        let encode = || URL_SAFE_NO_PAD.encode(format!("{CURSOR_PREFIX_OF_0_1}{}", cursor.before_seq));
        (self.kind == ListKind::Transactions).then(encode)
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

    fn list(kind: ListKind, user: u128) -> PagedList {
        PagedList { kind, user: UserId::from_uuid(Uuid::from_u128(user)) }
    }

    const KINDS: [ListKind; 2] = [ListKind::Transactions, ListKind::Holds];

    #[test]
    fn a_text_that_we_did_not_encode_is_not_a_cursor() {
        let of = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let current = |version: u8, kind: u8, user: u128, seq: i64| {
            of(&[&[version, kind][..], &user.to_be_bytes(), &seq.to_be_bytes()].concat())
        };
        let issued = current(2, 1, 7, 4);
        assert_eq!(list(ListKind::Transactions, 7).decode(&issued), Ok(HistoryCursor { before_seq: 4 }));
        for text in [
            "",
            "x",
            "!!",
            &of(b"v1."),
            &of(b"v1.0"),
            &of(b"v1.-4"),
            &of(b"v1.+4"),
            &of(b"v1.04"),
            &of(b"v2.4"),
            &of(b"v1.99999999999999999999"),
            &format!("{}=", of(b"v1.44")),
            &of(&[2]),
            &of(&[2; 9]),
            &current(2, 1, 7, 0),
            &current(2, 1, 7, -4),
            &current(2, 0, 7, 4),
            &current(2, 3, 7, 4),
            &current(1, 1, 7, 4),
            &current(3, 1, 7, 4),
            &format!("{issued}A"),
            &format!("{issued}=="),
            &issued[..issued.len() - 1],
        ] {
            for kind in KINDS {
                assert_eq!(list(kind, 7).decode(text), Err(CursorRefused), "{kind:?} {text:?}");
            }
        }
    }

    #[test]
    fn a_cursor_of_release_0_1_0_is_one_of_the_transactions_only() {
        assert_eq!(list(ListKind::Transactions, 7).decode("djEuMg"), Ok(HistoryCursor { before_seq: 2 }));
        assert_eq!(list(ListKind::Holds, 7).decode("djEuMg"), Err(CursorRefused));
    }

    proptest! {
        #[test]
        fn a_cursor_is_decoded_by_its_own_list_only(before_seq in 1..=i64::MAX, user in any::<u128>(), other in any::<u128>()) {
            let cursor = HistoryCursor { before_seq };
            for kind in KINDS {
                let text = list(kind, user).encode(cursor);
                for (other_kind, other_user) in KINDS.into_iter().flat_map(|kind| [(kind, user), (kind, other)]) {
                    let is_own = (other_kind, other_user) == (kind, user);
                    let expected = if is_own { Ok(cursor) } else { Err(CursorRefused) };
                    prop_assert_eq!(list(other_kind, other_user).decode(&text), expected);
                }
            }
        }

        #[test]
        fn the_decoder_never_panics(text in any::<String>(), bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = list(ListKind::Transactions, 7).decode(&text);
            let _ = list(ListKind::Transactions, 7).decode(&URL_SAFE_NO_PAD.encode(bytes));
        }
    }
}
