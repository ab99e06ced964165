//! The audit of a wallet: its stored entries are recomputed and compared with the rules of the ledger.

use std::fmt;

use crate::kernel::UserId;

/// Two numbers of one entry that should be equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The stored sequence number of the entry.
    pub seq: i64,
    pub stored: i64,
    pub computed: i64,
}

/// The result of the audit of one wallet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalletAudit {
    /// The owner of the wallet.
    pub user_id: UserId,
    pub entries: i64,
    /// How many of them have a hash.
    pub chained: i64,
    /// Whether the wallet of the entries exists.
    pub has_wallet: bool,
    /// The balance in cents on the last entry, which the API shows.
    pub stored_balance: i64,
    /// The sum of all entries, in cents.
    pub computed_balance: i64,
    /// The first entry with a wrong sequence number.
    pub sequence: Option<Difference>,
    /// The first entry whose balance is not the sum of the entries up to it.
    pub balance: Option<Difference>,
    /// The sequence number of the first entry with a negative balance.
    pub negative: Option<i64>,
    /// The sequence number of the first entry that is older than the previous one.
    pub time: Option<i64>,
    /// The first entry whose held amount is not the sum of what the entries up to it hold and release.
    pub held: Option<Difference>,
    /// The sequence number of the first entry whose hash does not follow from itself and the entry before it.
    pub chain: Option<i64>,
    /// The sequence number of the first entry whose texts are not those that it was written with.
    pub texts: Option<i64>,
    /// The sequence number of the first entry that cannot have acted on its origin.
    pub origin: Option<i64>,
    /// The sequence number of the first leg of a transfer whose other leg is missing or different.
    pub transfer: Option<i64>,
    /// The sequence number of the first entry that begins an atomic bulk request of which entries are missing, or that is among
    /// those of one where it cannot be.
    pub group: Option<i64>,
    /// The sequence number of the first entry after the wallet was closed.
    pub closed: Option<i64>,
    /// The sequence number of the first hold that is open in the ledger or in the list of open holds, but not alike in both.
    pub open_holds: Option<i64>,
}

/// A rule of the ledger that a wallet breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedgerViolation {
    /// Sequence numbers are not 1, 2, 3, …
    Sequence(Difference),
    /// The balance of this entry is not the sum of the entries up to it.
    Balance(Difference),
    /// The balance of this entry is negative.
    Negative(i64),
    /// This entry is older than the previous one.
    Time(i64),
    /// What is held after this entry is not what the entries up to it hold and release.
    Held(Difference),
    /// The hash of this entry does not follow from itself and the entry before it.
    Chain(i64),
    /// The texts of this entry are not those that it was written with.
    Texts(i64),
    /// This entry cannot have acted on its origin: number, amount or kind contradict it.
    Origin(i64),
    /// The other leg of this entry's transfer is missing or different.
    Transfer(i64),
    /// The entries of an atomic bulk request are not whole: some are missing after this one, or this one cannot be among them.
    Group(i64),
    /// This entry follows the closing of the wallet.
    Closed(i64),
    /// This hold is not listed as the ledger implies.
    OpenHolds(i64),
    /// The entries belong to no wallet.
    NoWallet,
}

impl WalletAudit {
    /// Empty for a valid wallet.
    pub fn violations(&self) -> Vec<LedgerViolation> {
        let no_wallet = (!self.has_wallet).then_some(LedgerViolation::NoWallet);
        let found = [
            self.sequence.map(LedgerViolation::Sequence),
            self.balance.map(LedgerViolation::Balance),
            self.negative.map(LedgerViolation::Negative),
            self.time.map(LedgerViolation::Time),
            self.held.map(LedgerViolation::Held),
            self.chain.map(LedgerViolation::Chain),
            self.texts.map(LedgerViolation::Texts),
            self.origin.map(LedgerViolation::Origin),
            self.transfer.map(LedgerViolation::Transfer),
            self.group.map(LedgerViolation::Group),
            self.closed.map(LedgerViolation::Closed),
            self.open_holds.map(LedgerViolation::OpenHolds),
            no_wallet,
        ];
        found.into_iter().flatten().collect()
    }
}

impl LedgerViolation {
    /// The name of the rule in the output of `purse ledger verify`.
    pub const fn rule(&self) -> &'static str {
        match self {
            Self::Sequence(_) => "sequence",
            Self::Balance(_) => "balance",
            Self::Negative(_) => "negative",
            Self::Time(_) => "time",
            Self::Held(_) => "held",
            Self::Chain(_) => "chain",
            Self::Texts(_) => "texts",
            Self::Origin(_) => "origin",
            Self::Transfer(_) => "transfer",
            Self::Group(_) => "group",
            Self::Closed(_) => "closed",
            Self::OpenHolds(_) => "open_holds",
            Self::NoWallet => "wallet",
        }
    }

    /// The sequence number of the first entry that breaks the rule.
    pub const fn seq(&self) -> Option<i64> {
        match self {
            Self::Sequence(at) | Self::Balance(at) | Self::Held(at) => Some(at.seq),
            Self::Negative(seq)
            | Self::Time(seq)
            | Self::Chain(seq)
            | Self::Texts(seq)
            | Self::Origin(seq)
            | Self::Transfer(seq)
            | Self::Group(seq)
            | Self::Closed(seq)
            | Self::OpenHolds(seq) => Some(*seq),
            Self::NoWallet => None,
        }
    }
}

