//! The socket of a connection, between the kernel and actix-http.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use super::capacity::Slot;
use super::exchange::{Exchange, Phase};
use super::framing::Framing;
use super::head::{self, Head};
use super::rejection::{Rejection, Rejections};

/// Time from the first byte of a head, or from the start of the connection, to the end of the head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// The same in a full process, where only probes are served.
const HEAD_TIMEOUT_CROWDED: Duration = Duration::from_secs(1);
/// Longest head that is received at all; the application rejects heads above half of it, so that most get a response
/// with the id that they sent.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Time within which a client has to take some of a response.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that are received while a response is due.
const AHEAD_BYTES_MAX: usize = 4 * 1024;
/// Time and bytes for which what comes after the last response is discarded. Closing at once would make the kernel discard
/// the response too.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 256 * 1024;

type Timer = Pin<Box<Sleep>>;

/// A connection that hands one request at a time to its server.
pub(in crate::infra::http) struct Connection {
    stream: TcpStream,
    exchange: Rc<Exchange>,
    slot: Slot,
    rejections: Rc<Rejections>,
    /// Received and not handed to the server.
    held: Vec<u8>,
    /// Bytes of `held` that the server may have now.
    released: usize,
    /// Bytes of `held` that do not contain the end of a head.
    searched: usize,
    /// What is still to come of the current request.
    framing: Framing,
    /// The origin that the current head names.
    origin: Option<String>,
    head_began: Instant,
    head_timer: Option<Timer>,
    stall_timer: Option<Timer>,
    linger: Option<Linger>,
    /// The last response, if the connection itself wrote it.
    final_response: Option<FinalResponse>,
}

/// Discards what arrives.
struct Linger {
    timer: Timer,
    bytes: usize,
}

struct FinalResponse {
    response: Vec<u8>,
    written: usize,
    is_shut_down: bool,
    linger: Linger,
}

impl Linger {
    fn new() -> Self {
        Self { timer: Box::pin(sleep(LINGER)), bytes: 0 }
    }

    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        self.bytes > LINGER_BYTES_MAX || self.timer.as_mut().poll(cx).is_ready()
    }
}

impl Connection {
    pub(super) fn new(stream: TcpStream, slot: Slot, rejections: Rc<Rejections>) -> Self {
        let time = if slot.is_crowded { HEAD_TIMEOUT_CROWDED } else { HEAD_TIMEOUT };
        Self {
            stream,
            exchange: Exchange::new(slot.is_crowded),
            slot,
            rejections,
            held: Vec::new(),
            released: 0,
            searched: 0,
            framing: Framing::Over,
            origin: None,
            head_began: Instant::now(),
            head_timer: Some(Box::pin(sleep(time))),
            stall_timer: None,
            linger: None,
            final_response: None,
        }
    }

    pub(super) fn exchange(&self) -> &Rc<Exchange> {
        &self.exchange
    }

    /// Hands over a part of what is held.
    fn hand_over(&mut self, bytes: usize, buf: &mut ReadBuf<'_>) -> usize {
        let count = bytes.min(buf.remaining());
        buf.put_slice(self.held.get(..count).unwrap_or_default());
        if count == self.held.len() {
            // Frees the memory: few connections pipeline.
            self.held = Vec::new();
        } else {
            self.held.drain(..count);
        }
        count
    }

    /// Begins with a request whose head ends at `end`. Returns how many of the bytes belong to the request.
    fn open(&mut self, bytes: &mut [u8], end: usize) -> usize {
        let (head, rest) = bytes.split_at_mut(end);
        let Head { framing, origin } = head::read(head);
        (self.framing, self.origin, self.head_timer) = (framing, origin, None);
        self.slot.busy();
        self.exchange.begin();
        end.saturating_add(self.take(rest))
    }

    /// How many of the next bytes belong to the body of the current request.
    fn take(&mut self, bytes: &[u8]) -> usize {
        let body = self.framing.take(bytes);
        self.exchange.passed(body);
        if self.framing.is_over() {
            self.exchange.received();
        }
        body
    }

    /// Releases the request that is held, if its head is complete.
    fn open_held(&mut self) {
        let mut held = std::mem::take(&mut self.held);
        held.drain(..head::blank_lines(&held));
        let end = head::end(&held, self.searched);
        self.searched = if end.is_some() { 0 } else { held.len() };
        if let Some(end) = end {
            self.released = self.open(&mut held, end);
        }
        self.held = held;
    }

