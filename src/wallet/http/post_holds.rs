//! `POST /v1/holds`, `POST /v1/holds/{id}/capture` and `POST /v1/holds/{id}/void`.

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::infra::http::openapi::Endpoint;
use crate::infra::http::{ApiError, Fields};
use crate::wallet::application::ports::Ledger;
use crate::wallet::domain::{Act, AmountMinor, Entry, EntryRefused, Hold, HoldLifetime, HoldStatus, MINOR_MAX, Texts};
use crate::wallet::http::api::WalletApi;
use crate::wallet::http::gate::{Gate, GatedEndpoint, ReadyWallet};
use crate::wallet::http::hold_body::{HoldBody, hold_id, of_one_hold};
use crate::wallet::http::posting::{draft, post, posting, refused};
use crate::wallet::http::texts::texts;
use crate::wallet::http::wire::{EntryBody, EntryPath};

/// A capture, and the hold as it left it.
#[derive(Serialize, ToSchema)]
#[schema(as = Capture)]
struct CaptureBody {
    transaction: EntryBody,
    hold: HoldBody,
}

/// 201 with the new hold, 200 with an earlier one under the same key.
///
/// # Errors
/// 400, 403, 409, 422, 503; after 401, 429 and the gate.
async fn place(
    wallet: ReadyWallet,
    request: HttpRequest,
    payload: web::Payload,
    ledger: web::Data<dyn Ledger>,
    gate: web::Data<Gate>,
) -> Result<HttpResponse, ApiError> {
    let requested = |fields: Fields| fields.read(placement).map(|(act, texts)| draft(act, texts));
    let recorded = post(&wallet, &request, payload, &**ledger, &gate, requested).await?;
    let hold = recorded.entries.first().as_placed_hold().ok_or_else(ApiError::internal)?;
    Ok(recorded.created(&request, &wallet.path(&format!("/holds/{}", hold.id)), HoldBody::from(&hold)))
}

/// 201 with the new debit and what it left of the hold, 200 with an earlier one under the same key.
///
/// # Errors
/// 400, 403, 404, 409, 422, 503; after 401, 429 and the gate.
async fn capture(
    wallet: ReadyWallet,
    request: HttpRequest,
    payload: web::Payload,
    ledger: web::Data<dyn Ledger>,
    gate: web::Data<Gate>,
    path: web::Path<EntryPath>,
) -> Result<HttpResponse, ApiError> {
    let requested = |fields: Fields| {
        let CaptureRequest { amount, is_final, texts } = fields.read(capture_request)?;
        Ok(draft(Act::Capture { hold: hold_id(&path.id)?, amount, is_final }, texts))
    };
    let recorded = post(&wallet, &request, payload, &**ledger, &gate, requested).await?;
    let entry = recorded.entries.first();
    let body = CaptureBody { transaction: EntryBody::from(entry), hold: HoldBody::from(hold_after(entry)?) };
    Ok(recorded.created(&request, &wallet.path(&format!("/transactions/{}", entry.id)), body))
}

/// 200 with the hold as it was after that.
///
/// # Errors
/// 400, 403, 404, 409, 422, 503; after 401, 429 and the gate.
async fn void(
    wallet: ReadyWallet,
    request: HttpRequest,
    payload: web::Payload,
    ledger: web::Data<dyn Ledger>,
    gate: web::Data<Gate>,
    path: web::Path<EntryPath>,
) -> Result<HttpResponse, ApiError> {
    let requested = |fields: Fields| {
        fields.read(nothing)?;
        Ok(draft(Act::Void { hold: hold_id(&path.id)? }, Texts::default()))
    };
    let recorded = post(&wallet, &request, payload, &**ledger, &gate, requested).await?;
    Ok(recorded.ok(HoldBody::from(hold_after(recorded.entries.first())?)))
}

/// What a capture or void left of its hold.
fn hold_after(entry: &Entry) -> Result<&Hold, ApiError> {
    entry.acts_on.as_deref().and_then(|acts_on| acts_on.hold.as_ref()).ok_or_else(ApiError::internal)
}

