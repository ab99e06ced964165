//! Money: whole US cents, with checked arithmetic.

use crate::wallet::domain::{Direction, EntryRefused};

/// The largest amount and the largest balance, in cents: 2⁵³−1, the largest integer that every JSON parser reads exactly.
///
/// # Source
/// RFC 8259 §6 (interoperable range of numbers).
pub const MINOR_MAX: i64 = 9_007_199_254_740_991;

/// The amount of a post, in cents: 1 to [`MINOR_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AmountMinor(i64);

/// The number is not an [`AmountMinor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be an integer from 1 to 9007199254740991")]
pub struct AmountRefused;

impl AmountMinor {
    /// # Errors
    /// [`AmountRefused`] below 1 and above [`MINOR_MAX`].
    pub const fn try_new(cents: i64) -> Result<Self, AmountRefused> {
        if cents >= 1 && cents <= MINOR_MAX { Ok(Self(cents)) } else { Err(AmountRefused) }
    }

    /// In cents.
    pub const fn cents(self) -> i64 {
        self.0
    }
}

impl From<AmountMinor> for Balance {
    fn from(amount: AmountMinor) -> Self {
        Self(amount.0)
    }
}

/// The balance of a wallet, in cents: 0 to [`MINOR_MAX`]. Also what is held or left of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Balance(i64);

impl Balance {
    /// The balance of a wallet without entries.
    pub const ZERO: Self = Self(0);

    /// `None` if the stored value breaks the rules of the ledger.
    pub const fn from_stored(cents: i64) -> Option<Self> {
        if cents >= 0 && cents <= MINOR_MAX { Some(Self(cents)) } else { None }
    }

    /// In cents.
    pub const fn cents(self) -> i64 {
        self.0
    }

    /// `None` above [`MINOR_MAX`].
    pub fn more(self, amount: AmountMinor) -> Option<Self> {
        self.0.checked_add(amount.0).and_then(Self::from_stored)
    }

    /// `None` below zero.
    pub fn less(self, amount: AmountMinor) -> Option<Self> {
        self.0.checked_sub(amount.0).and_then(Self::from_stored)
    }

    /// The balance after a credit or debit of `amount`, of which a debit may not use what is `held`.
    ///
    /// # Errors
    /// [`EntryRefused::InsufficientFunds`] below `held`, [`EntryRefused::BalanceLimit`] above [`MINOR_MAX`].
    pub fn after(self, direction: Direction, amount: AmountMinor, held: Self) -> Result<Self, EntryRefused> {
        match direction {
            Direction::Credit => self.more(amount).ok_or(EntryRefused::BalanceLimit),
            Direction::Debit => self.less(amount).filter(|left| *left >= held).ok_or(EntryRefused::InsufficientFunds),
        }
    }
}

/// A balance, and the part of it that open holds reserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Funds {
    /// Everything in the wallet.
    pub balance: Balance,
    /// At most the balance.
    pub held: Balance,
}

impl Funds {
    /// Of a wallet without entries.
    pub const NONE: Self = Self { balance: Balance::ZERO, held: Balance::ZERO };

    /// The cents that a debit may use.
    pub const fn available(self) -> i64 {
        self.balance.0.saturating_sub(self.held.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn amount(cents: i64) -> AmountMinor {
        AmountMinor::try_new(cents).expect("amount in range")
    }

    #[test]
    fn an_amount_is_from_one_cent_to_the_largest_exact_integer() {
        for cents in [i64::MIN, -1, 0, MINOR_MAX + 1, i64::MAX] {
            assert_eq!(AmountMinor::try_new(cents), Err(AmountRefused), "{cents}");
        }
        assert_eq!(AmountMinor::try_new(1).map(AmountMinor::cents), Ok(1));
        assert_eq!(AmountMinor::try_new(MINOR_MAX).map(AmountMinor::cents), Ok(MINOR_MAX));
    }

    #[test]
    fn a_debit_equal_to_the_balance_empties_the_wallet() {
        assert_eq!(Balance(100).after(Direction::Debit, amount(100), Balance::ZERO), Ok(Balance::ZERO));
    }

    #[test]
    fn a_debit_of_one_cent_more_is_refused() {
        let refused = Err(EntryRefused::InsufficientFunds);
        assert_eq!(Balance(100).after(Direction::Debit, amount(101), Balance::ZERO), refused);
    }

    #[test]
    fn a_debit_leaves_what_is_held() {
        let held = Balance(30);
        assert_eq!(Balance(100).after(Direction::Debit, amount(70), held), Ok(held));
        assert_eq!(Balance(100).after(Direction::Debit, amount(71), held), Err(EntryRefused::InsufficientFunds));
        assert_eq!(Balance(30).after(Direction::Credit, amount(1), held), Ok(Balance(31)));
    }

    #[test]
    fn a_balance_never_exceeds_the_largest_exact_integer() {
        assert_eq!(Balance(MINOR_MAX - 1).after(Direction::Credit, amount(1), Balance::ZERO), Ok(Balance(MINOR_MAX)));
        assert_eq!(
            Balance(MINOR_MAX).after(Direction::Credit, amount(1), Balance::ZERO),
            Err(EntryRefused::BalanceLimit)
        );
    }

    #[test]
    fn a_stored_balance_out_of_range_is_refused() {
        assert_eq!(Balance::from_stored(-1), None);
        assert_eq!(Balance::from_stored(MINOR_MAX + 1), None);
        assert_eq!(Balance::from_stored(MINOR_MAX), Some(Balance(MINOR_MAX)));
    }

    proptest! {
        #[test]
        fn whatever_is_posted_the_balance_stays_in_its_range(
            posts in proptest::collection::vec((any::<bool>(), 1..=MINOR_MAX), 0..60),
        ) {
            let mut balance = Balance::ZERO;
            for (credit, cents) in posts {
                let direction = if credit { Direction::Credit } else { Direction::Debit };
                if let Ok(next) = balance.after(direction, amount(cents), Balance::ZERO) {
                    let moved = i128::from(next.cents()) - i128::from(balance.cents());
                    prop_assert_eq!(moved, if credit { i128::from(cents) } else { -i128::from(cents) });
                    balance = next;
                }
                prop_assert!((0..=MINOR_MAX).contains(&balance.cents()));
            }
        }
    }
}
