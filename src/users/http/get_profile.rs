//! `GET /v1/users/me`.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};

use crate::infra::http::openapi::Endpoint;
use crate::infra::http::{ApiError, Authenticated};
use crate::users::application::get_profile::{GetProfile, ProfileError};
use crate::users::http::wire::UserBody;

/// 200 with the bearer's profile.
///
/// # Errors
/// 404 `USER_NOT_FOUND`, 503; 401 stands before it.
pub(super) async fn handle(
    bearer: Authenticated,
    get_profile: web::Data<GetProfile>,
) -> Result<HttpResponse, ApiError> {
    let user = get_profile.execute(bearer.user_id()).await.map_err(refusal)?;
    Ok(HttpResponse::Ok().json(UserBody::from(&user)))
}

fn not_found() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "USER_NOT_FOUND", "The user of this token does not exist.")
}

fn refusal(error: ProfileError) -> ApiError {
    match error {
        ProfileError::NotFound => not_found(),
        other @ ProfileError::Store(_) => ApiError::from_failure(&other),
    }
}

pub(super) fn endpoint() -> Endpoint {
    Endpoint::get("/v1/users/me", "getProfile", "Who the token is of")
        .tag("people")
        .bearer()
        .answers(StatusCode::OK, "The bearer of the token.", &UserBody::example())
        .refuses([not_found(), ApiError::dependency_unavailable()])
}
