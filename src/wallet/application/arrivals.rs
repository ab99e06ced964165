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

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use uuid::Uuid;

    fn user(number: u128) -> UserId {
        UserId::from_uuid(Uuid::from_u128(number))
    }

    #[test]
    fn who_listens_hears_of_their_user_and_of_nobody_else() {
        let arrivals = Arrivals::default();
        let mut listener = arrivals.listen();
        arrivals.announce(&[user(1), user(2)]);
        arrivals.announce(&[]);
        assert_eq!(listener.heard_of(user(3)).now_or_never(), None, "nobody has told of them");
        arrivals.announce(&[user(2), user(3)]);
        assert_eq!(listener.heard_of(user(3)).now_or_never(), Some(()));
        assert_eq!(arrivals.listen().heard_of(user(3)).now_or_never(), None, "who comes later asks the store");
    }

    #[test]
    fn who_has_missed_something_is_told_to_look() {
        let arrivals = Arrivals::default();
        let mut listener = arrivals.listen();
        (0..=BACKLOG_MAX).for_each(|_| arrivals.announce(&[user(1)]));
        assert_eq!(listener.heard_of(user(2)).now_or_never(), Some(()));
    }
}
