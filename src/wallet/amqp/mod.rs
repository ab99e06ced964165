//! The wallet role's side of the broker: its topology, its deliveries, and the copies of failed ones.

mod provision_delivery;
mod retry_publisher;
mod topology;

pub(crate) use provision_delivery::{DeliveryReader, ProvisionDelivery};
pub(crate) use retry_publisher::{DeliveryCopy, RetryPublisher, Route, RouteError};
pub(crate) use topology::{Pass, TopologyDeclarer, accepted_instead, provision_queue, topology};
