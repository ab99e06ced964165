//! The server: an application on a listening socket, on some threads, within the limits of [`connection`](super::connection).

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_http::body::BoxBody;
use actix_http::error::DispatchError;
use actix_http::{HttpService, Protocol, Response};
use actix_service::{ServiceFactoryExt as _, apply_fn_factory, fn_service, map_config};
use actix_web::dev::{AppConfig, Server, ServiceResponse};
use actix_web::middleware::{Condition, from_fn};
use actix_web::{App, web};
use slog::Logger;
use tokio::net::TcpStream;

use crate::infra::http::admit::admit;
use crate::infra::http::connection::{Acceptor, Connections, Rejections, attach, exchange};
use crate::infra::http::cors::cors;
use crate::infra::http::metrics_page::RequestMetrics;
use crate::infra::http::observe::observe;
use crate::infra::http::public_url::PublicUrl;
use crate::infra::metrics::Metrics;
use crate::infra::telemetry::Spans;

/// Time limit of an idle connection.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Time for which what comes after the last response of a connection is discarded.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of a response that wait for the client; the rest is produced as it takes them.
const WRITE_BUFFER_BYTES: usize = 32 * 1024;

/// Adds routes and their state to the server.
pub(crate) type Application = Arc<dyn Fn(&mut web::ServiceConfig) + Send + Sync>;

pub(crate) struct ServerDeps {
    pub(crate) worker_threads: usize,
    /// For all threads together.
    pub(crate) connections_max: usize,
    /// Time limit for requests in progress when a shutdown begins.
    pub(crate) drain_timeout: Duration,
    pub(crate) application: Application,
    pub(crate) logger: Logger,
    pub(crate) cors_origins: Vec<String>,
    pub(crate) public_url: PublicUrl,
    pub(crate) metrics: Metrics,
    pub(crate) spans: Spans,
}

/// Begins to accept connections.
///
/// # Errors
/// The listener cannot be used.
pub(crate) fn serve_on(listener: TcpListener, deps: &ServerDeps) -> io::Result<Server> {
    let address = listener.local_addr()?;
    let connections = Connections::new(deps.connections_max, &deps.metrics);
    let builder = Server::build();
    let draining = builder.graceful_shutdown_signal();
    let (application, logger, origins) =
        (Arc::clone(&deps.application), deps.logger.clone(), deps.cors_origins.clone());
    let (metrics, spans, public_url) = (deps.metrics.clone(), deps.spans.clone(), deps.public_url.clone());
    let factory = move || {
        let (routes, draining) = (Arc::clone(&application), draining.clone());
        let app = App::new()
            .app_data(web::Data::new(logger.clone()))
            .app_data(web::Data::new(RequestMetrics::new(&metrics)))
            .app_data(web::Data::new(spans.clone()))
            .app_data(web::Data::new(public_url.clone()))
            .configure(move |app| routes(app))
            .wrap(from_fn(admit))
            .wrap(Condition::new(!origins.is_empty(), cors(&origins)))
            .wrap(from_fn(observe));
        let app = map_config(app, |()| AppConfig::default())
            .map(|response: ServiceResponse<BoxBody>| Response::from(response))
            .map_err(|error: actix_web::Error| Response::from(error.error_response()));
        let http = HttpService::build()
            .graceful_shutdown_signal(move || {
                let draining = draining.clone();
                async move { draining.notified().await }
            })
            .keep_alive(KEEP_ALIVE)
            // The connection has a time limit for every head.
            .client_request_timeout(Duration::ZERO)
            .client_disconnect_timeout(DISCONNECT_TIMEOUT)
            .h1_write_buffer_size(WRITE_BUFFER_BYTES)
            .local_addr(address)
            .on_connect_ext(attach)
            .finish(apply_fn_factory(app, exchange));
        let acceptor = Acceptor::new(&connections, Rejections::new(&logger, &origins, &public_url, &metrics));
        fn_service(move |stream: TcpStream| {
            let client = stream.peer_addr().ok();
            let accepted = acceptor.accept(stream).map(|connection| (connection, Protocol::Http1, client));
            async move { accepted.ok_or_else(|| DispatchError::Io(io::ErrorKind::ConnectionRefused.into())) }
        })
        .and_then(http)
    };
    let builder = builder
        .workers(deps.worker_threads)
        // `Connections` has the limit: this one would leave connections in the backlog, those of probes included.
        .max_concurrent_connections(usize::MAX >> 1)
        .shutdown_timeout(deps.drain_timeout.as_secs().max(1))
        .disable_signals(); // `Signals` handles them
    Ok(builder.listen("http", listener, factory)?.run())
}
