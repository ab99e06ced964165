//! `GET /v1/balance`.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::path::ParameterIn;

use crate::infra::http::openapi::Endpoint;
use crate::infra::http::{ApiError, QueryFields};
use crate::wallet::application::queries::WalletQueries;
use crate::wallet::http::ready_wallet::{ReadyWallet, provisioning};
use crate::wallet::http::time;

/// The one currency (plan §2).
const CURRENCY: &str = "USD";

#[derive(Serialize, ToSchema)]
#[schema(as = Balance)]
#[serde(rename_all = "camelCase")]
struct Body {
    /// US cents.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    balance_minor: i64,
    #[schema(pattern = "^USD$")]
    currency: &'static str,
}

/// 200 with the balance, now or as it stood at the end of the moment `at`.
///
/// # Errors
/// 400, 503; 401 and the gate stand before it.
pub(super) async fn handle(
    wallet: ReadyWallet,
    request: HttpRequest,
    queries: web::Data<dyn WalletQueries>,
) -> Result<HttpResponse, ApiError> {
    let mut fields = QueryFields::of(&request)?;
    let at = fields.optional("at", time::parse);
    fields.finish()?;
    let balance = match at {
        None => queries.balance(wallet.user_id),
        Some(at) => queries.balance_at(wallet.user_id, at),
    };
    let balance = balance.await.map_err(|e| ApiError::from_failure(&e))?;
    Ok(HttpResponse::Ok().json(Body { balance_minor: balance.cents(), currency: CURRENCY }))
}

pub(super) fn endpoint() -> Endpoint {
    Endpoint::get("/v1/balance", "getBalance", "The balance")
        .tag("wallet")
        .bearer()
        .parameter(
            ParameterIn::Query,
            "at",
            "The balance as it stood at the end of this moment, instead of now.",
            time::schema(),
        )
        .answers(StatusCode::OK, "The balance.", &Body { balance_minor: 1500, currency: CURRENCY })
        .refuses([ApiError::invalid("at", time::REFUSAL), provisioning(), ApiError::dependency_unavailable()])
}
