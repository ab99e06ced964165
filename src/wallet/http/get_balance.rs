//! `GET /v1/balance`.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use crate::infra::http::openapi::Endpoint;
use crate::infra::http::{ApiError, Fields};
use crate::kernel::Timestamp;
use crate::wallet::application::queries::WalletQueries;
use crate::wallet::domain::{Balance, Funds};
use crate::wallet::http::api::WalletApi;
use crate::wallet::http::gate::{Gate, GatedEndpoint, ReadyWallet, gated};
use crate::wallet::http::time;

#[derive(Serialize, ToSchema)]
#[schema(as = Balance)]
#[serde(rename_all = "camelCase")]
struct Body {
    /// US cents.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    balance_minor: i64,
    /// US cents of the balance that open holds reserve.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    held_minor: i64,
    /// US cents that a debit, hold or transfer may use: the balance without what is held.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    available_minor: i64,
    currency: Currency,
}

impl From<Funds> for Body {
    fn from(funds: Funds) -> Self {
        Self {
            balance_minor: funds.balance.cents(),
            held_minor: funds.held.cents(),
            available_minor: funds.available(),
            currency: Currency::Usd,
        }
    }
}

/// An ISO 4217 code.
#[derive(Serialize, ToSchema)]
enum Currency {
    #[serde(rename = "USD")]
    Usd,
}

/// # Errors
/// 400, 503; after 401 and the gate.
async fn handle(
    wallet: ReadyWallet,
    request: HttpRequest,
    queries: web::Data<dyn WalletQueries>,
    gate: web::Data<Gate>,
) -> Result<HttpResponse, ApiError> {
    let BalanceQuery { at } = Fields::query(request.query_string()).read(balance_query)?;
    let funds = match at {
        None => queries.balance(wallet.user_id),
        Some(at) => queries.balance_at(wallet.user_id, at),
    };
    let funds = funds.await.map_err(|e| ApiError::from_failure(&e))?;
    if funds.balance == Balance::ZERO {
        gate.confirm(&wallet).await?;
    }
    Ok(HttpResponse::Ok().json(Body::from(funds)))
}

struct BalanceQuery {
    at: Option<Timestamp>,
}

fn balance_query(query: &mut Fields) -> Option<BalanceQuery> {
    let at = query.optional_text("at", time::parse, |at| {
        time::schema(at).description(Some("Return the balance as of this time (inclusive) instead of now."))
    });
    Some(BalanceQuery { at: at? })
}

pub(super) fn endpoint() -> GatedEndpoint<WalletApi> {
    let endpoint = Endpoint::get("/v1/balance", handle, "getBalance", "Get the balance")
        .tag("wallet")
        .about("The balance of the user's wallet, now or as of a time in the past, and how much of it is held.")
        .bearer()
        .query(balance_query, "at=yesterday")
        .returns(
            StatusCode::OK,
            "The balance.",
            &Body { balance_minor: 1500, held_minor: 400, available_minor: 1100, currency: Currency::Usd },
        );
    gated(endpoint).also_for_services()
}
