//! The rules of the ledger: amounts, balances, entries, how a batch of posts is decided, and what an audit checks. Pure
//! values.

mod amount;
mod audit;
mod batch;
mod description;
mod entry;
mod idempotency_key;

pub use amount::{AmountMinor, AmountRefused, Balance, MINOR_MAX};
pub use audit::{Difference, LedgerViolation, WalletAudit};
pub use batch::{Decision, WalletState, WalletStates, decide_batch};
pub use description::{Description, DescriptionRefused};
pub use entry::{Direction, Draft, Entry, EntryRefused, LedgerHead};
pub use idempotency_key::{IdempotencyKey, KeyRefused};
