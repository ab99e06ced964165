//! What can be read of users. A query has no rules of its own: callers use the port directly, and PostgreSQL implements it.

use std::time::Duration;

use async_trait::async_trait;

use crate::kernel::{DependencyError, UserId};
use crate::users::domain::User;

/// The events that are not published yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxDepth {
    pub events: usize,
    /// Age of the oldest event, by the database's clock; zero while there are none.
    pub oldest_age: Duration,
}

/// Reads the users database without changing it.
#[async_trait]
pub trait UserQueries: Send + Sync {
    async fn profile(&self, id: UserId) -> Result<Option<User>, DependencyError>;
    async fn outbox_depth(&self) -> Result<OutboxDepth, DependencyError>;
}
