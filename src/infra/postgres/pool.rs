//! What a pool is made of: sessions with a lifetime.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use deadpool_postgres::ClientWrapper;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::infra::postgres::connect::{OpenError, Opened, Server, Servers, SessionLimits};
use crate::infra::system::random_fraction;

/// A lifetime is shortened at random by at most 1/`JITTER`, so that sessions opened together do not end together.
const JITTER: u32 = 5;
/// Pause between attempts to replace a session whose lifetime is over.
const REPLACE_PAUSE: Duration = Duration::from_secs(5);
/// How long a session may take to end, once nothing is wanted from it. A server that responds ends it within milliseconds.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// How long a session may take before its statement is cancelled.
const CANCEL_AFTER: Duration = Duration::from_millis(50);
/// Pause between two requests to cancel: the first one may come too early.
const CANCEL_PAUSE: Duration = Duration::from_millis(500);

pub(super) type Pool = deadpool::managed::Pool<SessionManager>;

/// Opens and renews the sessions of a pool.
pub(super) struct SessionManager {
    pub(super) servers: Arc<Servers>,
    pub(super) application_name: &'static str,
    pub(super) limits: SessionLimits,
    pub(super) lifetime: Duration,
    /// See [`crate::infra::postgres::connect::Connector`].
    pub(super) generation: Arc<AtomicU64>,
    pub(super) replacing: Arc<tokio::sync::Mutex<()>>,
}

/// A session of a pool.
pub(super) struct PooledSession {
    /// `None` once it is being closed.
    pub(super) client: Option<ClientWrapper>,
    not_replicated: Arc<AtomicBool>,
    driver: JoinHandle<()>,
    servers: Arc<Servers>,
    /// To be replaced from then on, as soon as that is possible.
    replace_at: Instant,
    pub(super) generation: u64,
}

impl PooledSession {
    /// Whether a commit was reported as a success although it is on no standby.
    pub(super) fn is_not_replicated(&self) -> bool {
        self.not_replicated.load(Ordering::SeqCst)
    }

    /// Ends the session. Returns when the server has finished what it still does for it, which is cancelled, or after a
    /// limit.
    pub(super) async fn close(&mut self) {
        let Some(client) = self.client.take() else { return };
        let cancel = client.cancel_token();
        // The driver ends the session when there is nothing left to wait for.
        drop(client);
        let (driver, servers) = (&mut self.driver, &self.servers);
        let ended = async {
            if timeout(CANCEL_AFTER, &mut *driver).await.is_ok() {
                return;
            }
            loop {
                servers.cancel(&cancel).await;
                if timeout(CANCEL_PAUSE, &mut *driver).await.is_ok() {
                    return;
                }
            }
        };
        if timeout(CLOSE_MAX, ended).await.is_err() {
            driver.abort();
        }
    }
}

impl Manager for SessionManager {
    type Type = PooledSession;
    type Error = OpenError;

    async fn create(&self) -> Result<PooledSession, OpenError> {
        // Read before: what makes the sessions of a generation suspect may happen while this one is opened.
        let generation = self.generation.load(Ordering::Acquire);
        // Boxed, because it is large and seldom needed.
        let opening = self.servers.open(self.application_name, Some(self.limits), Server::Writable);
        let Opened { client, driver, not_replicated } = Box::pin(opening).await?;
        let lifetime = self.lifetime.saturating_sub((self.lifetime / JITTER).mul_f64(random_fraction()));
        Ok(PooledSession {
            // The wrapper would abort the driver, and the server would go on with what it does for the session.
            client: Some(ClientWrapper::new(client, tokio::spawn(std::future::ready(())))),
            not_replicated,
            driver,
            servers: Arc::clone(&self.servers),
            replace_at: Instant::now() + lifetime,
            generation,
        })
    }

    /// Without a round trip: an open session is assumed to work. The error is never shown, because the pool proceeds to the
    /// next session, or opens one.
    async fn recycle(&self, session: &mut PooledSession, _: &Metrics) -> RecycleResult<OpenError> {
        let is_closed = session.client.as_ref().is_none_or(|client| client.is_closed());
        if is_closed || session.generation != self.generation.load(Ordering::Acquire) {
            // The pool opens another one only then. Boxed, like the replacement below: every use of a session carries this future.
            Box::pin(session.close()).await;
            return Err(RecycleError::message("the session is over"));
        }
        if Instant::now() < session.replace_at {
            return Ok(());
        }
        // While it is replaced there are two, and the process may not have more than that. It serves until it is its turn.
        let Ok(_turn) = self.replacing.try_lock() else { return Ok(()) };
        match Box::pin(self.create()).await {
            Ok(fresh) => Box::pin(std::mem::replace(session, fresh).close()).await,
            Err(e) if e.is_read_only() => return Err(e.into()),
            // It is old and works, where a new one would not.
            Err(_) => session.replace_at = Instant::now() + REPLACE_PAUSE,
        }
        Ok(())
    }
}
