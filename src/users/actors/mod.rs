//! The actors of this role: the outbox poller, the outbox watch and the password hasher.

mod metrics;
mod outbox_poller;
mod outbox_watch;
mod password_hasher;

pub use metrics::{DepthMetrics, HashMetrics, RelayMetrics};
pub use outbox_poller::{OutboxPollerActor, OutboxPollerDeps, RelayWaker};
pub use outbox_watch::OutboxWatchActor;
pub use password_hasher::{HasherHandle, PasswordHasherActor, start_hashers};
