//! Look for one's wallet, and wait for it if it is still being made.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::kernel::{DependencyError, Timestamp, UserId};
use crate::wallet::application::arrivals::Arrivals;
use crate::wallet::application::ports::WalletStore;

/// How often a waiting request looks by itself, for a wallet that another process makes.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The use case and its ports.
pub struct AwaitWallet {
    /// Where wallets are kept.
    pub wallets: Arc<dyn WalletStore>,
    /// What this process makes.
    pub arrivals: Arrivals,
}

impl AwaitWallet {
    /// When the user's wallet was made; waits up to `patience` for it, `None` if it is not there by then.
    ///
    /// # Errors
    /// [`DependencyError`] when the store cannot be asked.
    pub async fn execute(&self, user: UserId, patience: Duration) -> Result<Option<Timestamp>, DependencyError> {
        if let Some(created_at) = self.wallets.created_at(user).await? {
            return Ok(Some(created_at));
        }
        if patience.is_zero() {
            return Ok(None);
        }
        let give_up = Instant::now() + patience;
        // Listening begins before the next look, so that nothing falls between the two.
        let mut listener = self.arrivals.listen();
        loop {
            if let Some(created_at) = self.wallets.created_at(user).await? {
                return Ok(Some(created_at));
            }
            let now = Instant::now();
            if now >= give_up {
                return Ok(None);
            }
            let look_again = (now + LOOK_EVERY).min(give_up);
            // Whether heard or timed out: the store decides.
            let _ = tokio::time::timeout_at(look_again, listener.heard_of(user)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wallet::application::provision_wallets::ProvisionWallets;
    use async_trait::async_trait;
    use std::collections::BTreeSet;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use uuid::Uuid;

    /// Wallets in memory, and how often they were looked for.
    #[derive(Default)]
    struct Drawer(Mutex<BTreeSet<UserId>>, AtomicUsize);

    #[async_trait]
    impl WalletStore for Drawer {
        async fn provision(&self, users: Vec<UserId>) -> Result<Vec<UserId>, DependencyError> {
            let mut wallets = self.0.lock().expect("wallets");
            Ok(users.into_iter().filter(|user| wallets.insert(*user)).collect())
        }

        async fn ping(&self) -> Result<(), DependencyError> {
            Ok(())
        }

        async fn created_at(&self, user: UserId) -> Result<Option<Timestamp>, DependencyError> {
            self.1.fetch_add(1, Ordering::Relaxed);
            Ok(self.0.lock().expect("wallets").contains(&user).then_some(Timestamp::UNIX_EPOCH))
        }
    }

    fn user() -> UserId {
        UserId::from_uuid(Uuid::from_u128(7))
    }

    fn house() -> (Arc<AwaitWallet>, ProvisionWallets) {
        let (wallets, arrivals) = (Arc::new(Drawer::default()), Arrivals::default());
        let awaiting = AwaitWallet { wallets: wallets.clone(), arrivals: arrivals.clone() };
        (Arc::new(awaiting), ProvisionWallets { wallets, arrivals })
    }

    #[tokio::test]
    async fn a_wallet_is_made_once_and_found_at_once() {
        let (awaiting, provision) = house();
        assert_eq!(provision.execute(vec![user()]).await.expect("made"), [user()]);
        assert_eq!(provision.execute(vec![user()]).await.expect("made"), []);
        assert_eq!(awaiting.execute(user(), Duration::ZERO).await.expect("asked"), Some(Timestamp::UNIX_EPOCH));
    }

    #[tokio::test]
    async fn without_patience_and_after_it_there_is_no_wallet() {
        let (awaiting, _) = house();
        for patience in [Duration::ZERO, Duration::from_millis(20)] {
            let began = Instant::now();
            assert_eq!(awaiting.execute(user(), patience).await.expect("asked"), None);
            assert!(began.elapsed() >= patience);
        }
    }

    #[tokio::test]
    async fn who_waits_leaves_the_store_alone_in_between() {
        let (wallets, arrivals) = (Arc::new(Drawer::default()), Arrivals::default());
        let awaiting = AwaitWallet { wallets: wallets.clone(), arrivals };
        assert_eq!(awaiting.execute(user(), Duration::from_millis(20)).await.expect("asked"), None);
        // Before it waits, once it listens, and when its patience has ended.
        assert_eq!(wallets.1.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn who_waits_is_told_when_the_wallet_comes() {
        let (awaiting, provision) = house();
        let mut listener = awaiting.arrivals.listen();
        let waiting = tokio::spawn({
            let awaiting = Arc::clone(&awaiting);
            async move { awaiting.execute(user(), Duration::from_mins(10)).await.expect("asked") }
        });
        tokio::task::yield_now().await;
        provision.execute(vec![user()]).await.expect("made");
        listener.heard_of(user()).await;
        assert_eq!(waiting.await.expect("waited"), Some(Timestamp::UNIX_EPOCH));
    }
}
