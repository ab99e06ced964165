//! The laws of a ledger, held against what is stored: what a recount of one wallet has found, and what that breaks.

use std::fmt;

use crate::kernel::UserId;

/// Two numbers of one entry that should be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Place of the entry, as it is stored.
    pub seq: i64,
    /// What is stored there.
    pub stored: i64,
    /// What the entries up to there make.
    pub recounted: i64,
}

/// A recount of one wallet: its entries in their order, added up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalletAudit {
    /// Whose wallet.
    pub user_id: UserId,
    /// How many entries there are.
    pub entries: i64,
    /// Whether there is a wallet that they belong to.
    pub has_wallet: bool,
    /// What the last entry says that the wallet holds: the balance that everybody is shown.
    pub stored_balance: i64,
    /// What all entries together make.
    pub recounted_balance: i64,
    /// The first entry whose place is not the one that it is counted to.
    pub place: Option<Difference>,
    /// The first entry whose balance is not the sum up to it.
    pub balance: Option<Difference>,
    /// The first entry that leaves less than nothing.
    pub negative: Option<i64>,
    /// The first entry that is older than the one before it.
    pub time: Option<i64>,
}

/// A law that a wallet breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Places do not count 1, 2, 3, …
    Sequence(Difference),
    /// A balance is not the sum of the entries up to it.
    Balance(Difference),
    /// A balance is below zero from this entry on.
    Negative(i64),
    /// This entry is older than the one before it.
    Time(i64),
    /// Entries without a wallet.
    NoWallet,
}

impl WalletAudit {
    /// All laws that it breaks; none for a sound wallet.
    pub fn faults(&self) -> Vec<Fault> {
        let no_wallet = (!self.has_wallet).then_some(Fault::NoWallet);
        let found = [
            self.place.map(Fault::Sequence),
            self.balance.map(Fault::Balance),
            self.negative.map(Fault::Negative),
            self.time.map(Fault::Time),
            no_wallet,
        ];
        found.into_iter().flatten().collect()
    }
}

impl Fault {
    /// The law, in a word.
    pub const fn law(&self) -> &'static str {
        match self {
            Self::Sequence(_) => "sequence",
            Self::Balance(_) => "balance",
            Self::Negative(_) => "negative",
            Self::Time(_) => "time",
            Self::NoWallet => "wallet",
        }
    }

    /// Place of the first entry that breaks it.
    pub const fn seq(&self) -> Option<i64> {
        match self {
            Self::Sequence(at) | Self::Balance(at) => Some(at.seq),
            Self::Negative(seq) | Self::Time(seq) => Some(*seq),
            Self::NoWallet => None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sequence(Difference { seq, recounted, .. }) => write!(f, "entry {seq} stands at place {recounted}"),
            Self::Balance(Difference { seq, stored, recounted }) => {
                write!(f, "entry {seq} says {stored}, and the entries up to it make {recounted}")
            }
            Self::Negative(seq) => write!(f, "entry {seq} leaves less than nothing"),
            Self::Time(seq) => write!(f, "entry {seq} is older than the one before it"),
            Self::NoWallet => f.write_str("there are entries and no wallet"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn sound() -> WalletAudit {
        WalletAudit {
            user_id: UserId::from_uuid(Uuid::nil()),
            entries: 3,
            has_wallet: true,
            stored_balance: 7,
            recounted_balance: 7,
            place: None,
            balance: None,
            negative: None,
            time: None,
        }
    }

    #[test]
    fn a_sound_wallet_has_no_fault() {
        assert_eq!(sound().faults(), []);
    }

    #[test]
    fn every_law_that_is_broken_is_told_with_the_entry_where_it_begins() {
        let at = Difference { seq: 2, stored: 50, recounted: 40 };
        let broken = WalletAudit {
            has_wallet: false,
            place: Some(Difference { seq: 4, stored: 4, recounted: 3 }),
            balance: Some(at),
            negative: Some(5),
            time: Some(6),
            ..sound()
        };
        let told: Vec<_> = broken.faults().iter().map(|f| (f.law(), f.seq(), f.to_string())).collect();
        let expected = [
            ("sequence", Some(4), "entry 4 stands at place 3"),
            ("balance", Some(2), "entry 2 says 50, and the entries up to it make 40"),
            ("negative", Some(5), "entry 5 leaves less than nothing"),
            ("time", Some(6), "entry 6 is older than the one before it"),
            ("wallet", None, "there are entries and no wallet"),
        ];
        assert_eq!(told, expected.map(|(law, seq, text)| (law, seq, text.to_owned())));
    }
}
