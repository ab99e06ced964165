//! `POST /v1/transactions/credit`, `/debit`, and `POST /v1/transactions` for either.

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;
use utoipa::openapi::path::ParameterIn;
use utoipa::openapi::{ObjectBuilder, Type};

use crate::infra::http::openapi::Endpoint;
use crate::infra::http::{ApiError, Fields, PublicUrl, read_json};
use crate::infra::system::System;
use crate::kernel::{EntryId, IdSource as _};
use crate::wallet::application::ports::{Ledger, PostError, Posted};
use crate::wallet::domain::{AmountMinor, Description, Direction, Draft, EntryRefused, IdempotencyKey, MINOR_MAX};
use crate::wallet::http::WalletApi;
use crate::wallet::http::gate::{Gate, ReadyWallet, gated, provisioning};
use crate::wallet::http::wire::{EntryBody, direction_of, direction_schema};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// 201 with the new entry, 200 with an earlier one under the same key.
///
/// # Errors
/// 400, 409, 422, 503; after 401, 429 and the gate.
async fn handle(
    wallet: ReadyWallet,
    request: HttpRequest,
    payload: web::Payload,
    ledger: web::Data<dyn Ledger>,
    gate: web::Data<Gate>,
    direction: Option<Direction>,
) -> Result<HttpResponse, ApiError> {
    let fields = read_json(&request, payload).await?;
    let idempotency_key = idempotency_key(&request)?;
    let Posting { direction, amount, description } = fields.read(|body| posting(body, direction))?;
    // Chosen before anything is written, so that an unknown outcome can be looked up by it.
    let id = EntryId::from_uuid(System.next_id());
    let draft = Draft { id, user_id: wallet.user_id, direction, amount, description, idempotency_key };
    match ledger.post(draft).await {
        Ok(Posted::New(entry)) => Ok(HttpResponse::Created()
            .insert_header((header::LOCATION, PublicUrl::of(&request).to(&format!("/v1/transactions/{}", entry.id))))
            .json(EntryBody::from(&entry))),
        Ok(Posted::Replayed(entry)) => Ok(HttpResponse::Ok()
            .insert_header((IDEMPOTENT_REPLAYED, HeaderValue::from_static("true")))
            .json(EntryBody::from(&entry))),
        Err(PostError::NoWallet) => {
            // Although the gate has let the user pass: it has to learn that the wallet is gone.
            gate.confirm(wallet).await?;
            Err(provisioning())
        }
        Err(e) => Err(api_error(&e)),
    }
}

struct Posting {
    direction: Direction,
    amount: AmountMinor,
    description: Option<Description>,
}

/// `direction` is that of the path, if the path has one; else the body has it.
fn posting(body: &mut Fields, direction: Option<Direction>) -> Option<Posting> {
    let direction = direction.or_else(|| {
        body.text("type", direction_of, |kind| {
            direction_schema(kind).description(Some("Whether to credit or to debit."))
        })
    });
    let amount = body.integer("amountMinor", AmountMinor::try_new, |amount| {
        amount
            .description(Some("US cents, as an integer literal: `5.0`, `1e2` and `\"5\"` are refused."))
            .minimum(Some(1))
            .maximum(Some(MINOR_MAX))
    });
    let description = body.optional_text("description", Description::parse, |text| {
        text.description(Some("A note for the user.")).max_length(Some(255)).pattern(Some(r"^[^\x00]*$"))
    });
    Some(Posting { direction: direction?, amount: amount?, description: description? })
}

/// The `Idempotency-Key` header, which may be absent but not repeated.
fn idempotency_key(request: &HttpRequest) -> Result<Option<IdempotencyKey>, ApiError> {
    let refused = |message: &str| ApiError::invalid("Idempotency-Key", message);
    let mut sent = request.headers().get_all(IDEMPOTENCY_KEY);
    let (Some(key), more) = (sent.next(), sent.next()) else { return Ok(None) };
    if more.is_some() {
        return Err(refused("must not be repeated"));
    }
    let text = key.to_str().map_err(|_| refused("must be 1 to 128 visible ASCII characters"))?;
    IdempotencyKey::parse(text).map(Some).map_err(|e| refused(&e.to_string()))
}

fn refused(error: EntryRefused) -> ApiError {
    let conflict = |code, message: &'static str| ApiError::new(StatusCode::CONFLICT, code, message);
    match error {
        EntryRefused::InsufficientFunds => {
            conflict("INSUFFICIENT_FUNDS", "Insufficient funds: the debit exceeds the balance.")
        }
        EntryRefused::BalanceLimit => {
            conflict("BALANCE_LIMIT", "The credit would take the balance above 9007199254740991.")
        }
        EntryRefused::IdempotencyKeyReused => {
            let message = "This Idempotency-Key was already used for a different request. Use a new key.";
            ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "IDEMPOTENCY_KEY_REUSED", message)
        }
    }
}

fn outcome_unknown() -> ApiError {
    let message = "The transaction may or may not have been recorded. Retry with the same Idempotency-Key to find out.";
    ApiError::outcome_unknown(message)
}

fn api_error(error: &PostError) -> ApiError {
    match error {
        PostError::Refused(error) => refused(*error),
        PostError::NoWallet => provisioning(),
        PostError::Overloaded => ApiError::overloaded(),
        // The writer logs the cause, once per batch.
        PostError::NotDone => ApiError::dependency_unavailable(),
        PostError::OutcomeUnknown => outcome_unknown(),
        PostError::Bug => ApiError::internal(),
    }
}

pub(super) fn endpoints() -> [Endpoint<WalletApi>; 3] {
    [
        endpoint("/v1/transactions/credit", Some(Direction::Credit), "creditWallet", "Credit the wallet"),
        endpoint("/v1/transactions/debit", Some(Direction::Debit), "debitWallet", "Debit the wallet"),
        endpoint("/v1/transactions", None, "createTransaction", "Credit or debit the wallet"),
    ]
}

fn endpoint(path: &'static str, direction: Option<Direction>, id: &str, summary: &str) -> Endpoint<WalletApi> {
    let key = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[!-~]{1,128}$")).build();
    let about_key = "Identifies this request: 1 to 128 visible ASCII characters. A retry with the same key and the same \
                     body returns the original response with `Idempotent-Replayed: true` and does not move money again.";
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
        .bearer()
        .limited(|api: &WalletApi| &api.post_limit)
        .parameter(ParameterIn::Header, "Idempotency-Key", about_key, key)
        .body(schema, |body| posting(body, direction), example, &bad)
        .returns(StatusCode::CREATED, "Recorded.", &first)
        .with_header(StatusCode::CREATED, &header::LOCATION)
        .returns(StatusCode::OK, "Already recorded by an earlier request with the same key.", &first)
        .with_header(StatusCode::OK, &IDEMPOTENT_REPLAYED)
        .errors(
            [EntryRefused::InsufficientFunds, EntryRefused::BalanceLimit, EntryRefused::IdempotencyKeyReused]
                .map(refused),
        )
        .errors([outcome_unknown()]);
    gated(endpoint)
}
