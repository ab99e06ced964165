//! `POST /v1/transfers`.

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;

use crate::infra::http::openapi::{Endpoint, format};
use crate::infra::http::{ApiError, Fields, idempotency_key, read_json};
use crate::kernel::UserId;
use crate::wallet::application::ports::Ledger;
use crate::wallet::domain::{Act, AmountMinor, Draft, EntryRefused, MINOR_MAX, OtherLeg, Texts};
use crate::wallet::http::api::WalletApi;
use crate::wallet::http::gate::{Gate, GatedEndpoint, ReadyWallet};
use crate::wallet::http::posting::{draft, new_entry_id, new_salt, posting, refused, submit};
use crate::wallet::http::texts::texts;
use crate::wallet::http::wire::EntryBody;

/// 201 with the sender's new entry, 200 with that of an earlier transfer under the same key.
///
/// # Errors
/// 400, 403, 404, 409, 422, 503; after 401, 429 and the gate.
async fn handle(
    wallet: ReadyWallet,
    request: HttpRequest,
    payload: web::Payload,
    ledger: web::Data<dyn Ledger>,
    gate: web::Data<Gate>,
) -> Result<HttpResponse, ApiError> {
    let fields = read_json(&request, payload).await?;
    let idempotency_key = idempotency_key(&request)?;
    let transfer = fields.read(|body| requested_transfer(body, Some(wallet.user_id)))?;
    let recipient_exists = gate.has_wallet(transfer.recipient).await?;
    let posting = wallet.posting(transfer.into_draft(recipient_exists).into(), idempotency_key);
    let recorded = submit(&**ledger, &gate, &wallet, posting).await?;
    let debit = recorded.entries.first();
    Ok(recorded.created(&request, &wallet.path(&format!("/transfers/{}", debit.id)), EntryBody::from(debit)))
}

struct RequestedTransfer {
    recipient: UserId,
    amount: AmountMinor,
    texts: Texts,
}

impl RequestedTransfer {
    fn into_draft(self, recipient_exists: bool) -> Draft {
        let Self { recipient, amount, texts } = self;
        let leg = OtherLeg { id: new_entry_id(), salt: new_salt() };
        draft(Act::Transfer { amount, recipient, recipient_exists, leg }, texts)
    }
}

/// Without a sender, only the form of the body is of interest.
fn requested_transfer(body: &mut Fields, sender: Option<UserId>) -> Option<RequestedTransfer> {
    let recipient = |text: &str| match text.parse() {
        Err(_) => Err("must be the ID of a user"),
        Ok(user) if Some(user) == sender => Err("must be another user"),
        Ok(user) => Ok(user),
    };
    let recipient = body.text("toUserId", recipient, |id| {
        id.description(Some("The recipient, who must have a wallet.")).format(Some(format("uuid")))
    });
    let amount = body.integer("amountMinor", AmountMinor::try_new, |amount| {
        amount
            .description(Some("US cents, as an integer literal: `5.0`, `1e2` and `\"5\"` are rejected."))
            .minimum(Some(1))
            .maximum(Some(MINOR_MAX))
    });
    let texts = texts(body, "A note, which the recipient sees too.");
    Some(RequestedTransfer { recipient: recipient?, amount: amount?, texts: texts? })
}

pub(super) fn endpoint() -> GatedEndpoint<WalletApi> {
    let example = json!({
        "toUserId": EntryBody::EXAMPLE_RECIPIENT,
        "amountMinor": 500,
        "description": "lunch",
    });
    let bad = json!({"toUserId": "ada", "amountMinor": 4.5});
    let debit = EntryBody::transfer_example();
    let endpoint = Endpoint::post("/v1/transfers", handle, "createTransfer", "Transfer money to another user")
        .tag("transfers")
        .about(
            "Debits your wallet and credits the recipient's: both or neither. The response is your own transaction, whose ID \
             is the ID of the transfer. Send an `Idempotency-Key`: without one, a request whose response was lost cannot be \
             retried safely.",
        )
        .body("TransferRequest", |body| requested_transfer(body, None), example, &bad)
        .returns(StatusCode::CREATED, "Transferred.", &debit)
        .with_header(StatusCode::CREATED, &header::LOCATION)
        .returns(StatusCode::OK, "Already transferred by an earlier request with the same key.", &debit)
        .errors(
            [
                EntryRefused::RecipientNotFound,
                EntryRefused::InsufficientFunds,
                EntryRefused::RecipientCannotReceive,
            ]
            .map(refused),
        );
    posting(endpoint, "does not move money again")
}
