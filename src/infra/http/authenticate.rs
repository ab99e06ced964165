//! Access tokens of requests.

use std::future::{Ready, ready};

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::header;
use actix_web::middleware::Next;
use actix_web::{Error, FromRequest, HttpMessage as _, HttpRequest, web};

use crate::infra::http::ApiError;
use crate::infra::security::access_token::TokenVerifier;
use crate::kernel::{UserId, fault};

/// The user of the request's token. Only [`authenticate`] creates one.
#[derive(Clone, Copy, Debug)]
pub struct Authenticated(UserId);

impl Authenticated {
    pub const fn user_id(self) -> UserId {
        self.0
    }
}

/// Middleware: responds with 401 unless the request has a valid token.
pub async fn authenticate(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<EitherBody<impl MessageBody>>, Error> {
    let user = bearer(&request)
        .zip(request.app_data::<web::Data<TokenVerifier>>())
        .and_then(|(token, verifier)| verifier.verify(token).ok());
    match user {
        Some(user) => {
            request.extensions_mut().insert(Authenticated(user));
            fault::point("http.handler");
            next.call(request).await.map(ServiceResponse::map_into_left_body)
        }
        None => Ok(request.error_response(ApiError::unauthorized()).map_into_right_body()),
    }
}

/// The token of the one `Authorization` header. The scheme's case does not matter (RFC 9110 §11.1).
fn bearer(request: &ServiceRequest) -> Option<&str> {
    let mut headers = request.headers().get_all(header::AUTHORIZATION);
    let (value, more) = (headers.next()?.to_str().ok()?, headers.next());
    let (scheme, token) = value.split_once(' ')?;
    (more.is_none() && scheme.eq_ignore_ascii_case("Bearer")).then(|| token.trim_start_matches(' '))
}

impl FromRequest for Authenticated {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        // Absent only if the endpoint does not require a token.
        ready(request.extensions().get::<Self>().copied().ok_or_else(ApiError::unauthorized))
    }
}
