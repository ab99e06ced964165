/// Why a rule of the ledger refuses a post. Nothing of it is written, and no idempotency key is consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryRefused {
    /// The debit, hold or transfer exceeds what is available: the balance without what is held.
    #[error("debit exceeds the available balance")]
    InsufficientFunds,
    /// The credit would take the balance above 2⁵³−1.
    #[error("credit exceeds the largest balance")]
    BalanceLimit,
    /// The key belongs to a different request.
    #[error("idempotency key was used for another request")]
    IdempotencyKeyReused,
    /// Only services may do it: `SELF_POST` says so, or a service has placed the hold.
    #[error("only services may do this")]
    NotAllowed,
    #[error("wallet is closed")]
    WalletClosed,
    /// The recipient of a transfer, or the sender to whom it would go back, has no wallet, or a closed one.
    #[error("recipient has no open wallet")]
    RecipientNotFound,
    /// The transfer would take the recipient's balance above 2⁵³−1.
    #[error("transfer exceeds the recipient's largest balance")]
    RecipientCannotReceive,
    #[error("no such entry in the wallet")]
    EntryNotFound,
    #[error("no such hold in the wallet")]
    HoldNotFound,
    /// Captured or voided.
    #[error("hold is closed")]
    HoldClosed,
    #[error("hold has expired")]
    HoldExpired,
    #[error("capture exceeds what is left of the hold")]
    HoldAmountExceeded,
    #[error("last possible capture of the hold must be final")]
    CaptureLimit,
    /// Only credits, debits, captures and received transfers are reversible.
    #[error("entry is not reversible")]
    NotReversible,
    #[error("entry is already reversed")]
    AlreadyReversed,
    #[error("reversal exceeds what is left of the entry")]
    ReversalExceeds,
}
