//! Operating system signals.

use std::io;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

/// Time for the last log lines when none is left, or when a second signal asks for an immediate end. A reader that reads
/// takes them in milliseconds.
const LAST_LINES: Duration = Duration::from_millis(250);

/// Listens from its creation on, so that no signal is missed during start-up.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Ignored: closing the terminal does not stop the process.
    _hangup: Signal,
    /// When the first one came.
    since: Option<Instant>,
    repeated: bool,
}

impl Signals {
    /// Handles SIGTERM and SIGINT, and ignores SIGHUP, for as long as `io` runs.
    pub fn listen(io: &Handle) -> io::Result<Self> {
        let _context = io.enter();
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            _hangup: signal(SignalKind::hangup())?,
            since: None,
            repeated: false,
        })
    }

    /// Waits for the next stop signal and returns its name.
    pub async fn stop_requested(&mut self) -> &'static str {
        let signal = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        };
        self.repeated = self.since.is_some();
        self.since.get_or_insert_with(Instant::now);
        signal
    }

    /// Waits until a process that has nothing left to do but to write its log has to end: when the grace period since the
    /// first signal is over, or at a second signal.
    pub async fn time_is_up(&mut self, grace: Duration) {
        let now = Instant::now();
        let end = match self.since {
            _ if self.repeated => now + LAST_LINES,
            Some(since) => (since + grace).max(now + LAST_LINES),
            None => now + grace,
        };
        tokio::select! {
            () = sleep_until(end) => {}
            _ = self.stop_requested(), if !self.repeated => {}
        }
    }
}
