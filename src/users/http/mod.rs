//! The HTTP API of the users role.

mod api;
mod get_profile;
mod log_in;
mod register_user;
mod wire;

pub use api::UsersApi;

use actix_web::web;

use crate::infra::http::openapi::{About, Endpoint, RoleDocument, serve};
use crate::infra::http::{DocsPage, health_endpoints};
use crate::kernel::Role;

const ABOUT: About = About {
    role: Role::Users,
    text: include_str!("document.md"),
    tags: &[("users", "Registration, login and the current user.")],
};

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

/// Adds the endpoints, and what their handlers need.
pub fn routes(api: &UsersApi, app: &mut web::ServiceConfig) {
    api.share(app);
    serve(api, endpoints(), app);
    api.docs.routes(app);
}

#[cfg(test)]
mod tests;
