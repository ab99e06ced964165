//! `GET /health/live` and `GET /health/ready`: reads of the snapshot.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use crate::infra::health::HealthBoard;
use crate::infra::http::openapi::Endpoint;

#[derive(Serialize, ToSchema)]
#[schema(as = Liveness)]
struct Live {
    /// `ok` with 200, `failed` with 503.
    #[schema(pattern = "^(ok|failed)$")]
    status: &'static str,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Readiness)]
struct Ready {
    /// `ok` or `degraded` with 200, `unavailable` with 503.
    #[schema(pattern = "^(ok|degraded|unavailable)$")]
    status: &'static str,
    checks: Vec<CheckBody>,
}

/// A dependency of the process.
#[derive(Serialize, ToSchema)]
#[schema(as = HealthCheck)]
struct CheckBody {
    /// `users-db`, `wallet-db` or `rabbitmq`.
    name: &'static str,
    ok: bool,
    /// Why it is not ok.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
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

pub fn live_endpoint<Api: 'static>() -> Endpoint<Api> {
    Endpoint::get("/health/live", live, "isLive", "Liveness probe")
        .ignores_query()
        .tag("health")
        .returns(StatusCode::OK, "The process is working.", &Live { status: "ok" })
        .returns(
            StatusCode::SERVICE_UNAVAILABLE,
            "A component failed too often. Restart the process.",
            &Live { status: "failed" },
        )
}

pub fn ready_endpoint<Api: 'static>(database: &'static str) -> Endpoint<Api> {
    let check = |name, ok, details: Option<&str>| CheckBody { name, ok, details: details.map(str::to_owned) };
    let broker = check("rabbitmq", false, Some("not connected"));
    let degraded = Ready { status: "degraded", checks: vec![broker, check(database, true, None)] };
    let away = check(database, false, Some("not connected"));
    let unavailable = Ready { status: "unavailable", checks: vec![check("rabbitmq", true, None), away] };
    Endpoint::get("/health/ready", ready, "isReady", "Readiness probe")
        .ignores_query()
        .tag("health")
        .about("Without the message broker the status is `degraded`, still with 200: registrations, credits and debits work.")
        .returns(StatusCode::OK, "Send requests here.", &degraded)
        .returns(StatusCode::SERVICE_UNAVAILABLE, "Send no requests here: the database is unavailable, or the process is shutting down.", &unavailable)
}
