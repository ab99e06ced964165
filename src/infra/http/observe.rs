//! The outermost middleware: request id and trace, one log line, security headers, error bodies for what the router
//! rejects, a line end after every body, and a 500 for a panic.

use std::cell::Cell;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, Accept, Header as _, HeaderMap, HeaderName, HeaderValue, Quality};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage as _, HttpRequest, HttpResponse, web};
use futures_util::FutureExt as _;
use slog::{KV, Logger, Record, Serializer};

use crate::infra::http::admit::is_probe;
use crate::infra::http::api_error::PROBLEM_JSON;
use crate::infra::http::metrics_page::Took;
use crate::infra::http::{ApiError, Authenticated, AuthenticatedService, OnBehalfOf, PublicUrl, RequestMetrics};
use crate::infra::system::System;
use crate::infra::telemetry::{Span, SpanName, Spans};
use crate::kernel::{IdSource as _, RequestId, ServiceName, TraceParent, UserId};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// As much of a method is logged. The methods of HTTP are shorter.
const METHOD_CHARS_MAX: usize = 32;

/// The id and the trace of a request: the client's, or new ones.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// Echoed in the response, and part of every log line of the request.
    pub request_id: RequestId,
    /// Echoed in the response, and sent along with the events of the request.
    pub traceparent: TraceParent,
}

/// Marks a request that waits for something for as long as its client asked for, so that its duration is not counted among
/// those that show how fast the service is. A handler adds it to the extensions of the request.
pub struct LongPoll;

impl RequestContext {
    fn of(headers: &HeaderMap) -> Self {
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            request_id: text(X_REQUEST_ID)
                .and_then(RequestId::parse)
                .unwrap_or_else(|| RequestId::from_uuid(System.next_id())),
            traceparent: text(TRACEPARENT).and_then(TraceParent::parse).unwrap_or_else(|| TraceParent::begin(&System)),
        }
    }
}

/// Wraps the whole application.
///
/// # Errors
/// A 500 after a panic, and errors of inner middleware.
pub async fn observe(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let began = Instant::now();
    let context = RequestContext::of(request.headers());
    let method = request.method().clone();
    let logger = request.app_data::<web::Data<Logger>>().map(|l| Logger::clone(l));
    let metrics = request.app_data::<web::Data<RequestMetrics>>().cloned();
    let spans = request.app_data::<web::Data<Spans>>().cloned();
    let errors = ErrorForm { is_problem: asks_for_problem(&request), public_url: PublicUrl::of(request.request()) };
    request.extensions_mut().insert(context.clone());
    let head_only = method == Method::HEAD;
    if head_only {
        // RFC 9110 §9.3.2: HEAD is GET without the body.
        request.head_mut().method = Method::GET;
    }

    let line =
        Line { began, method: method.as_str(), context: &context, logger, metrics, spans, is_due: Cell::new(true) };
    let called = AssertUnwindSafe(next.call(request)).catch_unwind().await;
    let outcome = called.map(|returned| returned.map(ServiceResponse::map_into_boxed_body));
    match outcome {
        Ok(Ok(response)) => {
            let response = errors.shape(response);
            let mut response = response.map_body(|head, body| end_line(head.headers(), body));
            decorate(response.headers_mut(), &context);
            line.write(&response);
            Ok(if head_only { response.map_body(|_, body| BoxBody::new(HeadOnly(body.size()))) } else { response })
        }
        Ok(Err(error)) => Err(line.write_error(error, &errors)),
        // The panic hook has logged where and why.
        Err(_) => Err(line.write_error(ApiError::internal().into(), &errors)),
    }
}

/// The length of a body that is not sent. The server omits the body of a response to HEAD by itself, except where a
/// pipelined request has made it forget the method; this ends the connection then, instead of sending a body that the client
/// would take for the next response.
struct HeadOnly(BodySize);

impl MessageBody for HeadOnly {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        self.0
    }

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<web::Bytes, Infallible>>> {
        Poll::Ready(None)
    }
}

/// The form of the error responses to one request.
struct ErrorForm {
    /// RFC 9457 instead of our own.
    is_problem: bool,
    public_url: PublicUrl,
}

/// Whether the client lists `application/problem+json` and does not prefer `application/json`. A wildcard does not ask for it.
fn asks_for_problem(request: &ServiceRequest) -> bool {
    if !request.headers().contains_key(header::ACCEPT) {
        return false;
    }
    let Ok(Accept(accepted)) = Accept::parse(request) else { return false };
    let quality =
        |kind: &str| accepted.iter().filter(|item| item.item.essence_str() == kind).map(|item| item.quality).max();
    let json = quality("application/json");
    quality(PROBLEM_JSON).is_some_and(|problem| problem > Quality::ZERO && Some(problem) >= json)
}

