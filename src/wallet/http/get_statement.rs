//! `GET /v1/statements`: streamed page by page, so that its size costs neither memory nor a connection to the database while the
//! client reads.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName};
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse, web};
use futures_util::stream::try_unfold;
use slog::{Logger, o, warn};
use tokio::time::Instant;
use utoipa::openapi::Type;

use crate::infra::http::openapi::Endpoint;
use crate::infra::http::{ApiError, Fields, RequestContext};
use crate::kernel::{DependencyError, Timestamp, UserId, chain};
use crate::wallet::application::queries::WalletQueries;
use crate::wallet::application::statement::{Statement, StatementPeriod};
use crate::wallet::http::api::WalletApi;
use crate::wallet::http::gate::{Gate, GatedEndpoint, ReadyWallet, gated};
use crate::wallet::http::statement_csv as csv;
use crate::wallet::http::statement_slots::{Ended, Slot, StatementSlots};
use crate::wallet::http::time;
use crate::wallet::http::wire::EntryBody;

/// Time limit from the request to the end of the response, so that clients that read slowly do not occupy all places.
const DURATION_MAX: Duration = Duration::from_mins(10);
/// Longest part of the response that is produced at once.
const PART_BYTES_MAX: usize = 16 * 1024;

const OPENING: HeaderName = HeaderName::from_static("statement-opening-minor");
const CLOSING: HeaderName = HeaderName::from_static("statement-closing-minor");
const FINAL: HeaderName = HeaderName::from_static("statement-final");

const CSV: &str = "text/csv; charset=utf-8; header=present";
const NDJSON: &str = "application/x-ndjson";
/// Spreadsheets need it to recognise UTF-8.
const BYTE_ORDER_MARK: &str = "\u{feff}";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Csv { byte_order_mark: bool },
    Ndjson,
}

impl Format {
    const fn media_type(self) -> &'static str {
        match self {
            Self::Csv { .. } => CSV,
            Self::Ndjson => NDJSON,
        }
    }

    fn file_name(self, period: StatementPeriod) -> String {
        let day = |at: Timestamp| at.strftime("%Y-%m-%d");
        let extension = match self {
            Self::Csv { .. } => "csv",
            Self::Ndjson => "ndjson",
        };
        format!("purse-{}-{}.{extension}", day(period.from()), day(period.to()))
    }
}

/// # Errors
/// 400, 503; after 401, 429 and the gate.
async fn handle(
    wallet: ReadyWallet,
    request: HttpRequest,
    queries: web::Data<dyn WalletQueries>,
    slots: web::Data<StatementSlots>,
    gate: web::Data<Gate>,
) -> Result<HttpResponse, ApiError> {
    let StatementQuery { period, format } = Fields::query(request.query_string()).read(statement_query)?;
    let slot = slots.into_inner().enter(wallet.user_id).ok_or_else(ApiError::overloaded)?;
    let statement = queries.statement(wallet.user_id, period).await.map_err(|e| ApiError::from_failure(&e))?;
    if statement.closing.seq == 0 {
        gate.confirm(&wallet).await?;
    }
    let mut response = HttpResponse::Ok();
    response
        .content_type(format.media_type())
        .insert_header((header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}\"", format.file_name(period))))
        .insert_header((OPENING, statement.opening.balance.cents()))
        .insert_header((CLOSING, statement.closing.balance.cents()))
        .insert_header((FINAL, if statement.is_final() { "true" } else { "false" }));
    let body = StatementBody {
        user: wallet.user_id,
        statement,
        format,
        queries: queries.into_inner(),
        next: Next::Opening,
        ready: web::BytesMut::new(),
        deadline: Instant::now() + DURATION_MAX,
        slot,
        logger: logger_of(&request, wallet.user_id),
    };
    Ok(response.streaming(try_unfold(body, async |mut body: StatementBody| {
        Ok::<_, CutOff>(body.next_part().await?.map(|part| (part, body)))
    })))
}

/// The log line of the request is written before its body is sent.
fn logger_of(request: &HttpRequest, user: UserId) -> Logger {
    let logger = request.app_data::<web::Data<Logger>>().map(|logger| Logger::clone(logger));
    let logger = logger.unwrap_or_else(|| Logger::root(slog::Discard, o!()));
    let request_id = request.extensions().get::<RequestContext>().map(|context| context.request_id.as_str().to_owned());
    logger.new(o!("request_id" => request_id, "user_id" => user.to_string()))
}

/// Why a statement ends early. The connection is closed then, without the end of the body.
#[derive(Debug, thiserror::Error)]
enum Cut {
    #[error("a page could not be read")]
    Page(#[from] DependencyError),
    #[error("the client did not read it within 10 minutes")]
    TooSlow,
}

/// What the server sees, and logs, of a [`Cut`].
#[derive(Debug, thiserror::Error)]
#[error("the statement was cut off")]
struct CutOff;

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Opening,
    EntriesAfter(i64),
    Closing,
    Nothing,
}

/// The body of the response while it is sent.
struct StatementBody {
    user: UserId,
    statement: Statement,
    format: Format,
    queries: Arc<dyn WalletQueries>,
    next: Next,
    /// At most a page.
    ready: web::BytesMut,
    deadline: Instant,
    slot: Slot,
    logger: Logger,
}

impl StatementBody {
    async fn next_part(&mut self) -> Result<Option<web::Bytes>, CutOff> {
        self.slot.ended = Ended::Abandoned;
        match self.try_next_part().await {
            Ok(Some(part)) => Ok(Some(part)),
            Ok(None) => {
                self.slot.ended = Ended::Complete;
                Ok(None)
            }
            Err(cut) => {
                self.slot.ended = Ended::Failed;
                warn!(self.logger, "statement was cut off"; "error" => chain(&cut));
                Err(CutOff)
            }
        }
    }

