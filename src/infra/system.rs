//! The one home of time, ids, randomness and priorities.

use uuid::Uuid;

use crate::kernel::{Clock, IdSource, Timestamp};

/// The machine's clock and random numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Clock for System {
    fn now(&self) -> Timestamp {
        let now = Timestamp::now();
        // PostgreSQL keeps microseconds: rounding here makes what is answered what is stored.
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
    }
}

impl IdSource for System {
    fn next_id(&self) -> Uuid {
        Uuid::now_v7()
    }
}

/// One of `0..count`, by lot; not for secrets. `count` is at least 1.
pub fn draw(count: usize) -> usize {
    fastrand::usize(..count.max(1))
}

/// A random number in `0.0..1.0`, for jitter; not for secrets.
pub fn roll() -> f64 {
    fastrand::f64()
}

/// How far a thread steps back: 0 is as important as any other, 19 the least.
///
/// # Source
/// `nice(2)`.
#[cfg(target_os = "linux")]
const STEP_BACK: i32 = 19;

/// Lets the other threads go first from now on, where a thread has a priority of its own: on Linux.
pub fn step_back() {
    #[cfg(target_os = "linux")]
    // Linux takes "this process" for this thread. Refused, it is as important as before.
    let _ = rustix::process::setpriority_process(None, STEP_BACK);
}
