//! What becomes of an event that could not be handled: the next tier, or the dead-letter queue. Pure.

use crate::contracts::RetryTier;

/// How many tiers there are.
pub const TIERS: usize = 3;

/// The tiers in the order in which an event climbs them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryLadder {
    tiers: [RetryTier; TIERS],
}

/// How many attempts at an event have failed before this one: 0 to 3, whatever a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempt(usize);

/// What happens next to an event that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'ladder> {
    /// Into this tier, with this count of failed attempts.
    Tier {
        /// The queue that holds it for a while.
        tier: &'ladder RetryTier,
        /// Its number for logs, from 1.
        number: usize,
        /// The count to send along.
        attempt: Attempt,
    },
    /// It has been tried often enough.
    DeadLetter,
}

impl Attempt {
    /// The first delivery.
    pub const FIRST: Self = Self(0);

    /// Reads our own header. Anything outside 0..=3 is clamped: a forged count may skip tiers, never loop in them.
    pub fn from_header(count: i64) -> Self {
        Self(usize::try_from(count.max(0)).unwrap_or(TIERS).min(TIERS))
    }

    /// The number for our own header and for logs.
    pub fn count(self) -> i32 {
        i32::try_from(self.0).unwrap_or(i32::MAX)
    }
}

impl RetryLadder {
    /// A ladder of these tiers.
    pub const fn new(tiers: [RetryTier; TIERS]) -> Self {
        Self { tiers }
    }

    /// Its tiers, first to last.
    pub const fn tiers(&self) -> &[RetryTier; TIERS] {
        &self.tiers
    }

    /// The attempt of a delivery: our header where there is one, else the tier that the broker's `x-death` says the
    /// event has just left, else the first.
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

    /// Where an event goes whose delivery `attempt` failed in a way that may pass.
    pub fn next(&self, attempt: Attempt) -> Step<'_> {
        match self.tiers.get(attempt.0) {
            Some(tier) => {
                let number = attempt.0.saturating_add(1);
                Step::Tier { tier, number, attempt: Attempt(number) }
            }
            None => Step::DeadLetter,
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
    fn an_event_that_keeps_failing_climbs_ten_thirty_hundred_and_twenty_seconds_and_is_dead() {
        let ladder = ladder();
        let (mut attempt, mut climbed) = (Attempt::FIRST, Vec::new());
        while let Step::Tier { tier, attempt: next, .. } = ladder.next(attempt) {
            climbed.push(tier.queue());
            attempt = next;
        }
        assert_eq!(
            climbed,
            ["wallet.provision.retry.10s", "wallet.provision.retry.30s", "wallet.provision.retry.120s"]
        );
        assert_eq!((attempt.count(), ladder.next(attempt)), (3, Step::DeadLetter));
    }

    #[test]
    fn our_own_header_wins_over_the_brokers() {
        assert_eq!(ladder().attempt(Some(2), Some("wallet.provision.retry.10s")), Attempt(2));
    }

    #[test]
    fn without_our_header_the_tier_just_left_tells() {
        let ladder = ladder();
        assert_eq!(ladder.attempt(None, Some("wallet.provision.retry.30s")), Attempt(2));
        assert_eq!(ladder.attempt(None, Some("wallet.provision")), Attempt::FIRST);
        assert_eq!(ladder.attempt(None, Some("somebody.elses")), Attempt::FIRST);
        assert_eq!(ladder.attempt(None, None), Attempt::FIRST);
    }

    proptest! {
        #[test]
        fn any_header_leads_to_the_dead_letter_queue_within_three_steps(count in any::<i64>()) {
            let ladder = ladder();
            let (mut attempt, mut steps) = (Attempt::from_header(count), 0);
            while let Step::Tier { attempt: next, .. } = ladder.next(attempt) {
                prop_assert!(next > attempt);
                attempt = next;
                steps += 1;
            }
            prop_assert!(steps <= TIERS);
            prop_assert!((0..=3).contains(&attempt.count()));
        }
    }
}
