//! What every endpoint shares that posts to the ledger.

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;

use crate::infra::http::openapi::Endpoint;
use crate::infra::http::{ApiError, Fields, PublicUrl, REPLAYED, idempotency_key, key_reused, read_json, with_key};
use crate::infra::system::{System, random_bytes};
use crate::kernel::{EntryId, IdSource as _};
use crate::wallet::application::ports::{Ledger, PostError, Posted};
use crate::wallet::domain::{Act, Draft, Entry, EntryRefused, OneOrMore, Posting, Salt, Texts};
use crate::wallet::http::api::WalletApi;
use crate::wallet::http::gate::{Gate, GatedEndpoint, ReadyWallet, gated, not_allowed, provisioning};

/// Its id is chosen before anything is written, so that an unknown outcome can be looked up by it.
pub(super) fn draft(act: Act, texts: Texts) -> Draft {
    Draft { id: new_entry_id(), act, texts: texts.salted(new_salt) }
}

pub(super) fn new_entry_id() -> EntryId {
    EntryId::from_uuid(System.next_id())
}

pub(super) fn new_salt() -> Salt {
    Salt::new(random_bytes())
}

/// What a request has recorded, now or earlier.
pub(super) struct Recorded {
    /// One per draft.
    pub(super) entries: OneOrMore<Entry>,
    pub(super) replayed: bool,
}

impl Recorded {
    /// 201 with `path` as the location, or 200 for a replay.
    pub(super) fn created(&self, request: &HttpRequest, path: &str, body: impl Serialize) -> HttpResponse {
        if self.replayed {
            return self.ok(body);
        }
        HttpResponse::Created().insert_header((header::LOCATION, PublicUrl::of(request).to(path))).json(body)
    }

    /// 200, for what creates nothing that has an address.
    pub(super) fn ok(&self, body: impl Serialize) -> HttpResponse {
        let mut response = HttpResponse::Ok();
        if self.replayed {
            response.insert_header(REPLAYED);
        }
        response.json(body)
    }
}

/// Reads a request, and submits what it asks for.
///
/// # Errors
/// 400, and those of [`recorded`].
pub(super) async fn post(
    wallet: &ReadyWallet,
    request: &HttpRequest,
    payload: web::Payload,
    ledger: &dyn Ledger,
    gate: &Gate,
    requested: impl FnOnce(Fields) -> Result<Draft, ApiError>,
) -> Result<Recorded, ApiError> {
    let fields = read_json(request, payload).await?;
    let key = idempotency_key(request)?;
    let draft = requested(fields)?;
    submit(ledger, gate, wallet, wallet.posting(draft.into(), key)).await
}

/// # Errors
/// Those of [`recorded`].
pub(super) async fn submit(
    ledger: &dyn Ledger,
    gate: &Gate,
    wallet: &ReadyWallet,
    posting: Posting,
) -> Result<Recorded, ApiError> {
    recorded(gate, wallet, ledger.post(posting).await).await
}

/// # Errors
/// [`api_error`], and 503 or, for a service, 404 if the wallet is gone.
pub(super) async fn recorded(
    gate: &Gate,
    wallet: &ReadyWallet,
    posted: Result<Posted, PostError>,
) -> Result<Recorded, ApiError> {
    match posted {
        Ok(Posted::New(entries)) => Ok(Recorded { entries, replayed: false }),
        Ok(Posted::Replayed(entries)) => Ok(Recorded { entries, replayed: true }),
        // No request asks for it.
        Ok(Posted::Settled) => Err(ApiError::internal()),
        Err(PostError::NoWallet) => {
            // Although the gate has let the user pass: it has to learn that the wallet is gone.
            gate.confirm(wallet).await?;
            Err(wallet.missing())
        }
        Err(e) => Err(api_error(&e)),
    }
}

