//! `Idempotency-Key`: how it is read, documented and refused.

use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue};
use utoipa::openapi::path::ParameterIn;
use utoipa::openapi::{ObjectBuilder, Type};

use crate::infra::http::ApiError;
use crate::infra::http::openapi::Endpoint;
use crate::kernel::IdempotencyKey;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The header of a response that an earlier request with the same key caused.
pub const REPLAYED: (HeaderName, HeaderValue) = (IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));

/// The `Idempotency-Key` header, which may be absent but not repeated.
///
/// # Errors
/// 400.
pub fn idempotency_key(request: &HttpRequest) -> Result<Option<IdempotencyKey>, ApiError> {
    let refused = |message: &str| ApiError::invalid("Idempotency-Key", message);
    let mut sent = request.headers().get_all(IDEMPOTENCY_KEY);
    let (Some(key), more) = (sent.next(), sent.next()) else { return Ok(None) };
    if more.is_some() {
        return Err(refused("must not be repeated"));
    }
    let text = key.to_str().map_err(|_| refused("must be 1 to 128 visible ASCII characters"))?;
    IdempotencyKey::parse(text).map(Some).map_err(|e| refused(&e.to_string()))
}

/// 422: the key belongs to an earlier request, which was different.
pub fn key_reused() -> ApiError {
    let message = "This Idempotency-Key was already used for a different request. Use a new key.";
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "IDEMPOTENCY_KEY_REUSED", message)
}

/// The schema of a key.
pub fn key_schema(text: ObjectBuilder) -> ObjectBuilder {
    text.pattern(Some("^[!-~]{1,128}$"))
}

/// Documents that an endpoint takes a key. `effect` says what a retry with the same key does not do again.
pub fn with_key<Api: 'static>(endpoint: Endpoint<Api>, effect: &str) -> Endpoint<Api> {
    let key = key_schema(ObjectBuilder::new().schema_type(Type::String)).build();
    let about = format!(
        "Identifies this request: 1 to 128 visible ASCII characters. A retry with the same key and the same body returns the \
         original response with `Idempotent-Replayed: true` and {effect}."
    );
    endpoint
        .parameter(ParameterIn::Header, "Idempotency-Key", &about, key)
        .with_header(StatusCode::OK, &IDEMPOTENT_REPLAYED)
        .errors([key_reused()])
}
