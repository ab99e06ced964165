//! What can be read of a wallet. A query has no rules of its own: the API calls the port directly, and PostgreSQL implements it.

use async_trait::async_trait;

use crate::kernel::{DependencyError, EntryId, Timestamp, UserId};
use crate::wallet::application::history::{HistoryPage, HistoryQuery};
use crate::wallet::application::statement::{Statement, StatementPeriod};
use crate::wallet::domain::{Balance, Entry, Funds};

/// An entry and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryDetails {
    pub entry: Entry,
    /// What all of its reversals together have undone.
    pub reversed: Balance,
}

/// Reads one user's ledger. A user without entries has a zero balance and an empty history.
#[async_trait]
pub trait WalletQueries: Send + Sync {
    /// A hold whose time is over holds nothing, whether or not the ledger has the entry that ends it.
    async fn balance(&self, user: UserId) -> Result<Funds, DependencyError>;
    /// After the last entry at or before `at`.
    async fn balance_at(&self, user: UserId, at: Timestamp) -> Result<Funds, DependencyError>;
    async fn history(&self, user: UserId, query: HistoryQuery) -> Result<HistoryPage, DependencyError>;
    /// The two ends of a statement.
    async fn statement(&self, user: UserId, period: StatementPeriod) -> Result<Statement, DependencyError>;
    /// The credits and debits with these sequence numbers, ends included, oldest first.
    async fn entries(&self, user: UserId, first: i64, last: i64) -> Result<Vec<Entry>, DependencyError>;
    /// `None` also for another user's entry.
    async fn entry(&self, user: UserId, id: EntryId) -> Result<Option<EntryDetails>, DependencyError>;
    /// The user's own leg of a transfer, by the id of the sender's leg. `None` also for a transfer between others.
    async fn transfer(&self, user: UserId, id: EntryId) -> Result<Option<EntryDetails>, DependencyError>;
}
