//! `GET /v1/users/me`.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};

use crate::infra::http::openapi::Endpoint;
use crate::infra::http::{ApiError, Authenticated};
use crate::users::application::queries::UserQueries;
use crate::users::http::api::UsersApi;
use crate::users::http::wire::UserBody;

/// # Errors
/// 404, 503; after 401.
async fn handle(bearer: Authenticated, queries: web::Data<dyn UserQueries>) -> Result<HttpResponse, ApiError> {
    let user = queries.profile(bearer.user_id()).await.map_err(|e| ApiError::from_failure(&e))?;
    let user = user.ok_or_else(not_found)?;
    Ok(HttpResponse::Ok().json(UserBody::from(&user)))
}

fn not_found() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "USER_NOT_FOUND", "The user of this token no longer exists.")
}

pub(super) fn endpoint() -> Endpoint<UsersApi> {
    Endpoint::get("/v1/users/me", handle, "getCurrentUser", "Get the current user")
        .tag("users")
        .about("The user is the one of the access token.")
        .bearer()
        .returns(StatusCode::OK, "The user.", &UserBody::example())
        .errors([not_found(), ApiError::dependency_unavailable()])
}
