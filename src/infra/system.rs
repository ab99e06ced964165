//! The only source of time, ids and randomness, and of thread priorities.

use uuid::Uuid;

use crate::kernel::{Clock, IdSource, Timestamp};

/// The clock of the machine, and UUIDs from it.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Clock for System {
    fn now(&self) -> Timestamp {
        let now = Timestamp::now();
        // PostgreSQL stores microseconds: truncated here, a response shows the stored value.
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
    }
}

impl IdSource for System {
    fn next_id(&self) -> Uuid {
        Uuid::now_v7()
    }
}

/// Random bytes that nobody can predict: 122 of the bits, the others mark a UUID.
pub(crate) fn random_bytes() -> [u8; 16] {
    Uuid::new_v4().into_bytes()
}

/// A random index in `0..count`, where `count` is at least 1; not for secrets.
pub(crate) fn random_index(count: usize) -> usize {
    fastrand::usize(..count.max(1))
}

/// A random number in `0.0..1.0`, for jitter; not for secrets.
pub(crate) fn random_fraction() -> f64 {
    fastrand::f64()
}

/// The lowest priority of a thread; the default is 0.
///
/// # Source
/// `nice(2)`.
#[cfg(target_os = "linux")]
const LOWEST_PRIORITY: i32 = 19;

/// Gives this thread the lowest priority, on Linux, the only system where threads have their own. Elsewhere, and where
/// the system refuses, the priority stays as it is.
pub(crate) fn lower_priority() {
    #[cfg(target_os = "linux")]
    // On Linux `None`, this process, means this thread.
    let _ = rustix::process::setpriority_process(None, LOWEST_PRIORITY);
}
