//! The terminal: progress output, and how often the user asked to stop.
//!
//! The first signal asks for an orderly stop, the second one for an immediate one. A counter rather than a channel:
//! many waits read it and none consumes it.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use tokio::signal::unix::{SignalKind, signal};

use crate::error::DevError;

/// Clones share the count of signals.
#[derive(Clone, Debug)]
pub(crate) struct Console {
    /// `None` if no progress is shown.
    begun: Option<Instant>,
    signals: Arc<AtomicUsize>,
}

impl Console {
    /// Shows nothing and is never asked to stop: for the tests.
    pub(crate) fn silent() -> Self {
        Self { begun: None, signals: Arc::default() }
    }

    /// Counts SIGINT, SIGTERM and SIGHUP of this process from now on.
    pub(crate) fn listen() -> Result<Self, DevError> {
        let console = Self { begun: Some(Instant::now()), signals: Arc::default() };
        let signals = Arc::clone(&console.signals);
        let listen = move || -> std::io::Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (mut interrupt, mut terminate, mut hang_up) = {
                let _inside = runtime.enter();
                (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?)
            };
            let count = async move {
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                        _ = hang_up.recv() => {}
                    }
                    signals.fetch_add(1, Ordering::SeqCst);
                }
            };
            thread::Builder::new().name("signals".into()).spawn(move || runtime.block_on::<_>(count)).map(drop)
        };
        listen().map_err(|error| DevError::Unavailable(format!("cannot listen for signals: {error}")))?;
        Ok(console)
    }

    /// Shows a line with the time since the start.
    pub(crate) fn progress(&self, text: &str) {
        if let Some(begun) = self.begun {
            show(&format!("[{:5.1} s] {text}", begun.elapsed().as_secs_f64()));
        }
    }

    /// `Interrupted` once a signal has come.
    pub(crate) fn check(&self) -> Result<(), DevError> {
        if self.signals.load(Ordering::SeqCst) == 0 { Ok(()) } else { Err(DevError::Interrupted) }
    }

    /// Whether a second signal has come.
    pub(crate) fn is_impatient(&self) -> bool {
        self.signals.load(Ordering::SeqCst) >= 2
    }
}

/// Prints a line. A closed terminal is no reason to stop the stack.
pub(crate) fn show(line: &str) {
    let _closed = writeln!(std::io::stdout().lock(), "{line}");
}
