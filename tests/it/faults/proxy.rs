//! A TCP proxy between a role and a server that makes the network slow, silent, one-way or fragmented, resets
//! connections, and loses commits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::AsyncReadExt as _;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The whole statement, as it is sent. `BEGIN` may name READ COMMITTED.
pub const COMMIT: &[u8] = b"COMMIT\0";
/// What a coordinator sends to each worker in place of `COMMIT` if a transaction wrote on several.
pub const PREPARE: &[u8] = b"PREPARE TRANSACTION '";
pub const COMMIT_PREPARED: &[u8] = b"COMMIT PREPARED '";

/// How one direction of every connection behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flow {
    /// Nothing passes. Bytes are delivered when the silence ends.
    silent: bool,
    /// Delay of each chunk.
    latency: Duration,
    /// Maximum bytes per chunk; 0 for no limit.
    chunk: usize,
}

impl Flow {
    pub const SILENT: Self = Self { silent: true, latency: Duration::ZERO, chunk: 0 };

    pub fn latency(latency: Duration) -> Self {
        Self { latency, ..Self::default() }
    }

    pub fn chunks(chunk: usize) -> Self {
        Self { chunk, ..Self::default() }
    }
}

/// What happens to a `COMMIT` that a role sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CommitFault {
    #[default]
    None,
    /// It never reaches the server, and the connection is reset.
    RequestLost,
    /// The server executes it; the connection is reset when the response arrives.
    ResponseLost,
    /// The server executes it; from then on the connection is silent.
    ResponseWithheld,
    /// The server executes it, but the response is an error: so reports a server that commits on another one and gets no
    /// response from there.
    ResponseIsAnError,
}

#[derive(Clone, Copy, Debug, Default)]
struct Conditions {
    up: Flow,
    down: Flow,
    /// Applies to the next such statement only.
    commit: CommitFault,
    statement: &'static [u8],
    /// Nothing passes after that fault.
    silent_after_commit: bool,
    /// Incremented to reset all open connections.
    resets: usize,
}

#[derive(Clone)]
struct Network {
    conditions: Arc<watch::Sender<Conditions>>,
    commits_intercepted: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    server: Arc<AtomicU16>,
}

pub struct Proxy {
    port: u16,
    network: Network,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.reset_connections();
    }
}

impl Proxy {
    /// Forwards everything to a port of this machine.
    pub async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("address").port();
        let conditions = Arc::new(watch::Sender::new(Conditions::default()));
        let server = Arc::new(AtomicU16::new(server));
        let network = Network { conditions, commits_intercepted: Arc::default(), connections: Arc::default(), server };
        let forwarder = network.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                forwarder.connections.fetch_add(1, Ordering::SeqCst);
                let server = forwarder.server.load(Ordering::SeqCst);
                tokio::spawn(forward(client, server, forwarder.clone()));
            }
        });
        Self { port, network, task }
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

    /// New connections lead to another port from now on, as after the move of a virtual IP. Those that are open stay.
    pub fn points_to(&self, server: u16) {
        self.network.server.store(server, Ordering::SeqCst);
    }

    pub fn both(&self, flow: Flow) {
        self.network.conditions.send_modify(|conditions| (conditions.up, conditions.down) = (flow, flow));
    }

    /// Server to role.
    pub fn down(&self, flow: Flow) {
        self.network.conditions.send_modify(|conditions| conditions.down = flow);
    }

    pub fn fail_next_commit(&self, commit: CommitFault) {
        self.fail_next(COMMIT, commit);
    }

    /// The same, of another statement that ends a transaction.
    pub fn fail_next(&self, statement: &'static [u8], fault: CommitFault) {
        self.network
            .conditions
            .send_modify(|conditions| (conditions.commit, conditions.statement) = (fault, statement));
    }

    /// The same, and from that moment on nothing passes, so that the outcome cannot be looked up.
    pub fn fail_next_commit_and_all_after_it(&self, commit: CommitFault) {
        self.network.conditions.send_modify(|conditions| {
            (conditions.commit, conditions.statement, conditions.silent_after_commit) = (commit, COMMIT, true);
        });
    }

    /// Commits that a fault was applied to.
    pub fn commits_intercepted(&self) -> usize {
        self.network.commits_intercepted.load(Ordering::SeqCst)
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.network.connections.load(Ordering::SeqCst)
    }

    pub fn reset_connections(&self) {
        self.network.conditions.send_modify(|conditions| conditions.resets += 1);
    }
}

impl Network {
    fn flow(&self, direction: Direction) -> Flow {
        let conditions = self.conditions.borrow();
        if direction == Direction::Up { conditions.up } else { conditions.down }
    }

    fn fall_silent(&self) {
        self.conditions.send_modify(|conditions| (conditions.up, conditions.down) = (Flow::SILENT, Flow::SILENT));
    }