fn placement(body: &mut Fields) -> Option<(Act, Texts)> {
    let amount = body.integer("amountMinor", AmountMinor::try_new, |amount| {
        amount.description(Some("US cents, as an integer literal.")).minimum(Some(1)).maximum(Some(MINOR_MAX))
    });
    let lifetime = body.optional_integer("expiresInS", HoldLifetime::try_new, |seconds| {
        seconds
            .description(Some("Seconds after which the hold expires: a minute to 31 days."))
            .minimum(Some(HoldLifetime::MIN_S))
            .maximum(Some(HoldLifetime::MAX_S))
            .default(Some(HoldLifetime::DEFAULT.seconds().into()))
    });
    let texts = texts(body, "A note for the user.");
    Some((Act::Hold { amount: amount?, lifetime: lifetime?.unwrap_or(HoldLifetime::DEFAULT) }, texts?))
}

struct CaptureRequest {
    amount: Option<AmountMinor>,
    is_final: bool,
    texts: Texts,
}

fn capture_request(body: &mut Fields) -> Option<CaptureRequest> {
    let amount = body.optional_integer("amountMinor", AmountMinor::try_new, |amount| {
        amount
            .description(Some("US cents, as an integer literal; by default all that is still held."))
            .minimum(Some(1))
            .maximum(Some(MINOR_MAX))
    });
    let is_final = body.optional_boolean("final", |is_final| {
        is_final
            .description(Some("Whether this is the last capture, which releases what it leaves."))
            .default(Some(true.into()))
    });
    let texts = texts(body, "A note for the user.");
    Some(CaptureRequest { amount: amount?, is_final: is_final?.unwrap_or(true), texts: texts? })
}

/// An object without fields.
#[expect(clippy::unnecessary_wraps, reason = "the type of a form")]
const fn nothing(_: &mut Fields) -> Option<()> {
    Some(())
}

pub(super) fn endpoints() -> [GatedEndpoint<WalletApi>; 3] {
    let open = HoldBody::example(HoldStatus::Open, 0, 400);
    let place = Endpoint::post("/v1/holds", place, "createHold", "Hold a part of the balance")
        .about(
            "What is held cannot be debited, held again or transferred. It is released when the hold is captured, voided or \
             expires.",
        )
        .body(
            "HoldRequest",
            placement,
            json!({"amountMinor": 400, "expiresInS": 604_800, "description": "hotel room"}),
            &json!({"amountMinor": 0, "expiresInS": 59}),
        )
        .returns(StatusCode::CREATED, "Held.", &open)
        .with_header(StatusCode::CREATED, &header::LOCATION)
        .returns(StatusCode::OK, "Already held by an earlier request with the same key, as it was then.", &open)
        .errors([refused(EntryRefused::InsufficientFunds)]);
    let captured = CaptureBody {
        transaction: EntryBody::captured_example(),
        hold: HoldBody::example(HoldStatus::Captured, 250, 0),
    };
    let capture = Endpoint::post("/v1/holds/{id}/capture", capture, "captureHold", "Capture a hold")
        .about(
            "Debits the wallet by all of the hold or by a part of it. What is left is released, unless `final` is false: then \
             it stays held for the next of at most 50 captures.",
        )
        .body(
            "CaptureRequest",
            capture_request,
            json!({"amountMinor": 250, "description": "one night"}),
            &json!({"amountMinor": 0, "final": "no"}),
        )
        .returns(StatusCode::CREATED, "Captured.", &captured)
        .with_header(StatusCode::CREATED, &header::LOCATION)
        .returns(StatusCode::OK, "Already captured by an earlier request with the same key.", &captured)
        .errors([EntryRefused::HoldAmountExceeded, EntryRefused::CaptureLimit].map(refused));
    let void = Endpoint::post("/v1/holds/{id}/void", void, "voidHold", "Void a hold")
        .about("Releases all that is still held. The body is an empty object.")
        .body("VoidRequest", nothing, json!({}), &json!({"amountMinor": 250}))
        .returns(
            StatusCode::OK,
            "Voided, now or by an earlier request with the same key.",
            &HoldBody::example(HoldStatus::Voided, 0, 0),
        );
    let on_hold = |endpoint: Endpoint<WalletApi>| {
        of_one_hold(endpoint).errors([EntryRefused::HoldClosed, EntryRefused::HoldExpired].map(refused))
    };
    let posting = |endpoint: Endpoint<WalletApi>, effect| posting(endpoint.tag("holds"), effect);
    [
        posting(place, "holds nothing again"),
        posting(on_hold(capture), "does not capture again"),
        posting(on_hold(void), "releases nothing again"),
    ]
}
