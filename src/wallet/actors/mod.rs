//! The actors of the wallet role.

mod hold_sweeper;
mod ledger_handle;
mod ledger_inbox;
mod ledger_writer;
mod metrics;
mod provision_batch;
mod provision_consumer;
mod retry_router;
mod topology_keeper;

pub(crate) use hold_sweeper::{HoldSweeperActor, HoldSweeperDeps};
pub(crate) use ledger_handle::LedgerHandle;
pub(crate) use ledger_inbox::LedgerInboxes;
pub(crate) use ledger_writer::{LedgerWriterActor, LedgerWriterDeps, ledger_connections};
pub(crate) use metrics::{HoldMetrics, LedgerMetrics, ProvisionMetrics, RouterMetrics, TopologyMetrics};
pub(crate) use provision_consumer::{ProvisionConsumerActor, ProvisionConsumerDeps};
pub(crate) use retry_router::{RetryRouterActor, RetryRouterDeps, RouterHandle};
pub(crate) use topology_keeper::{TopologyHandle, TopologyKeeperActor, TopologyKeeperDeps};
