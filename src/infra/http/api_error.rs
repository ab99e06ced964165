//! The one form of every refusal: `{"code","message"}`, with `details` for a 400.

use std::borrow::Cow;
use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use utoipa::ToSchema;

use crate::kernel::{Classified, FailureClass, chain};

/// What is wrong with one field of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Detail {
    /// Its name in the body, the query or the headers.
    pub field: String,
    /// What would be right.
    pub message: String,
}

/// A refusal as a client sees it, and its cause as the log sees it.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: Cow<'static, str>,
    details: Vec<Detail>,
    headers: Vec<(HeaderName, HeaderValue)>,
    cause: Option<String>,
}

/// The body of every refusal.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub(super) struct Body<'a> {
    /// What went wrong, for programs.
    code: &'static str,
    /// The same for people. It may change.
    message: &'a str,
    /// With `VALIDATION_ERROR` alone: everything that is wrong.
    #[serde(skip_serializing_if = "<[Detail]>::is_empty")]
    #[schema(required = false)]
    details: &'a [Detail],
}

impl ApiError {
    /// A refusal with this status, code and sentence.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, message: message.into(), details: Vec::new(), headers: Vec::new(), cause: None }
    }

    /// 400 `VALIDATION_ERROR`.
    pub fn validation(details: Vec<Detail>) -> Self {
        let message = "The request is not valid. See details for each field.";
        Self { details, ..Self::new(StatusCode::BAD_REQUEST, "VALIDATION_ERROR", message) }
    }

    /// 400 for one field.
    pub fn invalid(field: &str, message: impl fmt::Display) -> Self {
        Self::validation(vec![Detail { field: field.to_owned(), message: message.to_string() }])
    }

    /// 401 `UNAUTHORIZED`. Why a token was refused is not told.
    pub fn unauthorized() -> Self {
        let message = "A valid access token is required: Authorization: Bearer <token>.";
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message)
            .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// 404 for a route that there is not.
    pub fn no_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", "There is no such resource.")
    }

    /// 405; the `Allow` header is the router's.
    pub fn no_method() -> Self {
        let message = "The resource does not have this method. The Allow header lists those it has.";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", message)
    }

    /// 503 `OVERLOADED`: nothing was done, come back soon.
    pub fn overloaded() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "OVERLOADED", "The service is busy. Retry shortly.").retry_after_s(1)
    }

    /// 503 `OVERLOADED` of a process that stops: nothing was done, and the next one to be asked is another.
    pub fn stopping() -> Self {
        let message = "The service is stopping. Retry shortly.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "OVERLOADED", message).retry_after_s(1)
    }

    /// 503 `DEPENDENCY_UNAVAILABLE`: nothing was done.
    pub fn dependency_unavailable() -> Self {
        let message = "A dependency is unavailable. Retry shortly.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "DEPENDENCY_UNAVAILABLE", message).retry_after_s(2)
    }

    /// 500 `INTERNAL_ERROR`.
    pub fn internal() -> Self {
        let message = "Something went wrong on our side. The x-request-id helps us find it.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR", message)
    }

    /// The answer to a failure that no rule of ours made, by its class.
    pub fn from_failure<E: Classified + std::error::Error>(error: &E) -> Self {
        let answer = match error.class() {
            FailureClass::Unavailable | FailureClass::Transient => Self::dependency_unavailable(),
            FailureClass::Refused | FailureClass::Permanent | FailureClass::Bug => Self::internal(),
        };
        answer.caused_by(error)
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Adds `Retry-After`, in seconds.
    ///
    /// # Source
    /// RFC 9110 §10.2.3.
    #[must_use]
    pub fn retry_after_s(self, seconds: u64) -> Self {
        self.with_header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Notes the cause, for the log alone.
    #[must_use]
    pub fn caused_by(mut self, error: &dyn std::error::Error) -> Self {
        self.cause = Some(chain(error));
        self
    }

    /// What went wrong, for programs.
    pub(super) const fn code(&self) -> &'static str {
        self.code
    }

    /// The same for people.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// The headers that it adds to an answer.
    pub(super) fn header_names(&self) -> impl Iterator<Item = &str> {
        self.headers.iter().map(|(name, _)| name.as_str())
    }

    /// What is wrong, field by field.
    pub fn details(&self) -> &[Detail] {
        &self.details
    }

    /// The cause, for the log.
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// The body, for an answer that is built elsewhere.
    pub fn body(&self) -> Vec<u8> {
        let body = Body { code: self.code, message: &self.message, details: &self.details };
        serde_json::to_vec(&body).unwrap_or_default()
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
