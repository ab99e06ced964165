//! The actors of this role: the provisioning consumer, the retry router, the ledger writer.

mod ledger_writer;
mod metrics;
mod provision_batch;
mod provision_consumer;
mod retry_router;

pub use ledger_writer::{LEDGER_CONNECTIONS, LedgerHandle, LedgerWriterActor, LedgerWriterDeps};
pub use metrics::{LedgerMetrics, ProvisionMetrics, RouterMetrics};
pub use provision_consumer::{ProvisionConsumerActor, ProvisionConsumerDeps};
pub use retry_router::{RetryRouterActor, RetryRouterDeps, RouterHandle};
