//! `GET /v1/transactions`.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use crate::infra::http::openapi::Endpoint;
use crate::infra::http::{ApiError, Fields};
use crate::wallet::application::history::{HistoryQuery, ListKind, PagedList};
use crate::wallet::application::queries::WalletQueries;
use crate::wallet::domain::{MetadataPair, Reference};
use crate::wallet::http::api::WalletApi;
use crate::wallet::http::gate::{Gate, GatedEndpoint, ReadyWallet, gated};
use crate::wallet::http::paging::{PageLimit, cursor, example_cursor, example_list};
use crate::wallet::http::texts::NO_CONTROL;
use crate::wallet::http::time;
use crate::wallet::http::wire::{EntryBody, direction_of, direction_schema};

/// What the name of a filter by metadata begins with.
const METADATA: &str = "metadata.";
const METADATA_MAX: usize = 3;

#[derive(Serialize, ToSchema)]
#[schema(as = TransactionPage)]
#[serde(rename_all = "camelCase")]
struct Body {
    /// Newest first.
    items: Vec<EntryBody>,
    /// Pass it as `cursor` to get the next page; null on the last page.
    #[schema(required = true)]
    next_cursor: Option<String>,
}

/// # Errors
/// 400, 503; after 401 and the gate.
async fn handle(
    wallet: ReadyWallet,
    request: HttpRequest,
    queries: web::Data<dyn WalletQueries>,
    gate: web::Data<Gate>,
) -> Result<HttpResponse, ApiError> {
    let list = PagedList { kind: ListKind::Transactions, user: wallet.user_id };
    let query = Fields::query(request.query_string()).read(|query| history(query, list))?;
    let page = queries.history(wallet.user_id, query).await.map_err(|e| ApiError::from_failure(&e))?;
    if page.entries.is_empty() {
        gate.confirm(&wallet).await?;
    }
    Ok(HttpResponse::Ok().json(Body {
        items: page.entries.iter().map(EntryBody::from).collect(),
        next_cursor: page.next.map(|cursor| list.encode(cursor)),
    }))
}

fn history(query: &mut Fields, list: PagedList) -> Option<HistoryQuery> {
    let limit = PageLimit::OF_ITEMS.read(query, "transactions");
    let cursor = cursor(query, list);
    let direction = query.optional_text("type", direction_of, |kind| {
        direction_schema(kind).description(Some("Return only transactions of this type."))
    });
    let from = query.optional_text("from", time::parse, |from| {
        time::schema(from).description(Some("Return only transactions at or after this time."))
    });
    let to = query.optional_text("to", time::parse, |to| {
        time::schema(to).description(Some("Return only transactions before this time."))
    });
    let reference = query.optional_text("reference", Reference::parse, |reference| {
        let about = "Return only transactions with this reference.";
        reference.description(Some(about)).min_length(Some(1)).max_length(Some(64)).pattern(Some(NO_CONTROL))
    });
    let metadata = metadata(query);
    if from.flatten().zip(to.flatten()).is_some_and(|(from, to)| from > to) {
        query.refuse("to", "must not be before from");
    }
    Some(HistoryQuery {
        before_seq: cursor?.map(|cursor| cursor.before_seq),
        direction: direction?,
        from: from?,
        to: to?,
        reference: reference?,
        metadata: metadata?,
        limit: limit?,
    })
}

/// The parameters `metadata.<key>`, which a document cannot list.
fn metadata(query: &mut Fields) -> Option<Vec<MetadataPair>> {
    let wanted = query.with_prefix(METADATA)?;
    let (count, mut pairs) = (wanted.len(), Vec::new());
    for (key, value) in wanted {
        match MetadataPair::new(&key, &value) {
            Ok(pair) => pairs.push(pair),
            Err(refused) => query.refuse_named(&format!("{METADATA}{key}"), refused),
        }
    }
    if count > METADATA_MAX {
        query.refuse("metadata", "must be at most 3 filters");
    }
    (pairs.len() == count && count <= METADATA_MAX).then_some(pairs)
}

pub(super) fn endpoint() -> GatedEndpoint<WalletApi> {
    let page = Body { items: vec![EntryBody::example()], next_cursor: Some(example_cursor(ListKind::Transactions)) };
    let endpoint = Endpoint::get("/v1/transactions", handle, "listTransactions", "List transactions, newest first")
        .tag("transactions")
        .about(
            "New transactions never shift or repeat items. Keep the filters unchanged while you follow a cursor.\n\nUp to three \
             parameters `metadata.<key>=<value>`, such as `metadata.orderId=17`, return only transactions with these pairs. \
             With a filter by reference or metadata a page may be short or empty although there are more: follow `nextCursor` \
             until it is null.",
        )
        .bearer()
        .query(|query| history(query, example_list(ListKind::Transactions)), "limit=0")
        .returns(StatusCode::OK, "A page of transactions.", &page);
    gated(endpoint).also_for_services()
}
