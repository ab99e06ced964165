//! Counts of rate limits that all processes of a role share, in the table `rate_limits` of the role's database.
//!
//! GCRA by the database's clock, one statement a request. Whoever cannot ask the database is told so and decides alone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use slog::{Logger, info, warn};

use crate::infra::config::RateLimit;
use crate::infra::postgres::database::Database;
use crate::infra::postgres::error::DbError;
use crate::infra::postgres::gate::Gate;
use crate::kernel::chain;

/// Rows that one statement of a sweep removes at most, so that it holds no locks for long.
const SWEEP_ROWS_MAX: i64 = 5_000;

/// What a count is kept by: a digest, so that it is small and holds nobody's address.
pub type CountKey = [u8; 32];

/// What a request has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// It is within the limit, and was counted.
    Within {
        /// How many more would be, now.
        left: u32,
    },
    /// It is beyond the limit, and was not counted.
    Beyond {
        /// When the next one will be within it.
        wait: Duration,
    },
}

/// The counts of one process's role.
pub struct SharedCounts {
    database: Database,
    /// After a failure one request at a time finds out whether it is over; the others do not wait for that.
    gate: Gate,
    away: AtomicBool,
    logger: Logger,
}

impl SharedCounts {
    /// Over a pool of its own: what is limited must not wait for what was let through.
    pub fn new(database: Database, logger: Logger) -> Self {
        Self { database, gate: Gate::default(), away: AtomicBool::new(false), logger }
    }

    /// Counts a request. `None` while the database cannot be asked.
    pub async fn take(&self, key: CountKey, limit: RateLimit) -> Option<Count> {
        if !self.gate.lets_through(Instant::now()) {
            return None;
        }
        match self.ask(key, limit).await {
            Ok(count) => {
                self.gate.opened();
                if self.away.swap(false, Ordering::Relaxed) {
                    info!(self.logger, "the shared rate limits are back");
                }
                Some(count)
            }
            Err(e) => {
                self.gate.failed(Instant::now());
                if !self.away.swap(true, Ordering::Relaxed) {
                    warn!(self.logger, "the shared rate limits cannot be asked; this process counts for itself";
                        "error" => chain(&e));
                }
                None
            }
        }
    }

    async fn ask(&self, key: CountKey, limit: RateLimit) -> Result<Count, DbError> {
        let pace = Pace::of(limit);
        let row = self.database.run(move |client| {
            Box::pin(async move {
                let take = client
                    .prepare_cached(
                        "-- infra.rate_limit.take ($1 key, $2 microseconds of one request, $3 microseconds of all)
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
                let row = client.query_opt(&take, &[&key.as_slice(), &pace.one(), &pace.all()]).await?;
                row.map(|row| Ok((row.try_get("within")?, row.try_get("spent")?))).transpose()
            })
        });
        // No row: another process has begun to count the same key in this very moment, and has spent all of it.
        let (within, spent) = row.await?.unwrap_or((false, pace.all()));
        Ok(pace.count(within, spent))
    }

    /// Removes the counts that limit nobody any more.
    ///
    /// # Errors
    /// [`DbError`]; what was removed by then stays removed.
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

/// A limit in microseconds, which is what the database counts time in.
#[derive(Clone, Copy)]
struct Pace {
    one_us: u64,
    all_us: u64,
}

impl Pace {
    fn of(limit: RateLimit) -> Self {
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX).clamp(1, i64::MAX.unsigned_abs());
        Self { one_us: us(limit.window / limit.max.get()), all_us: us(limit.window) }
    }

    fn one(self) -> i64 {
        i64::try_from(self.one_us).unwrap_or(i64::MAX)
    }

    fn all(self) -> i64 {
        i64::try_from(self.all_us).unwrap_or(i64::MAX)
    }

    /// What it means that the limit is spent for `spent_us` more.
    fn count(self, within: bool, spent_us: i64) -> Count {
        let spent_us = u64::try_from(spent_us).unwrap_or(0);
        if within {
            let left = self.all_us.saturating_sub(spent_us).checked_div(self.one_us).unwrap_or(0);
            return Count::Within { left: u32::try_from(left).unwrap_or(u32::MAX) };
        }
        let wait_us = spent_us.saturating_add(self.one_us).saturating_sub(self.all_us);
        Count::Beyond { wait: Duration::from_micros(wait_us) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    fn pace(max: u32, window: Duration) -> Pace {
        Pace::of(RateLimit { max: NonZeroU32::new(max).expect("not zero"), window })
    }

    #[test]
    fn what_is_left_and_how_long_to_wait_follow_from_how_long_the_limit_is_spent() {
        let pace = pace(3, Duration::from_mins(1));
        let second = 1_000_000;
        assert_eq!(pace.count(true, 20 * second), Count::Within { left: 2 });
        assert_eq!(pace.count(true, 39 * second), Count::Within { left: 1 });
        assert_eq!(pace.count(true, 60 * second), Count::Within { left: 0 });
        assert_eq!(pace.count(false, 60 * second), Count::Beyond { wait: Duration::from_secs(20) });
        assert_eq!(pace.count(false, 41 * second), Count::Beyond { wait: Duration::from_secs(1) });
    }

    #[test]
    fn a_limit_of_more_than_one_a_microsecond_is_one_a_microsecond() {
        let pace = pace(1_000_000, Duration::from_millis(500));
        assert_eq!((pace.one(), pace.all()), (1, 500_000));
        assert_eq!(pace.count(true, 1), Count::Within { left: 499_999 });
    }
}
