//! A proxy in front of RabbitMQ that reads frames: it withholds or delays single replies, turns confirms into rejections,
//! and invents alarms.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};

/// Class and method of a reply.
pub type Method = (u16, u16);

pub const START: Method = (10, 10);
pub const TUNE: Method = (10, 30);
pub const OPEN_OK: Method = (10, 41);
pub const CHANNEL_OPEN_OK: Method = (20, 11);
pub const EXCHANGE_DECLARE_OK: Method = (40, 11);
pub const QUEUE_DECLARE_OK: Method = (50, 11);
pub const BIND_OK: Method = (50, 21);
pub const QOS_OK: Method = (60, 11);
pub const CONSUME_OK: Method = (60, 21);
pub const CONFIRM_SELECT_OK: Method = (85, 11);

/// The broker confirms a message.
pub const CONFIRM: Method = (60, 80);
const NACK: u16 = 120;
const METHOD_FRAME: u8 = 1;
const FRAME_END: u8 = 0xce;
/// Type, channel and size; then the payload, then the end.
const HEAD: usize = 7;

/// How many replies of a method are withheld, and for how long.
#[derive(Clone, Copy)]
struct Hold {
    replies: usize,
    time: Duration,
    /// Only replies that contain this text.
    about: &'static str,
}

#[derive(Default)]
struct State {
    holds: Mutex<BTreeMap<Method, Hold>>,
    held: AtomicUsize,
    opened: AtomicUsize,
    open: AtomicUsize,
    /// Confirms of the connections up to this one become rejections.
    rejecting: AtomicUsize,
    /// A text in replies, and what reaches the role instead.
    replaced: Mutex<Option<(&'static str, &'static str)>>,
}

pub struct AmqpProxy {
    port: u16,
    state: Arc<State>,
    injected: broadcast::Sender<Vec<u8>>,
    resets: watch::Sender<usize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for AmqpProxy {
    fn drop(&mut self) {
        self.task.abort();
        self.reset();
    }
}

impl AmqpProxy {
    /// Forwards everything to a port of this machine.
    pub async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("address").port();
        let (state, injected, resets) =
            (Arc::new(State::default()), broadcast::Sender::<Vec<u8>>::new(16), watch::Sender::new(0));
        let (shared, frames, reset) = (Arc::clone(&state), injected.clone(), resets.clone());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = shared.opened.fetch_add(1, Ordering::SeqCst) + 1;
                let (state, frames, mut reset) = (Arc::clone(&shared), frames.subscribe(), reset.subscribe());
                reset.mark_unchanged();
                tokio::spawn(async move {
                    state.open.fetch_add(1, Ordering::SeqCst);
                    tokio::select! {
                        () = forward(client, server, number, &state, frames) => {}
                        _ = reset.changed() => {}
                    }
                    state.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { port, state, injected, resets, task }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The same URL through this proxy.
    pub fn url(&self, direct: &str) -> String {
        let (before, after) = direct.split_once("@127.0.0.1:").expect("a URL of this machine");
        let after = after.trim_start_matches(|c: char| c.is_ascii_digit());
        format!("{before}@127.0.0.1:{}{after}", self.port)
    }

    /// Withholds the next `replies` of this method, and what the broker sends after them on the same connection.
    pub fn hold(&self, method: Method, replies: usize, time: Duration) {
        self.hold_about("", method, replies, time);
    }

    /// The same for replies that contain this text.
    pub fn hold_about(&self, about: &'static str, method: Method, replies: usize, time: Duration) {
        self.state.holds.lock().expect("holds").insert(method, Hold { replies, time, about });
    }

    /// Withholds no further replies.
    pub fn hold_nothing(&self) {
        self.state.holds.lock().expect("holds").clear();
    }

    /// From now on, replies contain another text of the same length in the place of `from`.
    pub fn replace(&self, from: &'static str, to: &'static str) {
        assert_eq!(from.len(), to.len(), "the frame would have another size");
        *self.state.replaced.lock().expect("replaced") = Some((from, to));
    }

    /// Replies withheld so far.
    pub fn held(&self) -> usize {
        self.state.held.load(Ordering::SeqCst)
    }

    /// Connections that a role has open.
    pub fn open(&self) -> usize {
        self.state.open.load(Ordering::SeqCst)
    }

    /// Connections accepted so far.
    pub fn opened(&self) -> usize {
        self.state.opened.load(Ordering::SeqCst)
    }

    /// From now on each confirm on a connection that is open now reaches the role as a rejection.
    pub fn reject_on_open_connections(&self) {
        self.state.rejecting.store(self.opened(), Ordering::SeqCst);
    }

    /// Announces on every open connection that the broker blocks publishing, or that it no longer does.
    pub fn announce_blocked(&self, blocked: bool) {
        let payload: &[u8] = if blocked { b"\x00\x0a\x00\x3c\x03low" } else { b"\x00\x0a\x00\x3d" };
        let size = u32::try_from(payload.len()).expect("size").to_be_bytes();
        let frame = [&[METHOD_FRAME, 0, 0], &size[..], payload, &[FRAME_END]].concat();
        // An error if no connection is open.
        let _ = self.injected.send(frame);
    }

    /// Closes all open connections.
    pub fn reset(&self) {
        self.resets.send_modify(|resets| *resets += 1);
    }
}

impl State {
    /// How long to withhold this reply.
    fn take_hold(&self, method: Method, frame: &[u8]) -> Duration {
        let mut holds = self.holds.lock().expect("holds");
        match holds.get_mut(&method) {
            Some(hold) if hold.replies > 0 && String::from_utf8_lossy(frame).contains(hold.about) => {
                hold.replies -= 1;
                self.held.fetch_add(1, Ordering::SeqCst);
                hold.time
            }
            _ => Duration::ZERO,
        }
    }
}

/// Forwards one connection until either side closes it.
async fn forward(client: TcpStream, server: u16, number: usize, state: &State, injected: broadcast::Receiver<Vec<u8>>) {
    let Ok(server) = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], server))).await else { return };
    for stream in [&client, &server] {
        let _ = stream.set_nodelay(true);
    }
    let ((mut from_client, to_client), (from_server, mut to_server)) = (client.into_split(), server.into_split());
    tokio::select! {
        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
        _ = replies(from_server, to_client, number, state, injected) => {}
    }
}

