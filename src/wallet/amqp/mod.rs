//! The wallet's side of the broker: its topology, reading deliveries, publishing copies of what failed.

mod provision_delivery;
mod retry_publisher;
mod topology;

pub use provision_delivery::{DeliveryReader, Poison, ProvisionDelivery};
pub use retry_publisher::{FailedDelivery, RetryPublisher, Route, RouteError};
pub use topology::topology;
