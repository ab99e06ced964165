//! A limit by a text out of a request's body, which no middleware sees: the handler asks it.

use actix_governor::governor::clock::{Clock as _, DefaultClock};
use actix_governor::governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use ring::digest::{SHA256, digest};

use crate::infra::config::RateLimit;
use crate::infra::http::rate_limit::limited;
use crate::infra::http::{ApiError, Sweep};

/// What a count is kept by: a digest, so that a count is small and holds nobody's address.
type Key = [u8; 32];

/// A limit and its counts, shared by all threads of the process.
pub struct TextLimiter {
    counts: DefaultKeyedRateLimiter<Key>,
    limit: RateLimit,
    enabled: bool,
}

impl TextLimiter {
    /// `enabled` false never refuses. `None` for a limit that cannot be, which [`RateLimit`] rules out.
    pub fn new(limit: RateLimit, enabled: bool) -> Option<Self> {
        let quota = Quota::with_period(limit.window / limit.max.get())?.allow_burst(limit.max);
        Some(Self { counts: RateLimiter::keyed(quota), limit, enabled })
    }

    /// Counts one more for `text`. Two spellings of one thing have to be made one before.
    ///
    /// # Errors
    /// 429 `RATE_LIMITED`.
    pub fn count(&self, text: &str) -> Result<(), ApiError> {
        if !self.enabled {
            return Ok(());
        }
        let mut key = Key::default();
        key.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        self.counts
            .check_key(&key)
            .map_err(|until| limited(self.limit, until.wait_time_from(DefaultClock::default().now())))
    }
}

impl Sweep for TextLimiter {
    fn sweep(&self) {
        self.counts.retain_recent();
        self.counts.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;
    use std::time::{Duration, Instant};

    fn limiter(max: u32, window: Duration, enabled: bool) -> TextLimiter {
        let max = NonZeroU32::new(max).expect("not zero");
        TextLimiter::new(RateLimit { max, window }, enabled).expect("a limit")
    }

    #[test]
    fn each_text_has_a_count_of_its_own() {
        let limiter = limiter(2, Duration::from_hours(1), true);
        let refused = |text| limiter.count(text).is_err();
        assert_eq!(["a", "a", "a", "b", "a", "b", "b"].map(refused), [false, false, true, false, true, false, true]);
    }

    #[test]
    fn a_limit_that_is_off_refuses_nobody_and_keeps_nothing() {
        let limiter = limiter(1, Duration::from_hours(1), false);
        assert!((0..100).all(|_| limiter.count("a").is_ok()));
        assert_eq!(limiter.counts.len(), 0);
    }

    #[test]
    fn a_sweep_forgets_those_who_are_not_limited_any_more_and_no_others() {
        let (short, long) = (limiter(1, Duration::from_millis(10), true), limiter(1, Duration::from_hours(1), true));
        for n in 0..1000 {
            assert!(short.count(&n.to_string()).is_ok() && long.count(&n.to_string()).is_ok());
        }
        assert_eq!(long.counts.len(), 1000);
        let until = Instant::now() + Duration::from_mins(1);
        while !short.counts.is_empty() {
            short.sweep();
            assert!(Instant::now() < until, "{} are kept", short.counts.len());
        }
        long.sweep();
        assert_eq!(long.counts.len(), 1000);
        assert!(long.count("7").is_err());
    }
}
