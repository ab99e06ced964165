//! Ports: what the use cases of this context need from adapters.

use std::sync::Arc;

use async_trait::async_trait;

use crate::kernel::{DependencyError, Timestamp, UserId};
use crate::wallet::domain::{Decision, Entry, EntryRefused, OneOrMore, Posting};

/// Stores wallets: one per user.
#[async_trait]
pub trait WalletStore: Send + Sync {
    /// Creates a wallet for each user who has none. Idempotent: a user never gets a second one.
    async fn provision(&self, users: Vec<UserId>) -> Result<Provisioned, DependencyError>;
    /// Fails if [`provision`](Self::provision) cannot succeed at the moment, whatever the users.
    async fn ping(&self) -> Result<(), DependencyError>;
    /// `None` if the user has no wallet. A wallet that was found before is not looked up again.
    async fn created_at(&self, user: UserId) -> Result<Option<Timestamp>, DependencyError>;
    /// The same, always from the store: a wallet that was found before is gone if the store was restored from a backup.
    async fn look_up(&self, user: UserId) -> Result<Option<Timestamp>, DependencyError>;
}

/// The result of creating wallets.
#[derive(Debug, Default)]
pub struct Provisioned {
    /// Those who had no wallet and have one now.
    pub created: Vec<UserId>,
    /// Those whose part of the store is out of reach, and why. The other users are not affected.
    pub postponed: Option<(Vec<UserId>, DependencyError)>,
}

/// The result of a posting: an entry per draft, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Posted {
    /// The entries are new.
    New(OneOrMore<Entry>),
    /// An earlier request with the same idempotency key created the entries.
    Replayed(OneOrMore<Entry>),
    /// Nothing was asked for but to end the holds that are due.
    Settled,
}

/// Why a post failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// A rule of the ledger; nothing was written.
    #[error("{reason}")]
    Refused {
        /// The rule.
        reason: EntryRefused,
        /// The place of the refused draft in its posting.
        draft: usize,
    },
    /// The user has no wallet; nothing was written.
    #[error("user has no wallet")]
    NoWallet,
    /// The queue is full; nothing was written.
    #[error("too many posts are waiting")]
    Overloaded,
    /// The store is unavailable, or the wallet was locked for too long; nothing was written.
    #[error("ledger could not be written")]
    NotDone,
    /// The connection was lost during the commit, and the store cannot be reached since: the entry may exist or not.
    #[error("outcome of the post is unknown")]
    OutcomeUnknown,
    /// Nothing was written.
    #[error("post failed with an internal error")]
    Bug,
}

/// Posts entries; how posts are batched is the writer's concern. A port, because the writer is an actor, which this layer
/// and the API above it may not import.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Postings for one wallet are decided in the order of the calls.
    async fn post(&self, posting: Posting) -> Result<Posted, PostError>;

    /// Whether so many posts wait that work without a caller has to give way.
    fn is_busy(&self) -> bool;

    /// The same for several postings, none of which waits for the result of another. If the queue has no place for all of them,
    /// nothing is written.
    async fn post_all(&self, postings: OneOrMore<Posting>) -> OneOrMore<Result<Posted, PostError>>;
}

/// Whether a batch waits for a wallet that another transaction has locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockWait {
    /// Posts for a locked wallet stay undecided: one wallet must not delay a batch of many.
    SkipLocked,
    /// Waits for this wallet, up to the lock timeout of the store, and skips the others that are locked.
    WaitForOne(UserId),
    /// Waits for each wallet; for a batch of one posting.
    WaitForAll,
}

/// Why a batch failed.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Nothing was written.
    #[error("batch was not written")]
    NotDone(#[source] DependencyError),
    /// Nothing was written, because a part of the store is out of reach. Postings that do not need it may be written without the
    /// others.
    #[error("part of the ledger is out of reach")]
    PartNotDone {
        /// What failed there.
        source: DependencyError,
        /// Of each posting, whether it needs that part; of at least one.
        needs_it: Vec<bool>,
    },
    /// The commit is in doubt, and the store cannot be reached since.
    #[error("outcome of the batch is unknown")]
    Unknown(#[source] DependencyError),
}

/// Called when the statements of a batch have been executed and only its commit is left. Not if one of them failed.
#[derive(Clone, Default)]
pub struct OnExecuted(Option<Arc<dyn Fn() + Send + Sync>>);

impl OnExecuted {
    /// By default nothing is called.
    pub fn new(call: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(call)))
    }

    /// To be called by the journal.
    pub fn call(&self) {
        if let Some(call) = &self.0 {
            call();
        }
    }
}

/// Writes batches to the ledger.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Writes a batch in one database transaction. Returns what it decided, in the order of `postings`. If the response to the
    /// commit is not a success, this looks up whether it succeeded before it returns.
    async fn commit(
        &self,
        postings: &[Posting],
        lock_wait: LockWait,
        executed: &OnExecuted,
    ) -> Result<Vec<Decision>, JournalError>;
}
