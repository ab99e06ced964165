//! `GET /health/live` and `GET /health/ready`: reads of the snapshot.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use serde::Serialize;

use crate::infra::health::HealthBoard;
use crate::infra::http::openapi::Endpoint;

#[derive(Serialize)]
struct Live {
    status: &'static str,
}

#[derive(Serialize)]
struct Ready {
    status: &'static str,
    checks: Vec<CheckBody>,
}

/// A dependency of the process.
#[derive(Serialize)]
struct CheckBody {
    name: &'static str,
    ok: bool,
    /// Why it is not ok.
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<String>,
}

/// 503 once an actor has exceeded its restart budget.
async fn live(board: web::Data<HealthBoard>) -> HttpResponse {
    if board.read().is_live() {
        HttpResponse::Ok().json(Live { status: "ok" })
    } else {
        HttpResponse::ServiceUnavailable().json(Live { status: "failed" })
    }
}

/// 503 while the database is unavailable, and during shutdown.
async fn ready(board: web::Data<HealthBoard>) -> HttpResponse {
    let health = board.read();
    let (code, status) = match (health.is_ready(), health.is_whole()) {
        (true, true) => (StatusCode::OK, "ok"),
        (true, false) => (StatusCode::OK, "degraded"),
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    let checks = health.checks.into_iter().map(|(name, c)| CheckBody { name, ok: c.ok, details: c.details }).collect();
    HttpResponse::build(code).json(Ready { status, checks })
}

/// The probes.
pub fn health_endpoints<Api: 'static>() -> [Endpoint<Api>; 2] {
    [Endpoint::undocumented("/health/live", live), Endpoint::undocumented("/health/ready", ready)]
}
