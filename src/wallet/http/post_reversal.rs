//! `POST /v1/transactions/{id}/reverse`.

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;
use utoipa::openapi::path::ParameterIn;

use crate::infra::http::openapi::Endpoint;
use crate::infra::http::{ApiError, Fields, idempotency_key, read_json};
use crate::kernel::EntryId;
use crate::wallet::application::ports::{Ledger, PostError};
use crate::wallet::application::queries::WalletQueries;
use crate::wallet::domain::{Act, AmountMinor, Draft, EntryRefused, MINOR_MAX, OtherLeg, Texts};
use crate::wallet::http::api::WalletApi;
use crate::wallet::http::gate::{Gate, GatedEndpoint, ReadyWallet};
use crate::wallet::http::posting::{draft, new_entry_id, new_salt, posting, recorded, refused};
use crate::wallet::http::texts::texts;
use crate::wallet::http::wire::{EntryBody, EntryPath, id_schema};

/// 201 with the new entry, 200 with that of an earlier reversal under the same key.
///
/// # Errors
/// 400, 403, 404, 409, 422, 503; after 401, 429 and the gate.
async fn handle(
    wallet: ReadyWallet,
    request: HttpRequest,
    payload: web::Payload,
    path: web::Path<EntryPath>,
    queries: web::Data<dyn WalletQueries>,
    ledger: web::Data<dyn Ledger>,
    gate: web::Data<Gate>,
) -> Result<HttpResponse, ApiError> {
    let fields = read_json(&request, payload).await?;
    let idempotency_key = idempotency_key(&request)?;
    let reversal = fields.read(requested_reversal)?;
    let entry: EntryId = path.id.parse().map_err(|_| refused(EntryRefused::EntryNotFound))?;
    let draft = draft(Act::Reverse { entry, amount: reversal.amount, back: None }, reversal.texts);
    let mut posted = ledger.post(wallet.posting(draft.clone().into(), idempotency_key.clone())).await;
    if let Err(PostError::Refused { reason: EntryRefused::RecipientNotFound, .. }) = posted {
        // It is a received transfer, so the wallet of its sender has to be locked too. Others are not read before.
        let found = queries.entry(wallet.user_id, entry).await.map_err(|e| ApiError::from_failure(&e))?;
        let leg = || OtherLeg { id: new_entry_id(), salt: new_salt() };
        let back = found.and_then(|found| found.entry.back_transfer(leg));
        let draft = Draft { act: Act::Reverse { entry, amount: reversal.amount, back }, ..draft };
        posted = ledger.post(wallet.posting(draft.into(), idempotency_key)).await;
    }
    let recorded = recorded(&gate, &wallet, posted).await?;
    let entry = recorded.entries.first();
    Ok(recorded.created(&request, &wallet.path(&format!("/transactions/{}", entry.id)), EntryBody::from(entry)))
}

struct RequestedReversal {
    /// `None`: all that is left.
    amount: Option<AmountMinor>,
    texts: Texts,
}

fn requested_reversal(body: &mut Fields) -> Option<RequestedReversal> {
    let amount = body.optional_integer("amountMinor", AmountMinor::try_new, |amount| {
        amount
            .description(Some("US cents, as an integer literal. Everything that is not reversed yet, if it is absent."))
            .minimum(Some(1))
            .maximum(Some(MINOR_MAX))
    });
    let texts = texts(body, "A note for the user.");
    Some(RequestedReversal { amount: amount?, texts: texts? })
}

pub(super) fn endpoint() -> GatedEndpoint<WalletApi> {
    let example = json!({"amountMinor": 500, "description": "refund of one item"});
    let bad = json!({"amountMinor": 0, "colour": "red"});
    let reversal = EntryBody::reversal_example();
    let refusals = [
        EntryRefused::EntryNotFound,
        EntryRefused::NotReversible,
        EntryRefused::AlreadyReversed,
        EntryRefused::ReversalExceeds,
        EntryRefused::InsufficientFunds,
        EntryRefused::BalanceLimit,
        EntryRefused::RecipientNotFound,
        EntryRefused::RecipientCannotReceive,
    ];
    let endpoint =
        Endpoint::post("/v1/transactions/{id}/reverse", handle, "reverseTransaction", "Reverse a transaction")
            .tag("transactions")
            .about(
                "Undoes a credit, a debit or a capture, as a whole or in parts. A transfer that you received goes back to \
                 its sender; one that you sent can only be sent back by its recipient. The reversal is a transaction of its \
                 own, which cannot be reversed. Nothing is inherited: the texts are those of the request. Send an \
                 `Idempotency-Key`: without one, a request whose response was lost cannot be retried safely.",
            )
            .parameter(ParameterIn::Path, "id", "ID of the transaction to reverse.", id_schema())
            .body("ReversalRequest", requested_reversal, example, &bad)
            .returns(StatusCode::CREATED, "Reversed.", &reversal)
            .with_header(StatusCode::CREATED, &header::LOCATION)
            .returns(StatusCode::OK, "Already reversed by an earlier request with the same key.", &reversal)
            .errors(refusals.map(refused));
    posting(endpoint, "does not reverse anything again")
}
