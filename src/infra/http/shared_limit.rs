//! A limit that all processes of a role keep together.

use std::sync::Arc;
use std::time::Instant;

use quick_cache::sync::Cache;
use ring::digest::{SHA256, digest};
use slog::{Logger, debug};

use crate::infra::config::RateLimit;
use crate::infra::http::ApiError;
use crate::infra::http::rate_limit::{Sweep, limited};
use crate::infra::postgres::{Count, CountKey, SharedCounts};
use crate::kernel::chain;

/// Refusals that are remembered; one that is forgotten costs the database a question.
const REFUSALS_MAX: usize = 10_000;

/// One limit, and the counts that it is kept by.
#[derive(Clone)]
pub struct SharedLimit {
    counts: Arc<SharedCounts>,
    name: &'static str,
    pub(super) limit: RateLimit,
    /// Until when who is refused: a flood is told so without asking the database again.
    refused: Arc<Cache<CountKey, Instant>>,
}

impl SharedLimit {
    /// `name` tells its counts from those of the role's other limits.
    pub fn new(counts: Arc<SharedCounts>, name: &'static str, limit: RateLimit) -> Self {
        Self { counts, name, limit, refused: Arc::new(Cache::new(REFUSALS_MAX)) }
    }

    /// Counts one more for `who`: how many are left, or `None` while the database cannot be asked and the process's own
    /// count has to be enough.
    ///
    /// # Errors
    /// 429 `RATE_LIMITED`.
    pub async fn count(&self, who: &str) -> Result<Option<u32>, ApiError> {
        let key = self.key(who);
        let now = Instant::now();
        if let Some(until) = self.refused.get(&key).filter(|until| *until > now) {
            return Err(limited(self.limit, until.saturating_duration_since(now)));
        }
        match self.counts.take(key, self.limit).await {
            None => Ok(None),
            Some(Count::Within { left }) => Ok(Some(left)),
            Some(Count::Beyond { wait }) => {
                self.refused.insert(key, now + wait);
                Err(limited(self.limit, wait))
            }
        }
    }

    fn key(&self, who: &str) -> CountKey {
        let mut key = CountKey::default();
        key.copy_from_slice(digest(&SHA256, format!("{} {who}", self.name).as_bytes()).as_ref());
        key
    }
}

/// The chore that keeps the shared counts from growing for ever.
pub struct SharedSweep {
    /// What is swept.
    pub counts: Arc<SharedCounts>,
    /// Told of what could not be.
    pub logger: Logger,
}

impl Sweep for SharedSweep {
    fn sweep(&self) {
        let (counts, logger) = (Arc::clone(&self.counts), self.logger.clone());
        actix_web::rt::spawn(async move {
            if let Err(e) = counts.sweep().await {
                // The next one comes in a minute, and requests tell louder that the database is away.
                debug!(logger, "the shared rate limits could not be swept"; "error" => chain(&e));
            }
        });
    }
}
