//! How many statements run at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::infra::metrics::{Counter, MetricName, Metrics, gauge_value};
use crate::kernel::UserId;

/// In one process.
const RUNNING_MAX: usize = 8;
/// Of one user, so that a slow client does not keep all other users from theirs.
const RUNNING_OF_USER_MAX: usize = 2;

const RUNNING: MetricName = MetricName {
    name: "purse_statements_running",
    help: "Statements being sent; at 8, further requests get OVERLOADED.",
};
const ENDED: MetricName = MetricName {
    name: "purse_statements_total",
    help: "Statements that were sent, by result: complete, failed (a page could not be read, or the time limit was reached) or abandoned by the client.",
};

/// Shared by all threads of the process.
pub struct StatementSlots {
    running: Mutex<HashMap<UserId, usize>>,
    complete: Counter,
    failed: Counter,
    abandoned: Counter,
}

/// How a statement ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Nothing of it was sent.
    Unsent,
    Complete,
    Failed,
    Abandoned,
}

/// The place of one statement, until it is dropped.
pub(super) struct Slot {
    slots: Arc<StatementSlots>,
    user: UserId,
    pub(super) ended: Ended,
}

impl StatementSlots {
    pub fn new(metrics: &Metrics) -> Arc<Self> {
        let ended = |result| metrics.counter(ENDED, &[("result", result)]);
        let slots = Arc::new(Self {
            running: Mutex::default(),
            complete: ended("complete"),
            failed: ended("failed"),
            abandoned: ended("abandoned"),
        });
        let (gauge, shown) = (metrics.gauge(RUNNING, &[]), Arc::clone(&slots));
        metrics.on_scrape(move || gauge.set(gauge_value(shown.count())));
        slots
    }

    /// `None` if too many statements run.
    pub(super) fn enter(self: &Arc<Self>, user: UserId) -> Option<Slot> {
        let mut running = self.running();
        let of_user = running.get(&user).copied().unwrap_or_default();
        if of_user >= RUNNING_OF_USER_MAX || running.values().sum::<usize>() >= RUNNING_MAX {
            return None;
        }
        running.insert(user, of_user.saturating_add(1));
        drop(running);
        Some(Slot { slots: Arc::clone(self), user, ended: Ended::Unsent })
    }

    fn running(&self) -> MutexGuard<'_, HashMap<UserId, usize>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self) -> usize {
        self.running().values().sum()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut running = self.slots.running();
        if let Some(count) = running.get_mut(&self.user) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                running.remove(&self.user);
            }
        }
        drop(running);
        match self.ended {
            Ended::Unsent => {}
            Ended::Complete => self.slots.complete.increment(1),
            Ended::Failed => self.slots.failed.increment(1),
            Ended::Abandoned => self.slots.abandoned.increment(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn user(number: u128) -> UserId {
        UserId::from_uuid(Uuid::from_u128(number))
    }

    #[test]
    fn a_process_runs_eight_statements_of_which_one_user_has_two() {
        let slots = StatementSlots::new(&Metrics::try_new().expect("metrics"));
        let enter = |number| slots.enter(user(number));
        let mut held: Vec<Slot> = [1, 1, 2, 2, 3, 3, 4].into_iter().filter_map(enter).collect();
        assert_eq!((held.len(), enter(1).is_none()), (7, true), "a third statement of a user");
        held.extend(enter(5));
        assert_eq!((held.len(), enter(6).is_none(), slots.count()), (8, true, 8), "a ninth statement");
        held.remove(0);
        assert!(enter(1).is_some());
        held.clear();
        assert!(slots.running().is_empty(), "users without statements are forgotten");
    }
}
