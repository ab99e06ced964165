use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Interval at which a condition that goes on is logged again.
const EVERY: Duration = Duration::from_mins(1);

/// Decides when a condition that goes on is logged again.
#[derive(Debug, Default)]
pub struct Reminder(Mutex<Option<Instant>>);

impl Reminder {
    /// True at first, and once per minute after that.
    pub fn is_due(&self) -> bool {
        let mut logged_at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = logged_at.is_none_or(|at| at.elapsed() >= EVERY);
        if is_due {
            *logged_at = Some(Instant::now());
        }
        is_due
    }

    /// The condition is over; the next one is logged immediately.
    pub fn reset(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_logged_once_per_minute_and_again_after_it_was_over() {
        let reminder = Reminder::default();
        assert_eq!([reminder.is_due(), reminder.is_due(), reminder.is_due()], [true, false, false]);
        reminder.reset();
        assert!(reminder.is_due());
        *reminder.0.lock().expect("unpoisoned") = Instant::now().checked_sub(EVERY);
        assert!(reminder.is_due());
    }
}
