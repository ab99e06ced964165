//! What the document says of the users role.

use crate::infra::http::openapi::{About, OpenApi, document as build};
use crate::infra::http::{DocsPage, live_endpoint, metrics_endpoint, ready_endpoint};
use crate::kernel::Role;
use crate::users::http::{get_profile, log_in, register_user};

const ABOUT: About = About {
    role: Role::Users,
    text: include_str!("document.md"),
    tags: &[
        ("people", "Registration, login, profile."),
        ("health", "For whoever runs it."),
        ("documentation", "What you are reading."),
    ],
};

/// The OpenAPI document of the role.
pub fn document() -> OpenApi {
    let own = [register_user::endpoint(), log_in::endpoint(), get_profile::endpoint()];
    let shared = [live_endpoint(), ready_endpoint("users-db"), metrics_endpoint()];
    build(&ABOUT, own.into_iter().chain(shared).chain(DocsPage::endpoints()))
}
