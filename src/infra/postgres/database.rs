//! Units of work on pooled connections.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{Object, PoolError, QueueMode, TimeoutType};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::IsolationLevel;

use crate::infra::metrics::{MetricName, Metrics, gauge_value};
use crate::infra::postgres::connect::{Connector, SessionLimits};
use crate::infra::postgres::error::{DbError, SessionFate};
use crate::infra::postgres::gate::Gate;
use crate::infra::postgres::pool::{Pool, PooledSession, SessionManager};

/// A connection with `prepare_cached` and `transaction`.
pub type Client = deadpool_postgres::ClientWrapper;

/// The future of a unit of work, which borrows its connection.
pub type Work<'c, T> = Pin<Box<dyn Future<Output = Result<T, DbError>> + Send + 'c>>;

/// A transaction with `prepare_cached`.
pub type Transaction<'c> = deadpool_postgres::Transaction<'c>;

/// Begins a transaction at the isolation level that the order of our statements relies on (decision D022). Named here and not
/// only by an option of the session, which a pooler in front of the server may drop.
pub const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

/// The same, as a transaction that rolls back when it is dropped.
///
/// # Errors
/// [`DbError`].
pub async fn begin(client: &mut Client) -> Result<Transaction<'_>, DbError> {
    Ok(client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).start().await?)
}

const CONNECTIONS: MetricName =
    MetricName { name: "purse_db_pool_connections", help: "Open connections of a pool, in use or idle." };
const WAITING: MetricName =
    MetricName { name: "purse_db_pool_waiting", help: "Units of work waiting for a connection." };

/// How much longer than `statement_timeout` a unit of work may take.
const DEADLINE_MARGIN: Duration = Duration::from_millis(500);

/// The purpose and size of a pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolOptions {
    /// Shown in `pg_stat_activity`.
    pub application_name: &'static str,
    /// Connections that are opened as needed.
    pub connections_max: usize,
    /// For a pool that finds out whether the database works.
    pub probing: Option<Probing>,
}

/// What is different in a pool that finds out whether the database works. A failure there is for its user to judge.
#[derive(Clone, Copy, Debug)]
pub struct Probing {
    /// Longest time after which a connection is replaced, if that is shorter than for all pools.
    pub lifetime_max: Duration,
    /// Time limit of a unit of work.
    pub deadline: Duration,
}

/// A pool of connections that are driven by the IO runtime.
///
/// Units of work run as tasks of that runtime, so neither a cancelled request nor a busy HTTP thread leaves a transaction
/// open or a response half read.
#[derive(Clone)]
pub struct Database {
    pool: Pool,
    gate: Arc<Gate>,
    io: Handle,
    deadline: Duration,
    is_probing: bool,
    generation: Arc<AtomicU64>,
    in_doubt: Arc<AtomicBool>,
}

impl Database {
    /// Prepares a pool; connects to nothing yet.
    ///
    /// # Errors
    /// For invalid parameters of the pool, which is a bug.
    pub fn new(connector: &Connector, options: PoolOptions) -> Result<Self, DbError> {
        let config = &connector.config;
        let limits = SessionLimits { statement_timeout: config.statement_timeout, lock_timeout: config.lock_timeout };
        let lifetime = options
            .probing
            .map_or(config.connection_lifetime, |probing| probing.lifetime_max.min(config.connection_lifetime));
        let manager = SessionManager {
            servers: Arc::clone(&connector.runtime),
            application_name: options.application_name,
            limits,
            lifetime,
            generation: Arc::clone(&connector.generation),
            replacing: Arc::clone(&connector.replacing),
        };
        let pool = Pool::builder(manager)
            .max_size(options.connections_max)
            .queue_mode(QueueMode::Lifo) // the backend that has just worked has warm caches
            .runtime(Runtime::Tokio1) // the timeout below needs it
            .wait_timeout(Some(config.acquire_timeout)) // default: forever
            .build() // opening has a limit of its own
            .map_err(|e| DbError::NoPool(Box::new(e)))?;
        let deadline = options.probing.map_or(config.statement_timeout + DEADLINE_MARGIN, |probing| probing.deadline);
        Ok(Self {
            pool,
            gate: Arc::default(),
            io: connector.io.clone(),
            deadline,
            is_probing: options.probing.is_some(),
            generation: Arc::clone(&connector.generation),
            in_doubt: Arc::clone(&connector.in_doubt),
        })
    }

