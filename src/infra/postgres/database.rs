//! Units of work on pooled connections.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, TimeoutType};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

use crate::infra::metrics::{MetricName, Metrics, gauge_value};
use crate::infra::postgres::connect::{CONNECT_TIMEOUT, Connector, SessionLimits, driver_config};
use crate::infra::postgres::error::DbError;
use crate::infra::postgres::gate::Gate;

/// A pooled connection, with `prepare_cached` and `transaction`.
pub type Client = deadpool_postgres::ClientWrapper;

/// What a unit of work returns: a future that borrows its connection.
pub type Work<'c, T> = Pin<Box<dyn Future<Output = Result<T, DbError>> + Send + 'c>>;

const CONNECTIONS: MetricName =
    MetricName { name: "purse_db_pool_connections", help: "Open connections of a pool, in use or idle." };
const WAITING: MetricName =
    MetricName { name: "purse_db_pool_waiting", help: "Units of work that wait for a connection." };

/// How long a unit of work may outlast the server's own limit on a statement.
const DEADLINE_MARGIN: Duration = Duration::from_millis(500);

/// Who a pool is for.
#[derive(Clone, Copy, Debug)]
pub struct PoolOptions {
    /// Shown in `pg_stat_activity`.
    pub application_name: &'static str,
    /// Connections at most.
    pub connections_max: usize,
}

/// A pool whose connections live on the IO runtime, and the way to use it.
///
/// Work runs as a task of that runtime, so neither a request that is hung up nor a busy HTTP thread ever leaves a
/// transaction open or a connection half read.
#[derive(Clone)]
pub struct Database {
    pool: Pool,
    gate: Arc<Gate>,
    io: Handle,
    deadline: Duration,
}

impl Database {
    /// Prepares a pool; nothing is opened yet.
    ///
    /// # Errors
    /// A URL that the driver does not take, which the configuration has ruled out.
    pub fn new(connector: &Connector, options: PoolOptions) -> Result<Self, DbError> {
        let config = &connector.config;
        let limits = SessionLimits { statement_timeout: config.statement_timeout, lock_timeout: config.lock_timeout };
        let driver = driver_config(&config.url, options.application_name, Some(limits))?;
        // Fast: a closed connection is noticed, an open one is trusted; there is no round trip to find out.
        let manager_config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(driver, connector.tls.clone(), manager_config);
        let pool = Pool::builder(manager)
            .max_size(options.connections_max)
            .runtime(Runtime::Tokio1) // the timeouts below need it
            .wait_timeout(Some(config.acquire_timeout)) // default: for ever
            .create_timeout(Some(CONNECT_TIMEOUT)) // default: for ever
            .recycle_timeout(Some(CONNECT_TIMEOUT)) // default: for ever
            .build()
            .map_err(|e| DbError::NoPool(Box::new(e)))?;
        let deadline = config.statement_timeout + DEADLINE_MARGIN;
        Ok(Self { pool, gate: Arc::default(), io: connector.io.clone(), deadline })
    }

    /// Shows the pool in `metrics`, under this name.
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

    /// Runs `work` on a connection of its own, within the deadline, to its end whatever becomes of the caller.
    ///
    /// # Errors
    /// [`DbError`]. After `Deadline` or `Panicked` the connection is closed, not given back.
    pub async fn run<T, F>(&self, work: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Client) -> Work<'c, T> + Send + 'static,
    {
        let database = self.clone();
        let task = self.io.spawn(async move {
            let mut connection = Borrowed(Some(database.connection().await?));
            let Some(object) = connection.0.as_mut() else { return Err(DbError::Panicked) };
            let result =
                timeout_at(Instant::now() + database.deadline, work(object)).await.unwrap_or(Err(DbError::Deadline));
            if !matches!(result, Err(DbError::Deadline)) {
                connection.give_back();
            }
            result
        });
        task.await.unwrap_or(Err(DbError::Panicked))
    }

    /// An idle connection, or a new one if the last try to open one went well or is long enough ago.
    async fn connection(&self) -> Result<Object, DbError> {
        if self.pool.status().available == 0 && !self.gate.lets_through(Instant::now().into_std()) {
            return Err(DbError::Away);
        }
        let connection = self.pool.get().await;
        match &connection {
            Ok(_) => self.gate.opened(),
            Err(PoolError::Backend(_) | PoolError::Timeout(TimeoutType::Create)) => {
                self.gate.failed(Instant::now().into_std());
            }
            // All of them are busy, which says nothing of the database.
            Err(_) => {}
        }
        Ok(connection?)
    }
}

/// A pooled connection that is closed when dropped, unless it is given back: a panic or a deadline leaves statements
/// behind that the next borrower would have to wait for.
struct Borrowed(Option<Object>);

impl Borrowed {
    fn give_back(&mut self) {
        drop(self.0.take());
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            drop(Object::take(object));
        }
    }
}
