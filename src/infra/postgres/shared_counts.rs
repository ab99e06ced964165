//! Rate limit counts that all processes of a role share, in the table `rate_limits` of the role's database.
//!
//! GCRA by the database's clock, one statement per request. While the database is unreachable, callers fall back to their own
//! counts.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use slog::{Logger, info, warn};

use crate::infra::config::RateLimit;
use crate::infra::postgres::database::Database;
use crate::infra::postgres::error::DbError;
use crate::infra::postgres::gate::Gate;
use crate::kernel::chain;

/// Most rows that one statement of a sweep deletes, so that it holds locks only briefly.
const SWEEP_ROWS_MAX: i64 = 5_000;

/// The key of a count: a digest, so that it is small and contains no address.
pub type CountKey = [u8; 32];

/// Whether a request is within its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It was counted.
    Allowed {
        /// Requests left in the window.
        remaining: u32,
    },
    /// It was not counted.
    Limited {
        /// Time until it will be allowed.
        retry_after: Duration,
    },
}

/// The shared counts of a role.
pub struct SharedCounts {
    database: Database,
    /// After a failure one request at a time tries the database; the others do not wait.
    gate: Gate,
    unreachable: AtomicBool,
    logger: Logger,
}

impl SharedCounts {
    /// `database` is a pool of its own, so that requests to be limited do not wait for those that were allowed.
    pub fn new(database: Database, logger: Logger) -> Self {
        Self { database, gate: Gate::default(), unreachable: AtomicBool::new(false), logger }
    }

    /// Counts `units` requests at once if all of them are within `limit`; there must not be more of them than `limit.max`.
    /// `None` while the database is unreachable.
    pub async fn take(&self, key: CountKey, limit: RateLimit, units: NonZeroU32) -> Option<Decision> {
        if !self.gate.allows(Instant::now()) {
            return None;
        }
        match self.try_take(key, limit, units).await {
            Ok(decision) => {
                self.gate.opened();
                if self.unreachable.swap(false, Ordering::Relaxed) {
                    info!(self.logger, "shared rate limits are available again");
                }
                Some(decision)
            }
            Err(e) => {
                self.gate.failed(Instant::now());
                if !self.unreachable.swap(true, Ordering::Relaxed) {
                    warn!(self.logger, "shared rate limits are unavailable; using the counts of this process";
                        "error" => chain(&e));
                }
                None
            }
        }
    }

    async fn try_take(&self, key: CountKey, limit: RateLimit, units: NonZeroU32) -> Result<Decision, DbError> {
        let gcra = Gcra::new(limit);
        let row = self.database.run(move |client| {
            Box::pin(async move {
                let take = client
                    .prepare_cached(
                        "-- infra.rate_limit.take ($1 key, $2 microseconds of this request, $3 microseconds of all)
                         WITH taken AS (
                             INSERT INTO rate_limits AS kept (key, spent_until)
                             VALUES ($1, now() + $2::bigint * interval '1 microsecond')
                             ON CONFLICT (key) DO UPDATE
                             SET spent_until = greatest(kept.spent_until, now()) + $2::bigint * interval '1 microsecond'
                             WHERE greatest(kept.spent_until, now()) + $2::bigint * interval '1 microsecond'
                                   <= now() + $3::bigint * interval '1 microsecond'
                             RETURNING spent_until
                         ), found AS (
                             SELECT true AS within, spent_until FROM taken
                             UNION ALL
                             SELECT false, spent_until FROM rate_limits WHERE key = $1 AND NOT EXISTS (SELECT FROM taken)
                         )
                         SELECT within, (extract(epoch FROM spent_until - now()) * 1000000)::bigint AS spent FROM found",
                    )
                    .await?;
                let row = client.query_opt(&take, &[&key.as_slice(), &gcra.time_of(units), &gcra.window()]).await?;
                row.map(|row| Ok((row.try_get("within")?, row.try_get("spent")?))).transpose()
            })
        });
        // No row: another process has just inserted the same key and exhausted the limit.
        let (within, spent) = row.await?.unwrap_or((false, gcra.window()));
        Ok(gcra.decide(within, spent, units))
    }