pub(super) fn api_error(error: &PostError) -> ApiError {
    match error {
        PostError::Refused { reason, .. } => refused(*reason),
        PostError::NoWallet => provisioning(),
        PostError::Overloaded => ApiError::overloaded(),
        // The writer logs the cause, once per batch.
        PostError::NotDone => ApiError::dependency_unavailable(),
        PostError::OutcomeUnknown => outcome_unknown(),
        PostError::Bug => ApiError::internal(),
    }
}

/// What every endpoint has that posts one draft. `effect` says what a retry with the same key does not do.
pub(super) fn posting(endpoint: Endpoint<WalletApi>, effect: &str) -> GatedEndpoint<WalletApi> {
    let endpoint = endpoint.bearer().limited(|api: &WalletApi| &api.post_limit);
    let endpoint = endpoint.errors([outcome_unknown(), refused(EntryRefused::WalletClosed)]);
    gated(with_key(endpoint, effect)).also_for_services()
}

pub(super) fn outcome_unknown() -> ApiError {
    let message = "The transaction may or may not have been recorded. Retry with the same Idempotency-Key to find out.";
    ApiError::outcome_unknown(message)
}

/// The response to a request that a rule of the ledger refuses.
pub(super) fn refused(reason: EntryRefused) -> ApiError {
    let (status, code, message) = match reason {
        EntryRefused::IdempotencyKeyReused => return key_reused(),
        EntryRefused::NotAllowed => return not_allowed(),
        EntryRefused::InsufficientFunds => (
            StatusCode::CONFLICT,
            "INSUFFICIENT_FUNDS",
            "Insufficient funds: the amount exceeds the available balance.",
        ),
        EntryRefused::BalanceLimit => {
            (StatusCode::CONFLICT, "BALANCE_LIMIT", "The credit would take the balance above 9007199254740991.")
        }
        EntryRefused::WalletClosed => (StatusCode::CONFLICT, "WALLET_CLOSED", "The wallet is closed."),
        EntryRefused::RecipientNotFound => {
            (StatusCode::NOT_FOUND, "RECIPIENT_NOT_FOUND", "The recipient has no open wallet.")
        }
        EntryRefused::RecipientCannotReceive => (
            StatusCode::CONFLICT,
            "RECIPIENT_CANNOT_RECEIVE",
            "The transfer would take the recipient's balance above 9007199254740991.",
        ),
        EntryRefused::EntryNotFound => {
            (StatusCode::NOT_FOUND, "TRANSACTION_NOT_FOUND", "No such transaction in this wallet.")
        }
        EntryRefused::HoldNotFound => (StatusCode::NOT_FOUND, "HOLD_NOT_FOUND", "No such hold in this wallet."),
        EntryRefused::HoldClosed => {
            (StatusCode::CONFLICT, "HOLD_CLOSED", "The hold has already been captured or voided.")
        }
        EntryRefused::HoldExpired => (StatusCode::CONFLICT, "HOLD_EXPIRED", "The hold has expired."),
        EntryRefused::HoldAmountExceeded => {
            (StatusCode::CONFLICT, "HOLD_AMOUNT_EXCEEDED", "The capture exceeds what is left of the hold.")
        }
        EntryRefused::CaptureLimit => {
            (StatusCode::CONFLICT, "CAPTURE_LIMIT", "The 50th capture of a hold must be final.")
        }
        EntryRefused::NotReversible => (
            StatusCode::CONFLICT,
            "NOT_REVERSIBLE",
            "Only credits, debits, captures and received transfers can be reversed; a reversal cannot.",
        ),
        EntryRefused::AlreadyReversed => {
            (StatusCode::CONFLICT, "ALREADY_REVERSED", "The transaction is already reversed as a whole.")
        }
        EntryRefused::ReversalExceeds => {
            (StatusCode::CONFLICT, "REVERSAL_EXCEEDS", "The reversal exceeds what is left of the transaction.")
        }
    };
    ApiError::new(status, code, message)
}
