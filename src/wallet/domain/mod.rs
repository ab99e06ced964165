//! The rules of the ledger: amounts, balances, entries, how a batch of posts is decided, and what an audit checks. Pure
//! values.

mod amount;
mod audit;
mod batch;
mod description;
mod direction;
mod entry;
mod entry_refused;

pub use amount::{AmountMinor, AmountRefused, Balance, MINOR_MAX};
pub use audit::{Difference, LedgerViolation, WalletAudit};
pub use batch::{Decision, WalletState, WalletStates, decide_batch};
pub use description::{Description, DescriptionRefused};
pub use direction::Direction;
pub use entry::{Draft, Entry, LedgerHead};
pub use entry_refused::EntryRefused;
