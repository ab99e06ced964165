//! Create the wallets of registered users. Idempotent: events may be delivered more than once.

use std::sync::Arc;

use crate::kernel::{DependencyError, UserId};
use crate::wallet::application::announcements::WalletAnnouncements;
use crate::wallet::application::ports::{Provisioned, WalletStore};

pub struct ProvisionWallets {
    pub wallets: Arc<dyn WalletStore>,
    /// Wakes the requests that wait for a wallet.
    pub announcements: WalletAnnouncements,
}

impl ProvisionWallets {
    /// Creates missing wallets.
    ///
    /// # Errors
    /// [`DependencyError`]. Some wallets may have been created all the same.
    pub async fn execute(&self, users: Vec<UserId>) -> Result<Provisioned, DependencyError> {
        let provisioned = self.wallets.provision(users).await?;
        self.announcements.announce(&provisioned.created);
        Ok(provisioned)
    }
}
