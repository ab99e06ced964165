//! What a response says about a rate limit.
//!
//! `RateLimit` and `RateLimit-Policy` are those of draft-ietf-httpapi-ratelimit-headers-11; `RateLimit-Limit`, `-Remaining` and
//! `-Reset` are those of its first versions, which most clients know.

use std::num::NonZeroU32;
use std::time::Duration;

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::infra::config::RateLimit;

/// A rate limit and its name in responses.
#[derive(Clone, Copy, Debug)]
pub struct LimitPolicy {
    pub name: &'static str,
    pub limit: RateLimit,
}

/// Rounded up, and never zero: a client that waits for that long is admitted.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0)).max(1)
}

impl LimitPolicy {
    /// The fields of a request that was counted, with `remaining` requests left.
    fn of_counted(&self, remaining: u32) -> Vec<(&'static str, String)> {
        // One more request is allowed after each of these intervals, so after one of them at the latest.
        let more_s = whole_seconds(self.limit.window / self.limit.max.get());
        self.fields(remaining, more_s)
    }

    /// The fields of `units` requests at once that are beyond the limit, and the seconds to wait.
    pub(super) fn of_limited(&self, units: NonZeroU32, wait: Duration) -> (Vec<(&'static str, String)>, u64) {
        let wait_s = whole_seconds(wait);
        // One request becomes available per interval, so those that are missing tell how many are left.
        let interval = (self.limit.window / self.limit.max.get()).as_nanos().max(1);
        let missing = u32::try_from(wait.as_nanos().div_ceil(interval)).unwrap_or(u32::MAX);
        let mut fields = self.fields(units.get().saturating_sub(missing.max(1)), wait_s);
        fields.push(("ratelimit-reset", wait_s.to_string()));
        (fields, wait_s)
    }

    fn fields(&self, remaining: u32, more_s: u64) -> Vec<(&'static str, String)> {
        let Self { name, limit } = self;
        let (max, window_s) = (limit.max.get(), limit.window.as_secs().max(1));
        vec![
            ("ratelimit-limit", max.to_string()),
            ("ratelimit-remaining", remaining.to_string()),
            ("ratelimit-policy", format!("\"{name}\";q={max};w={window_s}")),
            ("ratelimit", format!("\"{name}\";r={remaining};t={more_s}")),
        ]
    }

    /// Adds the fields of a counted request, unless the response is that of an inner limit, which has added its own.
    pub(super) fn add_to(&self, headers: &mut HeaderMap, remaining: u32) {
        if headers.contains_key("ratelimit") {
            return;
        }
        for (name, value) in self.of_counted(remaining) {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_rounded_up_to_at_least_one_second() {
        let policy = |max, window| LimitPolicy {
            name: "login",
            limit: RateLimit { max: NonZeroU32::new(max).expect("not zero"), window },
        };
        let ratelimit = |fields: Vec<(&'static str, String)>| fields.into_iter().nth(3).map(|(_, value)| value);
        for (max, window, remaining, expected) in [
            (10, Duration::from_mins(1), 9, "\"login\";r=9;t=6"),
            (7, Duration::from_mins(1), 0, "\"login\";r=0;t=9"),
            (100, Duration::from_millis(500), 42, "\"login\";r=42;t=1"),
        ] {
            assert_eq!(ratelimit(policy(max, window).of_counted(remaining)).as_deref(), Some(expected));
        }
        for (units, wait_ms, expected, expected_s) in [
            (1, 1_001, "\"login\";r=0;t=2", 2),
            (1, 6_000, "\"login\";r=0;t=6", 6),
            (10, 30_000, "\"login\";r=5;t=30", 30),
            (10, 30_001, "\"login\";r=4;t=31", 31),
            (10, 0, "\"login\";r=9;t=1", 1),
        ] {
            let units = NonZeroU32::new(units).expect("not zero");
            let (fields, wait_s) = policy(10, Duration::from_mins(1)).of_limited(units, Duration::from_millis(wait_ms));
            assert_eq!((ratelimit(fields).as_deref(), wait_s), (Some(expected), expected_s));
        }
    }
}
