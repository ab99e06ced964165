//! The HTTP server.
//!
//! Owns: a duplicate of the listening socket, the handle of the server.
//! Receives: shutdown, upon which it stops accepting connections and lets requests in progress finish.
//! Sends: nothing.
//! Mailbox: control messages only.
//! Ends: on shutdown, or when the server ends unexpectedly.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, WrapFuture as _};
use actix_web::dev::ServerHandle;
use actix_web::middleware::{Condition, from_fn};
use actix_web::{App, HttpServer, web};
use slog::Logger;
use socket2::{Domain, Protocol, Socket, Type};

use crate::infra::http::{RequestMetrics, cors, observe};
use crate::infra::metrics::Metrics;
use crate::infra::telemetry::Spans;
use crate::runtime::child::{EndReason, Lifeline, Shutdown};

/// Connections waiting to be accepted.
const BACKLOG: i32 = 1024;
/// Time limit for receiving the request line and headers.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit of an idle connection.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Connections per thread; more wait in the backlog.
const CONNECTIONS_MAX: usize = 4096;

/// Adds routes and their state to the server.
pub type Application = Arc<dyn Fn(&mut web::ServiceConfig) + Send + Sync>;

pub struct HttpDeps {
    /// Bound once per process, so that a restart keeps the port.
    pub listener: TcpListener,
    pub worker_threads: usize,
    /// Time limit for requests in progress when a shutdown begins.
    pub drain_timeout: Duration,
    pub application: Application,
    pub logger: Logger,
    pub cors_origins: Vec<String>,
    pub metrics: Metrics,
    pub spans: Spans,
}

pub struct HttpActor {
    deps: Arc<HttpDeps>,
    server: Option<ServerHandle>,
    lifeline: Lifeline,
}

/// Binds and listens. Connections are accepted when the actor starts.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl HttpActor {
    pub const fn new(deps: Arc<HttpDeps>, lifeline: Lifeline) -> Self {
        Self { deps, server: None, lifeline }
    }

    fn serve(&self) -> io::Result<actix_web::dev::Server> {
        let (application, logger) = (Arc::clone(&self.deps.application), self.deps.logger.clone());
        let origins = self.deps.cors_origins.clone();
        let (metrics, spans) = (self.deps.metrics.clone(), self.deps.spans.clone());
        let server = HttpServer::new(move || {
            App::new()
                .app_data(web::Data::new(logger.clone()))
                .app_data(web::Data::new(RequestMetrics::new(&metrics)))
                .app_data(web::Data::new(spans.clone()))
                .configure(|routes| application(routes))
                .wrap(Condition::new(!origins.is_empty(), cors(&origins)))
                .wrap(from_fn(observe))
        })
        .workers(self.deps.worker_threads)
        .max_connections(CONNECTIONS_MAX)
        .client_request_timeout(HEAD_TIMEOUT)
        .keep_alive(KEEP_ALIVE)
        .shutdown_timeout(self.deps.drain_timeout.as_secs().max(1))
        .disable_signals() // `Signals` handles them
        .listen(self.deps.listener.try_clone()?)?
        .run();
        Ok(server)
    }
}

impl Actor for HttpActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        match self.serve() {
            Ok(server) => {
                self.server = Some(server.handle());
                ctx.spawn(server.into_actor(self).map(|ended, http, ctx| {
                    http.lifeline.end(EndReason::Failed(format!("the HTTP server ended: {ended:?}")));
                    ctx.stop();
                }));
            }
            Err(e) => {
                self.lifeline.end(EndReason::Failed(format!("the HTTP server could not start: {e}")));
                ctx.stop();
            }
        }
    }
}

impl Handler<Shutdown> for HttpActor {
    type Result = actix::ResponseFuture<()>;

    fn handle(&mut self, _: Shutdown, _: &mut Self::Context) -> Self::Result {
        let server = self.server.take();
        Box::pin(async move {
            if let Some(server) = server {
                server.stop(true).await;
            }
        })
    }
}
