//! What the use cases of this context need of the outside.

use async_trait::async_trait;

use crate::kernel::{DependencyError, Timestamp, UserId};
use crate::wallet::domain::{Draft, Entry, EntryRefused};

/// Where wallets are kept: one a user, found by the user.
#[async_trait]
pub trait WalletStore: Send + Sync {
    /// Makes a wallet for each user who has none; returns those who had none. Any number of calls for one user make
    /// one wallet.
    async fn provision(&self, users: Vec<UserId>) -> Result<Vec<UserId>, DependencyError>;
    /// When the user's wallet was made, `None` while there is none.
    async fn created_at(&self, user: UserId) -> Result<Option<Timestamp>, DependencyError>;
}

/// An answered post.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Posted {
    /// The entry is new.
    New(Entry),
    /// The same request had made it before.
    Replayed(Entry),
}

/// Why a post has no entry to show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// The ledger says no; nothing was written.
    #[error(transparent)]
    Refused(#[from] EntryRefused),
    /// The user's wallet is gone or was never there; nothing was written.
    #[error("user has no wallet")]
    NoWallet,
    /// The queue is full; nothing was written.
    #[error("too many posts are waiting")]
    Overloaded,
    /// The store is away, or somebody holds the wallet too long; nothing was written.
    #[error("ledger could not be written")]
    NotDone,
    /// The store broke off at the commit and could not be asked since: the entry may or may not be there.
    #[error("outcome of the post is unknown")]
    OutcomeUnknown,
    /// Our own fault; nothing was written.
    #[error("post broke down")]
    Bug,
}

/// Posts entries; how posts are batched is the writer's concern. A port, because the writer is an actor, which this layer
/// and the API above it may not import.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Posts for one wallet are decided in the order of the calls.
    async fn post(&self, draft: Draft) -> Result<Posted, PostError>;
}

/// Whether a batch may wait for a wallet that another process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Leave held wallets out, and say so: a batch of many wallets must not wait for one.
    SkipHeld,
    /// Wait until the store's lock limit: a batch of one wallet may.
    Wait,
}

/// How one draft of a committed batch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DraftOutcome {
    /// A new entry.
    Posted(Entry),
    /// The entry of the same request before.
    Replayed(Entry),
    /// The ledger says no.
    Refused(EntryRefused),
    /// No lock, and hence no decision: under [`Patience::SkipHeld`] somebody holds the wallet, or there is none.
    NotLocked,
}

/// Why a batch has no outcomes.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Nothing of it was written.
    #[error("batch was not written")]
    NotDone(#[source] DependencyError),
    /// The store broke off at the commit, and asking again was in vain.
    #[error("outcome of the batch is unknown")]
    Unknown(#[source] DependencyError),
}

/// The store under the ledger's writer.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Writes a batch as one database transaction; the outcomes stand in the order of `drafts`. Where the commit's
    /// outcome is in doubt it is found out before this returns, or [`JournalError::Unknown`].
    async fn commit(&self, drafts: &[Draft], patience: Patience) -> Result<Vec<DraftOutcome>, JournalError>;
}
