//! The HTTP API of the wallet role.

mod api;
mod gate;
mod get_balance;
mod get_entry;
mod get_statement;
mod get_transfer;
mod hold_body;
mod list_entries;
mod paging;
mod post_bulk;
mod post_entry;
mod post_holds;
mod post_reversal;
mod post_transfer;
mod posting;
mod read_holds;
pub mod receipt_body;
mod receipts;
mod statement_csv;
mod statement_slots;
mod texts;
mod time;
mod wallet_status;
mod wire;

pub use api::WalletApi;
pub use gate::Gate;
pub use statement_slots::StatementSlots;

use actix_web::web;

use crate::infra::http::openapi::{About, Endpoint, RoleDocument, serve};
use crate::infra::http::{DocsPage, health_endpoints};
use crate::kernel::Role;
use crate::wallet::http::gate::GatedEndpoint;

const ABOUT: About = About {
    role: Role::Wallet,
    text: include_str!("document.md"),
    tags: &[
        ("wallet", "The wallet and its balance."),
        ("transactions", "Credits, debits, the transaction history and statements."),
        ("transfers", "Transfers of money to other users."),
        ("holds", "Parts of the balance that are reserved until they are captured, voided or expired."),
        ("ledger", "Proofs of what the ledger recorded."),
        ("service", "The same for back ends, which act on behalf of users with a service token."),
    ],
};

/// Every endpoint of the role: what is served and what is documented. A fixed path comes before a pattern that it matches.
fn endpoints() -> Vec<Endpoint<WalletApi>> {
    let mut endpoints = vec![wallet_status::endpoint()];
    endpoints.extend(of_a_wallet().into_iter().map(GatedEndpoint::for_users));
    let for_service = |endpoint: GatedEndpoint<WalletApi>| endpoint.for_services(|api| api.service_limit.as_ref());
    endpoints.extend(of_a_wallet().into_iter().filter_map(for_service));
    endpoints.push(receipts::keys_endpoint());
    endpoints.extend(health_endpoints());
    endpoints.extend(DocsPage::endpoints());
    endpoints
}

/// The endpoints behind the gate.
fn of_a_wallet() -> Vec<GatedEndpoint<WalletApi>> {
    let mut endpoints = vec![get_balance::endpoint(), list_entries::endpoint()];
    endpoints.extend(post_entry::endpoints());
    endpoints.extend([
        post_bulk::endpoint(),
        get_entry::endpoint(),
        post_reversal::endpoint(),
        get_statement::endpoint(),
    ]);
    endpoints.extend([post_transfer::endpoint(), get_transfer::endpoint()]);
    endpoints.extend(post_holds::endpoints());
    endpoints.extend(read_holds::endpoints());
    endpoints.extend(receipts::endpoints());
    endpoints
}

/// The OpenAPI document of the role.
pub fn document() -> RoleDocument {
    RoleDocument::new(ABOUT, endpoints())
}

/// Adds the endpoints, and what their handlers need.
pub fn routes(api: &WalletApi, app: &mut web::ServiceConfig) {
    api.share(app);
    serve(api, endpoints(), app);
    api.docs.routes(app);
}

#[cfg(test)]
mod tests;
