//! Publishes copies of failed deliveries to a retry tier or to the dead letters, with confirms, so that the originals
//! may be acknowledged.

use crate::contracts::{
    ATTEMPT_HEADER, DEAD_LETTER_EXCHANGE, DEAD_LETTER_QUEUE, ERROR_HEADER, REQUEST_ID_HEADER, SIGNATURE_HEADER,
    TRACEPARENT_HEADER,
};
use crate::infra::amqp::{
    AmqpError, Broker, BrokerConnection, ConfirmedPublisher, FrameSize, HeaderValue, Outgoing, PublishResult,
};
use crate::wallet::amqp::provision_delivery::ProvisionDelivery;
use crate::wallet::application::retry_ladder::{Attempt, LadderStep, RetryLadder};

/// Name of the connection in the broker's listings.
const CONNECTION_NAME: &str = "purse wallet: retries";
/// Longest error text in the header of a copy, in characters.
const ERROR_CHARS_MAX: usize = 500;
/// Longest signature that is copied, in bytes; valid ones have about 400. Headers must fit into one frame.
const SIGNATURE_BYTES_MAX: usize = 4096;

/// Where a failed delivery goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Tier {
        queue: String,
        /// From 1, for logs and metrics.
        number: usize,
        /// Failed attempts, with the one that led here.
        attempt: Attempt,
    },
    /// A tier, without counting an attempt: the store could not be asked.
    Postponed {
        queue: String,
    },
    DeadLetter,
}

impl Route {
    pub(crate) fn postponed(ladder: &RetryLadder) -> Self {
        Self::Postponed { queue: ladder.first_tier().queue() }
    }

    /// The next step of the ladder after `attempt` failed.
    pub(crate) fn after(ladder: &RetryLadder, attempt: Attempt) -> Self {
        match ladder.next(attempt) {
            LadderStep::Tier { tier, number, attempt } => Self::Tier { queue: tier.queue(), number, attempt },
            LadderStep::DeadLetter => Self::DeadLetter,
        }
    }
}

/// A copy of a failed delivery, addressed to its route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeliveryCopy(Outgoing);

impl DeliveryCopy {
    /// Copies body, type, id, request id, trace and signature, and adds the attempt and the error. `fallback_id` is for
    /// a message without an id.
    pub(crate) fn new(delivery: &ProvisionDelivery, route: &Route, error: &str, fallback_id: uuid::Uuid) -> Self {
        let (exchange, routing_key, attempt) = match route {
            Route::Tier { queue, attempt, .. } => ("", queue.as_str(), *attempt),
            Route::Postponed { queue } => ("", queue.as_str(), delivery.attempt),
            Route::DeadLetter => (DEAD_LETTER_EXCHANGE, DEAD_LETTER_QUEUE, delivery.attempt),
        };
        let error: String = error.chars().take(ERROR_CHARS_MAX).collect();
        let mut headers =
            vec![(ATTEMPT_HEADER, HeaderValue::Int(attempt.count())), (ERROR_HEADER, HeaderValue::Text(error))];
        let copied = [
            (REQUEST_ID_HEADER, delivery.request_id.as_ref().map(ToString::to_string)),
            (TRACEPARENT_HEADER, delivery.traceparent.as_ref().map(|t| t.as_str().to_owned())),
            (SIGNATURE_HEADER, delivery.signature().filter(|s| s.len() <= SIGNATURE_BYTES_MAX)),
        ];
        headers.extend(copied.into_iter().filter_map(|(name, text)| Some((name, HeaderValue::Text(text?)))));
        Self(Outgoing {
            exchange,
            routing_key: routing_key.to_owned(),
            message_id: delivery.event_id.clone().unwrap_or_else(|| fallback_id.to_string()),
            kind: delivery.kind(),
            headers,
            body: delivery.body().to_vec(),
        })
    }
}

impl DeliveryCopy {
    /// Whether it goes to the dead letters, and not to a retry tier.
    pub(crate) fn is_dead_letter(&self) -> bool {
        self.0.exchange == DEAD_LETTER_EXCHANGE
    }
}

/// Why a copy is not known to have arrived. The original stays unacknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RouteError {
    /// Its queue is missing; declaring it again may help.
    #[error("broker returned the copy: {0}")]
    Unroutable(String),
    /// Its queue is full, or lost its leader while this channel published.
    #[error("queue rejected the copy")]
    Rejected,
    #[error("broker did not confirm the copy")]
    Unconfirmed,
}

/// Publishes on its own connection, so that blocked publishing never delays acks.
pub(crate) struct RetryPublisher {
    publisher: ConfirmedPublisher,
}

impl RetryPublisher {
    /// Connects, and needs no queue to exist: copies whose queue is missing are returned.
    pub(crate) async fn connect(broker: &Broker) -> Result<Self, AmqpError> {
        let connection = broker.connect(CONNECTION_NAME, FrameSize::Small).await?;
        Ok(Self { publisher: ConfirmedPublisher::open(connection).await? })
    }

    pub(crate) const fn connection(&self) -> &BrokerConnection {
        self.publisher.connection()
    }

    /// Publishes all of them and waits for all confirms; the results are in the order of `copies`.
    pub(crate) async fn publish(&self, copies: Vec<DeliveryCopy>) -> Vec<Result<(), RouteError>> {
        let mut results = Vec::with_capacity(copies.len());
        for batch in batches_of_unique_ids(copies) {
            results.extend(self.publisher.publish(&batch).await.into_iter().map(|result| match result {
                PublishResult::Confirmed => Ok(()),
                PublishResult::Unroutable(reason) => Err(RouteError::Unroutable(reason)),
                PublishResult::Nacked => Err(RouteError::Rejected),
                PublishResult::Unconfirmed => Err(RouteError::Unconfirmed),
            }));
        }
        results
    }
}

/// Splits the sequence wherever an id repeats, because the publisher recognises returned messages by their id, and where
/// the exchange changes, because a missing exchange closes the channel with the confirms of all that was sent before.
fn batches_of_unique_ids(copies: Vec<DeliveryCopy>) -> Vec<Vec<Outgoing>> {
    let mut batches: Vec<Vec<Outgoing>> = Vec::new();
    for DeliveryCopy(copy) in copies {
        match batches.last_mut() {
            Some(batch)
                if batch
                    .iter()
                    .all(|earlier| earlier.message_id != copy.message_id && earlier.exchange == copy.exchange) =>
            {
                batch.push(copy);
            }
            _ => batches.push(vec![copy]),
        }
    }
    batches
}
