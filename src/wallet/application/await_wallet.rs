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
