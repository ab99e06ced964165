//! Opens sessions: limits, planner settings, TLS, every server of a URL in turn, detection of dead peers.

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use slog::{Logger, info, o, warn};
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;
use tokio_postgres::config::{Host, LoadBalanceHosts, TargetSessionAttrs};
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, CancelToken, Client, Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::infra::config::{DatabaseConfig, DatabaseUrl};
use crate::infra::postgres::shard::Shards;
use crate::infra::postgres::tls::{self, TlsError, advice, tls_error};
use crate::infra::postgres::url::{SslMode, Target};
use crate::infra::system::random_index;
use crate::kernel::{Reminder, chain};

/// Limit for one server, from the TCP connection to a session that is ready, unless the URL has another one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection is closed when sent data stays unacknowledged for this long.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);
/// Idle time before the first keepalive probe.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
/// Most addresses that one attempt tries.
const ADDRESSES_MAX: usize = 8;

/// Every statement of a pool finds few rows by an index, so it is planned once, for any values, and without table scans. The
/// planner's statistics are always outdated on a table that grows by thousands of rows per second: a plan that is cheapest
/// for 1,000 rows scans all of them when there are 100,000.
const PLANNER: &str = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c enable_bitmapscan=off \
                       -c enable_hashjoin=off -c enable_mergejoin=off -c jit=off";

/// Limits of the database or the account are meant for requests, which have their own. (A pool ends its idle sessions
/// itself: a server that does it may do so while a request takes one.)
const NO_LIMITS: &str =
    "-c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0 -c idle_session_timeout=0";

/// The same as a statement, because a pooler may drop the options. Limits that this server does not have are left out. The
/// check interval cancels a statement on the server when this process is killed.
const UNLIMITED: &str =
    "SELECT set_config(name, CASE name WHEN 'client_connection_check_interval' THEN '1s' ELSE '0' END, false)
     FROM pg_settings
     WHERE name IN ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout',
                    'transaction_timeout', 'client_connection_check_interval')";

/// The function of the server that reports that a commit no longer waits for a standby: a name, never translated.
const NOT_REPLICATED: &str = "SyncRepWaitForLSN";

/// The isolation level that statements outside of a transaction are written for (decision D022), whatever the database's
/// default is. Transactions name it themselves, because a pooler may drop these options.
const ISOLATION: &str = r"-c default_transaction_isolation=read\ committed";

/// Limits that the server enforces.
#[derive(Clone, Copy, Debug)]
pub(super) struct SessionLimits {
    pub(super) statement_timeout: Duration,
    pub(super) lock_timeout: Duration,
}

/// Which servers a session may be opened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Server {
    /// One that accepts writes: neither a standby nor a database that is read-only.
    Writable,
    /// One that the URL accepts.
    AsTheUrlSays,
}

/// Opens the connections of a process.
#[derive(Clone)]
pub struct Connector {
    pub(super) config: DatabaseConfig,
    pub(super) runtime: Arc<Servers>,
    pub(super) owner: Arc<Servers>,
    /// Incremented when the open sessions of all pools are no longer trusted.
    pub(super) generation: Arc<AtomicU64>,
    /// Whether a commit got no response since the last one that was confirmed.
    pub(super) in_doubt: Arc<AtomicBool>,
    /// Held while a session is replaced by a new one that is open before the old one is closed: at most one at a time.
    pub(super) replacing: Arc<tokio::sync::Mutex<()>>,
    pub(super) io: Handle,
}

impl Connector {
    /// Reads the certificates that the URLs name. Connects to nothing yet, and will log nothing.
    ///
    /// # Errors
    /// When a file of certificates has changed since the configuration was read, or a certificate is to be verified and no
    /// CA is trusted.
    pub fn new(config: &DatabaseConfig, io: Handle) -> Result<Self, TlsError> {
        Self::logging(config, io, &Logger::root(slog::Discard, o!()))
    }

    /// The same, but servers that accept no session will be logged.
    ///
    /// # Errors
    /// As of [`Self::new`].
    pub fn logging(config: &DatabaseConfig, io: Handle, logger: &Logger) -> Result<Self, TlsError> {
        Ok(Self {
            config: config.clone(),
            runtime: Arc::new(Servers::of(&config.url, logger)?),
            owner: Arc::new(Servers::of(&config.migration_url, logger)?),
            generation: Arc::default(),
            in_doubt: Arc::default(),
            replacing: Arc::default(),
            io,
        })
    }