    /// The fault for these bytes, if they contain a statement that one is due for.
    fn take_commit_fault(&self, bytes: &[u8]) -> CommitFault {
        let mut taken = CommitFault::None;
        let (due, statement) = (self.conditions.borrow().commit, self.conditions.borrow().statement);
        if due != taken && bytes.windows(statement.len()).any(|part| part == statement) {
            self.conditions.send_modify(|conditions| taken = std::mem::take(&mut conditions.commit));
            self.commits_intercepted.fetch_add(usize::from(taken != CommitFault::None), Ordering::SeqCst);
        }
        taken
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

/// State shared by the two directions of one connection.
#[derive(Default)]
struct Link {
    withhold_response: AtomicBool,
    reset_at_response: AtomicBool,
    commit_fails: AtomicBool,
}

/// The server's response to a `COMMIT`.
const COMMITTED: &[u8] = b"C\0\0\0\x0bCOMMIT\0";
/// An ordinary error, after which the session is ready again.
const FAILED: &[u8] = b"E\0\0\0\x32SERROR\0VERROR\0CXX000\0Mcould not commit there\0\0";

/// `bytes` with an error in the place of the response to a `COMMIT`. `None` if there is no such response.
fn with_error(bytes: &[u8]) -> Option<Vec<u8>> {
    let at = bytes.windows(COMMITTED.len()).position(|part| part == COMMITTED)?;
    Some([&bytes[..at], FAILED, &bytes[at + COMMITTED.len()..]].concat())
}

/// Whether the server reports here that it has executed the statement. The responses to the statements before it may arrive
/// earlier; a reset by then could discard the statement itself.
fn completes(statement: &[u8], bytes: &[u8]) -> bool {
    let tag = statement.strip_suffix(b"\0").or(statement.strip_suffix(b" '")).unwrap_or(statement);
    bytes.windows(tag.len()).any(|part| part == tag)
}

/// Forwards one connection until either side closes it or it is reset.
async fn forward(client: TcpStream, server: u16, network: Network) {
    let mut conditions = network.conditions.subscribe();
    let resets = conditions.borrow().resets;
    let Ok(server) = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], server))).await else { return };
    for stream in [&client, &server] {
        let _ = stream.set_nodelay(true);
    }
    let link = Link::default();
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let reset = tokio::select! {
        reset = pump((from_client, &to_server), Direction::Up, &network, &link) => reset,
        reset = pump((from_server, &to_client), Direction::Down, &network, &link) => reset,
        _ = conditions.wait_for(|conditions| conditions.resets > resets) => true,
    };
    if reset {
        for half in [&to_client, &to_server] {
            // Closing sends a reset.
            let _ = SockRef::from(half.as_ref()).set_linger(Some(Duration::ZERO));
        }
    }
}

/// Forwards one direction; `true` if the connection is to be reset, `false` if a side closed it.
async fn pump(
    (mut from, to): (OwnedReadHalf, &OwnedWriteHalf),
    direction: Direction,
    network: &Network,
    link: &Link,
) -> bool {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return false };
        if direction == Direction::Down
            && link.reset_at_response.load(Ordering::SeqCst)
            && completes(network.conditions.borrow().statement, &buffer[..count])
        {
            return true;
        }
        let mut is_last = false;
        if direction == Direction::Up {
            let fault = network.take_commit_fault(&buffer[..count]);
            is_last = fault != CommitFault::None && network.conditions.borrow().silent_after_commit;
            match fault {
                CommitFault::None => {}
                CommitFault::RequestLost => {
                    if is_last {
                        network.fall_silent();
                    }
                    return true;
                }
                CommitFault::ResponseLost => link.reset_at_response.store(true, Ordering::SeqCst),
                CommitFault::ResponseWithheld => link.withhold_response.store(true, Ordering::SeqCst),
                CommitFault::ResponseIsAnError => link.commit_fails.store(true, Ordering::SeqCst),
            }
        }
        let replaced = if direction == Direction::Down && link.commit_fails.load(Ordering::SeqCst) {
            let replaced = with_error(&buffer[..count]);
            link.commit_fails.store(replaced.is_none(), Ordering::SeqCst);
            replaced
        } else {
            None
        };
        let mut rest = replaced.as_deref().unwrap_or(&buffer[..count]);
        while !rest.is_empty() {
            let flow = network.flow(direction);
            if flow.silent || (direction == Direction::Down && link.withhold_response.load(Ordering::SeqCst)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            }
            if !flow.latency.is_zero() {
                tokio::time::sleep(flow.latency).await;
            }
            let chunk = if flow.chunk == 0 { rest.len() } else { flow.chunk.min(rest.len()) };
            if write_all(to, &rest[..chunk]).await.is_err() {
                return false;
            }
            rest = &rest[chunk..];
        }
        if is_last {
            network.fall_silent();
        }
    }
}

async fn write_all(to: &OwnedWriteHalf, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
