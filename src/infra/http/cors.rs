//! Which pages of other origins may call the API from a browser: those that the configuration names, and none without.

use actix_cors::Cors;
use actix_web::http::{Method, header};

/// How long a browser may remember the answer to its question, in seconds.
const REMEMBERED_S: usize = 3600;

/// Lets pages of these origins call, with the headers that the API reads, and lets them read those that it writes. No
/// cookies: who may do what is said by the token alone.
pub fn cors(origins: &[String]) -> Cors {
    let allowed = origins.iter().fold(Cors::default(), |cors, origin| cors.allowed_origin(origin));
    allowed
        .allowed_methods([Method::GET, Method::HEAD, Method::POST])
        .allowed_headers([header::AUTHORIZATION, header::CONTENT_TYPE])
        .allowed_headers(["idempotency-key", "x-request-id", "traceparent"])
        .expose_headers(["idempotent-replayed", "retry-after", "ratelimit-limit", "ratelimit-remaining"])
        .expose_headers(["x-request-id", "traceparent", "www-authenticate"])
        .max_age(REMEMBERED_S)
        // A page of another origin is answered like everybody else, and its browser does not let it read the answer.
        .block_on_origin_mismatch(false)
}
