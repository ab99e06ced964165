//! A rate limit that all processes of a role share.

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

/// One limit and its shared counts.
#[derive(Clone)]
pub struct SharedLimit {
    counts: Arc<SharedCounts>,
    policy: LimitPolicy,
    /// When limited clients may send again, so that a flood of requests does not reach the database.
    limited_until: Arc<Cache<CountKey, Instant>>,
}

impl SharedLimit {
    /// The name of the policy distinguishes its counts from those of the role's other limits.
    pub fn new(counts: Arc<SharedCounts>, policy: LimitPolicy) -> Self {
        Self { counts, policy, limited_until: Arc::new(Cache::new(LIMITED_MAX)) }
    }

    /// Counts a request of `client` and returns how many are left. `None` while the database is unreachable, when the
    /// caller's own count decides.
    ///
    /// # Errors
    /// 429 `RATE_LIMITED`.
    pub async fn count(&self, client: &str) -> Result<Option<u32>, ApiError> {
        let key = self.key(client);
        let now = Instant::now();
        if let Some(until) = self.limited_until.get(&key).filter(|until| *until > now) {
            return Err(ApiError::rate_limited(&self.policy, until.saturating_duration_since(now)));
        }
        match self.counts.take(key, self.policy.limit).await {
            None => Ok(None),
            Some(Decision::Allowed { remaining }) => Ok(Some(remaining)),
            Some(Decision::Limited { retry_after }) => {
                self.limited_until.insert(key, now + retry_after);
                Err(ApiError::rate_limited(&self.policy, retry_after))
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
