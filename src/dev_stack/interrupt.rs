//! The wish to stop, as a counter that every wait of the room looks at.
//!
//! The first signal asks for an orderly end, the second one for an immediate end. A counter rather than a channel:
//! many waits read it and none consumes it. This file does not decide what is stopped.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::signal::unix::{SignalKind, signal};

/// How often somebody asked to stop. Clones share the count.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// One that counts SIGINT, SIGTERM and SIGHUP of this process from now on.
    ///
    /// # Errors
    /// When the process cannot install signal handlers or start a thread.
    pub fn listen() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut interrupt, mut terminate, mut hang_up) = {
            let _inside = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?)
        };
        let counted = Self::default();
        let count = counted.clone();
        thread::Builder::new().name("dev-signals".into()).spawn(move || {
            runtime.block_on(async move {
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                        _ = hang_up.recv() => {}
                    }
                    count.raise();
                }
            });
        })?;
        Ok(counted)
    }

    /// Asks to stop, as a signal would.
    pub fn raise(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether anybody asked to stop.
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::SeqCst) >= 1
    }

    /// Whether the orderly end takes somebody too long.
    pub fn is_urgent(&self) -> bool {
        self.0.load(Ordering::SeqCst) >= 2
    }
}
