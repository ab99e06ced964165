//! `POST /v1/transactions/bulk`.

use std::collections::HashSet;
use std::num::NonZeroU32;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, ResponseError as _, web};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::infra::http::openapi::Endpoint;
use crate::infra::http::{
    ApiError, BySubject, Detail, Fields, Tally, idempotency_key, key_schema, read_json_up_to, with_key,
};
use crate::kernel::IdempotencyKey;
use crate::wallet::application::ports::{Ledger, PostError, Posted};
use crate::wallet::domain::{EntryRefused, OneOrMore};
use crate::wallet::http::api::WalletApi;
use crate::wallet::http::gate::{Gate, GatedEndpoint, ReadyWallet, gated};
use crate::wallet::http::post_entry::{RequestedPost, requested_post};
use crate::wallet::http::posting::{api_error, outcome_unknown, recorded, refused};
use crate::wallet::http::wire::EntryBody;

/// What the used-keys statement of the journal reads back at once.
const ITEMS_MAX: usize = 100;
/// Room for 100 items, each with the longest description.
const BODY_BYTES_MAX: usize = 128 * 1024;
/// The field of the list.
const ITEMS: &str = "items";

/// Atomic: 201 with the new entries, 200 with those of an earlier request under the same key. Not atomic: 200 with a result per
/// item.
///
/// # Errors
/// 400, 403, 409, 422, 503; after 401, the gate, the body and 429.
async fn handle(
    wallet: ReadyWallet,
    tally: web::ReqData<Tally<BySubject>>,
    request: HttpRequest,
    payload: web::Payload,
    ledger: web::Data<dyn Ledger>,
    gate: web::Data<Gate>,
) -> Result<HttpResponse, ApiError> {
    let bulk = match read(&request, payload, tally.max()).await {
        Ok(bulk) => bulk,
        Err(e) => {
            // Or malformed requests would be free.
            tally.count(NonZeroU32::MIN).await?;
            return Err(e);
        }
    };
    tally.count(bulk.count()).await?;
    match bulk {
        Bulk::Atomic { posts, key } => post_group(&wallet, &**ledger, &gate, posts, key).await,
        Bulk::Independent { items } => post_each(&wallet, &**ledger, &gate, items).await,
    }
}

async fn read(request: &HttpRequest, payload: web::Payload, units_max: Option<u32>) -> Result<Bulk, ApiError> {
    let fields = read_json_up_to(BODY_BYTES_MAX, request, payload).await?;
    let key = idempotency_key(request)?;
    fields.read(|body| requested_bulk(body, key, units_max))
}

enum Bulk {
    /// All or nothing.
    Atomic { posts: OneOrMore<RequestedPost>, key: Option<IdempotencyKey> },
    /// Each with a key of its own, or without one.
    Independent { items: OneOrMore<BulkItem> },
}

struct BulkItem {
    post: RequestedPost,
    key: Option<IdempotencyKey>,
}

impl Bulk {
    /// What it counts against the limit.
    fn count(&self) -> NonZeroU32 {
        let count = match self {
            Self::Atomic { posts, .. } => posts.count(),
            Self::Independent { items } => items.count(),
        };
        u32::try_from(count).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MAX)
    }
}

