//! Holds: parts of a balance that are reserved until they are captured, voided or expired.

use crate::kernel::{EntryId, ServiceName, Timestamp};
use crate::wallet::domain::{AmountMinor, Balance, EntryKind, Texts};

/// Most captures of one hold; the last one must be final.
pub const CAPTURES_MAX: i32 = 50;

/// Most due holds of one wallet that one batch ends.
pub const DUE_MAX: usize = 100;

/// How long a hold lasts: a minute to 31 days. An interval, because the clocks of clients differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldLifetime(i64);

/// The number of seconds is not a [`HoldLifetime`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be an integer from 60 to 2678400")]
pub struct LifetimeRefused;

impl HoldLifetime {
    /// In seconds.
    pub const MIN_S: i64 = 60;
    /// In seconds: 31 days.
    pub const MAX_S: i64 = 2_678_400;
    /// Seven days.
    pub const DEFAULT: Self = Self(604_800);

    /// # Errors
    /// [`LifetimeRefused`] unless `seconds` is from [`MIN_S`](Self::MIN_S) to [`MAX_S`](Self::MAX_S).
    pub const fn try_new(seconds: i64) -> Result<Self, LifetimeRefused> {
        if seconds >= Self::MIN_S && seconds <= Self::MAX_S { Ok(Self(seconds)) } else { Err(LifetimeRefused) }
    }

    pub const fn seconds(self) -> i64 {
        self.0
    }
}

/// An open hold whose time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueHold {
    /// The sequence number of the hold.
    pub seq: i64,
    pub id: EntryId,
    /// What is still held.
    pub left: AmountMinor,
    /// The number of captures so far.
    pub acts: i32,
    /// The id of the entry that ends it.
    pub expiry: EntryId,
}

/// How the rest of a hold ended, if it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldStatus {
    Open,
    Captured,
    Voided,
    Expired,
}

impl HoldStatus {
    /// After an act of `kind` on the hold that left `left` of it.
    pub const fn after(kind: EntryKind, left: i64) -> Self {
        match kind {
            _ if left > 0 => Self::Open,
            EntryKind::Void => Self::Voided,
            EntryKind::Expire => Self::Expired,
            _ => Self::Captured,
        }
    }

    /// The value in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Captured => "captured",
            Self::Voided => "voided",
            Self::Expired => "expired",
        }
    }
}

/// What has been captured of a hold of `amount` after an act of `kind` by `cents` that found `left_before` of it: while a hold
/// is open, everything that is not left has been captured.
pub(crate) fn captured_after(amount: AmountMinor, left_before: i64, kind: EntryKind, cents: i64) -> Option<Balance> {
    let before = amount.cents().checked_sub(left_before)?;
    let by_act = if kind == EntryKind::Debit { cents } else { 0 };
    Balance::from_stored(before.checked_add(by_act)?)
}

/// A hold as its owner sees it, at some point of its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    pub id: EntryId,
    pub status: HoldStatus,
    /// What was held at first.
    pub amount: AmountMinor,
    pub captured: Balance,
    /// What is still held.
    pub remaining: Balance,
    pub expires_at: Timestamp,
    pub texts: Texts,
    pub created_at: Timestamp,
    pub posted_by: Option<ServiceName>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_lasts_from_a_minute_to_31_days() {
        for refused in [i64::MIN, 0, 59, 2_678_401, i64::MAX] {
            assert_eq!(HoldLifetime::try_new(refused), Err(LifetimeRefused), "{refused}");
        }
        for seconds in [60, 2_678_400] {
            assert_eq!(HoldLifetime::try_new(seconds).map(HoldLifetime::seconds), Ok(seconds));
        }
        assert_eq!(HoldLifetime::DEFAULT.seconds(), 7 * 24 * 60 * 60);
    }
}
