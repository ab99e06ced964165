//! A rate limit by a text of the request body. A middleware does not see the body, so the handler checks the limit.

use std::num::NonZeroU32;

use actix_governor::governor::clock::Clock as _;
use actix_governor::governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use ring::digest::{SHA256, digest};

use crate::infra::http::limit_policy::LimitPolicy;
use crate::infra::http::{ApiError, SharedLimit, Sweep};

/// A digest, so that a count is small and contains no address.
type Key = [u8; 32];

/// A rate limit and its counts, for all threads of the process.
pub struct TextLimiter {
    counts: DefaultKeyedRateLimiter<Key>,
    policy: LimitPolicy,
    enabled: bool,
    shared: Option<SharedLimit>,
}

impl TextLimiter {
    /// Counts nothing unless `enabled`. `None` for a window of zero, which the configuration rules out.
    pub fn new(policy: LimitPolicy, enabled: bool) -> Option<Self> {
        let limit = policy.limit;
        let quota = Quota::with_period(limit.window / limit.max.get())?.allow_burst(limit.max);
        Some(Self { counts: RateLimiter::keyed(quota), policy, enabled, shared: None })
    }

    /// The same limit, counted together with the other processes of the role.
    #[must_use]
    pub fn sharing(mut self, shared: Option<SharedLimit>) -> Self {
        self.shared = shared;
        self
    }

    /// Counts a request for `text`, which the caller has normalised.
    ///
    /// # Errors
    /// 429 `RATE_LIMITED`.
    pub async fn count(&self, text: &str) -> Result<(), ApiError> {
        if !self.enabled {
            return Ok(());
        }
        let shared = match &self.shared {
            Some(shared) => shared.count(text, NonZeroU32::MIN).await?,
            None => None,
        };
        let mut key = Key::default();
        key.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        // Also counted here, so that the limit does not restart when the shared counts become unreachable.
        let own = self.counts.check_key(&key);
        match (shared, own) {
            (None, Err(until)) => {
                let wait = until.wait_time_from(self.counts.clock().now());
                Err(ApiError::rate_limited(&self.policy, NonZeroU32::MIN, wait))
            }
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
    use crate::infra::config::RateLimit;
    use futures_util::FutureExt as _;
    use std::time::{Duration, Instant};

    fn limiter(max: u32, window: Duration, enabled: bool) -> TextLimiter {
        let max = NonZeroU32::new(max).expect("not zero");
        TextLimiter::new(LimitPolicy { name: "test", limit: RateLimit { max, window } }, enabled).expect("a limit")
    }

    /// Completes immediately, because the counts are not shared.
    fn is_limited(limiter: &TextLimiter, text: &str) -> bool {
        limiter.count(text).now_or_never().expect("at once").is_err()
    }

    #[test]
    fn each_text_has_its_own_count() {
        let limiter = limiter(2, Duration::from_hours(1), true);
        let limited = |text| is_limited(&limiter, text);
        assert_eq!(["a", "a", "a", "b", "a", "b", "b"].map(limited), [false, false, true, false, true, false, true]);
    }

    #[test]
    fn a_disabled_limit_limits_nothing_and_counts_nothing() {
        let limiter = limiter(1, Duration::from_hours(1), false);
        assert!((0..100).all(|_| !is_limited(&limiter, "a")));
        assert_eq!(limiter.counts.len(), 0);
    }

    #[test]
    fn a_sweep_removes_only_the_counts_of_texts_that_are_no_longer_limited() {
        let (short, long) = (limiter(1, Duration::from_millis(10), true), limiter(1, Duration::from_hours(1), true));
        for n in 0..1000 {
            assert!(!is_limited(&short, &n.to_string()) && !is_limited(&long, &n.to_string()));
        }
        assert_eq!(long.counts.len(), 1000);
        let until = Instant::now() + Duration::from_mins(1);
        while !short.counts.is_empty() {
            short.sweep();
            assert!(Instant::now() < until, "{} are left", short.counts.len());
        }
        long.sweep();
        assert_eq!(long.counts.len(), 1000);
        assert!(is_limited(&long, "7"));
    }
}