    async fn try_next_part(&mut self) -> Result<Option<web::Bytes>, Cut> {
        if Instant::now() >= self.deadline {
            return Err(Cut::TooSlow);
        }
        while self.ready.is_empty() {
            match self.next {
                Next::Nothing => return Ok(None),
                Next::Opening => self.open(),
                Next::Closing => self.close(),
                Next::EntriesAfter(seq) => self.add_page_after(seq).await?,
            }
        }
        let part = self.ready.len().min(PART_BYTES_MAX);
        Ok(Some(self.ready.split_to(part).freeze()))
    }

    fn open(&mut self) {
        if let Format::Csv { byte_order_mark } = self.format {
            let mark = if byte_order_mark { BYTE_ORDER_MARK } else { "" };
            for text in [mark, csv::HEADER, &csv::opening(&self.statement)] {
                self.ready.extend_from_slice(text.as_bytes());
            }
        }
        self.next = Next::EntriesAfter(self.statement.opening.seq);
    }

    fn close(&mut self) {
        if let Format::Csv { .. } = self.format {
            self.ready.extend_from_slice(csv::closing(&self.statement).as_bytes());
        }
        self.next = Next::Nothing;
    }

    async fn add_page_after(&mut self, seq: i64) -> Result<(), Cut> {
        let Some((first, last)) = self.statement.page_after(seq) else {
            self.next = Next::Closing;
            return Ok(());
        };
        let entries = self.queries.entries(self.user, first, last).await?;
        let mut page = String::new();
        for entry in &entries {
            match self.format {
                Format::Csv { .. } => csv::record(&mut page, entry),
                Format::Ndjson => {
                    // The body of an entry is always valid JSON.
                    page.push_str(&serde_json::to_string(&EntryBody::from(entry)).unwrap_or_default());
                    page.push('\n');
                }
            }
        }
        self.ready = page.into_bytes().into_iter().collect();
        self.next = Next::EntriesAfter(last);
        Ok(())
    }
}

struct StatementQuery {
    period: StatementPeriod,
    format: Format,
}

fn statement_query(query: &mut Fields) -> Option<StatementQuery> {
    let from = query
        .text("from", time::parse, |from| time::schema(from).description(Some("Start of the period (inclusive).")));
    let to = query.text("to", time::parse, |to| {
        time::schema(to).description(Some("End of the period (exclusive), at most 366 days after `from`."))
    });
    let is_csv = query.optional_text(
        "format",
        |format| match format {
            "csv" => Ok(true),
            "ndjson" => Ok(false),
            _ => Err("must be \"csv\" or \"ndjson\""),
        },
        |format| {
            let about = "`csv` for people; `ndjson`, one transaction per line, for programs.";
            format.description(Some(about)).enum_values(Some(["csv", "ndjson"])).default(Some("csv".into()))
        },
    );
    let byte_order_mark = query.optional_text(
        "bom",
        |bom| bom.parse::<bool>().map_err(|_| "must be true or false"),
        |bom| {
            let about = "Begin the CSV with a byte order mark, which Excel needs to recognise UTF-8.";
            bom.description(Some(about)).schema_type(Type::Boolean).default(Some(false.into()))
        },
    );
    let period = from
        .zip(to)
        .and_then(|(from, to)| StatementPeriod::new(from, to).map_err(|refused| query.refuse("to", refused)).ok());
    let (is_csv, byte_order_mark) = (is_csv?.unwrap_or(true), byte_order_mark?);
    if !is_csv && byte_order_mark == Some(true) {
        query.refuse("bom", "needs the format csv");
    }
    let csv = Format::Csv { byte_order_mark: byte_order_mark.unwrap_or(false) };
    Some(StatementQuery { period: period?, format: if is_csv { csv } else { Format::Ndjson } })
}

pub(super) fn endpoint() -> GatedEndpoint<WalletApi> {
    let (header, [opening, record, closing]) = (
        csv::HEADER,
        [
            "2026-01-01T00:00:00.000000Z,,opening balance,,,,,,12.34\r\n",
            "2026-01-31T12:00:00.123456Z,0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e,credit,\"first deposit\",,,15.00,,27.34\r\n",
            "2026-02-01T00:00:00.000000Z,,closing balance,,,,,,27.34\r\n",
        ],
    );
    let ndjson = serde_json::to_string(&EntryBody::example()).unwrap_or_default();
    let about = "All transactions of a period, oldest first. CSV begins with the opening balance and ends with the closing \
                 balance: a file without the latter is incomplete. If the statement cannot be completed, the connection is \
                 closed before the end of the body. At most 8 statements are sent at once, 2 of them to one user.";
    let endpoint = Endpoint::get("/v1/statements", handle, "getStatement", "Get a statement")
        .tag("transactions")
        .about(about)
        .bearer()
        .limited(|api: &WalletApi| &api.export_limit)
        .query(statement_query, "from=2026-01-31T12:00:00Z&format=pdf")
        .returns_text(
            StatusCode::OK,
            "The statement.",
            &[("text/csv", &format!("{header}{opening}{record}{closing}")), (NDJSON, &format!("{ndjson}\n"))],
        )
        .errors([ApiError::overloaded()]);
    let headers = [header::CONTENT_DISPOSITION, OPENING, CLOSING, FINAL];
    gated(headers.iter().fold(endpoint, |endpoint, name| endpoint.with_header(StatusCode::OK, name)))
        .also_for_services()
}
