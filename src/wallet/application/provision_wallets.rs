//! Create the wallets of registered users. Idempotent: events may be delivered more than once.

use std::sync::Arc;

use crate::kernel::{DependencyError, UserId};
use crate::wallet::application::announcements::WalletAnnouncements;
use crate::wallet::application::ports::WalletStore;

pub struct ProvisionWallets {
    pub wallets: Arc<dyn WalletStore>,
    /// Wakes the requests that wait for a wallet.
    pub announcements: WalletAnnouncements,
}

impl ProvisionWallets {
    /// Creates missing wallets and returns their users.
    ///
    /// # Errors
    /// [`DependencyError`]; either all wallets are created or none.
    pub async fn execute(&self, users: Vec<UserId>) -> Result<Vec<UserId>, DependencyError> {
        let created = self.wallets.provision(users).await?;
        self.announcements.announce(&created);
        Ok(created)
    }
}
