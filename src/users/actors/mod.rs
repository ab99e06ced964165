//! The actors of the users role.

mod metrics;
mod outbox_poller;
mod outbox_pruner;
mod outbox_watch;
mod password_hasher;

pub(crate) use metrics::{DepthMetrics, HashMetrics, RelayMetrics, pruned_counter};
pub(crate) use outbox_poller::{OutboxPollerActor, OutboxPollerDeps, RelayWaker};
pub(crate) use outbox_pruner::{OutboxPrunerActor, PRUNE_INTERVAL};
pub(crate) use outbox_watch::OutboxWatchActor;
pub(crate) use password_hasher::{HasherHandle, PasswordHasherActor, start_hashers};
