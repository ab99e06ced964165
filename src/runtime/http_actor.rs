//! The HTTP server.
//!
//! Owns: the listening socket, the handle of the server.
//! Receives: shutdown, upon which it closes the listening socket and lets requests in progress finish.
//! Sends: nothing.
//! Mailbox: control messages only.
//! Ends: on shutdown, or when the server ends unexpectedly.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix::{Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, WrapFuture as _};
use actix_web::dev::ServerHandle;
use socket2::{Domain, Protocol, Socket, Type};

use crate::infra::http::{ServerDeps, serve_on};
use crate::runtime::child::{EndReason, Lifeline, Shutdown};

/// Connections waiting to be accepted.
const BACKLOG: i32 = 1024;
/// Bytes of responses that the kernel holds for a client that does not read. On its own it takes megabytes.
const SEND_BUFFER_BYTES: usize = 64 * 1024;

pub struct HttpDeps {
    /// Bound once per process, so that a restart keeps the port. The shutdown takes it: as long as any duplicate is open, the
    /// kernel accepts connections that nobody will serve.
    listener: Mutex<Option<TcpListener>>,
    server: ServerDeps,
}

impl HttpDeps {
    pub(crate) const fn new(listener: TcpListener, server: ServerDeps) -> Self {
        Self { listener: Mutex::new(Some(listener)), server }
    }

    fn listener(&self) -> MutexGuard<'_, Option<TcpListener>> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    // Accepted connections inherit it.
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl HttpActor {
    pub const fn new(deps: Arc<HttpDeps>, lifeline: Lifeline) -> Self {
        Self { deps, server: None, lifeline }
    }

    fn serve(&self) -> io::Result<actix_web::dev::Server> {
        let listener = self.deps.listener().as_ref().map(TcpListener::try_clone);
        serve_on(listener.ok_or(io::ErrorKind::NotConnected)??, &self.deps.server)
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
        drop(self.deps.listener().take());
        Box::pin(async move {
            if let Some(server) = server {
                server.stop(true).await;
            }
        })
    }
}
