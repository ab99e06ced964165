//! `GET /v1/transfers/{id}`.

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
/// 404, also for a transfer between others and for an id that is not a UUID; 503; after 401 and the gate.
async fn handle(
    wallet: ReadyWallet,
    path: web::Path<EntryPath>,
    queries: web::Data<dyn WalletQueries>,
    gate: web::Data<Gate>,
) -> Result<HttpResponse, ApiError> {
    let id = path.id.parse().map_err(|_| not_found())?;
    let leg = gate.found(&wallet, queries.transfer(wallet.user_id, id).await, not_found).await?;
    Ok(HttpResponse::Ok().json(EntryBody::from(&leg)))
}

fn not_found() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "TRANSFER_NOT_FOUND", "No such transfer to or from this wallet.")
}

pub(super) fn endpoint() -> GatedEndpoint<WalletApi> {
    let endpoint = Endpoint::get("/v1/transfers/{id}", handle, "getTransfer", "Get a transfer")
        .tag("transfers")
        .about(
            "Both the sender and the recipient use the ID that the sender got; each gets their own transaction. The response \
             to the ID of a transfer between others is 404.",
        )
        .bearer()
        .parameter(ParameterIn::Path, "id", "ID of the transfer.", id_schema())
        .returns(StatusCode::OK, "Your own transaction of the transfer.", &EntryBody::transfer_example())
        .errors([not_found()]);
    gated(endpoint).also_for_services()
}
