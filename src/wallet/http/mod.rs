//! The wallet role's routes.

mod document;
mod get_balance;
mod get_entry;
mod list_entries;
mod post_entry;
mod ready_wallet;
mod time;
mod wallet_status;
mod wire;

pub use document::document;

use std::sync::Arc;

use actix_web::middleware::from_fn;
use actix_web::{Route, web};

use crate::infra::health::HealthBoard;
use crate::infra::http::{BySubject, DocsPage, Limiter, authenticate, live, ready};
use crate::infra::security::access_token::TokenVerifier;
use crate::wallet::application::await_wallet::AwaitWallet;
use crate::wallet::application::ports::Ledger;
use crate::wallet::application::queries::WalletQueries;

/// What the routes need, built once and shared by all threads.
#[derive(Clone)]
pub struct WalletApi {
    pub ledger: Arc<dyn Ledger>,
    pub queries: Arc<dyn WalletQueries>,
    /// The gate, and `GET /v1/wallet/status`.
    pub await_wallet: Arc<AwaitWallet>,
    /// Checks tokens.
    pub tokens: Arc<TokenVerifier>,
    /// Of posts.
    pub post_limit: Limiter<BySubject>,
    /// What the probes show.
    pub health: HealthBoard,
    /// `GET /openapi.json` and `GET /docs`.
    pub docs: DocsPage,
}

impl WalletApi {
    /// The route table. What wraps a route runs from the last to the first: the token, then the limit, then the
    /// handler with its gate; a wrong method is told before all of them.
    pub fn routes(&self, app: &mut web::ServiceConfig) {
        let limited = |route: Route| self.post_limit.around(route).wrap(from_fn(authenticate));
        let known = |route: Route| route.wrap(from_fn(authenticate));
        app.app_data(web::Data::from(Arc::clone(&self.ledger)))
            .app_data(web::Data::from(Arc::clone(&self.queries)))
            .app_data(web::Data::from(Arc::clone(&self.await_wallet)))
            .app_data(web::Data::from(Arc::clone(&self.tokens)))
            .app_data(web::Data::new(self.health.clone()))
            .service(
                web::resource("/v1/transactions")
                    .route(limited(web::post().to(post_entry::either)))
                    .route(known(web::get().to(list_entries::handle))),
            )
            .service(web::resource("/v1/transactions/credit").route(limited(web::post().to(post_entry::credit))))
            .service(web::resource("/v1/transactions/debit").route(limited(web::post().to(post_entry::debit))))
            .service(web::resource("/v1/transactions/{id}").route(known(web::get().to(get_entry::handle))))
            .service(web::resource("/v1/balance").route(known(web::get().to(get_balance::handle))))
            .service(web::resource("/v1/wallet/status").route(known(web::get().to(wallet_status::handle))))
            .service(web::resource("/health/live").route(web::get().to(live)))
            .service(web::resource("/health/ready").route(web::get().to(ready)))
            .configure(|app| self.docs.routes(app));
    }
}
