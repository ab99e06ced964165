//! Give registered people their wallets: one each, however often it is asked.

use std::sync::Arc;

use crate::kernel::{DependencyError, UserId};
use crate::wallet::application::arrivals::Arrivals;
use crate::wallet::application::ports::WalletStore;

/// The use case and its ports.
pub struct ProvisionWallets {
    /// Where wallets are kept.
    pub wallets: Arc<dyn WalletStore>,
    /// Who waits for one.
    pub arrivals: Arrivals,
}

impl ProvisionWallets {
    /// Makes the wallets that are missing, and returns whose they are.
    ///
    /// # Errors
    /// [`DependencyError`]; all wallets are made or none.
    pub async fn execute(&self, users: Vec<UserId>) -> Result<Vec<UserId>, DependencyError> {
        let made = self.wallets.provision(users).await?;
        self.arrivals.announce(&made);
        Ok(made)
    }
}
