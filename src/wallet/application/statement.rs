//! The statement of a wallet: its balances at both ends of a period, and the entries between them, oldest first.

use std::time::Duration;

use crate::kernel::Timestamp;
use crate::wallet::domain::Balance;

/// Longest period of one statement.
const DAYS_MAX: u32 = 366;
/// Entries of any kind that are read at once.
const PAGE_ENTRIES: i64 = 500;
/// How far the clock of the database may be set back without an entry of a final statement being missing.
const CLOCK_MARGIN: Duration = Duration::from_secs(2);

/// `from` is inclusive, `to` is exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatementPeriod {
    from: Timestamp,
    to: Timestamp,
}

/// Why two times are not a [`StatementPeriod`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeriodRefused {
    #[error("must not be before from")]
    Reversed,
    #[error("must be at most 366 days after from")]
    TooLong,
}

impl StatementPeriod {
    /// May be empty.
    pub fn new(from: Timestamp, to: Timestamp) -> Result<Self, PeriodRefused> {
        if to < from {
            return Err(PeriodRefused::Reversed);
        }
        let longest = Duration::from_hours(24) * DAYS_MAX;
        if to.duration_since(from).unsigned_abs() > longest {
            Err(PeriodRefused::TooLong)
        } else {
            Ok(Self { from, to })
        }
    }

    pub const fn from(self) -> Timestamp {
        self.from
    }

    pub const fn to(self) -> Timestamp {
        self.to
    }
}

/// A wallet at one end of a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatementEnd {
    /// The sequence number of the last entry before it; 0 without one.
    pub seq: i64,
    pub balance: Balance,
}

/// What a statement begins and ends with. Both ends are of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statement {
    pub period: StatementPeriod,
    pub opening: StatementEnd,
    pub closing: StatementEnd,
    /// The time of the database under the lock of the wallet, just before both ends were read.
    pub read_at: Timestamp,
}

impl Statement {
    /// Whether every entry of the period is in it: entries that are written later have a later time.
    pub fn is_final(&self) -> bool {
        self.read_at.checked_sub(CLOCK_MARGIN).is_ok_and(|settled| self.period.to <= settled)
    }

    /// The sequence numbers of the next page after `seq`, the first of which is `opening.seq`. Entries never change and their
    /// sequence numbers have no gaps, so pages that are read at different times fit together.
    pub fn page_after(&self, seq: i64) -> Option<(i64, i64)> {
        let (first, last) = (seq.saturating_add(1), seq.saturating_add(PAGE_ENTRIES).min(self.closing.seq));
        (first <= last).then_some((first, last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn statement(opening: i64, closing: i64, read_at: &str) -> Statement {
        let period = StatementPeriod::new(at("2026-01-01T00:00:00Z"), at("2026-02-01T00:00:00Z")).expect("a period");
        let end = |seq| StatementEnd { seq, balance: Balance::ZERO };
        Statement { period, opening: end(opening), closing: end(closing), read_at: at(read_at) }
    }

    #[test]
    fn a_period_has_at_most_366_days_and_does_not_end_before_it_begins() {
        let from = at("2024-01-01T00:00:00Z");
        let ending = |to: &str| StatementPeriod::new(from, at(to)).map(|period| (period.from(), period.to()));
        for to in ["2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z"] {
            assert_eq!(ending(to), Ok((from, at(to))), "{to}");
        }
        assert_eq!(ending("2025-01-01T00:00:00.000001Z"), Err(PeriodRefused::TooLong));
        assert_eq!(ending("2023-12-31T23:59:59.999999Z"), Err(PeriodRefused::Reversed));
        assert_eq!(StatementPeriod::new(Timestamp::MIN, Timestamp::MAX), Err(PeriodRefused::TooLong));
    }

    #[test]
    fn the_pages_have_every_sequence_number_between_the_two_ends_once() {
        for (opening, closing) in [(0, 0), (7, 7), (0, 1), (3, 503), (3, 504), (0, 1_499)] {
            let statement = statement(opening, closing, "2026-03-01T00:00:00Z");
            let (mut seen, mut after) = (Vec::new(), opening);
            while let Some((first, last)) = statement.page_after(after) {
                assert!((1..=500).contains(&(last - first + 1)));
                seen.extend(first..=last);
                after = last;
            }
            assert_eq!(seen, (opening + 1..=closing).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_statement_is_final_two_seconds_after_the_end_of_its_period() {
        assert!(!statement(0, 0, "2026-01-31T00:00:00Z").is_final());
        assert!(!statement(0, 0, "2026-02-01T00:00:01.999999Z").is_final());
        assert!(statement(0, 0, "2026-02-01T00:00:02Z").is_final());
    }
}
