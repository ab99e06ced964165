//! A network of a test's own between a role and a server: slow, silent, one-way, chopped, torn.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::AsyncReadExt as _;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How one direction of every connection behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flow {
    /// Nothing passes; what was sent meanwhile passes when it ends.
    silent: bool,
    /// Each piece waits this long.
    latency: Duration,
    /// Bytes of a piece at most; 0 for as they come.
    piece: usize,
}

impl Flow {
    pub const SILENT: Self = Self { silent: true, latency: Duration::ZERO, piece: 0 };

    pub fn latency(latency: Duration) -> Self {
        Self { latency, ..Self::default() }
    }

    pub fn pieces(piece: usize) -> Self {
        Self { piece, ..Self::default() }
    }
}

/// What becomes of a `COMMIT` that a client sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Commit {
    /// It is carried out and answered.
    #[default]
    Passes,
    /// It never reaches the server, and the connection breaks.
    IsLost,
    /// The server carries it out; the connection breaks when the answer is on its way.
    LosesItsAnswer,
    /// The server carries it out; from then on the connection is silent.
    IsNotAnswered,
}

#[derive(Clone, Copy, Debug, Default)]
struct Weather {
    up: Flow,
    down: Flow,
    /// For the next one alone.
    commit: Commit,
    /// Raised to tear all connections that are open.
    torn: usize,
}

#[derive(Clone)]
struct Network {
    weather: Arc<watch::Sender<Weather>>,
    commits_hit: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

/// The network, on a port of its own.
pub struct Proxy {
    port: u16,
    network: Network,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.tear();
    }
}

impl Proxy {
    /// In front of a server of this machine; everything passes.
    pub async fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("address").port();
        let weather = Arc::new(watch::Sender::new(Weather::default()));
        let network = Network { weather, commits_hit: Arc::default(), connections: Arc::default() };
        let carrier = network.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                carrier.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(carry(client, server, carrier.clone()));
            }
        });
        Self { port, network, task }
    }

    /// The URL through this network instead of straight to the server.
    pub fn url(&self, direct: &str) -> String {
        let (before, after) = direct.split_once("@127.0.0.1:").expect("a URL of this machine");
        let after = after.trim_start_matches(|c: char| c.is_ascii_digit());
        format!("{before}@127.0.0.1:{}{after}", self.port)
    }

    pub fn both(&self, flow: Flow) {
        self.network.weather.send_modify(|weather| (weather.up, weather.down) = (flow, flow));
    }

    /// From the server to the role.
    pub fn down(&self, flow: Flow) {
        self.network.weather.send_modify(|weather| weather.down = flow);
    }

    pub fn next_commit(&self, commit: Commit) {
        self.network.weather.send_modify(|weather| weather.commit = commit);
    }

    /// How many commits something was done to.
    pub fn commits_hit(&self) -> usize {
        self.network.commits_hit.load(Ordering::SeqCst)
    }

    /// How many connections were asked for so far.
    pub fn connections(&self) -> usize {
        self.network.connections.load(Ordering::SeqCst)
    }

    /// Resets every connection.
    pub fn tear(&self) {
        self.network.weather.send_modify(|weather| weather.torn += 1);
    }
}

impl Network {
    fn flow(&self, direction: Direction) -> Flow {
        let weather = self.weather.borrow();
        if direction == Direction::Up { weather.up } else { weather.down }
    }

    /// What becomes of the bytes, if they hold a commit that something is to be done to.
    fn take_commit(&self, bytes: &[u8]) -> Commit {
        let mut taken = Commit::Passes;
        if self.weather.borrow().commit != taken && bytes.windows(6).any(|word| word == b"COMMIT") {
            self.weather.send_modify(|weather| taken = std::mem::take(&mut weather.commit));
            self.commits_hit.fetch_add(usize::from(taken != Commit::Passes), Ordering::SeqCst);
        }
        taken
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

/// What the two directions of one connection tell each other.
#[derive(Default)]
struct Line {
    mute: AtomicBool,
    break_at_answer: AtomicBool,
}

/// One connection, until either side ends it or it is torn.
async fn carry(client: TcpStream, server: u16, network: Network) {
    let mut weather = network.weather.subscribe();
    let torn = weather.borrow().torn;
    let Ok(server) = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], server))).await else { return };
    for stream in [&client, &server] {
        let _ = stream.set_nodelay(true);
    }
    let line = Line::default();
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let broken = tokio::select! {
        broken = pump((from_client, &to_server), Direction::Up, &network, &line) => broken,
        broken = pump((from_server, &to_client), Direction::Down, &network, &line) => broken,
        _ = weather.wait_for(|weather| weather.torn > torn) => true,
    };
    if broken {
        for half in [&to_client, &to_server] {
            // A reset instead of an orderly end.
            let _ = SockRef::from(half.as_ref()).set_linger(Some(Duration::ZERO));
        }
    }
}

/// Carries one direction; `true` where it ends by a break, `false` where a side has ended it.
async fn pump(
    (mut from, to): (OwnedReadHalf, &OwnedWriteHalf),
    direction: Direction,
    network: &Network,
    line: &Line,
) -> bool {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return false };
        if direction == Direction::Down && line.break_at_answer.load(Ordering::SeqCst) {
            return true;
        }
        if direction == Direction::Up {
            match network.take_commit(&buffer[..count]) {
                Commit::Passes => {}
                Commit::IsLost => return true,
                Commit::LosesItsAnswer => line.break_at_answer.store(true, Ordering::SeqCst),
                Commit::IsNotAnswered => line.mute.store(true, Ordering::SeqCst),
            }
        }
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            let flow = network.flow(direction);
            if flow.silent || (direction == Direction::Down && line.mute.load(Ordering::SeqCst)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            }
            if !flow.latency.is_zero() {
                tokio::time::sleep(flow.latency).await;
            }
            let piece = if flow.piece == 0 { rest.len() } else { flow.piece.min(rest.len()) };
            if write_all(to, &rest[..piece]).await.is_err() {
                return false;
            }
            rest = &rest[piece..];
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
