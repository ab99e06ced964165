//! Operating system signals.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens from its creation on, so that no signal is missed during start-up.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Handles SIGTERM and SIGINT, and ignores SIGHUP: closing the terminal does not stop the process.
    pub fn listen() -> io::Result<Self> {
        let mut hangup = signal(SignalKind::hangup())?;
        actix::spawn(async move { while hangup.recv().await.is_some() {} });
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next stop signal and returns its name.
    pub async fn stop_requested(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
