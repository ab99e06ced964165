//! The one form of every error response: `{"code","message"}`, with `details` for a validation error.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::Ref;

use crate::infra::http::limit_policy::LimitPolicy;
use crate::infra::http::public_url::PublicUrl;
use crate::infra::security::service_token::Scope;
use crate::kernel::{Classified, FailureClass, chain};

/// Name of the schema of every error response.
pub(super) const ERROR: &str = "Error";
/// Name of the schema of every error response as [`PROBLEM_JSON`].
pub(super) const PROBLEM: &str = "Problem";
/// The media type of a [`Problem`].
pub(super) const PROBLEM_JSON: &str = "application/problem+json";
/// The path of the page that documents the codes.
pub(super) const ERRORS_PAGE: &str = "/docs/errors";
/// Name of the schema that lists every code.
pub(super) const ERROR_CODE: &str = "ErrorCode";

/// What is wrong with one field or item of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ErrorDetail)]
pub struct Detail {
    /// The name of the body field, query parameter or header.
    pub field: String,
    /// What is expected; with `BULK_REFUSED` the code of the error.
    pub message: String,
}

/// An error response, and its cause for the log.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: Cow<'static, str>,
    details: Vec<Detail>,
    headers: Vec<(HeaderName, HeaderValue)>,
    cause: Option<String>,
}

/// The body of every error response.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub(super) struct Body<'a> {
    #[schema(schema_with = code_schema)]
    code: &'static str,
    /// What went wrong, for people. The text may change.
    message: &'a str,
    /// With `VALIDATION_ERROR`: every problem with the request. With `BULK_REFUSED`: the refused item.
    #[serde(skip_serializing_if = "<[Detail]>::is_empty")]
    #[schema(required = false)]
    details: &'a [Detail],
}

/// The same as RFC 9457 has it, for clients that ask for it.
#[derive(Serialize, ToSchema)]
pub(super) struct Problem<'a> {
    /// The documentation of the code.
    #[serde(rename = "type")]
    #[schema(format = "uri-reference")]
    kind: String,
    /// What the code means, in a few words.
    title: String,
    status: u16,
    /// The same text as `message` in `Error`.
    detail: &'a str,
    #[schema(schema_with = code_schema)]
    code: &'static str,
    /// With `VALIDATION_ERROR`: every problem with the request. With `BULK_REFUSED`: the refused item.
    #[serde(skip_serializing_if = "<[Detail]>::is_empty")]
    #[schema(required = false)]
    details: &'a [Detail],
}

/// `RATE_LIMITED` as `Rate limited`.
fn in_words(code: &str) -> String {
    let mut letters = code.chars();
    let first = letters.next().into_iter();
    first.chain(letters.map(|c| if c == '_' { ' ' } else { c.to_ascii_lowercase() })).collect()
}

/// The codes are those that the endpoints declare, so the document lists them.
fn code_schema() -> Ref {
    Ref::from_schema_name(ERROR_CODE)
}

