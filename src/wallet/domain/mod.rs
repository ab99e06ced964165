//! The ledger's words and laws: amounts, balances, entries, and how a batch of posts is decided, and
//! what a recount may find. Pure values.

mod amount;
mod audit;
mod batch;
mod description;
mod entry;
mod idempotency_key;

pub use amount::{AmountMinor, AmountRefused, Balance, MINOR_MAX};
pub use audit::{Difference, Fault, WalletAudit};
pub use batch::{Decision, WalletState, WalletStates, decide_batch};
pub use description::{Description, DescriptionRefused};
pub use entry::{Direction, Draft, Entry, EntryRefused, Head};
pub use idempotency_key::{IdempotencyKey, KeyRefused};
