//! The users role's routes.

mod document;
mod get_profile;
mod log_in;
mod register_user;
mod wire;

pub use document::document;

use std::sync::Arc;

use actix_web::middleware::from_fn;
use actix_web::web;

use crate::infra::health::HealthBoard;
use crate::infra::http::{ByClient, DocsPage, Limiter, TextLimiter, authenticate, live, ready};
use crate::infra::security::access_token::TokenVerifier;
use crate::users::application::log_in::LogIn;
use crate::users::application::queries::UserQueries;
use crate::users::application::register_user::RegisterUser;

/// What the routes need, built once and shared by all threads.
#[derive(Clone)]
pub struct UsersApi {
    /// `POST /v1/auth/register`.
    pub register_user: Arc<RegisterUser>,
    /// `POST /v1/auth/login`.
    pub log_in: Arc<LogIn>,
    pub queries: Arc<dyn UserQueries>,
    /// Checks tokens.
    pub tokens: Arc<TokenVerifier>,
    /// Of registrations.
    pub register_limit: Limiter<ByClient>,
    /// Of logins.
    pub login_limit: Limiter<ByClient>,
    /// Of logins to one account.
    pub account_limit: Arc<TextLimiter>,
    /// What the probes show.
    pub health: HealthBoard,
    /// `GET /openapi.json` and `GET /docs`.
    pub docs: DocsPage,
}

impl UsersApi {
    /// The route table. A limit wraps the route, not the resource: a wrong method is told before anything is counted.
    pub fn routes(&self, app: &mut web::ServiceConfig) {
        app.app_data(web::Data::from(Arc::clone(&self.register_user)))
            .app_data(web::Data::from(Arc::clone(&self.log_in)))
            .app_data(web::Data::from(Arc::clone(&self.queries)))
            .app_data(web::Data::from(Arc::clone(&self.tokens)))
            .app_data(web::Data::from(Arc::clone(&self.account_limit)))
            .app_data(web::Data::new(self.health.clone()))
            .service(
                web::resource("/v1/auth/register")
                    .route(self.register_limit.around(web::post().to(register_user::handle))),
            )
            .service(web::resource("/v1/auth/login").route(self.login_limit.around(web::post().to(log_in::handle))))
            .service(
                web::resource("/v1/users/me").route(web::get().to(get_profile::handle).wrap(from_fn(authenticate))),
            )
            .service(web::resource("/health/live").route(web::get().to(live)))
            .service(web::resource("/health/ready").route(web::get().to(ready)))
            .configure(|app| self.docs.routes(app));
    }
}
