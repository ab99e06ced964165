//! `GET /v1/wallet/status`.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::path::ParameterIn;
use utoipa::openapi::{ObjectBuilder, Type};

use crate::infra::health::HealthBoard;
use crate::infra::http::openapi::Endpoint;
use crate::infra::http::{ApiError, Authenticated, QueryFields};
use crate::wallet::application::await_wallet::AwaitWallet;
use crate::wallet::http::ready_wallet::provisioning;

/// Longest wait that a client may ask for, in seconds.
const WAIT_MAX_S: u64 = 30;

/// What is told about a wait that is none.
const WAIT_REFUSAL: &str = "must be a whole number of seconds from 0 to 30";

#[derive(Serialize, ToSchema)]
#[schema(as = WalletStatus)]
#[serde(rename_all = "camelCase")]
struct Body {
    #[schema(pattern = "^ready$")]
    status: &'static str,
    #[schema(format = "date-time")]
    created_at: String,
}

/// 200 once there is a wallet; waits for it up to `wait` seconds.
///
/// # Errors
/// 400, 503 `WALLET_PROVISIONING`; 401 stands before it.
pub(super) async fn handle(
    bearer: Authenticated,
    request: HttpRequest,
    await_wallet: web::Data<AwaitWallet>,
    health: web::Data<HealthBoard>,
) -> Result<HttpResponse, ApiError> {
    let wait = QueryFields::of(&request).and_then(parse);
    let patience = *wait.as_ref().unwrap_or(&Duration::ZERO);
    let mut state = health.watch();
    let found = tokio::select! {
        biased;
        found = await_wallet.execute(bearer.user_id(), patience) => found.map_err(|e| ApiError::from_failure(&e))?,
        // A process that stops does not keep anybody waiting: another one is there to be asked.
        _ = state.wait_for(|health| health.stopping) => None,
    };
    let created_at = found.ok_or_else(provisioning)?;
    // The gate stands before a wrong parameter.
    wait?;
    Ok(HttpResponse::Ok().json(Body { status: "ready", created_at: created_at.to_string() }))
}

fn parse(mut fields: QueryFields) -> Result<Duration, ApiError> {
    let wait = fields.optional("wait", |text| {
        let seconds = text.parse::<u64>().ok().filter(|s| *s <= WAIT_MAX_S);
        seconds.ok_or(WAIT_REFUSAL)
    });
    fields.finish()?;
    Ok(Duration::from_secs(wait.unwrap_or(0)))
}

pub(super) fn endpoint() -> Endpoint {
    let wait = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(0))
        .maximum(Some(WAIT_MAX_S))
        .default(Some(0.into()))
        .examples([WAIT_MAX_S]);
    Endpoint::get("/v1/wallet/status", "getWalletStatus", "Wait for the wallet")
        .tag("wallet")
        .about("Answers as soon as the wallet is there, and with the gate's 503 if it is not by then.")
        .bearer()
        .parameter(ParameterIn::Query, "wait", "Longest wait, in seconds.", wait.build())
        .answers(
            StatusCode::OK,
            "It is there.",
            &Body { status: "ready", created_at: "2026-01-31T12:00:00.123456Z".into() },
        )
        .refuses([provisioning(), ApiError::invalid("wait", WAIT_REFUSAL), ApiError::dependency_unavailable()])
}
