//! The HTTP listener and its threads.
//!
//! Owns: the listening socket's copy, the server's handle.
//! Receives: shutdown: stops accepting, lets requests in hand finish.
//! Sends: nothing.
//! Mailbox: control messages alone.
//! Ends: on shutdown, or when the server ends by itself, which it has no reason to.

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

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;
/// Longest time that a request's head may take to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an idle connection is kept.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Connections of one thread; more wait in the backlog.
const CONNECTIONS_MAX: usize = 4096;

/// Adds the routes and the state of a role to an application.
pub type Application = Arc<dyn Fn(&mut web::ServiceConfig) + Send + Sync>;

/// What is served, and by how many threads.
pub struct HttpDeps {
    /// Bound once for the life of the process.
    pub listener: TcpListener,
    /// Threads.
    pub workers: usize,
    /// How long requests in hand may take to finish once a shutdown has begun.
    pub drain: Duration,
    /// Routes and state.
    pub application: Application,
    /// For the request lines.
    pub logger: Logger,
    /// Origins whose pages may call.
    pub cors_origins: Vec<String>,
    /// For what is measured of requests.
    pub metrics: Metrics,
    /// For the requests' spans.
    pub spans: Spans,
}

/// The listener as an actor.
pub struct HttpActor {
    deps: Arc<HttpDeps>,
    server: Option<ServerHandle>,
    lifeline: Lifeline,
}

/// Binds the address, once, so that a rebuilt listener keeps the port.
///
/// # Errors
/// When the address is taken or not ours.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl HttpActor {
    /// A listener.
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
        .workers(self.deps.workers)
        .max_connections(CONNECTIONS_MAX)
        .client_request_timeout(HEAD_TIMEOUT)
        .keep_alive(KEEP_ALIVE)
        .shutdown_timeout(self.deps.drain.as_secs().max(1))
        .disable_signals() // the process has its own
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
                    http.lifeline.end(EndReason::Failed(format!("server ended: {ended:?}")));
                    ctx.stop();
                }));
            }
            Err(e) => {
                self.lifeline.end(EndReason::Failed(format!("server could not start: {e}")));
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
