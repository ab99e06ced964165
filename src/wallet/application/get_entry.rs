//! Read one entry of one's own wallet.

use std::sync::Arc;

use crate::kernel::{DependencyError, EntryId, UserId};
use crate::wallet::application::ports::LedgerReader;
use crate::wallet::domain::Entry;

/// The use case and its port.
pub struct GetEntry {
    /// Reads.
    pub ledger: Arc<dyn LedgerReader>,
}

/// Why there is no entry.
#[derive(Debug, thiserror::Error)]
pub enum GetEntryError {
    /// Nobody's, or another user's: which of the two is not told.
    #[error("entry does not exist for this user")]
    NotFound,
    /// The ledger could not be read.
    #[error("entry could not be read")]
    Store(#[source] DependencyError),
}

impl GetEntry {
    /// The user's entry with this id.
    ///
    /// # Errors
    /// [`GetEntryError`].
    pub async fn execute(&self, user: UserId, id: EntryId) -> Result<Entry, GetEntryError> {
        self.ledger.entry(user, id).await.map_err(GetEntryError::Store)?.ok_or(GetEntryError::NotFound)
    }
}
