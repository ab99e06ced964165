//! The HTTP API of the wallet role.

mod gate;
mod get_balance;
mod get_entry;
mod list_entries;
mod post_entry;
mod time;
mod wallet_status;
mod wire;

pub use gate::Gate;

use std::sync::Arc;

use actix_web::web;

use crate::infra::health::HealthBoard;
use crate::infra::http::openapi::{About, Endpoint, RoleDocument, serve};
use crate::infra::http::{BySubject, DocsPage, Limiter, health_endpoints};
use crate::infra::security::access_token::TokenVerifier;
use crate::kernel::Role;
use crate::wallet::application::ports::Ledger;
use crate::wallet::application::queries::WalletQueries;

const ABOUT: About = About {
    role: Role::Wallet,
    text: include_str!("document.md"),
    tags: &[
        ("wallet", "The wallet and its balance."),
        ("transactions", "Credits, debits and the transaction history."),
    ],
};

/// What the handlers need, built once and shared by all threads.
#[derive(Clone)]
pub struct WalletApi {
    pub ledger: Arc<dyn Ledger>,
    pub queries: Arc<dyn WalletQueries>,
    pub gate: Arc<Gate>,
    pub tokens: Arc<TokenVerifier>,
    pub post_limit: Limiter<BySubject>,
    pub health: HealthBoard,
    pub docs: DocsPage,
}

/// Every endpoint of the role: what is served and what is documented. A fixed path comes before a pattern that it matches.
fn endpoints() -> Vec<Endpoint<WalletApi>> {
    let mut endpoints = vec![wallet_status::endpoint(), get_balance::endpoint(), list_entries::endpoint()];
    endpoints.extend(post_entry::endpoints());
    endpoints.push(get_entry::endpoint());
    endpoints.extend(health_endpoints());
    endpoints.extend(DocsPage::endpoints());
    endpoints
}

/// The OpenAPI document of the role.
pub fn document() -> RoleDocument {
    RoleDocument::new(ABOUT, endpoints())
}

impl WalletApi {
    pub fn routes(&self, app: &mut web::ServiceConfig) {
        app.app_data(web::Data::from(Arc::clone(&self.ledger)))
            .app_data(web::Data::from(Arc::clone(&self.queries)))
            .app_data(web::Data::from(Arc::clone(&self.gate)))
            .app_data(web::Data::from(Arc::clone(&self.tokens)))
            .app_data(web::Data::new(self.health.clone()))
            .configure(|app| serve(self, endpoints(), app))
            .configure(|app| self.docs.routes(app));
    }
}

#[cfg(test)]
mod tests;
