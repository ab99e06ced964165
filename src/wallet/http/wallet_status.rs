//! `GET /v1/wallet/status`.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::Type;

use crate::infra::health::HealthBoard;
use crate::infra::http::openapi::Endpoint;
use crate::infra::http::{ApiError, Authenticated, Fields, LongPoll};
use crate::kernel::rfc3339;
use crate::wallet::http::api::WalletApi;
use crate::wallet::http::gate::{Gate, provisioning};

const WAIT_MAX_S: u64 = 30;

#[derive(Serialize, ToSchema)]
#[schema(as = WalletStatus)]
#[serde(rename_all = "camelCase")]
struct Body {
    status: State,
    #[schema(format = "date-time")]
    created_at: String,
}

/// `ready`: credits and debits are accepted.
#[derive(Serialize, ToSchema)]
#[schema(as = WalletState)]
#[serde(rename_all = "lowercase")]
enum State {
    Ready,
}

/// 200 as soon as the wallet exists, after up to `wait` seconds.
///
/// # Errors
/// 503, 400; after 401.
async fn handle(
    bearer: Authenticated,
    request: HttpRequest,
    gate: web::Data<Gate>,
    health: web::Data<HealthBoard>,
) -> Result<HttpResponse, ApiError> {
    let wait = Fields::query(request.query_string()).read(wait);
    let wait_max = *wait.as_ref().unwrap_or(&Duration::ZERO);
    if !wait_max.is_zero() {
        request.extensions_mut().insert(LongPoll);
    }
    let mut state = health.watch();
    let created_at = tokio::select! {
        biased;
        created_at = gate.created_at(bearer.user_id(), wait_max) => created_at?,
        // During shutdown no request waits here: a retry reaches another process.
        _ = state.wait_for(|health| health.stopping) => return Err(provisioning()),
    };
    // The gate comes before an invalid parameter.
    wait?;
    Ok(HttpResponse::Ok().json(Body { status: State::Ready, created_at: rfc3339(created_at) }))
}

fn wait(query: &mut Fields) -> Option<Duration> {
    let wait = query.optional_text(
        "wait",
        |text| {
            let seconds = text.parse::<u64>().ok().filter(|seconds| *seconds <= WAIT_MAX_S);
            seconds.ok_or("must be a whole number of seconds from 0 to 30")
        },
        |wait| {
            wait.description(Some("Maximum wait, in seconds."))
                .schema_type(Type::Integer)
                .minimum(Some(0))
                .maximum(Some(WAIT_MAX_S))
                .default(Some(0.into()))
                .examples([WAIT_MAX_S])
        },
    );
    Some(Duration::from_secs(wait?.unwrap_or(0)))
}

pub(super) fn endpoint() -> Endpoint<WalletApi> {
    let ready = Body { status: State::Ready, created_at: "2026-01-31T12:00:00.123456Z".into() };
    Endpoint::get("/v1/wallet/status", handle, "getWalletStatus", "Wait for the wallet")
        .tag("wallet")
        .about("Returns as soon as the wallet exists, or 503 `WALLET_PROVISIONING` when the wait is over.")
        .bearer()
        .query(wait, "wait=31")
        .returns(StatusCode::OK, "The wallet exists.", &ready)
        .errors([provisioning(), ApiError::dependency_unavailable()])
}