    /// Deletes the counts that no longer limit a request.
    ///
    /// # Errors
    /// [`DbError`]; counts that were deleted before stay deleted.
    pub async fn sweep(&self) -> Result<(), DbError> {
        loop {
            let removed = self.database.run(|client| {
                Box::pin(async move {
                    let sweep = client
                        .prepare_cached(
                            "-- infra.rate_limit.sweep ($1 rows at most)
                             DELETE FROM rate_limits WHERE key IN (
                                 SELECT key FROM rate_limits WHERE spent_until <= now()
                                 LIMIT $1 FOR UPDATE SKIP LOCKED)",
                        )
                        .await?;
                    Ok(client.execute(&sweep, &[&SWEEP_ROWS_MAX]).await?)
                })
            });
            if removed.await? < SWEEP_ROWS_MAX.unsigned_abs() {
                return Ok(());
            }
        }
    }
}

/// A limit as GCRA uses it, in microseconds like the timestamps of PostgreSQL.
#[derive(Clone, Copy)]
struct Gcra {
    /// Emission interval: the time that one request uses up.
    interval_us: u64,
    window_us: u64,
}

impl Gcra {
    fn new(limit: RateLimit) -> Self {
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX).clamp(1, i64::MAX.unsigned_abs());
        Self { interval_us: us(limit.window / limit.max.get()), window_us: us(limit.window) }
    }

    /// The time that `units` requests use up.
    fn time_of(self, units: NonZeroU32) -> i64 {
        i64::try_from(self.interval_us.saturating_mul(u64::from(units.get()))).unwrap_or(i64::MAX)
    }

    fn window(self) -> i64 {
        i64::try_from(self.window_us).unwrap_or(i64::MAX)
    }

    /// `spent_us` is how far the limit is used up, as time from now.
    fn decide(self, within: bool, spent_us: i64, units: NonZeroU32) -> Decision {
        let spent_us = u64::try_from(spent_us).unwrap_or(0);
        if within {
            let remaining = self.window_us.saturating_sub(spent_us).checked_div(self.interval_us).unwrap_or(0);
            return Decision::Allowed { remaining: u32::try_from(remaining).unwrap_or(u32::MAX) };
        }
        let needed_us = self.interval_us.saturating_mul(u64::from(units.get()));
        let wait_us = spent_us.saturating_add(needed_us).saturating_sub(self.window_us);
        Decision::Limited { retry_after: Duration::from_micros(wait_us) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gcra(max: u32, window: Duration) -> Gcra {
        Gcra::new(RateLimit { max: NonZeroU32::new(max).expect("not zero"), window })
    }

    #[test]
    fn remaining_requests_and_the_wait_follow_from_how_far_the_limit_is_used_up() {
        let gcra = gcra(3, Duration::from_mins(1));
        let second = 1_000_000;
        let decide = |within, spent, units| gcra.decide(within, spent, NonZeroU32::new(units).expect("not zero"));
        assert_eq!(decide(true, 20 * second, 1), Decision::Allowed { remaining: 2 });
        assert_eq!(decide(true, 39 * second, 1), Decision::Allowed { remaining: 1 });
        assert_eq!(decide(true, 60 * second, 3), Decision::Allowed { remaining: 0 });
        assert_eq!(decide(false, 60 * second, 1), Decision::Limited { retry_after: Duration::from_secs(20) });
        assert_eq!(decide(false, 41 * second, 1), Decision::Limited { retry_after: Duration::from_secs(1) });
        assert_eq!(decide(false, 41 * second, 3), Decision::Limited { retry_after: Duration::from_secs(41) });
    }

    #[test]
    fn a_limit_above_one_per_microsecond_is_one_per_microsecond() {
        let gcra = gcra(1_000_000, Duration::from_millis(500));
        assert_eq!((gcra.time_of(NonZeroU32::MIN), gcra.window()), (1, 500_000));
        assert_eq!(gcra.decide(true, 1, NonZeroU32::MIN), Decision::Allowed { remaining: 499_999 });
    }
}
