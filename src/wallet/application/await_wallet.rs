//! Find a user's wallet, and wait for it while it is being provisioned.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::kernel::{DependencyError, Timestamp, UserId};
use crate::wallet::application::announcements::WalletAnnouncements;
use crate::wallet::application::ports::WalletStore;

/// How often a waiting request asks the store, for wallets that another process creates.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

pub struct AwaitWallet {
    pub wallets: Arc<dyn WalletStore>,
    /// Of the wallets that this process creates.
    pub announcements: WalletAnnouncements,
}

impl AwaitWallet {
    /// Whether the user has a wallet. A wallet that was found before is assumed to exist.
    ///
    /// # Errors
    /// [`DependencyError`] of the store.
    pub async fn is_ready(&self, user: UserId) -> Result<bool, DependencyError> {
        Ok(self.wallets.created_at(user).await?.is_some())
    }

    /// When the user's wallet was created. Waits for it up to `wait_max`; `None` if it does not exist by then.
    ///
    /// # Errors
    /// [`DependencyError`] of the store.
    pub async fn execute(&self, user: UserId, wait_max: Duration) -> Result<Option<Timestamp>, DependencyError> {
        if let Some(created_at) = self.wallets.look_up(user).await? {
            return Ok(Some(created_at));
        }
        if wait_max.is_zero() {
            return Ok(None);
        }
        let give_up = Instant::now() + wait_max;
        // Listening begins before the store is asked again, so that no wallet is missed in between.
        let mut listener = self.announcements.listen();
        loop {
            if let Some(created_at) = self.wallets.look_up(user).await? {
                return Ok(Some(created_at));
            }
            let now = Instant::now();
            if now >= give_up {
                return Ok(None);
            }
            let look_again = (now + POLL_INTERVAL).min(give_up);
            // Announced or timed out: the store decides.
            let _ = tokio::time::timeout_at(look_again, listener.until_announced(user)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wallet::application::ports::Provisioned;
    use crate::wallet::application::provision_wallets::ProvisionWallets;
    use async_trait::async_trait;
    use std::collections::BTreeSet;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use uuid::Uuid;

    /// Wallets in memory, with the number of reads.
    #[derive(Default)]
    struct FakeWallets(Mutex<BTreeSet<UserId>>, AtomicUsize);

    #[async_trait]
    impl WalletStore for FakeWallets {
        async fn provision(&self, users: Vec<UserId>) -> Result<Provisioned, DependencyError> {
            let mut wallets = self.0.lock().expect("wallets");
            let created = users.into_iter().filter(|user| wallets.insert(*user)).collect();
            Ok(Provisioned { created, postponed: None })
        }

        async fn ping(&self) -> Result<(), DependencyError> {
            Ok(())
        }

        async fn created_at(&self, user: UserId) -> Result<Option<Timestamp>, DependencyError> {
            self.look_up(user).await
        }

        async fn look_up(&self, user: UserId) -> Result<Option<Timestamp>, DependencyError> {
            self.1.fetch_add(1, Ordering::Relaxed);
            Ok(self.0.lock().expect("wallets").contains(&user).then_some(Timestamp::UNIX_EPOCH))
        }
    }

    fn user() -> UserId {
        UserId::from_uuid(Uuid::from_u128(7))
    }

    fn use_cases() -> (Arc<AwaitWallet>, ProvisionWallets) {
        let (wallets, announcements) = (Arc::new(FakeWallets::default()), WalletAnnouncements::default());
        let awaiting = AwaitWallet { wallets: wallets.clone(), announcements: announcements.clone() };
        (Arc::new(awaiting), ProvisionWallets { wallets, announcements })
    }

    #[tokio::test]
    async fn a_wallet_is_created_once_and_found_at_once() {
        let (awaiting, provision) = use_cases();
        assert_eq!(provision.execute(vec![user()]).await.expect("provisioned").created, [user()]);
        assert_eq!(provision.execute(vec![user()]).await.expect("provisioned").created, []);
        assert_eq!(awaiting.execute(user(), Duration::ZERO).await.expect("read"), Some(Timestamp::UNIX_EPOCH));
    }

    #[tokio::test]
    async fn after_the_wait_there_is_no_wallet() {
        let (awaiting, _) = use_cases();
        for wait_max in [Duration::ZERO, Duration::from_millis(20)] {
            let began = Instant::now();
            assert_eq!(awaiting.execute(user(), wait_max).await.expect("read"), None);
            assert!(began.elapsed() >= wait_max);
        }
    }

    #[tokio::test]
    async fn a_waiting_request_does_not_read_in_between() {
        let (wallets, announcements) = (Arc::new(FakeWallets::default()), WalletAnnouncements::default());
        let awaiting = AwaitWallet { wallets: wallets.clone(), announcements };
        assert_eq!(awaiting.execute(user(), Duration::from_millis(20)).await.expect("read"), None);
        // Before it listens, after that, and when the wait is over.
        assert_eq!(wallets.1.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn a_waiting_request_returns_when_the_wallet_is_created() {
        let (awaiting, provision) = use_cases();
        let mut listener = awaiting.announcements.listen();
        let waiting = tokio::spawn({
            let awaiting = Arc::clone(&awaiting);
            async move { awaiting.execute(user(), Duration::from_mins(10)).await.expect("read") }
        });
        tokio::task::yield_now().await;
        provision.execute(vec![user()]).await.expect("provisioned");
        listener.until_announced(user()).await;
        assert_eq!(waiting.await.expect("waited"), Some(Timestamp::UNIX_EPOCH));
    }
}
