//! How many connections a process serves, and which one makes room for a new one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use rustix::process::{Resource, getrlimit};

use crate::infra::metrics::{Counter, MetricName, Metrics};

/// The part of the descriptors that connections may take. The others are for databases, brokers and files.
const DESCRIPTORS_SHARE: usize = 2;
/// Connections above the limit, each for one request of a probe; others get a 503. Only needed while all connections
/// have a request in progress.
const CROWDED_MAX: usize = 128;
/// A client whose request has not arrived after this time is not about to send one.
const ARRIVAL: Duration = Duration::from_secs(1);

const ENDED: MetricName = MetricName {
    name: "purse_http_connections_ended_total",
    help: "Connections ended by the server, by reason: stalled (the client read nothing), displaced (idle, closed for a new one), refused (too many).",
};

/// Why the server ended a connection.
#[derive(Clone)]
pub(super) struct Ended {
    pub(super) stalled: Counter,
    displaced: Counter,
    refused: Counter,
}

impl Ended {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let reason = |reason| metrics.counter(ENDED, &[("reason", reason)]);
        Self { stalled: reason("stalled"), displaced: reason("displaced"), refused: reason("refused") }
    }
}

/// The connections of a server, on all of its threads.
pub(super) struct Capacity {
    max: usize,
    began: Instant,
    slots: Mutex<HashMap<u64, Arc<Shared>>>,
    next_id: AtomicU64,
    pub(super) ended: Ended,
}

/// What other threads may know about a connection.
#[derive(Default)]
struct Shared {
    /// When it became idle, in microseconds after the server's start; 0 while it has a request in progress.
    idle_since_us: AtomicU64,
    /// It has sent a complete request.
    is_proven: AtomicBool,
    is_displaced: AtomicBool,
    task: AtomicWaker,
}

impl Capacity {
    /// At most `max`, and fewer where the process may not open as many descriptors.
    pub(super) fn new(max: usize, ended: Ended) -> Self {
        Self { max, began: Instant::now(), slots: Mutex::default(), next_id: AtomicU64::new(0), ended }
    }

    /// The limit of descriptors may change while the process runs.
    fn max(&self) -> usize {
        let descriptors = getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok());
        self.max.min(descriptors.unwrap_or(usize::MAX) / DESCRIPTORS_SHARE).max(1)
    }

    /// A slot for a new connection. In a full process the connection that has been idle the longest makes room for it:
    /// one that has sent no request if there is one, but a new one only after all others. `None`: all are busy, and so are
    /// the slots for probes.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Slot> {
        let max = self.max();
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= max {
            let now_us = self.now_us();
            let idle = slots.iter().filter_map(|(id, shared)| Some((shared.idle_rank(now_us)?, *id)));
            let displaced = idle.min().and_then(|(_, id)| slots.remove(&id));
            if let Some(displaced) = displaced {
                self.ended.displaced.increment(1);
                displaced.is_displaced.store(true, Ordering::Release);
                displaced.task.wake();
            }
        }
        let is_crowded = slots.len() >= max;
        if slots.len() >= max.saturating_add(CROWDED_MAX.min(max)) {
            self.ended.refused.increment(1);
            return None;
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::new(Shared::default());
        shared.idle_since_us.store(self.now_us(), Ordering::Relaxed);
        slots.insert(id, Arc::clone(&shared));
        Some(Slot { id, shared, capacity: Arc::clone(self), is_crowded })
    }

    /// Never 0.
    fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)
    }
}

/// In the order in which they make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum IdleKind {
    /// It has sent no request.
    Silent,
    /// It waits for another request.
    Kept,
    /// Its first request may be on its way.
    New,
}

impl Shared {
    /// Lowest for the first to make room; `None` while a request is in progress.
    fn idle_rank(&self, now_us: u64) -> Option<(IdleKind, u64)> {
        let since = self.idle_since_us.load(Ordering::Relaxed);
        let kind = match Duration::from_micros(now_us.saturating_sub(since)) {
            _ if self.is_proven.load(Ordering::Relaxed) => IdleKind::Kept,
            idle if idle < ARRIVAL => IdleKind::New,
            _ => IdleKind::Silent,
        };
        (since > 0).then_some((kind, since))
    }
}

