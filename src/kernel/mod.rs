//! The words that every room shares: typed ids, time, secrets, back-off, classes of failure.
//!
//! Pure values only. Nothing here waits, opens, logs or reads an environment; what a function needs of the
//! outside (the time, an id, a random number) is handed to it. [`fault`] is the one exception, and is empty in every
//! build but that of the fault tests.

mod backoff;
mod clock;
mod failure;
pub mod fault;
mod id;
mod role;
mod secret;

pub use backoff::Backoff;
pub use clock::{Clock, Timestamp};
pub use failure::{Classified, DependencyError, FailureClass, chain};
pub use id::{EntryId, EventId, IdSource, RequestId, TraceParent, UserId};
pub use role::Role;
pub use secret::Secret;