    /// Of the database, as configured.
    pub const fn shards(&self) -> Shards {
        self.config.shards
    }
}

/// The servers of a URL.
pub(super) struct Servers {
    target: Target,
    tls: MakeRustlsConnect,
    /// The place of the address that accepted the last session. It is tried first, so that a server that hangs costs its
    /// time limit once and not for every session.
    accepted: AtomicUsize,
    failures: Failures,
}

/// A session, and what drives it.
pub(super) struct Opened {
    pub(super) client: Client,
    /// Ends when the client is dropped and the server has responded to everything that was sent.
    pub(super) driver: JoinHandle<()>,
    /// Set when the server reports that a commit is on no standby, although it should be.
    pub(super) not_replicated: Arc<AtomicBool>,
}

/// What drives a session that is not ready yet. It is ended if that fails, or it would wait for the server.
struct Unfinished(Option<AbortHandle>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(driver) = &self.0 {
            driver.abort();
        }
    }
}

/// Logs the servers that accept no session, each once per minute.
struct Failures {
    logger: Logger,
    /// By address.
    logged: Mutex<HashMap<String, Reminder>>,
}

impl Failures {
    fn log(&self, address: &Address, reason: &str, is_standby: bool) {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        // A name may lead to ever new addresses.
        if logged.len() > ADDRESSES_MAX {
            logged.clear();
        }
        if !logged.entry(address.to_string()).or_default().is_due() {
            return;
        }
        // One of several servers usually is a standby.
        if is_standby {
            info!(self.logger, "a database server accepts no writes"; "error" => reason);
        } else {
            warn!(self.logger, "no session on a database server"; "error" => reason);
        }
    }

    fn ended(&self, address: &Address) {
        self.logged.lock().unwrap_or_else(PoisonError::into_inner).remove(&address.to_string());
    }
}

/// One address of a server.
struct Address {
    /// As the URL names it, for TLS and for messages.
    host: String,
    /// `None` for a Unix socket, whose path is `host`.
    socket: Option<SocketAddr>,
    port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.socket {
            Some(socket) if socket.ip().to_string() == self.host => write!(f, "{socket}"),
            Some(socket) => write!(f, "{} ({socket})", self.host),
            None => f.write_str(&self.host),
        }
    }
}

impl Servers {
    fn of(url: &DatabaseUrl, logger: &Logger) -> Result<Self, TlsError> {
        let target = Target::parse(url.expose()).map_err(|problem| TlsError::new(&problem))?;
        let failures = Failures { logger: logger.clone(), logged: Mutex::default() };
        Ok(Self { tls: tls::connector(&target)?, target, accepted: AtomicUsize::new(0), failures })
    }

    pub(super) fn user(&self) -> Option<&str> {
        self.target.driver.get_user()
    }

    /// Opens a session on the first server that accepts one, within a time limit for each. The connection is driven by
    /// the current runtime. Without `limits`, none applies.
    pub(super) async fn open(
        &self,
        application_name: &str,
        limits: Option<SessionLimits>,
        server: Server,
    ) -> Result<Opened, OpenError> {
        let session = self.session(application_name, limits, server);
        let limit = self.limit();
        let mut failed = OpenError::default();
        let addresses = self.addresses(limit, &mut failed).await;
        let first = self.accepted.load(Ordering::Relaxed).checked_rem(addresses.len()).unwrap_or(0);
        for (place, address) in addresses.iter().enumerate().cycle().skip(first).take(addresses.len()) {
            let opening = async {
                let opened = self.open_at(address, &session, limit).await?;
                let mut unfinished = Unfinished(Some(opened.driver.abort_handle()));
                if limits.is_none() {
                    opened.client.batch_execute(UNLIMITED).await?;
                }
                unfinished.0 = None;
                Ok(opened)
            };
            let reason = match timeout(limit, opening).await {
                Ok(Ok(opened)) => {
                    self.accepted.store(place, Ordering::Relaxed);
                    self.failures.ended(address);
                    return Ok(opened);
                }
                Ok(Err(e)) => {
                    failed.read_only |= is_read_only(&e);
                    let reason = reason(address, &e);
                    self.failures.log(address, &reason, is_read_only(&e));
                    reason
                }
                Err(_) => {
                    let reason = format!("{address}: no response within {} ms", limit.as_millis());
                    self.failures.log(address, &reason, false);
                    reason
                }
            };
            failed.attempts.push(reason);
        }
        Err(failed)
    }

