//! Read the balance, now or as it stood.

use std::sync::Arc;

use crate::kernel::{DependencyError, Timestamp, UserId};
use crate::wallet::application::ports::LedgerReader;
use crate::wallet::domain::Balance;

/// The use case and its port.
pub struct GetBalance {
    /// Reads.
    pub ledger: Arc<dyn LedgerReader>,
}

impl GetBalance {
    /// The balance now, or at the end of the moment `at`.
    ///
    /// # Errors
    /// [`DependencyError`] when the ledger cannot be read.
    pub async fn execute(&self, user: UserId, at: Option<Timestamp>) -> Result<Balance, DependencyError> {
        match at {
            None => self.ledger.balance(user).await,
            Some(at) => self.ledger.balance_at(user, at).await,
        }
    }
}
