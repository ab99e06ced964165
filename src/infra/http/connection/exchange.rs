//! The exchange of one request and its response on a connection, as both sides see it: the socket decides what the server
//! may read, and the service knows how far the response is.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use actix_http::Payload;
use actix_http::body::{BodySize, BoxBody, MessageBody};
use actix_http::error::PayloadError;
use actix_web::web::Bytes;
use futures_util::Stream;

/// Bytes of a body that are handed to the server before the handler has taken them.
const UNTAKEN_BYTES_MAX: usize = 16 * 1024;
/// Longest part of a response body that is copied to the write buffer at once.
const PART_BYTES_MAX: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Idle,
    /// The server has a head, which the application has not seen yet. Whatever is written now is a rejection.
    Parsing,
    /// The application has the request, or its response is being written.
    Responding,
    /// The response was written before the whole body of the request was received. The rest is discarded.
    Draining,
}

/// Shared by the socket and the service of a connection.
pub(super) struct Exchange {
    phase: Cell<Phase>,
    /// The response has been handed to the server completely.
    is_responded: Cell<bool>,
    /// Bytes of the request's body that the server has and the handler has not taken.
    untaken_bytes: Cell<usize>,
    is_body_dropped: Cell<bool>,
    /// All bytes of the request have been handed to the server.
    is_received: Cell<bool>,
    /// The task of the connection, while it waits for its turn to read.
    reader: RefCell<Option<Waker>>,
    is_crowded: bool,
}

impl Exchange {
    /// `is_crowded`: the connection is above the limit of the process.
    pub(super) fn new(is_crowded: bool) -> Rc<Self> {
        Rc::new(Self {
            phase: Cell::new(Phase::Idle),
            is_responded: Cell::new(false),
            untaken_bytes: Cell::new(0),
            is_body_dropped: Cell::new(false),
            is_received: Cell::new(false),
            reader: RefCell::new(None),
            is_crowded,
        })
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase.get()
    }

    pub(super) const fn is_crowded(&self) -> bool {
        self.is_crowded
    }

    /// The server gets the head of a request.
    pub(super) fn begin(&self) {
        self.phase.set(Phase::Parsing);
        self.is_responded.set(false);
        self.untaken_bytes.set(0);
        self.is_body_dropped.set(false);
        self.is_received.set(false);
    }

    /// The server got `bytes` of the request's body.
    pub(super) fn passed(&self, bytes: usize) {
        self.untaken_bytes.set(self.untaken_bytes.get().saturating_add(bytes));
    }

    /// The server got the end of the request.
    pub(super) fn received(&self) {
        self.is_received.set(true);
    }

    /// Whether the handler has to take some of the body first.
    pub(super) fn is_body_behind(&self) -> bool {
        self.untaken_bytes.get() >= UNTAKEN_BYTES_MAX && !self.is_body_dropped.get()
    }

    /// Waits for the next change.
    pub(super) fn wait(&self, cx: &Context<'_>) {
        let mut reader = self.reader.borrow_mut();
        if reader.as_ref().is_none_or(|reader| !reader.will_wake(cx.waker())) {
            *reader = Some(cx.waker().clone());
        }
    }

    fn wake(&self) {
        if let Some(reader) = self.reader.borrow_mut().take() {
            reader.wake();
        }
    }

    /// The application gets the request, with a body that reports how much of it was taken.
    pub(super) fn handle(self: &Rc<Self>, body: Payload) -> Payload {
        self.phase.set(Phase::Responding);
        match body {
            Payload::None => Payload::None,
            body => Payload::Stream { payload: Box::pin(RequestBody { body, exchange: Rc::clone(self) }) },
        }
    }

    /// The application has responded. The result is the body to send, which reports its end.
    pub(super) fn respond(self: &Rc<Self>, body: BoxBody) -> BoxBody {
        if matches!(body.size(), BodySize::None | BodySize::Sized(0)) {
            self.is_responded.set(true);
            return body;
        }
        BoxBody::new(ResponseBody { body, rest: Bytes::new(), exchange: Rc::clone(self) })
    }

    /// Whether the rest of the request must be discarded after the response.
    pub(super) fn is_request_unfinished(&self) -> bool {
        !self.is_received.get()
    }

    /// The socket has taken all that the server had to write.
    pub(super) fn flushed(&self) {
        if self.phase.get() == Phase::Responding && self.is_responded.get() {
            self.phase.set(if self.is_received.get() { Phase::Idle } else { Phase::Draining });
            self.wake();
        }
    }
}

/// The body of a request. The server buffers it until the handler takes it.
struct RequestBody {
    body: Payload,
    exchange: Rc<Exchange>,
}

impl Stream for RequestBody {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = Pin::new(&mut self.body).poll_next(cx);
        if let Poll::Ready(Some(Ok(chunk))) = &next {
            let left = self.exchange.untaken_bytes.get().saturating_sub(chunk.len());
            self.exchange.untaken_bytes.set(left);
            self.exchange.wake();
        }
        next
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.exchange.is_body_dropped.set(true);
        self.exchange.wake();
    }
}

/// The body of a response, in small parts: a client that does not read then occupies one part of it in the write buffer.
struct ResponseBody {
    body: BoxBody,
    rest: Bytes,
    exchange: Rc<Exchange>,
}

impl MessageBody for ResponseBody {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        if self.rest.is_empty() {
            match Pin::new(&mut self.body).poll_next(cx) {
                Poll::Ready(Some(Ok(chunk))) => self.rest = chunk,
                Poll::Ready(None) => {
                    self.exchange.is_responded.set(true);
                    return Poll::Ready(None);
                }
                other => return other,
            }
        }
        let part = self.rest.len().min(PART_BYTES_MAX);
        Poll::Ready(Some(Ok(self.rest.split_to(part))))
    }
}
