//! Work without a limit of time: a script, or a commit that waits for a standby.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, interval_at};

/// When work is slow, and how often it is mentioned after that.
const SLOW: Duration = Duration::from_secs(10);
const EVERY: Duration = Duration::from_mins(1);

/// Calls `remind` for as long as `work` is slow.
pub async fn with_reminders<T>(work: impl Future<Output = T>, remind: impl Fn()) -> T {
    let mut work = pin!(work);
    let mut reminders = interval_at(Instant::now() + SLOW, EVERY);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = reminders.tick() => remind(),
        }
    }
}
