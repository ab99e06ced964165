//! Where a failed event goes next: a retry tier or the dead-letter queue. Pure.

use crate::contracts::RetryTier;

pub const TIERS: usize = 3;

/// The retry tiers, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryLadder {
    tiers: [RetryTier; TIERS],
}

/// The number of failed attempts so far: 0 to [`TIERS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempt(usize);

/// The next step of a failed event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LadderStep<'ladder> {
    Tier {
        tier: &'ladder RetryTier,
        /// From 1, for logs.
        number: usize,
        /// The count to publish with it.
        attempt: Attempt,
    },
    DeadLetter,
}

impl Attempt {
    pub const FIRST: Self = Self(0);

    /// Clamps the value of the attempt header: a forged count may skip tiers but never repeat them forever.
    pub fn from_header(count: i64) -> Self {
        Self(usize::try_from(count.max(0)).unwrap_or(TIERS).min(TIERS))
    }

    /// For the attempt header and for logs.
    pub fn count(self) -> i32 {
        i32::try_from(self.0).unwrap_or(i32::MAX)
    }
}

impl RetryLadder {
    pub const fn new(tiers: [RetryTier; TIERS]) -> Self {
        Self { tiers }
    }

    pub const fn tiers(&self) -> &[RetryTier; TIERS] {
        &self.tiers
    }

    /// The one that an event comes to first.
    pub const fn first_tier(&self) -> &RetryTier {
        let [first, ..] = &self.tiers;
        first
    }

    /// The attempt of a delivery: from the attempt header if there is one, else from the tier that it has just left
    /// according to the broker's `x-death` header, else the first.
    pub fn attempt(&self, header: Option<i64>, last_death_queue: Option<&str>) -> Attempt {
        match (header, last_death_queue) {
            (Some(count), _) => Attempt::from_header(count),
            (None, Some(queue)) => {
                let left = self.tiers.iter().position(|tier| tier.queue() == queue);
                left.map_or(Attempt::FIRST, |index| Attempt(index.saturating_add(1)))
            }
            (None, None) => Attempt::FIRST,
        }
    }

    /// Where an event goes after a transient failure of `attempt`.
    pub fn next(&self, attempt: Attempt) -> LadderStep<'_> {
        match self.tiers.get(attempt.0) {
            Some(tier) => {
                let number = attempt.0.saturating_add(1);
                LadderStep::Tier { tier, number, attempt: Attempt(number) }
            }
            None => LadderStep::DeadLetter,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn ladder() -> RetryLadder {
        RetryLadder::new([10, 30, 120].map(|s| RetryTier::new(Duration::from_secs(s))))
    }

    #[test]
    fn an_event_that_keeps_failing_waits_10_30_and_120_seconds_and_becomes_a_dead_letter() {
        let ladder = ladder();
        let (mut attempt, mut climbed) = (Attempt::FIRST, Vec::new());
        while let LadderStep::Tier { tier, attempt: next, .. } = ladder.next(attempt) {
            climbed.push(tier.queue());
            attempt = next;
        }
        assert_eq!(
            climbed,
            ["wallet.provision.retry.10s", "wallet.provision.retry.30s", "wallet.provision.retry.120s"]
        );
        assert_eq!((attempt.count(), ladder.next(attempt)), (3, LadderStep::DeadLetter));
    }

    #[test]
    fn the_attempt_header_wins_over_x_death() {
        assert_eq!(ladder().attempt(Some(2), Some("wallet.provision.retry.10s")), Attempt(2));
    }

    #[test]
    fn without_an_attempt_header_the_last_tier_counts() {
        let ladder = ladder();
        assert_eq!(ladder.attempt(None, Some("wallet.provision.retry.30s")), Attempt(2));
        assert_eq!(ladder.attempt(None, Some("wallet.provision")), Attempt::FIRST);
        assert_eq!(ladder.attempt(None, Some("unrelated.queue")), Attempt::FIRST);
        assert_eq!(ladder.attempt(None, None), Attempt::FIRST);
    }

    proptest! {
        #[test]
        fn any_header_leads_to_the_dead_letter_queue_within_three_steps(count in any::<i64>()) {
            let ladder = ladder();
            let (mut attempt, mut steps) = (Attempt::from_header(count), 0);
            while let LadderStep::Tier { attempt: next, .. } = ladder.next(attempt) {
                prop_assert!(next > attempt);
                attempt = next;
                steps += 1;
            }
            prop_assert!(steps <= TIERS);
            prop_assert!((0..=3).contains(&attempt.count()));
        }
    }
}
