//! What the document says of the wallet role.

use crate::infra::http::openapi::{About, OpenApi, document as build};
use crate::infra::http::{DocsPage, live_endpoint, metrics_endpoint, ready_endpoint};
use crate::kernel::Role;
use crate::wallet::http::{get_balance, get_entry, list_entries, post_entry, wallet_status};

const ABOUT: About = About {
    role: Role::Wallet,
    text: include_str!("document.md"),
    tags: &[
        ("wallet", "The wallet and its balance."),
        ("transactions", "Credits, debits, the history."),
        ("health", "For whoever runs it."),
        ("documentation", "What you are reading."),
    ],
};

/// The OpenAPI document of the role.
pub fn document() -> OpenApi {
    let reads = [wallet_status::endpoint(), get_balance::endpoint(), list_entries::endpoint(), get_entry::endpoint()];
    let shared = [live_endpoint(), ready_endpoint("wallet-db"), metrics_endpoint()];
    let own = reads.into_iter().chain(post_entry::endpoints());
    build(&ABOUT, own.chain(shared).chain(DocsPage::endpoints()))
}