impl ErrorForm {
    /// Gives an error response its body and the link to its documentation.
    fn shape(&self, response: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
        let response = with_error_body(response);
        let Some(error) = response.response().error().and_then(|e| e.as_error::<ApiError>()) else { return response };
        let (problem, link) = (self.problem(error), error.link(&self.public_url));
        let (request, response) = response.into_parts();
        ServiceResponse::new(request, with_link(problem, &link, response))
    }

    fn problem(&self, error: &ApiError) -> Option<Vec<u8>> {
        self.is_problem.then(|| error.problem(&self.public_url))
    }
}

fn with_link(problem: Option<Vec<u8>>, link: &str, mut response: HttpResponse) -> HttpResponse {
    if let Ok(link) = link.parse() {
        response.headers_mut().append(header::LINK, link);
    }
    match problem {
        Some(problem) => {
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
            response.set_body(BoxBody::new(problem))
        }
        None => response,
    }
}

/// Gives the router's empty 404 and 405 an error body.
fn with_error_body(response: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
    let bare = matches!(response.response().body().size(), BodySize::None | BodySize::Sized(0));
    let error = match response.status() {
        StatusCode::NOT_FOUND if bare => ApiError::no_route(),
        StatusCode::METHOD_NOT_ALLOWED if bare => ApiError::no_method(),
        _ => return response,
    };
    let headers = response.headers().clone();
    let mut response = response.error_response(error);
    for (name, value) in headers {
        response.headers_mut().append(name, value);
    }
    // The router does not know that HEAD is allowed wherever GET is.
    let allowed = response.headers().get(header::ALLOW).and_then(|allowed| allowed.to_str().ok());
    let allowed = allowed.filter(|allowed| allowed.split(", ").any(|method| method == "GET"));
    if let Some(Ok(allowed)) = allowed.map(|allowed| format!("{allowed}, HEAD").parse()) {
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}

/// Ends a body with a line end, so that a shell's prompt starts on a line of its own.
fn end_line(headers: &HeaderMap, body: BoxBody) -> BoxBody {
    let is_compressed = headers.contains_key(header::CONTENT_ENCODING);
    if is_compressed || matches!(body.size(), BodySize::None | BodySize::Sized(0) | BodySize::Stream) {
        return body;
    }
    match body.try_into_bytes() {
        Ok(bytes) if bytes.ends_with(b"\n") => BoxBody::new(bytes),
        Ok(bytes) => {
            // A body that was serialized for this response is extended in place.
            let mut line = bytes.try_into_mut().unwrap_or_else(|shared| web::BytesMut::from(shared.as_ref()));
            line.extend_from_slice(b"\n");
            BoxBody::new(line.freeze())
        }
        Err(body) => body,
    }
}

/// Adds the headers of every response.
fn decorate(headers: &mut HeaderMap, context: &RequestContext) {
    if let Ok(id) = context.request_id.as_str().parse() {
        headers.insert(X_REQUEST_ID, id);
    }
    if let Ok(traceparent) = context.traceparent.as_str().parse() {
        headers.insert(TRACEPARENT, traceparent);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// The one log line of a request.
struct Line<'a> {
    began: Instant,
    method: &'a str,
    context: &'a RequestContext,
    logger: Option<Logger>,
    metrics: Option<web::Data<RequestMetrics>>,
    spans: Option<web::Data<Spans>>,
    /// Not yet written.
    is_due: Cell<bool>,
}

impl Drop for Line<'_> {
    /// The client has closed the connection, or a stop has, while the request was served. What it asked for may be done.
    fn drop(&mut self) {
        if let Some(logger) = self.logger.as_ref().filter(|_| self.is_due.get()) {
            slog::info!(logger, "request ended without a response"; self.pairs());
        }
    }
}

/// Who sent a request, and for which user.
#[derive(Default)]
struct Caller {
    user_id: Option<UserId>,
    service: Option<ServiceName>,
}

impl Caller {
    fn of(request: &HttpRequest) -> Self {
        let extensions = request.extensions();
        let user = extensions.get::<Authenticated>().map(|user| user.user_id());
        let user_id = user.or_else(|| extensions.get::<OnBehalfOf>().map(|user| user.0));
        Self { user_id, service: extensions.get::<AuthenticatedService>().map(|service| service.name().clone()) }
    }
}

impl KV for Caller {
    fn serialize(&self, _: &Record<'_>, out: &mut dyn Serializer) -> slog::Result {
        if let Some(service) = &self.service {
            out.emit_arguments("service", &format_args!("{service}"))?;
        }
        self.user_id.map_or(Ok(()), |user_id| out.emit_arguments("user_id", &format_args!("{user_id}")))
    }
}

impl Line<'_> {
    fn write(&self, response: &ServiceResponse<BoxBody>) {
        let request = response.request();
        // The pattern, not the path: a path may contain ids, and metrics have one series per route.
        let route = request.match_pattern().unwrap_or_else(|| "(none)".to_owned());
        let caller = Caller::of(request);
        let refusal = response.response().error().and_then(|e| e.as_error::<ApiError>());
        let cause = refusal.and_then(|e| e.cause().map(str::to_owned));
        let is_long_poll = request.extensions().contains::<LongPoll>();
        self.measure(&route, response.status(), refusal, is_long_poll);
        self.log(&route, response.status(), caller, cause);
    }

    fn write_error(&self, mut error: Error, form: &ErrorForm) -> Error {
        let status = error.as_response_error().status_code();
        self.measure("(none)", status, error.as_error::<ApiError>(), false);
        self.log("(none)", status, Caller::default(), None);
        let context = self.context.clone();
        let described = error.as_error::<ApiError>().map(|error| (form.problem(error), error.link(&form.public_url)));
        error.add_response_mapper(move |response| {
            let mut response = match described.clone() {
                Some((problem, link)) => with_link(problem, &link, response),
                None => response,
            };
            decorate(response.headers_mut(), &context);
            response.map_body(|head, body| end_line(head.headers(), body))
        });
        error
    }

    fn measure(&self, route: &str, status: StatusCode, refusal: Option<&ApiError>, is_long_poll: bool) {
        let code = refusal.map(ApiError::code);
        if let Some(metrics) = &self.metrics {
            let took = Took { duration: self.began.elapsed(), is_long_poll };
            metrics.count((self.method, route), (status, code), took);
        }
        if let Some(spans) = self.spans.as_ref().filter(|_| !is_probe(route)) {
            spans.record(|| Span {
                name: SpanName::Request,
                trace: &self.context.traceparent,
                took: self.began.elapsed(),
                failed: status.is_server_error(),
                attributes: vec![
                    ("http.request.method", self.method.to_owned()),
                    ("http.route", route.to_owned()),
                    ("http.response.status_code", status.as_str().to_owned()),
                ],
            });
        }
    }

    /// What is known of a request before its response.
    fn pairs(&self) -> impl KV {
        let elapsed_us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        slog::kv!(
            "request_id" => self.context.request_id.as_str(),
            "trace_id" => self.context.traceparent.trace_id(),
            "method" => self.method.get(..METHOD_CHARS_MAX).unwrap_or(self.method),
            "duration_ms" => Duration::from_micros(elapsed_us).div_duration_f64(Duration::from_millis(1)),
        )
    }

    fn log(&self, route: &str, status: StatusCode, caller: Caller, error: Option<String>) {
        self.is_due.set(false);
        let Some(logger) = &self.logger else { return };
        let pairs = slog::kv!(self.pairs(), "route" => route, "status" => status.as_u16(), caller);
        match (error, status.as_u16()) {
            (Some(error), 500) => slog::error!(logger, "request failed"; pairs, "error" => error),
            (Some(error), _) => slog::warn!(logger, "request could not be served"; pairs, "error" => error),
            (None, 500) => slog::error!(logger, "request failed"; pairs),
            (None, 200 | 503) if is_probe(route) => slog::debug!(logger, "request"; pairs),
            (None, _) => slog::info!(logger, "request"; pairs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::dev::Service as _;
    use actix_web::middleware::from_fn;
    use actix_web::{App, HttpResponse, test};
    use std::sync::{Arc, Mutex};

    async fn panics() -> HttpResponse {
        panic!("on purpose")
    }

    #[actix_web::test]
    async fn a_panicking_handler_returns_500_and_the_next_request_is_served() {
        let app = App::new()
            .route("/panics", web::get().to(panics))
            .route("/works", web::get().to(HttpResponse::Ok))
            .wrap(from_fn(observe));
        let app = test::init_service(app).await;
        let request = test::TestRequest::get().uri("/panics").insert_header(("x-request-id", "r-1")).to_request();
        let response = match test::try_call_service(&app, request).await {
            Ok(response) => response.into_parts().1.map_into_boxed_body(),
            Err(error) => error.error_response(),
        };
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers().get("x-request-id").map(HeaderValue::as_bytes), Some(&b"r-1"[..]));
        let body = actix_web::body::to_bytes(response.into_body()).await.expect("body");
        assert!(body.starts_with(br#"{"code":"INTERNAL_ERROR","message":"#), "{body:?}");
        let works = test::call_service(&app, test::TestRequest::get().uri("/works").to_request()).await;
        assert_eq!(works.status(), StatusCode::OK);
    }

    #[actix_web::test]
    async fn every_body_ends_with_one_newline_unless_it_is_empty_or_compressed() {
        let gzip = || HttpResponse::Ok().insert_header((header::CONTENT_ENCODING, "gzip")).body("zip");
        let shared = web::Bytes::from_static(b"shared");
        let app = App::new()
            .route("/json", web::get().to(|| async { HttpResponse::Ok().json([1]) }))
            .route("/line", web::get().to(|| async { HttpResponse::Ok().body("line\n") }))
            .route("/empty", web::get().to(HttpResponse::Ok))
            .route("/gzip", web::get().to(move || async move { gzip() }))
            .route(
                "/shared",
                web::get().to(move || {
                    let shared = shared.clone();
                    async { HttpResponse::Ok().body(shared) }
                }),
            )
            .wrap(from_fn(observe));
        let app = test::init_service(app).await;
        for (path, body) in
            [("/json", "[1]\n"), ("/line", "line\n"), ("/empty", ""), ("/gzip", "zip"), ("/shared", "shared\n")]
        {
            let get = test::call_service(&app, test::TestRequest::get().uri(path).to_request()).await;
            let length = get.response().body().size();
            assert_eq!(test::read_body(get).await, body, "{path}");
            let head = test::TestRequest::default().method(Method::HEAD).uri(path).to_request();
            assert_eq!(test::call_service(&app, head).await.response().body().size(), length, "{path}");
        }
    }

    #[actix_web::test]
    async fn a_rejection_by_the_router_has_an_error_body_and_keeps_its_allow_header() {
        let app =
            App::new().service(web::resource("/here").route(web::get().to(HttpResponse::Ok))).wrap(from_fn(observe));
        let app = test::init_service(app).await;
        let nowhere = test::call_service(&app, test::TestRequest::get().uri("/nowhere").to_request()).await;
        assert_eq!(nowhere.status(), StatusCode::NOT_FOUND);
        assert!(test::read_body(nowhere).await.starts_with(br#"{"code":"NOT_FOUND""#));
        let wrong = test::call_service(&app, test::TestRequest::post().uri("/here").to_request()).await;
        assert_eq!(wrong.headers().get("allow").map(HeaderValue::as_bytes), Some(&b"GET, HEAD"[..]));
        assert!(test::read_body(wrong).await.starts_with(br#"{"code":"METHOD_NOT_ALLOWED""#));
    }

    /// Keeps the message and the names of the pairs of each record.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<String>>>);

    impl slog::Drain for Kept {
        type Ok = ();
        type Err = slog::Never;

        fn log(&self, record: &Record<'_>, _: &slog::OwnedKVList) -> Result<(), slog::Never> {
            struct Names(String);
            impl Serializer for Names {
                fn emit_arguments(&mut self, name: slog::Key, _: &std::fmt::Arguments<'_>) -> slog::Result {
                    self.0.extend([" ", name]);
                    Ok(())
                }
            }
            let mut names = Names(record.msg().to_string());
            record.kv().serialize(record, &mut names).expect("names");
            self.0.lock().expect("kept").push(names.0);
            Ok(())
        }
    }

    #[actix_web::test]
    async fn a_request_whose_client_leaves_has_one_line_too() {
        let kept = Kept::default();
        let logger = Logger::root(kept.clone(), slog::o!());
        let app = App::new()
            .app_data(web::Data::new(logger))
            .route("/waits", web::get().to(|| async { std::future::pending::<HttpResponse>().await }))
            .route("/works", web::get().to(HttpResponse::Ok))
            .wrap(from_fn(observe));
        let app = test::init_service(app).await;
        let left = app.call(test::TestRequest::get().uri("/waits").to_request());
        assert!(tokio::time::timeout(Duration::from_millis(1), left).await.is_err());
        test::call_service(&app, test::TestRequest::get().uri("/works").to_request()).await;
        let kept = kept.0.lock().expect("kept").clone();
        assert_eq!(
            kept,
            [
                "request ended without a response duration_ms method trace_id request_id",
                "request status route duration_ms method trace_id request_id",
            ]
        );
    }
}
