//! Vocabulary shared by every layer: typed ids, idempotency keys, names of services, time, secrets, back-off, error classes,
//! exit codes, invisible characters.
//!
//! Pure values only: nothing here blocks, does I/O, logs or reads the environment. The time, new ids and random numbers
//! are arguments. [`fault`] is the one exception, and compiles to nothing outside the fault tests.

mod backoff;
mod clock;
mod exit;
mod failure;
pub mod fault;
mod id;
mod idempotency_key;
mod reminder;
mod role;
mod secret;
mod self_post;
mod service_name;
mod text;

pub use backoff::Backoff;
pub use clock::{Clock, Timestamp, has_leap_second, rfc3339};
pub use exit::{ExitError, ExitStatus};
pub use failure::{Classified, DependencyError, FailureClass, chain, first_lines};
pub use id::{EntryId, EventId, IdSource, RequestId, TraceParent, UserId};
pub use idempotency_key::{IdempotencyKey, KeyRefused};
pub use reminder::Reminder;
pub use role::Role;
pub use secret::Secret;
pub use self_post::SelfPost;
pub use service_name::{ServiceName, ServiceNameRefused};
pub use text::is_invisible;
