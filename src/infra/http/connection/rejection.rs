//! Responses to what never becomes a request: a head that is malformed, too large or too slow.
//!
//! The server's own ones have no body, and no middleware sees them.

use std::time::Instant;

use actix_web::ResponseError as _;
use actix_web::http::{StatusCode, header};
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use slog::Logger;

use crate::infra::http::api_error::ApiError;
use crate::infra::http::cors::EXPOSED;
use crate::infra::http::metrics_page::refusals;
use crate::infra::http::public_url::PublicUrl;
use crate::infra::metrics::{Counter, Metrics};
use crate::infra::system::System;
use crate::kernel::{IdSource as _, RequestId, TraceParent};

/// Writes the rejections of one thread.
pub(in crate::infra::http) struct Rejections {
    logger: Logger,
    origins: Vec<String>,
    public_url: PublicUrl,
    malformed: Counter,
    slow: Counter,
    large: Counter,
}

/// Why a head was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejection {
    Malformed,
    Slow,
    TooLarge,
}

impl Rejection {
    /// From a response that the server has written: its status decides.
    pub(super) fn of(response: &[u8]) -> Self {
        match response.get("HTTP/1.1 ".len().."HTTP/1.1 431".len()) {
            Some(b"408") => Self::Slow,
            Some(b"431") => Self::TooLarge,
            _ => Self::Malformed,
        }
    }

    fn error(self) -> ApiError {
        match self {
            Self::Malformed => ApiError::malformed(),
            Self::Slow => ApiError::slow_head(),
            Self::TooLarge => ApiError::head_too_large(),
        }
    }
}

impl Rejections {
    pub(in crate::infra::http) fn new(
        logger: &Logger,
        origins: &[String],
        public_url: &PublicUrl,
        metrics: &Metrics,
    ) -> Self {
        let count = |rejection: Rejection| refusals(metrics, "(none)", rejection.error().code());
        Self {
            logger: logger.clone(),
            origins: origins.to_vec(),
            public_url: public_url.clone(),
            malformed: count(Rejection::Malformed),
            slow: count(Rejection::Slow),
            large: count(Rejection::TooLarge),
        }
    }

    /// The whole response, which is the last one of its connection. Logs and counts it. `origin` is the one that the head
    /// named; `began`, when the head did.
    pub(super) fn response(&self, rejection: Rejection, origin: Option<&str>, began: Instant) -> Vec<u8> {
        let error = rejection.error();
        let (status, request_id, trace) =
            (error.status_code(), RequestId::from_uuid(System.next_id()), TraceParent::begin(&System));
        match rejection {
            Rejection::Malformed => &self.malformed,
            Rejection::Slow => &self.slow,
            Rejection::TooLarge => &self.large,
        }
        .increment(1);
        slog::info!(self.logger, "request";
            "request_id" => request_id.as_str(),
            "trace_id" => trace.trace_id(),
            "route" => "(none)",
            "status" => status.as_u16(),
            "duration_ms" => began.elapsed().saturating_mul(1000).as_secs_f64(),
        );
        self.text(&error, status, (request_id.as_str(), trace.as_str()), origin)
    }

    fn text(&self, error: &ApiError, status: StatusCode, ids: (&str, &str), origin: Option<&str>) -> Vec<u8> {
        let mut body = error.body();
        body.push(b'\n');
        let reason = status.canonical_reason().unwrap_or_default();
        let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16());
        let mut add = |name: &str, value: &str| head.extend([name, ": ", value, "\r\n"]);
        add("content-type", "application/json");
        add("content-length", &body.len().to_string());
        add("link", &error.link(&self.public_url));
        add("connection", "close");
        add("cache-control", "no-store");
        add("x-content-type-options", "nosniff");
        add("x-request-id", ids.0);
        add("traceparent", ids.1);
        if let Ok(date) = rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&Timestamp::now()) {
            add("date", &date);
        }
        if !self.origins.is_empty() {
            add(header::VARY.as_str(), "Origin");
        }
        // Only a configured origin is repeated, so its text is known.
        if let Some(origin) = origin.and_then(|origin| self.origins.iter().find(|known| *known == origin)) {
            add(header::ACCESS_CONTROL_ALLOW_ORIGIN.as_str(), origin);
            add(header::ACCESS_CONTROL_EXPOSE_HEADERS.as_str(), &EXPOSED.join(", "));
        }
        head.push_str("\r\n");
        let mut response = head.into_bytes();
        response.extend(body);
        response
    }
}
