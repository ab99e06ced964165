//! A limit by a text out of a request's body, which no middleware sees: the handler asks it.

use actix_governor::governor::clock::Clock as _;
use actix_governor::governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use ring::digest::{SHA256, digest};

use crate::infra::config::RateLimit;
use crate::infra::http::rate_limit::limited;
use crate::infra::http::{ApiError, SharedLimit, Sweep};

/// What a count is kept by: a digest, so that a count is small and holds nobody's address.
type Key = [u8; 32];

/// A limit and its counts, shared by all threads of the process.
pub struct TextLimiter {
    counts: DefaultKeyedRateLimiter<Key>,
    limit: RateLimit,
    enabled: bool,
    shared: Option<SharedLimit>,
}

impl TextLimiter {
    /// `enabled` false never refuses. `None` for a limit that cannot be, which [`RateLimit`] rules out.
    pub fn new(limit: RateLimit, enabled: bool) -> Option<Self> {
        let quota = Quota::with_period(limit.window / limit.max.get())?.allow_burst(limit.max);
        Some(Self { counts: RateLimiter::keyed(quota), limit, enabled, shared: None })
    }

    /// The same, counted together with the other processes.
    #[must_use]
    pub fn sharing(mut self, shared: Option<SharedLimit>) -> Self {
        self.shared = shared;
        self
    }

    /// Counts one more for `text`. Two spellings of one thing have to be made one before.
    ///
    /// # Errors
    /// 429 `RATE_LIMITED`.
    pub async fn count(&self, text: &str) -> Result<(), ApiError> {
        if !self.enabled {
            return Ok(());
        }
        let shared = match &self.shared {
            Some(shared) => shared.count(text).await?,
            None => None,
        };
        let mut key = Key::default();
        key.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        // Counted here too, so that nobody begins anew when the shared count goes away.
        let own = self.counts.check_key(&key);
        match (shared, own) {
            (None, Err(until)) => Err(limited(self.limit, until.wait_time_from(self.counts.clock().now()))),
            _ => Ok(()),
        }
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
    use futures_util::FutureExt as _;
    use std::num::NonZeroU32;
    use std::time::{Duration, Instant};

    fn limiter(max: u32, window: Duration, enabled: bool) -> TextLimiter {
        let max = NonZeroU32::new(max).expect("not zero");
        TextLimiter::new(RateLimit { max, window }, enabled).expect("a limit")
    }

    /// Whether one more is refused; nothing is waited for, because nothing is shared.
    fn refuses(limiter: &TextLimiter, text: &str) -> bool {
        limiter.count(text).now_or_never().expect("at once").is_err()
    }

    #[test]
    fn each_text_has_a_count_of_its_own() {
        let limiter = limiter(2, Duration::from_hours(1), true);
        let refused = |text| refuses(&limiter, text);
        assert_eq!(["a", "a", "a", "b", "a", "b", "b"].map(refused), [false, false, true, false, true, false, true]);
    }

    #[test]
    fn a_limit_that_is_off_refuses_nobody_and_keeps_nothing() {
        let limiter = limiter(1, Duration::from_hours(1), false);
        assert!((0..100).all(|_| !refuses(&limiter, "a")));
        assert_eq!(limiter.counts.len(), 0);
    }

    #[test]
    fn a_sweep_forgets_those_who_are_not_limited_any_more_and_no_others() {
        let (short, long) = (limiter(1, Duration::from_millis(10), true), limiter(1, Duration::from_hours(1), true));
        for n in 0..1000 {
            assert!(!refuses(&short, &n.to_string()) && !refuses(&long, &n.to_string()));
        }
        assert_eq!(long.counts.len(), 1000);
        let until = Instant::now() + Duration::from_mins(1);
        while !short.counts.is_empty() {
            short.sweep();
            assert!(Instant::now() < until, "{} are kept", short.counts.len());
        }
        long.sweep();
        assert_eq!(long.counts.len(), 1000);
        assert!(refuses(&long, "7"));
    }
}
