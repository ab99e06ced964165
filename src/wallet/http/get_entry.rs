//! `GET /v1/transactions/{id}`.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use utoipa::openapi::path::ParameterIn;

use crate::infra::http::ApiError;
use crate::infra::http::openapi::Endpoint;
use crate::wallet::application::queries::WalletQueries;
use crate::wallet::http::api::WalletApi;
use crate::wallet::http::gate::{Gate, GatedEndpoint, ReadyWallet, gated};
use crate::wallet::http::wire::{EntryBody, EntryPath, id_schema};

/// # Errors
/// 404, also for another user's entry and for an id that is not a UUID; 503; after 401 and the gate.
async fn handle(
    wallet: ReadyWallet,
    path: web::Path<EntryPath>,
    queries: web::Data<dyn WalletQueries>,
    gate: web::Data<Gate>,
) -> Result<HttpResponse, ApiError> {
    let id = path.id.parse().map_err(|_| not_found())?;
    let found = gate.found(&wallet, queries.entry(wallet.user_id, id).await, not_found).await?;
    Ok(HttpResponse::Ok().json(EntryBody::from(&found)))
}

pub(super) fn not_found() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "TRANSACTION_NOT_FOUND", "No such transaction in this wallet.")
}

pub(super) fn endpoint() -> GatedEndpoint<WalletApi> {
    let endpoint = Endpoint::get("/v1/transactions/{id}", handle, "getTransaction", "Get a transaction")
        .tag("transactions")
        .about("Users see their own transactions only: the response to the id of another user's is 404.")
        .bearer()
        .parameter(ParameterIn::Path, "id", "ID of the transaction.", id_schema())
        .returns(StatusCode::OK, "The transaction.", &EntryBody::reversed_example())
        .errors([not_found()]);
    gated(endpoint).also_for_services()
}
