//! A rate limit that all processes of a role share.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use quick_cache::sync::Cache;
use ring::digest::{SHA256, digest};
use slog::{Logger, debug};

use crate::infra::http::limit_policy::LimitPolicy;
use crate::infra::http::{ApiError, Sweep};
use crate::infra::postgres::{CountKey, Decision, SharedCounts};
use crate::kernel::chain;

/// Size of the cache of limited clients; an evicted one costs a query.
const LIMITED_MAX: usize = 10_000;

/// Until when a client has fewer requests left than this number of units.
#[derive(Clone, Copy)]
struct Limited {
    until: Instant,
    units: NonZeroU32,
}

/// One limit and its shared counts.
#[derive(Clone)]
pub struct SharedLimit {
    counts: Arc<SharedCounts>,
    policy: LimitPolicy,
    /// The clients that are limited, so that a flood of requests does not reach the database.
    limited: Arc<Cache<CountKey, Limited>>,
}

impl SharedLimit {
    /// The name of the policy distinguishes its counts from those of the role's other limits.
    pub fn new(counts: Arc<SharedCounts>, policy: LimitPolicy) -> Self {
        Self { counts, policy, limited: Arc::new(Cache::new(LIMITED_MAX)) }
    }

    /// Counts `units` requests of `client` at once, at most as many as the limit allows, and returns how many are left. `None`
    /// while the database is unreachable, when the caller's own count decides.
    ///
    /// # Errors
    /// 429 `RATE_LIMITED`.
    pub async fn count(&self, client: &str, units: NonZeroU32) -> Result<Option<u32>, ApiError> {
        let key = self.key(client);
        let now = Instant::now();
        let limited = self.limited.get(&key).filter(|limited| limited.until > now && limited.units <= units);
        if let Some(Limited { until, .. }) = limited {
            return Err(ApiError::rate_limited(&self.policy, units, until.saturating_duration_since(now)));
        }
        match self.counts.take(key, self.policy.limit, units).await {
            None => Ok(None),
            Some(Decision::Allowed { remaining }) => Ok(Some(remaining)),
            Some(Decision::Limited { retry_after }) => {
                self.limited.insert(key, Limited { until: now + retry_after, units });
                Err(ApiError::rate_limited(&self.policy, units, retry_after))
            }
        }
    }

    fn key(&self, client: &str) -> CountKey {
        let mut key = CountKey::default();
        key.copy_from_slice(digest(&SHA256, format!("{} {client}", self.policy.name).as_bytes()).as_ref());
        key
    }
}

/// Deletes shared counts that no longer limit a client.
pub struct SharedSweep {
    /// The counts of the role.
    pub counts: Arc<SharedCounts>,
    /// For failed sweeps.
    pub logger: Logger,
}

impl Sweep for SharedSweep {
    fn sweep(&self) {
        let (counts, logger) = (Arc::clone(&self.counts), self.logger.clone());
        actix_web::rt::spawn(async move {
            if let Err(e) = counts.sweep().await {
                // The next sweep is in a minute, and failing requests already report the outage.
                debug!(logger, "could not delete old counts of shared rate limits"; "error" => chain(&e));
            }
        });
    }
}
