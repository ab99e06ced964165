//! `GET /v1/holds` and `GET /v1/holds/{id}`.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use crate::infra::http::openapi::Endpoint;
use crate::infra::http::{ApiError, Fields};
use crate::wallet::application::history::{ListKind, PagedList};
use crate::wallet::application::holds::{HoldQueries, HoldQuery};
use crate::wallet::domain::HoldStatus;
use crate::wallet::http::api::WalletApi;
use crate::wallet::http::gate::{Gate, GatedEndpoint, ReadyWallet, gated};
use crate::wallet::http::hold_body::{HoldBody, hold_id, not_found, of_one_hold};
use crate::wallet::http::paging::{PageLimit, cursor, example_cursor, example_list};
use crate::wallet::http::wire::EntryPath;

#[derive(Serialize, ToSchema)]
#[schema(as = HoldPage)]
#[serde(rename_all = "camelCase")]
struct Page {
    /// Newest first.
    items: Vec<HoldBody>,
    /// Pass it as `cursor` to get the next page; null on the last page.
    #[schema(required = true)]
    next_cursor: Option<String>,
}

/// # Errors
/// 400, 503; after 401 and the gate.
async fn list(
    wallet: ReadyWallet,
    request: HttpRequest,
    holds: web::Data<dyn HoldQueries>,
    gate: web::Data<Gate>,
) -> Result<HttpResponse, ApiError> {
    let list = PagedList { kind: ListKind::Holds, user: wallet.user_id };
    let query = Fields::query(request.query_string()).read(|query| hold_query(query, list))?;
    let page = holds.page(wallet.user_id, query).await.map_err(|e| ApiError::from_failure(&e))?;
    if page.holds.is_empty() {
        gate.confirm(&wallet).await?;
    }
    Ok(HttpResponse::Ok().json(Page {
        items: page.holds.iter().map(HoldBody::from).collect(),
        next_cursor: page.next.map(|cursor| list.encode(cursor)),
    }))
}

fn hold_query(query: &mut Fields, list: PagedList) -> Option<HoldQuery> {
    let open_only = query.optional_text(
        "status",
        |text| match text {
            "open" => Ok(true),
            "all" => Ok(false),
            _ => Err("must be \"open\" or \"all\""),
        },
        |status| {
            status
                .description(Some("Return only open holds, or all of them."))
                .enum_values(Some(["open", "all"]))
                .default(Some("open".into()))
        },
    );
    let limit = PageLimit::OF_ITEMS.read(query, "holds");
    let cursor = cursor(query, list);
    Some(HoldQuery {
        open_only: open_only?.unwrap_or(true),
        before_seq: cursor?.map(|cursor| cursor.before_seq),
        limit: limit?,
    })
}

/// # Errors
/// 404, also for another user's hold and for an id that is not a UUID; 503; after 401 and the gate.
async fn one(
    wallet: ReadyWallet,
    path: web::Path<EntryPath>,
    holds: web::Data<dyn HoldQueries>,
    gate: web::Data<Gate>,
) -> Result<HttpResponse, ApiError> {
    let found = holds.one(wallet.user_id, hold_id(&path.id)?).await;
    let hold = gate.found(&wallet, found, not_found).await?;
    Ok(HttpResponse::Ok().json(HoldBody::from(&hold)))
}

pub(super) fn endpoints() -> [GatedEndpoint<WalletApi>; 2] {
    let open = HoldBody::example(HoldStatus::Open, 0, 400);
    let page = Page { items: vec![open.clone()], next_cursor: Some(example_cursor(ListKind::Holds)) };
    let list = Endpoint::get("/v1/holds", list, "listHolds", "List holds, newest first")
        .tag("holds")
        .about("Open holds, unless all are requested. New holds never shift or repeat items.")
        .bearer()
        .query(|query| hold_query(query, example_list(ListKind::Holds)), "status=closed")
        .returns(StatusCode::OK, "A page of holds.", &page);
    let one = Endpoint::get("/v1/holds/{id}", one, "getHold", "Get a hold")
        .tag("holds")
        .about("Users see their own holds only: the response to the id of another user's is 404.")
        .bearer()
        .returns(StatusCode::OK, "The hold.", &open);
    [gated(list).also_for_services(), gated(of_one_hold(one)).also_for_services()]
}