/// `header_key` is that of the request. More than `units_max` items would never be within the limit.
fn requested_bulk(body: &mut Fields, header_key: Option<IdempotencyKey>, units_max: Option<u32>) -> Option<Bulk> {
    let atomic = body.optional_boolean("atomic", |atomic| {
        atomic.description(Some("Whether all items are recorded or none, which is the default."))
    });
    let is_atomic = atomic.is_none_or(|atomic| atomic.unwrap_or(true));
    let count_max = units_max.and_then(|max| usize::try_from(max).ok()).map_or(ITEMS_MAX, |max| max.min(ITEMS_MAX));
    let mut keys = HashSet::new();
    let about = "Decided in this order; each item sees the balance that the ones before it leave.";
    let items = body.objects(ITEMS, ("BulkItem", count_max), about, |item| {
        let post = requested_post(item, None);
        let key = item.optional_text("idempotencyKey", IdempotencyKey::parse, |key| {
            key_schema(key).description(Some(
                "Identifies this item, like the `Idempotency-Key` of a single request. Only with `\"atomic\": false`.",
            ))
        });
        if let Some(Some(key)) = &key {
            if is_atomic {
                item.refuse("idempotencyKey", "must be absent: the Idempotency-Key header identifies all items");
            } else if !keys.insert(key.clone()) {
                item.refuse("idempotencyKey", "must not be repeated");
            }
        }
        Some(BulkItem { post: post?, key: key? })
    });
    if !is_atomic && header_key.is_some() {
        body.refuse("Idempotency-Key", "must be absent if atomic is false: give each item an idempotencyKey");
    }
    let (Some(_), Some(items)) = (atomic, items) else { return None };
    Some(if is_atomic {
        let posts = OneOrMore::collect(items.into_iter().map(|item| item.post))?;
        Bulk::Atomic { posts, key: header_key }
    } else {
        Bulk::Independent { items: OneOrMore::collect(items)? }
    })
}

async fn post_group(
    wallet: &ReadyWallet,
    ledger: &dyn Ledger,
    gate: &Gate,
    posts: OneOrMore<RequestedPost>,
    key: Option<IdempotencyKey>,
) -> Result<HttpResponse, ApiError> {
    let posting = wallet.posting(posts.map(RequestedPost::to_draft), key);
    let posted = match ledger.post(posting).await {
        // These are about the request, whatever its items are.
        posted @ Err(PostError::Refused {
            reason: EntryRefused::IdempotencyKeyReused | EntryRefused::NotAllowed,
            ..
        }) => posted,
        Err(PostError::Refused { reason, draft }) => return Err(bulk_refused(reason, draft)),
        posted => posted,
    };
    let recorded = recorded(gate, wallet, posted).await?;
    let body = Recordings { items: recorded.entries.iter().map(EntryBody::from).collect() };
    Ok(if recorded.replayed { recorded.ok(body) } else { HttpResponse::Created().json(body) })
}

/// Nothing was recorded because of this item.
fn bulk_refused(reason: EntryRefused, item: usize) -> ApiError {
    let message = "An item was refused, so nothing was recorded. See details for the item.";
    let detail = Detail { field: format!("{ITEMS}[{item}]"), message: refused(reason).to_string() };
    ApiError::new(StatusCode::CONFLICT, "BULK_REFUSED", message).with_details(vec![detail])
}

async fn post_each(
    wallet: &ReadyWallet,
    ledger: &dyn Ledger,
    gate: &Gate,
    items: OneOrMore<BulkItem>,
) -> Result<HttpResponse, ApiError> {
    let posting = |item: &BulkItem| wallet.posting(item.post.to_draft().into(), item.key.clone());
    let results = ledger.post_all(items.map(posting)).await;
    let is_decided = |result: &Result<Posted, PostError>| matches!(result, Ok(_) | Err(PostError::Refused { .. }));
    if !results.iter().any(is_decided) {
        // The same as for a single request, so that a retry of the whole is as easy.
        let unknown = results.iter().find(|result| matches!(result, Err(PostError::OutcomeUnknown)));
        let failed = unknown.unwrap_or_else(|| results.first()).clone();
        recorded(gate, wallet, failed).await?;
    }
    let items = results.iter().map(BulkResult::of).collect();
    Ok(HttpResponse::Ok().json(Results { items }))
}

/// The items of an atomic request, all of them recorded.
#[derive(Serialize, ToSchema)]
#[schema(as = BulkTransactions)]
struct Recordings {
    /// In the order of the request.
    items: Vec<EntryBody>,
}

