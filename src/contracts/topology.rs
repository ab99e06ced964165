//! Names of exchanges, queues, routing keys and headers.

use std::time::Duration;

/// Durable topic exchange for all domain events.
pub const EVENTS_EXCHANGE: &str = "domain.events";
/// Durable topic exchange for messages that could not be processed.
pub const DEAD_LETTER_EXCHANGE: &str = "domain.events.dlx";
/// Routing key of [`UserRegistered`](super::UserRegistered) on [`EVENTS_EXCHANGE`].
pub const USER_REGISTERED_KEY: &str = "user.registered";
/// Quorum queue of registrations whose wallet is to be created.
pub const PROVISION_QUEUE: &str = "wallet.provision";
/// Durable classic queue, or a quorum queue that an operator declared in its place; also the routing key bound to it.
pub const DEAD_LETTER_QUEUE: &str = "wallet.provision.dlq";

/// Deliveries of one message before the broker dead-letters it.
///
/// Set explicitly because the default depends on the version (none before RabbitMQ 4.0, then 20). A message that crashes
/// the process every time must end in the dead-letter queue; an innocent one in the same batch must not.
pub const DELIVERY_LIMIT: i64 = 20;

/// Header with the number of failed attempts (int). A header of its own, because RabbitMQ 4 no longer reads a republished
/// `x-death`.
pub const ATTEMPT_HEADER: &str = "x-attempt";
/// Header with the reason why a message is in the dead-letter queue.
pub const ERROR_HEADER: &str = "x-error";
/// Header with the id of the request that caused the event.
pub const REQUEST_ID_HEADER: &str = "x-request-id";
/// Header with the W3C trace context of that request.
pub const TRACEPARENT_HEADER: &str = "traceparent";
/// Header with the compact JWS over the event.
pub const SIGNATURE_HEADER: &str = "x-signature";

/// One tier of the retry ladder: a queue that holds a message for its time to live and then returns it to
/// [`PROVISION_QUEUE`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryTier {
    ttl: Duration,
}

impl RetryTier {
    /// `ttl` is whole milliseconds.
    pub const fn new(ttl: Duration) -> Self {
        Self { ttl }
    }

    /// How long a message stays in the queue.
    pub const fn ttl(&self) -> Duration {
        self.ttl
    }

    /// The queue's name: `wallet.provision.retry.10s`, `wallet.provision.retry.500ms`. It contains the time to live, so
    /// that a changed time declares a new queue instead of redeclaring one with different arguments.
    pub fn queue(&self) -> String {
        let ms = self.ttl.as_millis();
        if ms != 0 && ms.is_multiple_of(1000) {
            format!("{PROVISION_QUEUE}.retry.{}s", ms / 1000)
        } else {
            format!("{PROVISION_QUEUE}.retry.{ms}ms")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_is_named_after_its_time_to_live() {
        let name = |ms| RetryTier::new(Duration::from_millis(ms)).queue();
        assert_eq!(name(10_000), "wallet.provision.retry.10s");
        assert_eq!(name(30_000), "wallet.provision.retry.30s");
        assert_eq!(name(120_000), "wallet.provision.retry.120s");
        assert_eq!(name(500), "wallet.provision.retry.500ms");
        assert_eq!(name(1_500), "wallet.provision.retry.1500ms");
    }
}
