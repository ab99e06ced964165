//! Keeps a database that cannot be connected to from being asked by every request at once.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::infra::system::random_fraction;
use crate::kernel::Backoff;

/// Waits between tries to open a connection, from the first that failed on. Short, because the first request after an
/// outage pays for it.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));

/// Opens and closes for new connections; those that are open already do not pass through it.
#[derive(Debug, Default)]
pub(super) struct Gate(Mutex<Tries>);

#[derive(Clone, Copy, Debug, Default)]
struct Tries {
    failed_in_a_row: u32,
    closed_until: Option<Instant>,
}

impl Gate {
    /// Whether a connection may be opened now. While tries fail only one is let through at a time.
    pub(super) fn lets_through(&self, now: Instant) -> bool {
        let mut tries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match tries.closed_until {
            Some(until) if now < until => false,
            // The next one waits until it is known how this one ends.
            Some(_) => {
                tries.closed_until = Some(now + BACKOFF.delay(tries.failed_in_a_row, random_fraction()));
                true
            }
            None => true,
        }
    }

    /// A connection could be had.
    pub(super) fn opened(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Tries::default();
    }

    /// A connection could not be opened.
    pub(super) fn failed(&self, now: Instant) {
        let mut tries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tries.closed_until = Some(now + BACKOFF.delay(tries.failed_in_a_row, random_fraction()));
        tries.failed_in_a_row = tries.failed_in_a_row.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_failure_one_try_is_let_through_at_a_time_and_a_success_opens_it_for_all() {
        let (gate, began) = (Gate::default(), Instant::now());
        assert!(gate.lets_through(began) && gate.lets_through(began));
        gate.failed(began);
        assert!(!gate.lets_through(began));
        let later = began + BACKOFF.delay(0, 1.0);
        assert!(gate.lets_through(later));
        assert!(!gate.lets_through(later), "how the one before it ends is not known yet");
        gate.opened();
        assert!(gate.lets_through(later) && gate.lets_through(later));
    }

    #[test]
    fn a_database_that_stays_away_is_tried_less_than_ten_times_a_second() {
        let (gate, began) = (Gate::default(), Instant::now());
        let tries = (0..60_000)
            .map(|ms| began + Duration::from_millis(ms))
            .filter(|now| {
                let tried = gate.lets_through(*now);
                if tried {
                    gate.failed(*now);
                }
                tried
            })
            .count();
        assert!((60..600).contains(&tries), "{tries}");
    }
}
