//! Post a credit or a debit to one's own wallet.

use std::sync::Arc;

use crate::kernel::{EntryId, IdSource, UserId};
use crate::wallet::application::ports::{Ledger, PostError, Posted};
use crate::wallet::domain::{AmountMinor, Description, Direction, Draft, IdempotencyKey};

/// The use case and its ports.
pub struct PostEntry {
    /// Writes.
    pub ledger: Arc<dyn Ledger>,
    /// New ids.
    pub ids: Arc<dyn IdSource>,
}

/// What a client asks for, already parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostRequest {
    /// Which way.
    pub direction: Direction,
    /// How much.
    pub amount: AmountMinor,
    /// The client's note.
    pub description: Option<Description>,
    /// The client's name for this attempt.
    pub idempotency_key: Option<IdempotencyKey>,
}

impl PostEntry {
    /// Posts for `user_id`. The entry's id is chosen here, before anything is written, so that an outcome in doubt
    /// can be looked up by it.
    ///
    /// # Errors
    /// [`PostError`].
    pub async fn execute(&self, user_id: UserId, request: PostRequest) -> Result<Posted, PostError> {
        let PostRequest { direction, amount, description, idempotency_key } = request;
        let id = EntryId::from_uuid(self.ids.next_id());
        self.ledger.post(Draft { id, user_id, direction, amount, description, idempotency_key }).await
    }
}
