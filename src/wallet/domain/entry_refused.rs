/// Why a rule of the ledger refuses a post. Nothing is written, and no idempotency key is consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryRefused {
    /// The debit exceeds the balance.
    #[error("debit exceeds the balance")]
    InsufficientFunds,
    /// The credit would take the balance above 2⁵³−1.
    #[error("credit exceeds the largest balance")]
    BalanceLimit,
    /// The key belongs to a different request.
    #[error("idempotency key was used for another request")]
    IdempotencyKeyReused,
}
