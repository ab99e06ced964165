//! The actors of this role: the outbox poller, the outbox watch and the password hasher.

mod meters;
mod outbox_poller;
mod outbox_watch;
mod password_hasher;

pub use meters::{DepthMeters, HashMeters, RelayMeters};
pub use outbox_poller::{OutboxPoller, OutboxPollerPlan, RelayWaker};
pub use outbox_watch::OutboxWatch;
pub use password_hasher::{HasherHandle, HasherThread, start_hashers};
