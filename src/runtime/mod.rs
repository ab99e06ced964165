//! Actor infrastructure shared by both roles: the supervisor and its children, the HTTP listener, signals.
//!
//! The supervisor of actix does not survive a panic and restarts without delay. The one here starts each child from a
//! factory, detects its end with a drop guard, and restarts it with back-off and a restart budget.

mod broker_link;
mod child;
mod database_probe;
mod draining;
mod housekeeper;
mod http_actor;
mod signals;
mod supervisor;

pub(crate) use broker_link::{BrokerLink, Rejections, blocked_gauge, undeclared_gauge};
pub use child::{Child, EndReason, Handle, Lifeline, Shutdown};
pub use database_probe::{DatabaseProbeActor, DatabaseProbeDeps, PROBE_INTERVAL};
pub(crate) use draining::Draining;
pub use housekeeper::HousekeeperActor;
pub use http_actor::{HttpActor, HttpDeps, bind};
pub use signals::Signals;
pub use supervisor::{ChildSpec, Escalation, Release, Stop, SupervisorActor};
