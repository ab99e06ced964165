//! Announces the wallets that this process creates to the requests that wait for them.

use std::sync::Arc;

use tokio::sync::broadcast;

use crate::kernel::UserId;

/// How many announcements a slow listener may miss before it has to ask the store.
const BACKLOG_MAX: usize = 256;

/// Any number of listeners. Nothing is kept: a later listener asks the store.
#[derive(Clone, Debug)]
pub struct WalletAnnouncements(broadcast::Sender<Arc<[UserId]>>);

impl Default for WalletAnnouncements {
    fn default() -> Self {
        Self(broadcast::channel(BACKLOG_MAX).0)
    }
}

impl WalletAnnouncements {
    /// These users have a wallet now.
    pub fn announce(&self, users: &[UserId]) {
        if !users.is_empty() {
            // An error means that there is no listener.
            let _ = self.0.send(users.into());
        }
    }

    /// Receives every announcement from now on.
    pub fn listen(&self) -> AnnouncementListener {
        AnnouncementListener(self.0.subscribe())
    }
}

#[derive(Debug)]
pub struct AnnouncementListener(broadcast::Receiver<Arc<[UserId]>>);

impl AnnouncementListener {
    /// Returns when `user` is announced, or when announcements were missed and the store has to be asked.
    pub async fn until_announced(&mut self, user: UserId) {
        loop {
            match self.0.recv().await {
                Ok(users) if !users.contains(&user) => {}
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => return,
                // The sender lives as long as the process.
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
    fn a_listener_waits_for_its_own_user() {
        let announcements = WalletAnnouncements::default();
        let mut listener = announcements.listen();
        announcements.announce(&[user(1), user(2)]);
        announcements.announce(&[]);
        assert_eq!(listener.until_announced(user(3)).now_or_never(), None, "not announced yet");
        announcements.announce(&[user(2), user(3)]);
        assert_eq!(listener.until_announced(user(3)).now_or_never(), Some(()));
        assert_eq!(
            announcements.listen().until_announced(user(3)).now_or_never(),
            None,
            "a later listener asks the store"
        );
    }

    #[test]
    fn a_listener_that_missed_announcements_stops_waiting() {
        let announcements = WalletAnnouncements::default();
        let mut listener = announcements.listen();
        (0..=BACKLOG_MAX).for_each(|_| announcements.announce(&[user(1)]));
        assert_eq!(listener.until_announced(user(2)).now_or_never(), Some(()));
    }
}
