//! What a client may cost before and while its request is served: memory, time, and a place among the connections.
//!
//! actix-http limits neither how much it answers ahead of a client that does not read, nor how long such a client may take,
//! nor how long the head of a later request may. It reads as many requests as arrive, and appends their responses to one
//! buffer. The socket here lets it see one request at a time: the next one when the response before it has been taken.

mod capacity;
mod exchange;
mod framing;
mod head;
mod rejection;
mod socket;

use std::rc::Rc;
use std::sync::Arc;

use actix_http::body::BoxBody;
use actix_http::{ConnectionType, Extensions, Request, Response};
use actix_web::dev::{Service, ServiceRequest};
use tokio::net::TcpStream;

use crate::infra::metrics::Metrics;
use capacity::{Capacity, Ended};
use exchange::Exchange;
pub(super) use rejection::Rejections;
pub(super) use socket::Connection;

/// The limits on the connections of a server, shared by its threads.
#[derive(Clone)]
pub(super) struct Connections(Arc<Capacity>);

impl Connections {
    /// At most `max` at a time.
    pub(super) fn new(max: usize, metrics: &Metrics) -> Self {
        Self(Arc::new(Capacity::new(max, Ended::new(metrics))))
    }
}

/// Accepts the connections of one thread.
#[derive(Clone)]
pub(super) struct Acceptor {
    connections: Connections,
    rejections: Rc<Rejections>,
}

impl Acceptor {
    pub(super) fn new(connections: &Connections, rejections: Rejections) -> Self {
        Self { connections: connections.clone(), rejections: Rc::new(rejections) }
    }

    /// `None` in a process that is full of busy connections.
    pub(super) fn accept(&self, stream: TcpStream) -> Option<Connection> {
        let slot = self.connections.0.enter()?;
        // Parts of a response are written as they fit, so the last one must not wait for the client to confirm others.
        let _ = stream.set_nodelay(true);
        Some(Connection::new(stream, slot, Rc::clone(&self.rejections)))
    }
}

/// Lets the requests of a connection find its [`Exchange`].
pub(super) fn attach(connection: &Connection, data: &mut Extensions) {
    data.insert(Rc::clone(connection.exchange()));
}

/// Whether the request came on a connection above the limit of the process.
pub(super) fn is_crowded(request: &ServiceRequest) -> bool {
    request.conn_data::<Rc<Exchange>>().is_some_and(|exchange| exchange.is_crowded())
}

/// Calls the application with the next request of a connection, and keeps its [`Exchange`] up to date.
pub(super) fn exchange<S, E>(
    mut request: Request,
    application: &S,
) -> impl Future<Output = Result<Response<BoxBody>, E>> + use<S, E>
where
    S: Service<Request, Response = Response<BoxBody>, Error = E>,
    E: Into<Response<BoxBody>>,
{
    let exchange = request.conn_data::<Rc<Exchange>>().cloned();
    if let Some(exchange) = &exchange {
        let body = request.take_payload();
        *request.payload() = exchange.handle(body);
    }
    let response = application.call(request);
    async move {
        // An error is a response too, for example after a panic.
        let mut response = response.await.unwrap_or_else(Into::into);
        let Some(exchange) = exchange else { return Ok(response) };
        if exchange.is_request_unfinished() || exchange.is_crowded() {
            response.head_mut().set_connection_type(ConnectionType::Close);
        }
        Ok(response.map_body(|_, body| exchange.respond(body)))
    }
}