/// Forwards the broker's frames one by one.
async fn replies(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    number: usize,
    state: &State,
    mut injected: broadcast::Receiver<Vec<u8>>,
) -> std::io::Result<()> {
    let (mut received, mut buffer) = (Vec::new(), vec![0; 16 * 1024]);
    loop {
        tokio::select! {
            read = from.read(&mut buffer) => match read? {
                0 => return Ok(()),
                count => received.extend_from_slice(&buffer[..count]),
            },
            Ok(frame) = injected.recv() => to.write_all(&frame).await?,
        }
        while let Some(mut frame) = take_frame(&mut received) {
            if let Some(method) = method_of(&frame) {
                let hold = state.take_hold(method, &frame);
                if !hold.is_zero() {
                    tokio::time::sleep(hold).await;
                }
                if method == CONFIRM && number <= state.rejecting.load(Ordering::SeqCst) {
                    frame[HEAD + 2..HEAD + 4].copy_from_slice(&NACK.to_be_bytes());
                }
            }
            if let Some((from, to)) = *state.replaced.lock().expect("replaced") {
                let found: Vec<usize> = frame
                    .windows(from.len())
                    .enumerate()
                    .filter(|(_, part)| *part == from.as_bytes())
                    .map(|(at, _)| at)
                    .collect();
                for at in found {
                    frame[at..at + from.len()].copy_from_slice(to.as_bytes());
                }
            }
            to.write_all(&frame).await?;
        }
    }
}

/// Removes the first frame of the bytes received, if all of it has arrived.
fn take_frame(received: &mut Vec<u8>) -> Option<Vec<u8>> {
    let size = u32::from_be_bytes(received.get(3..HEAD)?.try_into().expect("four bytes"));
    let length = HEAD + usize::try_from(size).expect("size") + 1;
    (received.len() >= length).then(|| received.drain(..length).collect())
}

fn method_of(frame: &[u8]) -> Option<Method> {
    let word = |at: usize| Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?));
    (frame[0] == METHOD_FRAME).then_some((word(HEAD)?, word(HEAD + 2)?))
}
