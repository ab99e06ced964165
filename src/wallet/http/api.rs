//! What the handlers of this role need.

use std::sync::Arc;

use actix_web::web;

use crate::infra::health::HealthBoard;
use crate::infra::http::{ByService, BySubject, DocsPage, Limiter};
use crate::infra::security::access_token::TokenVerifier;
use crate::infra::security::service_token::ServiceVerifier;
use crate::infra::security::signing_key::SigningKeys;
use crate::wallet::application::holds::HoldQueries;
use crate::wallet::application::ports::Ledger;
use crate::wallet::application::queries::WalletQueries;
use crate::wallet::application::receipts::ReceiptQueries;
use crate::wallet::http::gate::Gate;
use crate::wallet::http::statement_slots::StatementSlots;

/// Built once and shared by all threads.
#[derive(Clone)]
pub struct WalletApi {
    pub ledger: Arc<dyn Ledger>,
    pub queries: Arc<dyn WalletQueries>,
    pub holds: Arc<dyn HoldQueries>,
    pub receipts: Arc<dyn ReceiptQueries>,
    pub signing_keys: Arc<SigningKeys>,
    pub gate: Arc<Gate>,
    pub tokens: Arc<TokenVerifier>,
    pub services: Arc<ServiceVerifier>,
    pub post_limit: Limiter<BySubject>,
    /// Counted by item.
    pub bulk_limit: Limiter<BySubject>,
    pub service_limit: Option<Limiter<ByService>>,
    pub export_limit: Limiter<BySubject>,
    pub statements: Arc<StatementSlots>,
    pub health: HealthBoard,
    pub docs: DocsPage,
}

impl WalletApi {
    /// Makes everything that handlers extract available to them.
    pub(super) fn share(&self, app: &mut web::ServiceConfig) {
        app.app_data(web::Data::from(Arc::clone(&self.ledger)))
            .app_data(web::Data::from(Arc::clone(&self.queries)))
            .app_data(web::Data::from(Arc::clone(&self.holds)))
            .app_data(web::Data::from(Arc::clone(&self.receipts)))
            .app_data(web::Data::from(Arc::clone(&self.signing_keys)))
            .app_data(web::Data::from(Arc::clone(&self.gate)))
            .app_data(web::Data::from(Arc::clone(&self.statements)))
            .app_data(web::Data::from(Arc::clone(&self.tokens)))
            .app_data(web::Data::from(Arc::clone(&self.services)))
            .app_data(web::Data::new(self.health.clone()));
    }
}
