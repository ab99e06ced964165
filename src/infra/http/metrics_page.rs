//! `GET /metrics`, and the metrics of requests.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use actix_web::http::{Method, StatusCode};
use actix_web::{HttpResponse, web};

use crate::infra::http::openapi::{Endpoint, serve};
use crate::infra::metrics::{Counter, Histogram, MetricName, Metrics};

/// The Prometheus text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

const DURATION: MetricName = MetricName {
    name: "http_server_request_duration_seconds",
    help: "Request duration up to the response headers, by method, route pattern and status. Without long polls.",
};
const LONG_POLL: MetricName = MetricName {
    name: "purse_http_long_poll_duration_seconds",
    help: "Duration of requests that asked to wait for something (`wait`), by method, route pattern and status.",
};
const REFUSALS: MetricName = MetricName {
    name: "purse_http_refusals_total",
    help: "Rejected requests by route pattern and error code, such as RATE_LIMITED, WALLET_PROVISIONING (the gate) or OVERLOADED.",
};

/// The count of the requests to a route that were rejected with an error code.
pub(super) fn refusals(metrics: &Metrics, route: &str, code: &str) -> Counter {
    metrics.counter(REFUSALS, &[("route", route), ("code", code)])
}

/// Adds the route to an application.
pub fn metrics_routes(metrics: &Metrics, app: &mut web::ServiceConfig) {
    app.app_data(web::Data::new(metrics.clone()));
    serve(&(), [Endpoint::undocumented("/metrics", serve_metrics)], app);
}

async fn serve_metrics(metrics: web::Data<Metrics>) -> HttpResponse {
    HttpResponse::Ok().content_type(TEXT).body(metrics.text())
}

/// Request metrics of one thread. Handles are cached by their labels, so that only the first request of a kind registers
/// one.
pub struct RequestMetrics {
    metrics: Metrics,
    by_route: RefCell<HashMap<String, Vec<Kind>>>,
}

/// How long a request took.
#[derive(Clone, Copy)]
pub(super) struct Took {
    pub(super) duration: Duration,
    /// The client decided how long.
    pub(super) is_long_poll: bool,
}

/// Requests of one route with the same method, status and error code.
struct Kind {
    method: &'static str,
    status: StatusCode,
    code: Option<&'static str>,
    long_poll: bool,
    duration: Histogram,
    refusals: Option<Counter>,
}

impl RequestMetrics {
    /// With an empty cache.
    pub fn new(metrics: &Metrics) -> Self {
        Self { metrics: metrics.clone(), by_route: RefCell::default() }
    }

    /// Records a request; `code` is its error code, if it was rejected.
    pub(super) fn count(
        &self,
        (method, route): (&str, &str),
        (status, code): (StatusCode, Option<&'static str>),
        took: Took,
    ) {
        // Never borrowed already, because nothing below records requests.
        let Ok(mut by_route) = self.by_route.try_borrow_mut() else { return };
        let method = known(method);
        let is_like = |kind: &&Kind| {
            kind.method == method && kind.status == status && kind.code == code && kind.long_poll == took.is_long_poll
        };
        if let Some(kind) = by_route.get(route).and_then(|kinds| kinds.iter().find(is_like)) {
            return kind.count(took.duration);
        }
        let histogram = if took.is_long_poll { LONG_POLL } else { DURATION };
        let labels = [("method", method), ("route", route), ("status", status.as_str())];
        let refusals = code.map(|code| refusals(&self.metrics, route, code));
        let duration = self.metrics.histogram(histogram, &labels);
        let kind = Kind { method, status, code, long_poll: took.is_long_poll, duration, refusals };
        kind.count(took.duration);
        by_route.entry(route.to_owned()).or_default().push(kind);
    }
}

impl Kind {
    fn count(&self, took: Duration) {
        self.duration.record(took);
        if let Some(refusals) = &self.refusals {
            refusals.increment(1);
        }
    }
}

/// The method as a label with few values: a client may send any word.
fn known(method: &str) -> &'static str {
    [Method::GET, Method::HEAD, Method::POST, Method::OPTIONS, Method::PUT, Method::PATCH, Method::DELETE]
        .iter()
        .zip(["GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE"])
        .find_map(|(known, word)| (known == method).then_some(word))
        .unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_with_the_same_labels_are_one_series_over_all_threads() {
        let metrics = Metrics::try_new().expect("metrics");
        let threads = [RequestMetrics::new(&metrics), RequestMetrics::new(&metrics)];
        let took = |ms| Took { duration: Duration::from_millis(ms), is_long_poll: false };
        for thread in &threads {
            for _ in 0..2 {
                let outcome = (StatusCode::TOO_MANY_REQUESTS, Some("RATE_LIMITED"));
                thread.count(("POST", "/v1/auth/login"), outcome, took(2));
            }
            thread.count(("BREW", "(none)"), (StatusCode::NOT_FOUND, None), took(0));
        }
        let text = metrics.text();
        let series = [
            "http_server_request_duration_seconds_count{method=\"POST\",route=\"/v1/auth/login\",status=\"429\"} 4\n",
            "http_server_request_duration_seconds_count{method=\"other\",route=\"(none)\",status=\"404\"} 2\n",
            "purse_http_refusals_total{route=\"/v1/auth/login\",code=\"RATE_LIMITED\"} 4\n",
        ];
        for line in series {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
