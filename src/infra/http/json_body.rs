//! Receives a JSON body, within limits of size and time.

use std::time::Duration;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, web};
use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::infra::health::{Health, HealthBoard};
use crate::infra::http::{ApiError, Fields};

const BODY_BYTES_MAX: usize = 16 * 1024;
/// Time from the head of a request to the end of its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Time that a body still has once the process is shutting down.
const BODY_TIMEOUT_STOPPING: Duration = Duration::from_secs(1);

/// # Errors
/// 415 unless the body is JSON, 413 over 16 KiB, 408 after 10 s, 503 when the process shuts down meanwhile, 400 unless it
/// is one JSON object without duplicate fields.
pub(crate) async fn read_json(request: &HttpRequest, payload: web::Payload) -> Result<Fields, ApiError> {
    if !is_json(request) {
        return Err(wrong_media_type());
    }
    let announced = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok())
        .and_then(|length| length.parse::<usize>().ok());
    if announced.is_some_and(|bytes| bytes > BODY_BYTES_MAX) {
        return Err(too_large());
    }
    let health = request.app_data::<web::Data<HealthBoard>>().map(|board| board.watch());
    tokio::select! {
        biased;
        body = collect(payload) => Fields::json(&body?),
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

async fn collect(mut payload: web::Payload) -> Result<Vec<u8>, ApiError> {
    let deadline = Instant::now() + BODY_TIMEOUT;
    let mut body = Vec::new();
    loop {
        match timeout_at(deadline, payload.next()).await {
            Err(_) => return Err(slow_body()),
            Ok(None) => return Ok(body),
            Ok(Some(Err(_))) => return Err(ApiError::invalid("body", "ended too early")),
            Ok(Some(Ok(chunk))) if body.len().saturating_add(chunk.len()) > BODY_BYTES_MAX => return Err(too_large()),
            Ok(Some(Ok(chunk))) => body.extend_from_slice(&chunk),
        }
    }
}

pub(super) fn wrong_media_type() -> ApiError {
    let message = "Content-Type must be application/json.";
    ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE", message)
}

pub(super) fn slow_body() -> ApiError {
    let message = "The request body was not received within 10 seconds.";
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "REQUEST_TIMEOUT", message)
}

pub(super) fn too_large() -> ApiError {
    let message = "The request body must not exceed 16 KiB.";
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", message)
}

/// `application/json`, with no parameter but `charset=utf-8`.
fn is_json(request: &HttpRequest) -> bool {
    let Some(value) = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()) else { return false };
    let mut parts = value.split(';').map(str::trim);
    let essence = parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"));
    let plain = |parameter: &str| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        name.trim().eq_ignore_ascii_case("charset") && value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
    };
    essence && parts.all(|parameter| parameter.is_empty() || plain(parameter))
}
