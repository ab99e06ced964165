//! Use cases of wallets and their ledger, one per file; the ports that they need; and the queries of this context.
//!
//! Nothing here knows HTTP, SQL or AMQP: that is the adapters' part.

pub(crate) mod announcements;
pub(crate) mod await_wallet;
pub(crate) mod fair_queue;
pub(crate) mod history;
pub(crate) mod holds;
pub mod ports;
pub mod post_batch;
pub(crate) mod posting_queue;
pub(crate) mod provision_wallets;
pub(crate) mod queries;
pub(crate) mod receipts;
pub(crate) mod retry_ladder;
pub(crate) mod statement;

pub use history::{HistoryCursor, ListKind, PagedList};
