//! `POST /v1/transactions/credit`, `/debit`, and `POST /v1/transactions` for either.

use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;

use crate::infra::http::openapi::Endpoint;
use crate::infra::http::{ApiError, Fields};
use crate::wallet::application::ports::Ledger;
use crate::wallet::domain::{Act, AmountMinor, Direction, Draft, EntryRefused, MINOR_MAX, Texts};
use crate::wallet::http::api::WalletApi;
use crate::wallet::http::gate::{Gate, GatedEndpoint, ReadyWallet};
use crate::wallet::http::posting::{draft, post, posting, refused};
use crate::wallet::http::texts::texts;
use crate::wallet::http::wire::{EntryBody, direction_of, direction_schema};

/// 201 with the new entry, 200 with an earlier one under the same key.
///
/// # Errors
/// 400, 403, 409, 422, 503; after 401, 429 and the gate.
async fn handle(
    wallet: ReadyWallet,
    request: HttpRequest,
    payload: web::Payload,
    ledger: web::Data<dyn Ledger>,
    gate: web::Data<Gate>,
    direction: Option<Direction>,
) -> Result<HttpResponse, ApiError> {
    let requested = |fields: Fields| Ok(fields.read(|body| requested_post(body, direction))?.to_draft());
    let recorded = post(&wallet, &request, payload, &**ledger, &gate, requested).await?;
    let entry = recorded.entries.first();
    Ok(recorded.created(&request, &wallet.path(&format!("/transactions/{}", entry.id)), EntryBody::from(entry)))
}

pub(super) struct RequestedPost {
    direction: Direction,
    amount: AmountMinor,
    texts: Texts,
}

impl RequestedPost {
    pub(super) fn to_draft(&self) -> Draft {
        let Self { direction, amount, texts } = self;
        draft(Act::Post { direction: *direction, amount: *amount }, texts.clone())
    }
}

/// `direction` is that of the path, if the path has one; else the body has it.
pub(super) fn requested_post(body: &mut Fields, direction: Option<Direction>) -> Option<RequestedPost> {
    let direction = direction.or_else(|| {
        body.text("type", direction_of, |kind| {
            direction_schema(kind).description(Some("Whether to credit or to debit."))
        })
    });
    let amount = body.integer("amountMinor", AmountMinor::try_new, |amount| {
        amount
            .description(Some("US cents, as an integer literal: `5.0`, `1e2` and `\"5\"` are rejected."))
            .minimum(Some(1))
            .maximum(Some(MINOR_MAX))
    });
    let texts = texts(body, "A note for the user.");
    Some(RequestedPost { direction: direction?, amount: amount?, texts: texts? })
}

pub(super) fn endpoints() -> [GatedEndpoint<WalletApi>; 3] {
    [
        endpoint("/v1/transactions/credit", Some(Direction::Credit), "creditWallet", "Credit the wallet"),
        endpoint("/v1/transactions/debit", Some(Direction::Debit), "debitWallet", "Debit the wallet"),
        endpoint("/v1/transactions", None, "createTransaction", "Credit or debit the wallet"),
    ]
}

fn endpoint(path: &'static str, direction: Option<Direction>, id: &str, summary: &str) -> GatedEndpoint<WalletApi> {
    let (schema, example) = match direction {
        Some(_) => ("TransactionRequest", json!({"amountMinor": 1500, "description": "first deposit"})),
        None => {
            ("TypedTransactionRequest", json!({"type": "credit", "amountMinor": 1500, "description": "first deposit"}))
        }
    };
    let bad = json!({"amountMinor": 4.5, "colour": "red"});
    let first = EntryBody::example();
    let handler =
        move |wallet, request, payload, ledger, gate| handle(wallet, request, payload, ledger, gate, direction);
    let endpoint = Endpoint::post(path, handler, id, summary)
        .tag("transactions")
        .about("Send an `Idempotency-Key`: without one, a request whose response was lost cannot be retried safely.")
        .body(schema, |body| requested_post(body, direction), example, &bad)
        .returns(StatusCode::CREATED, "Recorded.", &first)
        .with_header(StatusCode::CREATED, &header::LOCATION)
        .returns(StatusCode::OK, "Already recorded by an earlier request with the same key.", &first)
        .errors([EntryRefused::InsufficientFunds, EntryRefused::BalanceLimit].map(refused));
    posting(endpoint, "does not move money again")
}
