//! What an entry of the ledger does.

use crate::wallet::domain::Direction;

/// What an entry does. The values of the `type` column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// Adds to the balance.
    Credit,
    /// Takes from the balance. With a hold as its origin: a capture.
    Debit,
    /// Reserves a part of the balance.
    Hold,
    /// Releases what is left of a hold, on request.
    Void,
    /// Releases what is left of a hold, because its time is over.
    Expire,
    /// The last entry of a wallet.
    Close,
}

impl EntryKind {
    /// The value in the API and in the `type` column of the ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Credit => "credit",
            Self::Debit => "debit",
            Self::Hold => "hold",
            Self::Void => "void",
            Self::Expire => "expire",
            Self::Close => "close",
        }
    }

    /// The reverse of [`Self::as_str`]; case matters.
    pub fn parse(text: &str) -> Option<Self> {
        let kinds = [Self::Credit, Self::Debit, Self::Hold, Self::Void, Self::Expire, Self::Close];
        kinds.into_iter().find(|kind| kind.as_str() == text)
    }

    /// Part of the hash.
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Credit => 1,
            Self::Debit => 2,
            Self::Hold => 3,
            Self::Void => 4,
            Self::Expire => 5,
            Self::Close => 6,
        }
    }
}

impl From<Direction> for EntryKind {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Credit => Self::Credit,
            Direction::Debit => Self::Debit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_of_a_kind_never_changes() {
        use EntryKind::{Close, Credit, Debit, Expire, Hold, Void};
        assert_eq!([Credit, Debit, Hold, Void, Expire, Close].map(EntryKind::code), [1, 2, 3, 4, 5, 6]);
        for kind in [Credit, Debit, Hold, Void, Expire, Close] {
            assert_eq!(EntryKind::parse(kind.as_str()), Some(kind));
        }
        assert_eq!(EntryKind::parse("Credit"), None);
    }
}
