//! The audit of a wallet: its stored entries are added up again and compared with the rules of the ledger.

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
            Self::NoWallet => "wallet",
        }
    }

    /// The sequence number of the first entry that breaks the rule.
    pub const fn seq(&self) -> Option<i64> {
        match self {
            Self::Sequence(at) | Self::Balance(at) => Some(at.seq),
            Self::Negative(seq) | Self::Time(seq) => Some(*seq),
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
            has_wallet: true,
            stored_balance: 7,
            computed_balance: 7,
            sequence: None,
            balance: None,
            negative: None,
            time: None,
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
            ..valid()
        };
        let reported: Vec<_> = broken.violations().iter().map(|f| (f.rule(), f.seq(), f.to_string())).collect();
        let expected = [
            ("sequence", Some(4), "entry 4 should have sequence number 3"),
            ("balance", Some(2), "entry 2 has balance 50, but the entries up to it add up to 40"),
            ("negative", Some(5), "entry 5 has a negative balance"),
            ("time", Some(6), "entry 6 is older than the previous entry"),
            ("wallet", None, "the wallet of these entries does not exist"),
        ];
        assert_eq!(reported, expected.map(|(law, seq, text)| (law, seq, text.to_owned())));
    }
}
