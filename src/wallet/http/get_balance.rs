//! `GET /v1/balance`.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;

use crate::infra::http::{ApiError, QueryFields};
use crate::wallet::application::get_balance::GetBalance;
use crate::wallet::http::ready_wallet::ReadyWallet;
use crate::wallet::http::time;

/// The one currency (plan §2).
const CURRENCY: &str = "USD";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    balance_minor: i64,
    currency: &'static str,
}

/// 200 with the balance, now or as it stood at the end of the moment `at`.
///
/// # Errors
/// 400, 503; 401 and the gate stand before it.
pub(super) async fn handle(
    wallet: ReadyWallet,
    request: HttpRequest,
    get_balance: web::Data<GetBalance>,
) -> Result<HttpResponse, ApiError> {
    let mut fields = QueryFields::of(&request)?;
    let at = fields.optional("at", time::parse);
    fields.finish()?;
    let balance = get_balance.execute(wallet.user_id, at).await.map_err(|e| ApiError::from_failure(&e))?;
    Ok(HttpResponse::Ok().json(Body { balance_minor: balance.cents(), currency: CURRENCY }))
}
