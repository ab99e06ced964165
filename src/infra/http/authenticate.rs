//! Tokens of requests: the access token of a user, or the token of a service.

use std::future::{Ready, ready};

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::header;
use actix_web::middleware::Next;
use actix_web::{Error, FromRequest, HttpMessage as _, HttpRequest, web};

use crate::infra::http::ApiError;
use crate::infra::security::access_token::TokenVerifier;
use crate::infra::security::service_token::{Scope, Service, ServiceVerifier};
use crate::infra::system::System;
use crate::kernel::{Clock as _, ServiceName, UserId, fault};

/// The user of the request's token. Only [`authenticate`] creates one.
#[derive(Clone, Copy, Debug)]
pub struct Authenticated(UserId);

impl Authenticated {
    pub const fn user_id(self) -> UserId {
        self.0
    }
}

/// The service of the request's token. Only [`authenticate_service`] creates one.
#[derive(Clone, Debug)]
pub struct AuthenticatedService(ServiceName);

impl AuthenticatedService {
    pub const fn name(&self) -> &ServiceName {
        &self.0
    }
}

/// The user on whose behalf a service sends a request, for the log. A handler adds it to the extensions of the request.
pub struct OnBehalfOf(pub UserId);

/// Middleware: responds with 401 unless the request has the valid token of a service, and with 403 unless the token has
/// `scope`.
pub async fn authenticate_service(
    scope: Scope,
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<EitherBody<impl MessageBody>>, Error> {
    let service = bearer(&request)
        .zip(request.app_data::<web::Data<ServiceVerifier>>())
        .and_then(|(token, verifier)| verifier.verify(token, System.now()).ok());
    match service {
        Some(Service { name, scopes }) => {
            let is_allowed = scopes.contains(&scope);
            request.extensions_mut().insert(AuthenticatedService(name));
            if !is_allowed {
                return Ok(request.error_response(ApiError::insufficient_scope(scope)).map_into_right_body());
            }
            fault::point("http.handler");
            next.call(request).await.map(ServiceResponse::map_into_left_body)
        }
        None => Ok(request.error_response(ApiError::unauthorized()).map_into_right_body()),
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
