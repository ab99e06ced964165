//! Publishes a copy of a delivery that failed: into a retry tier, or to the dead letters. Confirmed, so that the
//! original may be acked.

use crate::contracts::{
    ATTEMPT_HEADER, DEAD_LETTER_EXCHANGE, DEAD_LETTER_QUEUE, ERROR_HEADER, REQUEST_ID_HEADER, SIGNATURE_HEADER,
    TRACEPARENT_HEADER,
};
use crate::infra::amqp::{AmqpError, Broker, ConfirmedPublisher, Frames, HeaderValue, Outgoing, PublishResult};
use crate::wallet::amqp::provision_delivery::ProvisionDelivery;
use crate::wallet::amqp::topology::topology;
use crate::wallet::application::retry_ladder::{Attempt, LadderStep, RetryLadder};

/// Name of the publishing connection in the broker's listings.
const CONNECTION_NAME: &str = "purse wallet: retries";
/// Longest reason that travels with a message, in characters.
const ERROR_CHARS_MAX: usize = 500;

/// Longest signature that travels on, in bytes; ours have some 400. Headers must fit into one frame.
const SIGNATURE_BYTES_MAX: usize = 4096;

/// Where a failed delivery goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Into this retry tier.
    Tier {
        /// The tier's queue.
        queue: String,
        /// The tier's number, from 1, for logs.
        number: usize,
        /// The count to send along.
        attempt: Attempt,
    },
    /// To the dead letters.
    DeadLetter,
}

impl Route {
    /// The next step of the ladder, with what publishing it needs.
    pub fn after(ladder: &RetryLadder, attempt: Attempt) -> Self {
        match ladder.next(attempt) {
            LadderStep::Tier { tier, number, attempt } => Self::Tier { queue: tier.queue(), number, attempt },
            LadderStep::DeadLetter => Self::DeadLetter,
        }
    }
}

/// A copy of a delivery, on its way elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedDelivery(Outgoing);

impl FailedDelivery {
    /// Copies what has to travel on: body, type, id, request, trace, signature; and adds the count and the reason.
    /// `fallback_id` names a message that has no id of its own.
    pub fn copy(delivery: &ProvisionDelivery, route: &Route, reason: &str, fallback_id: uuid::Uuid) -> Self {
        let (exchange, routing_key, attempt) = match route {
            Route::Tier { queue, attempt, .. } => ("", queue.as_str(), *attempt),
            Route::DeadLetter => (DEAD_LETTER_EXCHANGE, DEAD_LETTER_QUEUE, delivery.attempt),
        };
        let reason: String = reason.chars().take(ERROR_CHARS_MAX).collect();
        let mut headers =
            vec![(ATTEMPT_HEADER, HeaderValue::Int(attempt.count())), (ERROR_HEADER, HeaderValue::Text(reason))];
        let carried = [
            (REQUEST_ID_HEADER, delivery.request_id.as_ref().map(ToString::to_string)),
            (TRACEPARENT_HEADER, delivery.traceparent.as_ref().map(|t| t.as_str().to_owned())),
            (SIGNATURE_HEADER, delivery.signature().filter(|s| s.len() <= SIGNATURE_BYTES_MAX)),
        ];
        headers.extend(carried.into_iter().filter_map(|(name, text)| Some((name, HeaderValue::Text(text?)))));
        Self(Outgoing {
            exchange: exchange.to_owned(),
            routing_key: routing_key.to_owned(),
            message_id: delivery.event_id.clone().unwrap_or_else(|| fallback_id.to_string()),
            kind: delivery.kind(),
            headers,
            body: delivery.body().to_vec(),
        })
    }
}

/// Why a copy did not arrive. The original stays unsettled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The queue is missing or refuses; declaring it again may help.
    #[error("the broker did not take the copy: {0}")]
    Refused(String),
    /// No answer.
    #[error("the broker did not answer")]
    Unanswered,
}

/// Publishes copies on a connection of its own, so that a blocked one never keeps acks from being sent.
pub struct RetryPublisher {
    publisher: ConfirmedPublisher,
}

impl RetryPublisher {
    /// Connects, and declares what it publishes to.
    ///
    /// # Errors
    /// [`AmqpError`].
    pub async fn connect(broker: &Broker, ladder: &RetryLadder) -> Result<Self, AmqpError> {
        let connection = broker.connect(CONNECTION_NAME, Frames::Small).await?;
        connection.declare(&topology(ladder)).await?;
        Ok(Self { publisher: ConfirmedPublisher::open(connection).await? })
    }

    /// Publishes all of them and waits for all answers, in the order of `copies`. Two copies with one id do not go
    /// into one batch: the broker's answers are told apart by it.
    pub async fn publish(&self, copies: Vec<FailedDelivery>) -> Vec<Result<(), RouteError>> {
        let mut results = Vec::with_capacity(copies.len());
        for batch in without_twins(copies) {
            results.extend(self.publisher.publish(&batch).await.into_iter().map(|result| match result {
                PublishResult::Confirmed => Ok(()),
                PublishResult::Unroutable(words) => Err(RouteError::Refused(words)),
                PublishResult::Nacked => Err(RouteError::Refused("the queue refused it".to_owned())),
                PublishResult::Unanswered => Err(RouteError::Unanswered),
            }));
        }
        results
    }

    /// Declares everything again, so that what somebody has deleted is there again, and tells how many dead letters
    /// there are.
    ///
    /// # Errors
    /// [`AmqpError`].
    pub async fn declare(&self, ladder: &RetryLadder) -> Result<u32, AmqpError> {
        let connection = self.publisher.connection();
        connection.declare(&topology(ladder)).await?;
        connection.messages(DEAD_LETTER_QUEUE).await
    }

    /// Whether the broker takes nothing at the moment.
    pub fn is_blocked(&self) -> bool {
        self.publisher.connection().is_blocked()
    }

    /// Whether its connection is open, as far as this side knows.
    pub fn is_open(&self) -> bool {
        self.publisher.connection().is_open()
    }

    /// Closes the connection.
    pub async fn close(self) {
        self.publisher.into_connection().close().await;
    }
}

/// Cuts the sequence wherever an id comes again.
fn without_twins(copies: Vec<FailedDelivery>) -> Vec<Vec<Outgoing>> {
    let mut batches: Vec<Vec<Outgoing>> = Vec::new();
    for FailedDelivery(copy) in copies {
        match batches.last_mut() {
            Some(batch) if batch.iter().all(|earlier| earlier.message_id != copy.message_id) => batch.push(copy),
            _ => batches.push(vec![copy]),
        }
    }
    batches
}