    /// Asks the server to cancel what the session does. It may have ended meanwhile.
    pub(super) async fn cancel(&self, session: &CancelToken) {
        // The caller sees by the session whether it helped.
        let _ = timeout(self.limit(), session.cancel_query(self.tls.clone())).await;
    }

    /// For one server.
    fn limit(&self) -> Duration {
        self.target.connect_timeout.unwrap_or(CONNECT_TIMEOUT)
    }

    /// What the session is to be, without the server.
    fn session(&self, application_name: &str, limits: Option<SessionLimits>, server: Server) -> tokio_postgres::Config {
        let url = &self.target.driver;
        let mut session = tokio_postgres::Config::new();
        session
            .application_name(url.get_application_name().unwrap_or(application_name))
            .keepalives(url.get_keepalives())
            .ssl_negotiation(url.get_ssl_negotiation())
            .channel_binding(url.get_channel_binding())
            .target_session_attrs(url.get_target_session_attrs())
            .tcp_user_timeout(url.get_tcp_user_timeout().copied().unwrap_or(UNACKNOWLEDGED_MAX));
        let default_idle = tokio_postgres::Config::new().get_keepalives_idle();
        let idle = url.get_keepalives_idle();
        session.keepalives_idle(if idle == default_idle { KEEPALIVE_IDLE } else { idle });
        if let Some(interval) = url.get_keepalives_interval() {
            session.keepalives_interval(interval);
        }
        if let Some(retries) = url.get_keepalives_retries() {
            session.keepalives_retries(retries);
        }
        if let Some(user) = url.get_user() {
            session.user(user);
        }
        if let Some(password) = url.get_password() {
            session.password(password);
        }
        if let Some(database) = url.get_dbname() {
            session.dbname(database);
        }
        if server == Server::Writable {
            session.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        let own = url.get_options().unwrap_or_default();
        match limits {
            // The last one counts, so the URL cannot change what correctness rests on.
            Some(limits) => session.options(format!(
                "{own} {ISOLATION} {PLANNER} -c statement_timeout={} -c lock_timeout={} -c idle_in_transaction_session_timeout={} -c idle_session_timeout=0 -c client_connection_check_interval=1000",
                limits.statement_timeout.as_millis(),
                limits.lock_timeout.as_millis(),
                // Our transactions are never idle for longer than their own statements take.
                limits.statement_timeout.as_millis(),
            )),
            // From the start: the limit of the database or the account may be too short for the first statement.
            None => session.options(format!("{own} {NO_LIMITS}")),
        };
        session
    }

    /// Every address of every server of the URL, in the order in which they are tried.
    async fn addresses(&self, limit: Duration, failed: &mut OpenError) -> Vec<Address> {
        let url = &self.target.driver;
        let (hosts, numbers, ports) = (url.get_hosts(), url.get_hostaddrs(), url.get_ports());
        let mut addresses = Vec::new();
        for place in 0..hosts.len().max(numbers.len()) {
            let port = ports.get(place).or_else(|| ports.first()).copied().unwrap_or(5432);
            match (hosts.get(place), numbers.get(place)) {
                (Some(Host::Unix(path)), _) => {
                    addresses.push(Address { host: path.display().to_string(), socket: None, port });
                }
                (Some(Host::Tcp(host)), Some(number)) => {
                    let socket = Some(SocketAddr::new(*number, port));
                    addresses.push(Address { host: host.clone(), socket, port });
                }
                (None, Some(number)) => {
                    let socket = Some(SocketAddr::new(*number, port));
                    addresses.push(Address { host: number.to_string(), socket, port });
                }
                (Some(Host::Tcp(host)), None) => {
                    match timeout(limit, tokio::net::lookup_host((host.as_str(), port))).await {
                        Ok(Ok(found)) => addresses.extend(found.map(|socket| Address {
                            host: host.clone(),
                            socket: Some(socket),
                            port,
                        })),
                        Ok(Err(e)) => self.unresolved(host, port, &e.to_string(), failed),
                        Err(_) => self.unresolved(host, port, "the name was not resolved in time", failed),
                    }
                }
                (None, None) => {}
            }
        }
        addresses.truncate(ADDRESSES_MAX);
        if url.get_load_balance_hosts() == LoadBalanceHosts::Random {
            for place in (1..addresses.len()).rev() {
                addresses.swap(place, random_index(place + 1));
            }
        }
        addresses
    }

    fn unresolved(&self, host: &str, port: u16, reason: &str, failed: &mut OpenError) {
        let address = Address { host: format!("{host}:{port}"), socket: None, port };
        let reason = format!("{address}: {reason}");
        self.failures.log(&address, &reason, false);
        failed.attempts.push(reason);
    }

    /// With and without TLS, in the order of `sslmode`.
    async fn open_at(
        &self,
        address: &Address,
        session: &tokio_postgres::Config,
        limit: Duration,
    ) -> Result<Opened, tokio_postgres::Error> {
        use tokio_postgres::config::SslMode::{Disable, Prefer, Require};
        let (first, second) = match self.target.ssl_mode {
            // There is no TLS over a Unix socket.
            _ if address.socket.is_none() => (Disable, None),
            SslMode::Disable => (Disable, None),
            SslMode::Allow => (Disable, Some(Require)),
            SslMode::Prefer => (Prefer, Some(Disable)),
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => (Require, None),
        };
        match (self.open_with(address, session, limit, first).await, second) {
            (Err(e), Some(second)) if rejects_encryption(&e) => self.open_with(address, session, limit, second).await,
            (opened, _) => opened,
        }
    }

    async fn open_with(
        &self,
        address: &Address,
        session: &tokio_postgres::Config,
        limit: Duration,
        mode: tokio_postgres::config::SslMode,
    ) -> Result<Opened, tokio_postgres::Error> {
        let mut config = session.clone();
        config.host(&address.host).port(address.port).connect_timeout(limit).ssl_mode(mode);
        if let Some(socket) = address.socket {
            config.hostaddr(socket.ip());
        }
        let (client, connection) = config.connect(self.tls.clone()).await?;
        let not_replicated = Arc::new(AtomicBool::new(false));
        let driver = tokio::spawn(drive(connection, Arc::clone(&not_replicated)));
        Ok(Opened { client, driver, not_replicated })
    }
}

/// Runs a connection until it ends.
async fn drive<T>(mut connection: Connection<Socket, T>, not_replicated: Arc<AtomicBool>)
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    // The response to a commit comes after its warning, so the client sees the flag.
    while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
        if matches!(&message, AsyncMessage::Notice(notice) if notice.routine() == Some(NOT_REPLICATED)) {
            not_replicated.store(true, Ordering::SeqCst);
        }
    }
}

