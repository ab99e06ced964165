//! Tells waiting requests of wallets that this process has just made.

use std::sync::Arc;

use tokio::sync::broadcast;

use crate::kernel::UserId;

/// How many announcements a slow listener may fall behind before it has to look for itself.
const BACKLOG_MAX: usize = 256;

/// One sender, any number of listeners, nothing kept: who comes later asks the store.
#[derive(Clone, Debug)]
pub struct Arrivals(broadcast::Sender<Arc<[UserId]>>);

impl Default for Arrivals {
    fn default() -> Self {
        Self(broadcast::channel(BACKLOG_MAX).0)
    }
}

impl Arrivals {
    /// Says that these users have a wallet now.
    pub fn announce(&self, users: &[UserId]) {
        if !users.is_empty() {
            // No listener is no error.
            let _ = self.0.send(users.into());
        }
    }

    /// Begins to listen; what is announced from here on is heard.
    pub fn listen(&self) -> Listener {
        Listener(self.0.subscribe())
    }
}

/// One who waits.
#[derive(Debug)]
pub struct Listener(broadcast::Receiver<Arc<[UserId]>>);

impl Listener {
    /// Ends when `user` is announced, or when announcements were missed and only the store can tell.
    pub async fn heard_of(&mut self, user: UserId) {
        loop {
            match self.0.recv().await {
                Ok(users) if !users.contains(&user) => {}
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => return,
                // The sender lives as long as the process; without it there is nothing to hear.
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}
