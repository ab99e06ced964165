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
pub(crate) use audit::{Difference, LedgerViolation, WalletAudit};
pub(crate) use batch::{Decision, WalletState, decide_batch};
pub use description::{Description, DescriptionRefused};
pub use direction::Direction;
pub use entry::{Draft, Entry, LedgerHead};
pub use entry_refused::EntryRefused;
