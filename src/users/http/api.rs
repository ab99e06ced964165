//! What the handlers of this role need.

use std::sync::Arc;

use actix_web::web;

use crate::infra::health::HealthBoard;
use crate::infra::http::{ByClient, DocsPage, Limiter, TextLimiter};
use crate::infra::security::access_token::TokenVerifier;
use crate::users::application::log_in::LogIn;
use crate::users::application::queries::UserQueries;
use crate::users::application::register_user::RegisterUser;

/// Built once and shared by all threads.
#[derive(Clone)]
pub struct UsersApi {
    pub register_user: Arc<RegisterUser>,
    pub log_in: Arc<LogIn>,
    pub queries: Arc<dyn UserQueries>,
    pub tokens: Arc<TokenVerifier>,
    pub register_limit: Limiter<ByClient>,
    pub login_limit: Limiter<ByClient>,
    /// Counts the logins to one account.
    pub account_limit: Arc<TextLimiter>,
    pub health: HealthBoard,
    pub docs: DocsPage,
}

impl UsersApi {
    /// Makes everything that handlers extract available to them.
    pub(super) fn share(&self, app: &mut web::ServiceConfig) {
        app.app_data(web::Data::from(Arc::clone(&self.register_user)))
            .app_data(web::Data::from(Arc::clone(&self.log_in)))
            .app_data(web::Data::from(Arc::clone(&self.queries)))
            .app_data(web::Data::from(Arc::clone(&self.tokens)))
            .app_data(web::Data::from(Arc::clone(&self.account_limit)))
            .app_data(web::Data::new(self.health.clone()));
    }
}
