//! The rules of the ledger: amounts, balances, entries and their hash chain, how a batch of postings is decided, and what an
//! audit checks. Pure values.

#[expect(missing_docs, reason = "their names and types say it")]
mod act;
mod acting;
mod amount;
mod audit;
#[expect(missing_docs, reason = "their names and types say it")]
mod batch;
mod chain;
mod description;
mod direction;
#[expect(missing_docs, reason = "their names and types say it")]
mod entry;
#[expect(missing_docs, reason = "their names and types say it")]
mod entry_refused;
mod head;
#[expect(missing_docs, reason = "their names and types say it")]
mod hold;
mod kind;
#[expect(missing_docs, reason = "their names and types say it")]
mod metadata;
#[cfg(test)]
mod model_tests;
mod one_or_more;
mod posting;
mod receipt;
#[expect(missing_docs, reason = "their names and types say it")]
mod reference;
mod request;
mod self_post;
mod texts;
mod wallet_state;

pub use act::{Act, BackTransfer, Draft, OtherLeg};
pub use amount::{AmountMinor, AmountRefused, Balance, Funds, MINOR_MAX};
pub(crate) use audit::{Difference, LedgerViolation, WalletAudit};
pub use batch::Decision;
pub(crate) use batch::{DecidedBatch, decide_batch};
pub use chain::{EntryHash, HashedEntry, Origin, TransferLeg};
pub use description::{Description, DescriptionRefused};
pub use direction::Direction;
pub use entry::{ActsOn, Entry, NewEntry};
pub use entry_refused::EntryRefused;
pub use head::LedgerHead;
pub(crate) use hold::captured_after;
pub use hold::{CAPTURES_MAX, DUE_MAX, DueHold, Hold, HoldLifetime, HoldStatus, LifetimeRefused};
pub use kind::EntryKind;
pub use metadata::{Metadata, MetadataPair, MetadataRefused};
pub use one_or_more::OneOrMore;
pub use posting::Posting;
pub use receipt::{ChainLink, ChainPlace, Receipt, ReceiptFault, RecordedEntry, signed_bytes};
pub use reference::{Reference, ReferenceRefused};
pub use request::{KeyedRequest, RequestDigest};
pub use texts::{Salt, SaltedTexts, Texts, TextsDigest};
pub(crate) use wallet_state::{KeyOwner, NamedEntry, UsedKey, WalletState, WalletStates};
