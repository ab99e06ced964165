//! How long to wait before the next attempt.

use std::time::Duration;

/// Exponential back-off with full jitter between two bounds.
///
/// The delay before attempt `n` (from 0) is between `min` and `min × 2ⁿ`, capped at `max`. The lower bound prevents a
/// tight loop; the jitter keeps many instances from retrying in step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    min: Duration,
    max: Duration,
}

impl Backoff {
    /// Doubles from `min` up to `max`.
    pub const fn new(min: Duration, max: Duration) -> Self {
        Self { min, max }
    }

    /// The delay before attempt `n` (from 0); `random` is a number in `0.0..1.0`.
    pub fn delay(&self, n: u32, random: f64) -> Duration {
        let ceiling = self.min.saturating_mul(2_u32.saturating_pow(n.min(30))).min(self.max);
        let spread = ceiling.saturating_sub(self.min);
        self.min.min(self.max).saturating_add(spread.mul_f64(random.clamp(0.0, 1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(15));

    #[test]
    fn the_first_delay_is_the_lower_bound_for_any_random_number() {
        assert_eq!(BACKOFF.delay(0, 0.0), Duration::from_millis(200));
        assert_eq!(BACKOFF.delay(0, 0.999), Duration::from_millis(200));
    }

    proptest! {
        #[test]
        fn every_delay_is_between_the_bounds(n in any::<u32>(), random in 0.0_f64..1.0) {
            let delay = BACKOFF.delay(n, random);
            prop_assert!(delay >= Duration::from_millis(200) && delay <= Duration::from_secs(15));
        }

        #[test]
        fn a_later_attempt_never_waits_less_for_the_same_random_number(n in 0_u32..40, random in 0.0_f64..1.0) {
            prop_assert!(BACKOFF.delay(n + 1, random) >= BACKOFF.delay(n, random));
        }
    }
}
