//! `GET /health/live` and `GET /health/ready`: reads of the snapshot.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use serde::Serialize;

use crate::infra::health::HealthBoard;

#[derive(Serialize)]
struct Live {
    status: &'static str,
}

#[derive(Serialize)]
struct Ready {
    status: &'static str,
    checks: Vec<CheckBody>,
}

#[derive(Serialize)]
struct CheckBody {
    name: &'static str,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<String>,
}

/// Whether the process is worth keeping: 200, or 503 once an actor was given up.
pub async fn live(board: web::Data<HealthBoard>) -> HttpResponse {
    if board.read().is_live() {
        HttpResponse::Ok().json(Live { status: "ok" })
    } else {
        HttpResponse::ServiceUnavailable().json(Live { status: "failed" })
    }
}

/// Whether requests should be sent here: 200 `ok` or `degraded`, or 503 `unavailable`.
pub async fn ready(board: web::Data<HealthBoard>) -> HttpResponse {
    let health = board.read();
    let (code, status) = match (health.is_ready(), health.is_whole()) {
        (true, true) => (StatusCode::OK, "ok"),
        (true, false) => (StatusCode::OK, "degraded"),
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    let checks = health.checks.into_iter().map(|(name, c)| CheckBody { name, ok: c.ok, details: c.details }).collect();
    HttpResponse::build(code).json(Ready { status, checks })
}