    /// Exports the state of the pool, with `name` as its label.
    pub fn show(&self, name: &str, metrics: &Metrics) {
        let in_use = metrics.gauge(CONNECTIONS, &[("pool", name), ("state", "in_use")]);
        let idle = metrics.gauge(CONNECTIONS, &[("pool", name), ("state", "idle")]);
        let waiting = metrics.gauge(WAITING, &[("pool", name)]);
        let pool = self.pool.clone();
        metrics.on_scrape(move || {
            let status = pool.status();
            in_use.set(gauge_value(status.size.saturating_sub(status.available)));
            idle.set(gauge_value(status.available));
            waiting.set(gauge_value(status.waiting));
        });
    }

    /// Runs `work` on a connection of its own, within a deadline, to completion even if the caller is cancelled.
    ///
    /// # Errors
    /// [`DbError`]. After an error that is about the connection, it is closed instead of returned to the pool.
    pub async fn run<T, F>(&self, work: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Client) -> Work<'c, T> + Send + 'static,
    {
        let database = self.clone();
        let task = self.io.spawn(async move {
            let mut connection = PooledConnection::new(database.connection().await?, &database.io);
            let Some(session) = connection.session() else { return Err(DbError::Panicked) };
            let generation = session.generation;
            let Some(client) = session.client.as_mut() else { return Err(DbError::Panicked) };
            let work = work(client);
            let result = timeout_at(Instant::now() + database.deadline, work).await.unwrap_or(Err(DbError::Deadline));
            let result = if session.is_not_replicated() { Err(DbError::NotReplicated) } else { result };
            match result.as_ref().map_or_else(DbError::fate, |_| SessionFate::Keep) {
                SessionFate::Keep => connection.release(),
                SessionFate::Close => {}
                SessionFate::CloseAll => database.distrust_sessions_of(generation),
            }
            if let Err(e) = &result {
                database.note(e, generation);
            }
            result
        });
        task.await.unwrap_or(Err(DbError::Panicked))
    }

    /// `generation` is that of the session.
    fn note(&self, error: &DbError, generation: u64) {
        if error.leaves_a_commit_in_doubt() {
            self.in_doubt.store(true, Ordering::Release);
        }
        // The server may have hung and be replaced by another one. When it wakes, its sessions would still work.
        if error.is_silence() && !self.is_probing {
            self.distrust_sessions_of(generation);
        }
    }

    /// The same as [`Self::distrust_open_sessions`], unless that has been done since a session of this generation was opened:
    /// an overloaded server would otherwise have to open all sessions again for each of many that fail.
    fn distrust_sessions_of(&self, generation: u64) {
        let next = generation.wrapping_add(1);
        let _ = self.generation.compare_exchange(generation, next, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Whether a commit of any pool of this process got no response since the last [`Self::commits_are_confirmed`].
    pub fn is_a_commit_in_doubt(&self) -> bool {
        self.in_doubt.load(Ordering::Acquire)
    }

    /// To be called after a commit was confirmed.
    pub fn commits_are_confirmed(&self) {
        self.in_doubt.store(false, Ordering::Release);
    }

    /// Closes the sessions of all pools of this process that were opened before, instead of using them again: they may
    /// belong to a server that is no longer the one in use.
    pub fn distrust_open_sessions(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// An idle connection, or a new one unless the last attempt to open one has just failed.
    async fn connection(&self) -> Result<Object<SessionManager>, DbError> {
        if self.pool.status().available == 0 && !self.gate.allows(Instant::now().into_std()) {
            return Err(DbError::Unreachable);
        }
        match self.pool.get().await {
            Ok(connection) => {
                self.gate.opened();
                Ok(connection)
            }
            Err(PoolError::Backend(e)) => {
                self.gate.failed(Instant::now().into_std());
                Err(DbError::Open(e))
            }
            // All connections are busy, which says nothing about the database.
            Err(PoolError::Timeout(TimeoutType::Wait)) => Err(DbError::Busy),
            Err(_) => Err(DbError::Unreachable),
        }
    }
}

/// A connection that is closed when dropped, unless it is released to the pool: after a panic or a deadline, statements may
/// still be running on it. It occupies its place in the pool until the server has ended it.
struct PooledConnection {
    object: Option<Object<SessionManager>>,
    io: Handle,
}

impl PooledConnection {
    fn new(object: Object<SessionManager>, io: &Handle) -> Self {
        Self { object: Some(object), io: io.clone() }
    }

    fn session(&mut self) -> Option<&mut PooledSession> {
        self.object.as_deref_mut()
    }

    fn release(&mut self) {
        drop(self.object.take());
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        if let Some(mut object) = self.object.take() {
            self.io.spawn(async move {
                object.close().await;
                drop(Object::take(object));
            });
        }
    }
}
