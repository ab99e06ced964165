//! `GET /v1/transactions`.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::path::ParameterIn;
use utoipa::openapi::{ObjectBuilder, Type};

use crate::infra::http::openapi::Endpoint;
use crate::infra::http::{ApiError, QueryFields};
use crate::wallet::application::history::{HistoryCursor, HistoryQuery};
use crate::wallet::application::queries::WalletQueries;
use crate::wallet::domain::Direction;
use crate::wallet::http::ready_wallet::{ReadyWallet, provisioning};
use crate::wallet::http::time;
use crate::wallet::http::wire::EntryBody;

/// Entries of a page where the client does not say.
const LIMIT_DEFAULT: u16 = 20;
/// Most entries of a page.
const LIMIT_MAX: u16 = 100;

#[derive(Serialize, ToSchema)]
#[schema(as = TransactionPage)]
#[serde(rename_all = "camelCase")]
struct Body {
    /// Newest first.
    items: Vec<EntryBody>,
    /// For the next page; null on the last one.
    #[schema(required = true)]
    next_cursor: Option<String>,
}

/// 200 with a page, newest first.
///
/// # Errors
/// 400, 503; 401 and the gate stand before it.
pub(super) async fn handle(
    wallet: ReadyWallet,
    request: HttpRequest,
    queries: web::Data<dyn WalletQueries>,
) -> Result<HttpResponse, ApiError> {
    let query = parse(QueryFields::of(&request)?)?;
    let page = queries.history(wallet.user_id, query).await.map_err(|e| ApiError::from_failure(&e))?;
    Ok(HttpResponse::Ok().json(Body {
        items: page.entries.iter().map(EntryBody::from).collect(),
        next_cursor: page.next.map(HistoryCursor::encode),
    }))
}

fn parse(mut fields: QueryFields) -> Result<HistoryQuery, ApiError> {
    let limit = fields.optional("limit", |text| {
        let limit = text.parse::<u16>().ok().filter(|n| (1..=LIMIT_MAX).contains(n));
        limit.ok_or("must be a whole number from 1 to 100")
    });
    let cursor = fields.optional("cursor", HistoryCursor::decode);
    let direction = fields.optional("type", |text| Direction::parse(text).ok_or("must be \"credit\" or \"debit\""));
    let from = fields.optional("from", time::parse);
    let to = fields.optional("to", time::parse);
    if from.zip(to).is_some_and(|(from, to)| from > to) {
        fields.refuse("to", "must not be before from");
    }
    fields.finish()?;
    Ok(HistoryQuery {
        before_seq: cursor.map(|cursor| cursor.before_seq),
        direction,
        from,
        to,
        limit: limit.unwrap_or(LIMIT_DEFAULT),
    })
}

pub(super) fn endpoint() -> Endpoint {
    let limit = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(1))
        .maximum(Some(LIMIT_MAX))
        .default(Some(LIMIT_DEFAULT.into()));
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let page = Body { items: vec![EntryBody::example()], next_cursor: Some(HistoryCursor { before_seq: 12 }.encode()) };
    let bad = ApiError::invalid("limit", "must be a whole number from 1 to 100");
    Endpoint::get("/v1/transactions", "listTransactions", "The history, newest first")
        .tag("transactions")
        .about("What is posted meanwhile neither shifts a page nor repeats on it. Keep the filters while you follow a cursor.")
        .bearer()
        .parameter(ParameterIn::Query, "limit", "Most transactions of a page.", limit.build())
        .parameter(ParameterIn::Query, "cursor", "The `nextCursor` of the page before.", text().min_length(Some(1)).build())
        .parameter(ParameterIn::Query, "type", "Only these.", text().enum_values(Some(["credit", "debit"])).build())
        .parameter(ParameterIn::Query, "from", "Only from this moment on.", time::schema())
        .parameter(ParameterIn::Query, "to", "Only before this moment.", time::schema())
        .answers(StatusCode::OK, "A page.", &page)
        .refuses([bad, provisioning(), ApiError::dependency_unavailable()])
}
