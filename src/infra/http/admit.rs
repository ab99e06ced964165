//! What is rejected whatever the route: a large head, a request to a full process, and one to the API of a process that
//! does not have its database yet.

use actix_web::Error;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::web;

use crate::infra::health::HealthBoard;
use crate::infra::http::ApiError;
use crate::infra::http::connection::is_crowded;

/// Longest request head in bytes: method, target, and the headers with their separators.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Inside the middleware that adds headers, so that these responses have them too.
///
/// # Errors
/// Errors of inner middleware.
pub(super) async fn admit(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    match refusal(&request) {
        Some(error) => Ok(request.error_response(error)),
        None => next.call(request).await.map(ServiceResponse::map_into_boxed_body),
    }
}

fn refusal(request: &ServiceRequest) -> Option<ApiError> {
    if head_bytes(request) > HEAD_BYTES_MAX {
        return Some(ApiError::head_too_large());
    }
    let path = request.path();
    if is_crowded(request) && !is_probe(path) {
        return Some(ApiError::overloaded());
    }
    let is_starting = || request.app_data::<web::Data<HealthBoard>>().is_some_and(|board| board.is_starting());
    (path.starts_with("/v1/") && is_starting()).then(ApiError::dependency_unavailable)
}

/// Probes and scrapes, which come every few seconds.
pub(super) fn is_probe(route: &str) -> bool {
    route.starts_with("/health") || route == "/metrics"
}

fn head_bytes(request: &ServiceRequest) -> usize {
    let target = request.head().uri.path_and_query().map_or(0, |target| target.as_str().len());
    let headers = request.headers().iter().map(|(name, value)| name.as_str().len().saturating_add(value.len() + 4));
    headers.fold(request.method().as_str().len().saturating_add(target), usize::saturating_add)
}
