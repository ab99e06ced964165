//! Receives a JSON body, within limits of size and time.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, web};
use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::infra::health::{Health, HealthBoard};
use crate::infra::http::{ApiError, Fields};

pub(super) const BODY_BYTES_MAX: usize = 16 * 1024;
/// Time from the head of a request to the end of its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Time that a body still has once the process is shutting down.
const BODY_TIMEOUT_STOPPING: Duration = Duration::from_secs(1);

/// # Errors
/// Those of [`read_json_up_to`] 16 KiB.
pub(crate) async fn read_json(request: &HttpRequest, payload: web::Payload) -> Result<Fields, ApiError> {
    read_json_up_to(BODY_BYTES_MAX, request, payload).await
}

/// # Errors
/// 415 unless the body is JSON as it is, 413 over `bytes_max`, 408 after 10 s, 503 when the process shuts down meanwhile, 400
/// unless it is one JSON object.
pub(crate) async fn read_json_up_to(
    bytes_max: usize,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<Fields, ApiError> {
    if !is_json(request) {
        return Err(wrong_media_type());
    }
    if let Some(coding) = content_coding(request) {
        return Err(wrong_coding(&coding));
    }
    let announced = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok())
        .and_then(|length| length.parse::<usize>().ok());
    if announced.is_some_and(|bytes| bytes > bytes_max) {
        return Err(too_large(bytes_max));
    }
    let health = request.app_data::<web::Data<HealthBoard>>().map(|board| board.watch());
    tokio::select! {
        biased;
        body = collect(bytes_max, payload) => Fields::json(&body?),
        () = cut_short(health) => Err(ApiError::stopping()),
    }
}

/// Completes shortly after shutdown has begun: a body that does not arrive must not delay the shutdown.
async fn cut_short(health: Option<watch::Receiver<Health>>) {
    match health {
        Some(mut health) => {
            // An error means that the health board is gone, and the process with it.
            let _ = health.wait_for(|health| health.stopping).await;
            tokio::time::sleep(BODY_TIMEOUT_STOPPING).await;
        }
        None => std::future::pending().await,
    }
}

async fn collect(bytes_max: usize, mut payload: web::Payload) -> Result<Vec<u8>, ApiError> {
    let deadline = Instant::now() + BODY_TIMEOUT;
    let mut body = Vec::new();
    loop {
        match timeout_at(deadline, payload.next()).await {
            Err(_) => return Err(slow_body()),
            Ok(None) => return Ok(body),
            Ok(Some(Err(_))) => return Err(ApiError::invalid("body", "ended too early")),
            Ok(Some(Ok(chunk))) if body.len().saturating_add(chunk.len()) > bytes_max => {
                return Err(too_large(bytes_max));
            }
            Ok(Some(Ok(chunk))) => body.extend_from_slice(&chunk),
        }
    }
}

pub(super) fn wrong_media_type() -> ApiError {
    let message = "Content-Type must be application/json.";
    ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE", message)
}

/// No body is decoded: a small one could become a large one.
pub(super) fn wrong_coding(coding: &str) -> ApiError {
    // Shown only if it is a name: what else was sent is not repeated.
    let is_name = (1..=32).contains(&coding.len()) && coding.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
    let message = if is_name {
        format!("The content coding {coding} is not supported. Send the body without Content-Encoding.")
    } else {
        "This content coding is not supported. Send the body without Content-Encoding.".to_owned()
    };
    ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE", message)
}

pub(super) fn slow_body() -> ApiError {
    let message = "The request body was not received within 10 seconds.";
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "REQUEST_TIMEOUT", message)
}

pub(super) fn too_large(bytes_max: usize) -> ApiError {
    let message = format!("The request body must not exceed {} KiB.", bytes_max / 1024);
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", message)
}

/// The first coding of the body that changes it.
fn content_coding(request: &HttpRequest) -> Option<String> {
    let values = request.headers().get_all(header::CONTENT_ENCODING).map(HeaderValue::as_bytes);
    let codings = values.flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let mut changing = codings.filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"));
    changing.next().map(|coding| String::from_utf8_lossy(coding).into_owned())
}

/// `application/json` once, with no parameter but UTF-8 as the `charset`, by either of its names.
fn is_json(request: &HttpRequest) -> bool {
    let mut values = request.headers().get_all(header::CONTENT_TYPE);
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let Ok(value) = value.to_str() else { return false };
    let mut parts = value.split(';').map(str::trim);
    let essence = parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"));
    let plain = |parameter: &str| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = value.trim();
        let quoted = value.strip_prefix('"').map(|rest| rest.strip_suffix('"').unwrap_or_default());
        let charset = quoted.unwrap_or(value);
        let is_utf8 = ["utf-8", "utf8"].iter().any(|name| charset.eq_ignore_ascii_case(name));
        name.trim().eq_ignore_ascii_case("charset") && is_utf8
    };
    essence && parts.all(|parameter| parameter.is_empty() || plain(parameter))
}
