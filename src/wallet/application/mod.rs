//! The use cases of wallets and their ledger, one file each, and the ports that they need.
//!
//! No HTTP, SQL or AMQP word stands here: what a store or a broker is, the adapters know.

pub mod arrivals;
pub mod await_wallet;
pub mod get_balance;
pub mod get_entry;
pub mod list_entries;
pub mod ports;
pub mod post_batch;
pub mod post_entry;
pub mod posting_queue;
pub mod provision_wallets;
pub mod retry_ladder;
