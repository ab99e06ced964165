//! Names of exchanges, queues, routing keys and headers, and the rule that names a retry tier.

use std::time::Duration;

/// Topic exchange, durable: every domain event goes here.
pub const EVENTS_EXCHANGE: &str = "domain.events";
/// Topic exchange, durable: what could not be handled goes here.
pub const DEAD_LETTER_EXCHANGE: &str = "domain.events.dlx";
/// Routing key of [`UserRegistered`](super::UserRegistered) on [`EVENTS_EXCHANGE`].
pub const USER_REGISTERED_KEY: &str = "user.registered";
/// Quorum queue of registrations that wait for a wallet.
pub const PROVISION_QUEUE: &str = "wallet.provision";
/// Classic durable queue without arguments, and also the routing key that leads to it.
pub const DEAD_LETTER_QUEUE: &str = "wallet.provision.dlq";

/// How often the broker may deliver one message before it dead-letters it by itself.
///
/// Said explicitly because the default differs (none before RabbitMQ 4.0, 20 from there): a message that kills the
/// process each time must end in the dead-letter queue, and no innocent one may on the way.
pub const DELIVERY_LIMIT: i64 = 20;

/// Header with the number of failed attempts so far (int). Ours alone, because RabbitMQ 4 no longer reads a
/// republished `x-death`.
pub const ATTEMPT_HEADER: &str = "x-attempt";
/// Header with the reason why a message lies in the dead-letter queue.
pub const ERROR_HEADER: &str = "x-error";
/// Header with the id of the request that caused the event.
pub const REQUEST_ID_HEADER: &str = "x-request-id";
/// Header with the W3C trace context of that request.
pub const TRACEPARENT_HEADER: &str = "traceparent";
/// Header with the compact JWS over the event.
pub const SIGNATURE_HEADER: &str = "x-signature";

/// One step of the retry ladder: a queue that holds a message for its time to live and then gives it back to
/// [`PROVISION_QUEUE`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryTier {
    ttl: Duration,
}

impl RetryTier {
    /// A tier that holds a message for `ttl`, whole milliseconds.
    pub const fn new(ttl: Duration) -> Self {
        Self { ttl }
    }

    /// How long a message stays.
    pub const fn ttl(&self) -> Duration {
        self.ttl
    }

    /// The queue's name. It holds the time, so that a changed time is a new queue and never a refused redeclaration:
    /// `wallet.provision.retry.10s`, `wallet.provision.retry.500ms`.
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
    fn a_tier_is_named_after_its_time() {
        let named = |ms| RetryTier::new(Duration::from_millis(ms)).queue();
        assert_eq!(named(10_000), "wallet.provision.retry.10s");
        assert_eq!(named(30_000), "wallet.provision.retry.30s");
        assert_eq!(named(120_000), "wallet.provision.retry.120s");
        assert_eq!(named(500), "wallet.provision.retry.500ms");
        assert_eq!(named(1_500), "wallet.provision.retry.1500ms");
    }
}
