//! Actor machinery without a context: the supervisor and its children, the HTTP listener, signals.
//!
//! actix's own supervisor does not survive a panic and restarts without delay, so ours makes each child from a factory,
//! learns of its end by a drop guard, and rebuilds it with back-off and a budget.

mod broker_link;
mod child;
mod database_probe;
mod draining;
mod housekeeper;
mod http_actor;
mod signals;
mod supervisor;

pub(crate) use broker_link::{BrokerLink, blocked_gauge};
pub use child::{Child, EndReason, Handle, Lifeline, Shutdown};
pub use database_probe::DatabaseProbeActor;
pub(crate) use draining::Draining;
pub use housekeeper::HousekeeperActor;
pub use http_actor::{Application, HttpActor, HttpDeps, bind};
pub use signals::Signals;
pub use supervisor::{ChildSpec, Escalation, Stop, SupervisorActor};
