//! CORS: pages of the configured origins may call the API from a browser.

use actix_cors::Cors;
use actix_web::http::{Method, header};

/// Response headers that a page may read.
pub(super) const EXPOSED: [&str; 16] = [
    "content-disposition",
    "idempotent-replayed",
    "link",
    "location",
    "retry-after",
    "ratelimit",
    "ratelimit-limit",
    "ratelimit-policy",
    "ratelimit-remaining",
    "ratelimit-reset",
    "statement-closing-minor",
    "statement-final",
    "statement-opening-minor",
    "x-request-id",
    "traceparent",
    "www-authenticate",
];
/// How long a browser may cache a preflight response, in seconds.
const PREFLIGHT_MAX_AGE_S: usize = 3600;

/// Allows the request headers that the API reads and exposes the response headers that it writes. No credentials mode:
/// authentication is by token, never by cookie.
pub fn cors(origins: &[String]) -> Cors {
    let allowed = origins.iter().fold(Cors::default(), |cors, origin| cors.allowed_origin(origin));
    allowed
        .allowed_methods([Method::GET, Method::HEAD, Method::POST])
        .allowed_headers([header::AUTHORIZATION, header::CONTENT_TYPE])
        .allowed_headers(["idempotency-key", "x-request-id", "traceparent"])
        .expose_headers(EXPOSED)
        .max_age(PREFLIGHT_MAX_AGE_S)
        // Other origins get a normal response, which the browser does not let the page read.
        .block_on_origin_mismatch(false)
}