    /// The next request. An end without bytes ends the connection.
    fn poll_head(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if !self.held.is_empty() {
                self.open_held();
                if self.released > 0 {
                    self.released -= self.hand_over(self.released, buf);
                    return Poll::Ready(Ok(()));
                }
            }
            if self.held.len() > HEAD_BYTES_MAX {
                return self.reject(cx, Rejection::TooLarge);
            }
            match Pin::new(&mut self.stream).poll_read(cx, buf)? {
                Poll::Pending => {
                    // Only now: a request that has arrived is served, even if newer connections have come meanwhile.
                    if self.slot.is_displaced(cx) {
                        return Poll::Ready(Ok(()));
                    }
                    let is_late = self.head_timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready());
                    return if is_late { self.reject(cx, Rejection::Slow) } else { Poll::Pending };
                }
                Poll::Ready(()) if buf.filled().is_empty() => return Poll::Ready(Ok(())),
                Poll::Ready(()) => {}
            }
            if self.head_timer.is_none() && self.held.is_empty() {
                self.head_began = Instant::now();
            }
            let is_first = self.held.is_empty() && head::blank_lines(buf.filled()) == 0;
            if let Some(end) = head::end(buf.filled(), 0).filter(|_| is_first) {
                // A whole head at once, as nearly always, is not copied.
                let request = self.open(buf.filled_mut(), end);
                self.held.extend_from_slice(buf.filled().get(request..).unwrap_or_default());
                buf.set_filled(request);
                return Poll::Ready(Ok(()));
            }
            self.held.extend_from_slice(buf.filled());
            buf.clear();
            self.head_timer.get_or_insert_with(|| Box::pin(sleep(HEAD_TIMEOUT)));
        }
    }

    /// More of the current request's body.
    fn poll_body(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.exchange.is_body_behind() {
            self.exchange.wait(cx);
            return Poll::Pending;
        }
        if self.held.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
            let body = self.take(buf.filled());
            self.held.extend_from_slice(buf.filled().get(body..).unwrap_or_default());
            buf.set_filled(body);
        } else {
            let held = std::mem::take(&mut self.held);
            let body = self.take(held.get(..held.len().min(buf.remaining())).unwrap_or_default());
            self.held = held;
            self.hand_over(body, buf);
        }
        Poll::Ready(Ok(()))
    }

    /// Notices the end of the connection while a response is due; what else arrives waits for its turn.
    fn poll_ahead(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.exchange.wait(cx);
        if !self.held.is_empty() {
            return Poll::Pending;
        }
        let mut ahead = buf.take(AHEAD_BYTES_MAX);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut ahead))?;
        if ahead.filled().is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.held.extend_from_slice(ahead.filled());
        Poll::Pending
    }

    /// What follows a response that came before the end of its request. The server discards it.
    fn poll_rest(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.linger.get_or_insert_with(Linger::new).is_over(cx) {
            return Poll::Ready(Ok(()));
        }
        if self.held.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        } else {
            self.hand_over(self.held.len(), buf);
        }
        if let Some(linger) = &mut self.linger {
            linger.bytes = linger.bytes.saturating_add(buf.filled().len());
        }
        Poll::Ready(Ok(()))
    }

    /// Writes a rejection, and ends the connection.
    fn reject(&mut self, cx: &mut Context<'_>, rejection: Rejection) -> Poll<io::Result<()>> {
        self.begin_final_response(rejection);
        self.poll_final_response(cx).map(Ok)
    }

    fn begin_final_response(&mut self, rejection: Rejection) {
        let held = std::mem::take(&mut self.held);
        // Of an incomplete head only what has arrived is known.
        let origin = self.origin.take().or_else(|| head::read(&mut held.clone()).origin);
        let response = self.rejections.response(rejection, origin.as_deref(), self.head_began);
        self.final_response = Some(FinalResponse { response, written: 0, is_shut_down: false, linger: Linger::new() });
    }

    /// Resolves when the client has the response, or does not take it.
    fn poll_final_response(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(FinalResponse { response, written, is_shut_down, linger }) = &mut self.final_response else {
            return Poll::Ready(());
        };
        if linger.is_over(cx) {
            return Poll::Ready(());
        }
        let mut stream = Pin::new(&mut self.stream);
        while let Some(rest) = response.get(*written..).filter(|rest| !rest.is_empty()) {
            match ready!(stream.as_mut().poll_write(cx, rest)) {
                Ok(count @ 1..) => *written = written.saturating_add(count),
                Ok(0) | Err(_) => return Poll::Ready(()),
            }
        }
        if !*is_shut_down {
            // The client may have closed the connection already.
            let _ = ready!(stream.as_mut().poll_shutdown(cx));
            *is_shut_down = true;
        }
        loop {
            let mut discarded = [0; 4096];
            let mut buf = ReadBuf::new(&mut discarded);
            match ready!(stream.as_mut().poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => linger.bytes = linger.bytes.saturating_add(buf.filled().len()),
                Ok(()) | Err(_) => return Poll::Ready(()),
            }
            if linger.bytes > LINGER_BYTES_MAX {
                return Poll::Ready(());
            }
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.final_response.is_some() {
            return this.poll_final_response(cx).map(Ok);
        }
        if this.released > 0 {
            this.released -= this.hand_over(this.released, buf);
            return Poll::Ready(Ok(()));
        }
        match this.exchange.phase() {
            Phase::Idle => this.poll_head(cx, buf),
            Phase::Parsing | Phase::Responding if this.framing.is_over() => this.poll_ahead(cx, buf),
            Phase::Parsing | Phase::Responding => this.poll_body(cx, buf),
            Phase::Draining => this.poll_rest(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let phase = this.exchange.phase();
        if this.final_response.is_none() && phase == Phase::Parsing {
            this.begin_final_response(Rejection::of(buf));
        }
        if this.final_response.is_some() {
            // The server's own response, which has no body, is replaced.
            return this.poll_final_response(cx).map(|()| Ok(buf.len()));
        }
        if phase == Phase::Idle {
            // No request is in progress: the server rejects what follows one that has its response.
            return Poll::Ready(Ok(buf.len()));
        }
        let written = Pin::new(&mut this.stream).poll_write(cx, buf);
        if written.is_ready() {
            this.stall_timer = None;
            return written;
        }
        ready!(this.stall_timer.get_or_insert_with(|| Box::pin(sleep(STALL_TIMEOUT))).as_mut().poll(cx));
        this.slot.stalled();
        // The kernel discards what it holds for the client, too.
        let _ = SockRef::from(&this.stream).set_linger(Some(Duration::ZERO));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// The server flushes when all that it had to write has been taken.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.exchange.flushed();
        if this.exchange.phase() == Phase::Idle {
            this.slot.idle();
        }
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
