//! `POST /v1/transactions/credit`, `/debit`, and `POST /v1/transactions` for either.

use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;

use crate::infra::http::openapi::Endpoint;
use crate::infra::http::{ApiError, Fields, PublicUrl, REPLAYED, idempotency_key, key_reused, read_json, with_key};
use crate::infra::system::{System, random_bytes};
use crate::kernel::{EntryId, IdSource as _, IdempotencyKey, UserId};
use crate::wallet::application::ports::{Ledger, PostError, Posted};
use crate::wallet::domain::{
    AmountMinor, Description, Direction, Draft, EntryRefused, KeyedRequest, MINOR_MAX, Posting, RequestDigest, Salt,
    Texts,
};
use crate::wallet::http::api::WalletApi;
use crate::wallet::http::gate::{Effect, Gate, GatedEndpoint, ReadyWallet, gated, provisioning};
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
    let fields = read_json(&request, payload).await?;
    let idempotency_key = idempotency_key(&request)?;
    let post = fields.read(|body| requested_post(body, direction))?;
    wallet.permit(post.direction.into())?;
    match ledger.post(post.into_posting(wallet.user_id, idempotency_key)).await {
        Ok(Posted::New(entries)) => {
            let entry = entries.first();
            Ok(HttpResponse::Created()
                .insert_header((
                    header::LOCATION,
                    PublicUrl::of(&request).to(&wallet.path(&format!("/transactions/{}", entry.id))),
                ))
                .json(EntryBody::from(entry)))
        }
        Ok(Posted::Replayed(entries)) => {
            Ok(HttpResponse::Ok().insert_header(REPLAYED).json(EntryBody::from(entries.first())))
        }
        Err(PostError::NoWallet) => {
            // Although the gate has let the user pass: it has to learn that the wallet is gone.
            gate.confirm(&wallet).await?;
            Err(wallet.missing())
        }
        Err(e) => Err(api_error(&e)),
    }
}

struct RequestedPost {
    direction: Direction,
    amount: AmountMinor,
    description: Option<Description>,
}

impl RequestedPost {
    fn into_posting(self, user_id: UserId, idempotency_key: Option<IdempotencyKey>) -> Posting {
        let Self { direction, amount, description } = self;
        let request = idempotency_key
            .map(|key| KeyedRequest { key, digest: RequestDigest::of_post(direction, amount, description.as_ref()) });
        let texts = description.map(|description| Texts { salt: Salt::new(random_bytes()), description });
        // Chosen before anything is written, so that an unknown outcome can be looked up by it.
        let id = EntryId::from_uuid(System.next_id());
        Posting { user_id, drafts: Draft { id, direction, amount, texts }.into(), request }
    }
}

impl From<Direction> for Effect {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Credit => Self::AddsMoney,
            Direction::Debit => Self::AddsNone,
        }
    }
}

/// `direction` is that of the path, if the path has one; else the body has it.
fn requested_post(body: &mut Fields, direction: Option<Direction>) -> Option<RequestedPost> {
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
    let description = body.optional_text("description", Description::parse, |text| {
        text.description(Some("A note for the user.")).max_length(Some(255)).pattern(Some(r"^[^\x00]*$"))
    });
    Some(RequestedPost { direction: direction?, amount: amount?, description: description? })
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
        EntryRefused::IdempotencyKeyReused => key_reused(),
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
        .bearer()
        .limited(|api: &WalletApi| &api.post_limit)
        .body(schema, |body| requested_post(body, direction), example, &bad)
        .returns(StatusCode::CREATED, "Recorded.", &first)
        .with_header(StatusCode::CREATED, &header::LOCATION)
        .returns(StatusCode::OK, "Already recorded by an earlier request with the same key.", &first)
        .errors([EntryRefused::InsufficientFunds, EntryRefused::BalanceLimit].map(refused))
        .errors([outcome_unknown()]);
    gated(with_key(endpoint, "does not move money again")).also_for_services()
}