/// The place of a connection; dropping it frees the place.
pub(super) struct Slot {
    id: u64,
    shared: Arc<Shared>,
    capacity: Arc<Capacity>,
    pub(super) is_crowded: bool,
}

impl Slot {
    pub(super) fn busy(&self) {
        self.shared.is_proven.store(true, Ordering::Relaxed);
        self.shared.idle_since_us.store(0, Ordering::Relaxed);
    }

    pub(super) fn idle(&self) {
        if self.shared.idle_since_us.load(Ordering::Relaxed) == 0 {
            self.shared.idle_since_us.store(self.capacity.now_us(), Ordering::Relaxed);
        }
    }

    /// Whether it has made room for another connection. If not, `cx` is woken when it does.
    pub(super) fn is_displaced(&self, cx: &std::task::Context<'_>) -> bool {
        self.shared.task.register(cx.waker());
        self.shared.is_displaced.load(Ordering::Acquire)
    }

    pub(super) fn stalled(&self) {
        self.capacity.ended.stalled.increment(1);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.capacity.slots.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::task::noop_waker;
    use std::task::Context;

    fn capacity(max: usize) -> Arc<Capacity> {
        let metrics = Metrics::try_new().expect("metrics");
        Arc::new(Capacity::new(max, Ended::new(&metrics)))
    }

    fn displaced(slots: &[Slot]) -> Vec<bool> {
        let waker = noop_waker();
        slots.iter().map(|slot| slot.is_displaced(&Context::from_waker(&waker))).collect()
    }

    #[test]
    fn silent_connections_make_room_first_then_kept_ones_and_new_ones_last() {
        let shared = |since, proven| Shared {
            idle_since_us: AtomicU64::new(since),
            is_proven: AtomicBool::new(proven),
            ..Shared::default()
        };
        let second = 1_000_000;
        let now = 10 * second;
        let in_order = [
            shared(2 * second, false),
            shared(3 * second, false),
            shared(second, true),
            shared(now - 1, true),
            shared(now - 2, false),
            shared(now - 1, false),
        ];
        let ranks: Vec<_> = in_order.iter().map(|shared| shared.idle_rank(now)).collect();
        assert!(ranks.iter().all(Option::is_some) && ranks.is_sorted(), "{ranks:?}");
        assert_eq!(shared(0, true).idle_rank(now), None, "a request is in progress");
    }

    #[test]
    fn a_new_connection_takes_the_place_of_the_one_that_has_been_idle_the_longest() {
        let capacity = capacity(3);
        let mut slots: Vec<Slot> = (0..3).filter_map(|_| capacity.enter()).collect();
        for slot in &slots {
            slot.busy();
        }
        // One microsecond apart at least, which is the resolution.
        for index in [1, 0] {
            std::thread::sleep(Duration::from_millis(1));
            slots[index].idle();
        }
        slots.extend(capacity.enter());
        assert_eq!(displaced(&slots), [false, true, false, false]);
        slots.extend(capacity.enter());
        assert_eq!(displaced(&slots), [true, true, false, false, false]);
        assert!(slots.iter().all(|slot| !slot.is_crowded));
    }

    #[test]
    fn while_all_connections_are_busy_a_bounded_number_more_is_crowded() {
        let capacity = capacity(200);
        let mut slots = Vec::new();
        while let Some(slot) = capacity.enter() {
            slot.busy();
            slots.push(slot);
        }
        assert_eq!(slots.len(), 200 + CROWDED_MAX);
        assert_eq!(slots.iter().filter(|slot| slot.is_crowded).count(), CROWDED_MAX);
        slots.clear();
        assert!(capacity.enter().is_some_and(|slot| !slot.is_crowded), "places are free again");
    }
}
