//! The actors of this role: the outbox poller and the password hasher.

mod outbox_poller;
mod password_hasher;

pub use outbox_poller::{OutboxPoller, OutboxPollerPlan, RelayWaker};
pub use password_hasher::{HasherHandle, HasherThread, start_hashers};