impl fmt::Display for LedgerViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sequence(Difference { seq, computed, .. }) => {
                write!(f, "entry {seq} should have sequence number {computed}")
            }
            Self::Balance(Difference { seq, stored, computed }) => {
                write!(f, "entry {seq} has balance {stored}, but the entries up to it add up to {computed}")
            }
            Self::Negative(seq) => write!(f, "entry {seq} has a negative balance"),
            Self::Time(seq) => write!(f, "entry {seq} is older than the previous entry"),
            Self::Held(Difference { seq, stored, computed }) => {
                write!(f, "entry {seq} leaves {stored} held, but the entries up to it hold {computed}")
            }
            Self::Chain(seq) => {
                write!(
                    f,
                    "the hash of entry {seq} does not follow from the entry and the one before it: one of them was changed, removed or inserted"
                )
            }
            Self::Texts(seq) => write!(f, "the texts of entry {seq} are not those that it was written with"),
            Self::Origin(seq) => write!(f, "entry {seq} cannot have acted on the entry that it names"),
            Self::Transfer(seq) => {
                write!(f, "entry {seq} is a leg of a transfer whose other leg is missing or different")
            }
            Self::Group(seq) => {
                write!(
                    f,
                    "the entries of an atomic bulk request are not whole: some are missing after entry {seq}, or it cannot be among them"
                )
            }
            Self::Closed(seq) => write!(f, "entry {seq} follows the closing of the wallet"),
            Self::OpenHolds(seq) => write!(f, "hold {seq} is not in the list of open holds as the ledger implies"),
            Self::NoWallet => f.write_str("the wallet of these entries does not exist"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn valid() -> WalletAudit {
        WalletAudit {
            user_id: UserId::from_uuid(Uuid::nil()),
            entries: 3,
            chained: 3,
            has_wallet: true,
            stored_balance: 7,
            computed_balance: 7,
            sequence: None,
            balance: None,
            negative: None,
            time: None,
            held: None,
            chain: None,
            texts: None,
            origin: None,
            transfer: None,
            group: None,
            closed: None,
            open_holds: None,
        }
    }

    #[test]
    fn a_valid_wallet_has_no_violation() {
        assert_eq!(valid().violations(), []);
    }

    #[test]
    fn every_broken_rule_is_reported_with_the_first_entry_that_breaks_it() {
        let at = Difference { seq: 2, stored: 50, computed: 40 };
        let broken = WalletAudit {
            has_wallet: false,
            sequence: Some(Difference { seq: 4, stored: 4, computed: 3 }),
            balance: Some(at),
            negative: Some(5),
            time: Some(6),
            held: Some(Difference { seq: 7, stored: 5, computed: 3 }),
            chain: Some(8),
            texts: Some(9),
            origin: Some(10),
            transfer: Some(11),
            group: Some(12),
            closed: Some(13),
            open_holds: Some(14),
            ..valid()
        };
        let reported: Vec<_> = broken.violations().iter().map(|f| (f.rule(), f.seq(), f.to_string())).collect();
        let expected = [
            ("sequence", Some(4), "entry 4 should have sequence number 3"),
            ("balance", Some(2), "entry 2 has balance 50, but the entries up to it add up to 40"),
            ("negative", Some(5), "entry 5 has a negative balance"),
            ("time", Some(6), "entry 6 is older than the previous entry"),
            ("held", Some(7), "entry 7 leaves 5 held, but the entries up to it hold 3"),
            (
                "chain",
                Some(8),
                "the hash of entry 8 does not follow from the entry and the one before it: one of them was changed, removed or inserted",
            ),
            ("texts", Some(9), "the texts of entry 9 are not those that it was written with"),
            ("origin", Some(10), "entry 10 cannot have acted on the entry that it names"),
            ("transfer", Some(11), "entry 11 is a leg of a transfer whose other leg is missing or different"),
            (
                "group",
                Some(12),
                "the entries of an atomic bulk request are not whole: some are missing after entry 12, or it cannot be among them",
            ),
            ("closed", Some(13), "entry 13 follows the closing of the wallet"),
            ("open_holds", Some(14), "hold 14 is not in the list of open holds as the ledger implies"),
            ("wallet", None, "the wallet of these entries does not exist"),
        ];
        assert_eq!(reported, expected.map(|(law, seq, text)| (law, seq, text.to_owned())));
    }
}
