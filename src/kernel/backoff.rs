//! How long to wait before the next try.

use std::time::Duration;

/// Exponential back-off with full jitter between two bounds.
///
/// The delay before try `n` (from 0) lies between `first` and `first × 2ⁿ`, never above `most`. The lower bound keeps
/// a tight loop out, the jitter keeps many instances from coming back in step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    most: Duration,
}

impl Backoff {
    /// Delays from `first` upwards, doubling, capped at `most`.
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most }
    }

    /// The delay before try `n`, where `roll` is a random number in `0.0..1.0`.
    pub fn delay(&self, n: u32, roll: f64) -> Duration {
        let ceiling = self.first.saturating_mul(2_u32.saturating_pow(n.min(30))).min(self.most);
        let spread = ceiling.saturating_sub(self.first);
        self.first.min(self.most).saturating_add(spread.mul_f64(roll.clamp(0.0, 1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(15));

    #[test]
    fn the_first_delay_is_the_lower_bound_whatever_the_roll() {
        assert_eq!(BACKOFF.delay(0, 0.0), Duration::from_millis(200));
        assert_eq!(BACKOFF.delay(0, 0.999), Duration::from_millis(200));
    }

    proptest! {
        #[test]
        fn every_delay_lies_between_the_bounds(n in any::<u32>(), roll in 0.0_f64..1.0) {
            let delay = BACKOFF.delay(n, roll);
            prop_assert!(delay >= Duration::from_millis(200) && delay <= Duration::from_secs(15));
        }

        #[test]
        fn a_later_try_never_waits_less_for_the_same_roll(n in 0_u32..40, roll in 0.0_f64..1.0) {
            prop_assert!(BACKOFF.delay(n + 1, roll) >= BACKOFF.delay(n, roll));
        }
    }
}
