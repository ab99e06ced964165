//! Limits connection attempts to an unreachable database, which every request would make otherwise.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::infra::system::random_fraction;
use crate::kernel::Backoff;

/// Delays between attempts, after the first failed one. Short, because requests fail until the next attempt succeeds.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));

/// Admits new connections; open ones do not pass through it.
#[derive(Debug, Default)]
pub(super) struct Gate(Mutex<Attempts>);

#[derive(Clone, Copy, Debug, Default)]
struct Attempts {
    failed_in_a_row: u32,
    closed_until: Option<Instant>,
}

impl Gate {
    /// Whether a connection may be opened now. While attempts fail, only one at a time may.
    pub(super) fn allows(&self, now: Instant) -> bool {
        let mut attempts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match attempts.closed_until {
            Some(until) if now < until => false,
            // Closed until the outcome of this attempt is known.
            Some(_) => {
                attempts.closed_until = Some(now + BACKOFF.delay(attempts.failed_in_a_row, random_fraction()));
                true
            }
            None => true,
        }
    }

    /// To be called after an attempt succeeded.
    pub(super) fn opened(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Attempts::default();
    }

    /// To be called after an attempt failed.
    pub(super) fn failed(&self, now: Instant) {
        let mut attempts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        attempts.closed_until = Some(now + BACKOFF.delay(attempts.failed_in_a_row, random_fraction()));
        attempts.failed_in_a_row = attempts.failed_in_a_row.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_failure_one_attempt_at_a_time_is_allowed_and_a_success_allows_all() {
        let (gate, began) = (Gate::default(), Instant::now());
        assert!(gate.allows(began) && gate.allows(began));
        gate.failed(began);
        assert!(!gate.allows(began));
        let later = began + BACKOFF.delay(0, 1.0);
        assert!(gate.allows(later));
        assert!(!gate.allows(later), "the outcome of the attempt before is unknown");
        gate.opened();
        assert!(gate.allows(later) && gate.allows(later));
    }

    #[test]
    fn an_unreachable_database_is_tried_less_than_ten_times_per_second() {
        let (gate, began) = (Gate::default(), Instant::now());
        let attempts = (0..60_000)
            .map(|ms| began + Duration::from_millis(ms))
            .filter(|now| {
                let allowed = gate.allows(*now);
                if allowed {
                    gate.failed(*now);
                }
                allowed
            })
            .count();
        assert!((60..600).contains(&attempts), "{attempts}");
    }
}
