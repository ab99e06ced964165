//! The rules of the ledger: amounts, balances, entries and their hash chain, how a batch of postings is decided, and what an
//! audit checks. Pure values.

mod amount;
mod audit;
mod batch;
mod chain;
mod description;
mod direction;
mod entry;
mod entry_refused;
mod one_or_more;
mod posting;
mod request;
mod texts;

pub use amount::{AmountMinor, AmountRefused, Balance, MINOR_MAX};
pub(crate) use audit::{Difference, LedgerViolation, WalletAudit};
pub(crate) use batch::{Decision, UsedKey, WalletState, WalletStates, decide_batch};
pub use chain::{EntryHash, EntryKind, HashedEntry, Origin, TransferLeg};
pub use description::{Description, DescriptionRefused};
pub use direction::Direction;
pub use entry::{Draft, Entry, LedgerHead, NewEntry};
pub use entry_refused::EntryRefused;
pub use one_or_more::OneOrMore;
pub use posting::Posting;
pub use request::{KeyedRequest, RequestDigest};
pub use texts::{Salt, Texts, TextsDigest};
