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

/// One thing that the process depends on.
#[derive(Serialize, ToSchema)]
#[schema(as = HealthCheck)]
struct CheckBody {
    /// `users-db`, `wallet-db` or `rabbitmq`.
    name: &'static str,
    ok: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
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

/// What the document says of [`live`].
pub fn live_endpoint() -> Endpoint {
    Endpoint::get("/health/live", "isLive", "Whether the process is worth keeping")
        .tag("health")
        .answers(StatusCode::OK, "It is.", &Live { status: "ok" })
        .answers(StatusCode::SERVICE_UNAVAILABLE, "A part ended too often; restart it.", &Live { status: "failed" })
}

/// What the document says of [`ready`].
pub fn ready_endpoint(database: &'static str) -> Endpoint {
    let check = |name, ok, details: Option<&str>| CheckBody { name, ok, details: details.map(str::to_owned) };
    let broker = check("rabbitmq", false, Some("not connected"));
    let degraded = Ready { status: "degraded", checks: vec![broker, check(database, true, None)] };
    let away = check(database, false, Some("not connected"));
    let unavailable = Ready { status: "unavailable", checks: vec![check("rabbitmq", true, None), away] };
    Endpoint::get("/health/ready", "isReady", "Whether requests should be sent here")
        .tag("health")
        .about("While the broker is away it is `degraded`, and still 200: registrations and money move on.")
        .answers(StatusCode::OK, "They should.", &degraded)
        .answers(StatusCode::SERVICE_UNAVAILABLE, "The database is away, or the process stops.", &unavailable)
}