impl ApiError {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, message: message.into(), details: Vec::new(), headers: Vec::new(), cause: None }
    }

    pub fn validation(details: Vec<Detail>) -> Self {
        let message = "The request is invalid. See details for each field.";
        Self { details, ..Self::new(StatusCode::BAD_REQUEST, "VALIDATION_ERROR", message) }
    }

    /// A validation error with one detail.
    pub fn invalid(field: &str, message: impl fmt::Display) -> Self {
        Self::validation(vec![Detail { field: field.to_owned(), message: message.to_string() }])
    }

    /// The response does not say why a token was refused.
    pub fn unauthorized() -> Self {
        let message = "Missing or invalid access token. Send it as Authorization: Bearer <token>.";
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message)
            .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// Repeating the request with the same token does not help (RFC 6750 §3.1).
    pub fn insufficient_scope(needed: Scope) -> Self {
        let message =
            "The service token does not have the scope that this request needs. See the WWW-Authenticate header.";
        let error = Self::new(StatusCode::FORBIDDEN, "INSUFFICIENT_SCOPE", message);
        match HeaderValue::try_from(format!("Bearer error=\"insufficient_scope\", scope=\"{needed}\"")) {
            Ok(challenge) => error.with_header(header::WWW_AUTHENTICATE, challenge),
            Err(_) => error,
        }
    }

    pub fn no_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", "Not found.")
    }

    /// The router adds the `Allow` header.
    pub fn no_method() -> Self {
        let message = "Method not allowed. See the Allow header.";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", message)
    }

    pub fn head_too_large() -> Self {
        let message = "The request line and headers must not exceed 8 KiB, and there may be at most 96 headers.";
        Self::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "HEADERS_TOO_LARGE", message)
    }

    /// What was received is not a request. Nothing else is read from its connection.
    pub fn malformed() -> Self {
        Self::invalid("request", "is not a valid HTTP/1.1 request")
    }

    /// Nothing else is read from the connection.
    pub fn slow_head() -> Self {
        let message = "The request line and headers were not received within 5 seconds.";
        Self::new(StatusCode::REQUEST_TIMEOUT, "REQUEST_TIMEOUT", message)
    }

    /// A full queue. Nothing was done.
    pub fn overloaded() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "OVERLOADED", "The service is busy. Retry shortly.").retry_after_s(1)
    }

    /// Nothing was done; a retry reaches another process.
    pub fn stopping() -> Self {
        let message = "The service is shutting down. Retry shortly.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "OVERLOADED", message).retry_after_s(1)
    }

    /// Nothing was done.
    pub fn dependency_unavailable() -> Self {
        let message = "A dependency is unavailable. Retry shortly.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "DEPENDENCY_UNAVAILABLE", message).retry_after_s(2)
    }

    /// The outcome of a commit could not be determined; `message` says how to find out.
    pub fn outcome_unknown(message: &'static str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "OUTCOME_UNKNOWN", message).retry_after_s(2)
    }

    /// 429 with the time to wait until `units` requests are allowed at once.
    pub(super) fn rate_limited(policy: &LimitPolicy, units: NonZeroU32, wait: Duration) -> Self {
        let (fields, wait_s) = policy.of_limited(units, wait);
        let message = format!("Too many requests. Retry in {wait_s} s.");
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED", message).retry_after_s(wait_s);
        fields.into_iter().fold(error, |error, (name, value)| match value.parse() {
            Ok(value) => error.with_header(HeaderName::from_static(name), value),
            Err(_) => error,
        })
    }

    pub fn internal() -> Self {
        let message = "Internal error. Quote the x-request-id header when you report it.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR", message)
    }

    /// The response to a failed dependency or a bug, by the class of the failure.
    pub fn from_failure<E: Classified + std::error::Error>(error: &E) -> Self {
        let response = match error.class() {
            FailureClass::Unavailable | FailureClass::Transient => Self::dependency_unavailable(),
            FailureClass::Refused | FailureClass::Permanent | FailureClass::Bug => Self::internal(),
        };
        response.caused_by(error)
    }

    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// More about the error, for programs.
    #[must_use]
    pub fn with_details(self, details: Vec<Detail>) -> Self {
        Self { details, ..self }
    }

    #[must_use]
    pub fn retry_after_s(self, seconds: u64) -> Self {
        self.with_header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Keeps the cause for the log; the response does not show it.
    #[must_use]
    pub fn caused_by(mut self, error: &dyn std::error::Error) -> Self {
        self.cause = Some(chain(error));
        self
    }

    pub(super) const fn code(&self) -> &'static str {
        self.code
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    pub(super) fn header_names(&self) -> impl Iterator<Item = &str> {
        self.headers.iter().map(|(name, _)| name.as_str())
    }

    pub fn details(&self) -> &[Detail] {
        &self.details
    }

    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    pub fn body(&self) -> Vec<u8> {
        let body = Body { code: self.code, message: &self.message, details: &self.details };
        serde_json::to_vec(&body).unwrap_or_default()
    }

    fn documentation(&self, url: &PublicUrl) -> String {
        url.to(&format!("{ERRORS_PAGE}#{}", self.code))
    }

    /// The value of the `Link` header (RFC 8288).
    pub(super) fn link(&self, url: &PublicUrl) -> String {
        format!("<{}>; rel=\"help\"", self.documentation(url))
    }

    /// The body as [`PROBLEM_JSON`].
    pub(super) fn problem(&self, url: &PublicUrl) -> Vec<u8> {
        let problem = Problem {
            kind: self.documentation(url),
            title: in_words(self.code),
            status: self.status.as_u16(),
            detail: &self.message,
            code: self.code,
            details: &self.details,
        };
        serde_json::to_vec(&problem).unwrap_or_default()
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code)
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        for header in &self.headers {
            response.insert_header(header.clone());
        }
        response.content_type("application/json").body(self.body())
    }
}