/// Whether a session may be accepted with TLS where it was rejected without, or the other way round: the handshake failed,
/// or the server's rules for hosts have no entry for this kind of connection.
fn rejects_encryption(error: &tokio_postgres::Error) -> bool {
    tls_error(error).is_some() || error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
}

/// Why no server accepted a session, by address. Whatever the reasons are, they say nothing about a statement.
#[derive(Debug, Default)]
pub struct OpenError {
    attempts: Vec<String>,
    read_only: bool,
}

impl OpenError {
    /// Whether a server was reached that accepts no writes.
    pub(super) const fn is_read_only(&self) -> bool {
        self.read_only
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.attempts.as_slice() {
            [] => f.write_str("no database server address was found"),
            attempts => f.write_str(&attempts.join("; ")),
        }
    }
}

impl std::error::Error for OpenError {}

/// Why this server accepted no session.
fn reason(address: &Address, error: &tokio_postgres::Error) -> String {
    let mut reason = format!("{address}: {}", chain(error));
    if let Some(tls) = tls_error(error) {
        if !reason.contains(&tls.to_string()) {
            reason = format!("{reason}: {tls}");
        }
        if let Some(advice) = advice(tls) {
            reason = format!("{reason}; {advice}");
        }
    }
    reason
}

/// How the driver reports a server that it does not want. The system's own errors have a number.
fn is_read_only(error: &tokio_postgres::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|e| e.downcast_ref::<std::io::Error>());
    source.is_some_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied && e.raw_os_error().is_none())
}
