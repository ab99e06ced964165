//! What a pool is made of: sessions with a lifetime.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use deadpool_postgres::ClientWrapper;

use crate::infra::postgres::connect::{OpenError, Opened, Server, Servers, SessionLimits};
use crate::infra::system::random_fraction;

/// A lifetime is shortened at random by at most 1/`JITTER`, so that sessions opened together do not end together.
const JITTER: u32 = 5;
/// Pause between attempts to replace a session whose lifetime is over.
const REPLACE_PAUSE: Duration = Duration::from_secs(5);

pub(super) type Pool = deadpool::managed::Pool<SessionManager>;

/// Opens and renews the sessions of a pool.
pub(super) struct SessionManager {
    pub(super) servers: Arc<Servers>,
    pub(super) application_name: &'static str,
    pub(super) limits: SessionLimits,
    pub(super) lifetime: Duration,
    /// See [`crate::infra::postgres::connect::Connector`].
    pub(super) generation: Arc<AtomicU64>,
}

/// A session of a pool.
pub(super) struct PooledSession {
    pub(super) client: ClientWrapper,
    /// To be replaced from then on, as soon as that is possible.
    replace_at: Instant,
    generation: u64,
}

impl Manager for SessionManager {
    type Type = PooledSession;
    type Error = OpenError;

    async fn create(&self) -> Result<PooledSession, OpenError> {
        // Read before: what makes the sessions of a generation suspect may happen while this one is opened.
        let generation = self.generation.load(Ordering::Acquire);
        // Boxed, because it is large and seldom needed.
        let opening = self.servers.open(self.application_name, Some(self.limits), Server::Writable);
        let Opened { client, driver } = Box::pin(opening).await?;
        let lifetime = self.lifetime.saturating_sub((self.lifetime / JITTER).mul_f64(random_fraction()));
        Ok(PooledSession {
            client: ClientWrapper::new(client, driver),
            replace_at: Instant::now() + lifetime,
            generation,
        })
    }

    /// Without a round trip: an open session is assumed to work. The error is never shown, because the pool proceeds to the
    /// next session, or opens one.
    async fn recycle(&self, session: &mut PooledSession, _: &Metrics) -> RecycleResult<OpenError> {
        if session.client.is_closed() || session.generation != self.generation.load(Ordering::Acquire) {
            return Err(RecycleError::message("the session is over"));
        }
        if Instant::now() >= session.replace_at {
            match self.create().await {
                Ok(fresh) => *session = fresh,
                Err(e) if e.is_read_only() => return Err(e.into()),
                // It is old and works, where a new one would not.
                Err(_) => session.replace_at = Instant::now() + REPLACE_PAUSE,
            }
        }
        Ok(())
    }
}
