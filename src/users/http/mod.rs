//! The HTTP API of the users role.

mod get_profile;
mod log_in;
mod register_user;
mod wire;

use std::sync::Arc;

use actix_web::web;

use crate::infra::health::HealthBoard;
use crate::infra::http::openapi::{About, Endpoint, RoleDocument, serve};
use crate::infra::http::{ByClient, DocsPage, Limiter, TextLimiter, health_endpoints};
use crate::infra::security::access_token::TokenVerifier;
use crate::kernel::Role;
use crate::users::application::log_in::LogIn;
use crate::users::application::queries::UserQueries;
use crate::users::application::register_user::RegisterUser;

const ABOUT: About = About {
    role: Role::Users,
    text: include_str!("document.md"),
    tags: &[("users", "Registration, login and the current user.")],
};

/// What the handlers need, built once and shared by all threads.
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

/// Every endpoint of the role: what is served and what is documented.
fn endpoints() -> Vec<Endpoint<UsersApi>> {
    let mut endpoints = vec![register_user::endpoint(), log_in::endpoint(), get_profile::endpoint()];
    endpoints.extend(health_endpoints());
    endpoints.extend(DocsPage::endpoints());
    endpoints
}

/// The OpenAPI document of the role.
pub fn document() -> RoleDocument {
    RoleDocument::new(ABOUT, endpoints())
}

impl UsersApi {
    pub fn routes(&self, app: &mut web::ServiceConfig) {
        app.app_data(web::Data::from(Arc::clone(&self.register_user)))
            .app_data(web::Data::from(Arc::clone(&self.log_in)))
            .app_data(web::Data::from(Arc::clone(&self.queries)))
            .app_data(web::Data::from(Arc::clone(&self.tokens)))
            .app_data(web::Data::from(Arc::clone(&self.account_limit)))
            .app_data(web::Data::new(self.health.clone()))
            .configure(|app| serve(self, endpoints(), app))
            .configure(|app| self.docs.routes(app));
    }
}
