//! The actors of this role: the provisioning consumer, the retry router, the ledger writer.

mod ledger_writer;
mod meters;
mod provision_batch;
mod provision_consumer;
mod retry_router;

pub use ledger_writer::{LEDGER_CONNECTIONS, LedgerHandle, LedgerWriter, LedgerWriterPlan};
pub use meters::{LedgerMeters, ProvisionMeters, RouterMeters};
pub use provision_consumer::{ProvisionConsumer, ProvisionConsumerPlan};
pub use retry_router::{RetryRouter, RetryRouterPlan, RouterHandle};