/// The items of a request that is not atomic.
#[derive(Serialize, ToSchema)]
#[schema(as = BulkResults)]
struct Results {
    /// In the order of the request.
    items: Vec<BulkResult>,
}

/// What became of one item: a transaction, or an error with its code and message.
#[derive(Serialize, ToSchema)]
#[schema(as = BulkResult)]
struct BulkResult {
    /// The status that the response to a single request would have: 201 and 200 come with the transaction, others with the code.
    #[schema(minimum = 200, maximum = 599)]
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction: Option<EntryBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// A 200.
#[derive(Serialize, ToSchema)]
#[schema(as = BulkResponse)]
#[serde(untagged)]
enum Succeeded {
    Recordings(Recordings),
    Results(Results),
}

impl BulkResult {
    fn of(result: &Result<Posted, PostError>) -> Self {
        let recorded = |status: StatusCode, entries: &OneOrMore<_>| Self {
            status: status.as_u16(),
            transaction: Some(EntryBody::from(entries.first())),
            code: None,
            message: None,
        };
        let failed = |error: &ApiError| Self {
            status: error.status_code().as_u16(),
            transaction: None,
            code: Some(error.to_string()),
            message: Some(error.message().to_owned()),
        };
        match result {
            Ok(Posted::New(entries)) => recorded(StatusCode::CREATED, entries),
            Ok(Posted::Replayed(entries)) => recorded(StatusCode::OK, entries),
            // No request asks for it.
            Ok(Posted::Settled) => failed(&ApiError::internal()),
            Err(error) => failed(&api_error(error)),
        }
    }

    fn examples() -> Vec<Self> {
        let insufficient = PostError::Refused { reason: EntryRefused::InsufficientFunds, draft: 0 };
        let created = Self {
            status: StatusCode::CREATED.as_u16(),
            transaction: Some(EntryBody::example()),
            code: None,
            message: None,
        };
        vec![created, Self::of(&Err(insufficient))]
    }
}

pub(super) fn endpoint() -> GatedEndpoint<WalletApi> {
    let example = json!({"items": [
        {"type": "credit", "amountMinor": 1500, "description": "first deposit"},
        {"type": "debit", "amountMinor": 500, "description": "fee"},
    ]});
    let bad = json!({"items": [{"type": "credit", "amountMinor": 4.5}, {"type": "x", "amountMinor": 5}]});
    let recordings = Succeeded::Recordings(Recordings { items: vec![EntryBody::example()] });
    let form = |body: &mut Fields| requested_bulk(body, None, None);
    let endpoint = Endpoint::post("/v1/transactions/bulk", handle, "createTransactions", "Post several transactions")
        .tag("transactions")
        .about(
            "Credits and debits of your own wallet, in one request. With `\"atomic\": true`, which is the default, all items \
             are recorded or none: the transactions are consecutive, and an item that is refused refuses the whole with 409 \
             `BULK_REFUSED`. Send an `Idempotency-Key` with it. With `\"atomic\": false` each item is decided on its own, in \
             order, and may have an `idempotencyKey`; the response is 200 with a status per item, unless none was decided. A \
             malformed item is 400 in either case, and nothing is recorded. A request counts as many times against the limit as \
             it has items, and once if it is malformed.",
        )
        .bearer()
        .limited_by_handler(|api: &WalletApi| &api.bulk_limit)
        .body("BulkRequest", form, example, &bad)
        .body_up_to(BODY_BYTES_MAX)
        .returns(StatusCode::CREATED, "All items are recorded.", &recordings)
        .returns(
            StatusCode::OK,
            "All items were recorded by an earlier request with the same key; or, if the request is not atomic, the result of \
             each item.",
            &Succeeded::Results(Results { items: BulkResult::examples() }),
        )
        .errors([bulk_refused(EntryRefused::InsufficientFunds, 3), outcome_unknown()]);
    gated(with_key(endpoint, "does not move money again"))
}
