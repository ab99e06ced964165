//! Publishes outbox events, signed and confirmed.

use async_trait::async_trait;

use crate::contracts::{
    EVENTS_EXCHANGE, REQUEST_ID_HEADER, SIGNATURE_HEADER, TRACEPARENT_HEADER, USER_REGISTERED_KEY, UserRegistered,
};
use crate::infra::amqp::{
    AmqpError, Broker, ConfirmedPublisher, Declaration, Frames, HeaderValue, Outgoing, PublishResult,
};
use crate::infra::security::event_signature::{EventSignatures, SignedEvent};
use crate::infra::telemetry::{Span, SpanName, Spans};
use crate::kernel::RequestId;
use crate::users::application::ports::{ClaimedEvent, EventPublisher, PublishOutcome};
use std::sync::Arc;
use std::time::Instant;

/// Name of the publishing connection in the broker's listings.
const CONNECTION_NAME: &str = "purse users: outbox";

/// [`EventPublisher`] over a connection of its own.
pub struct OutboxPublisher {
    publisher: ConfirmedPublisher,
    signatures: Arc<EventSignatures>,
    spans: Spans,
}

impl OutboxPublisher {
    /// Connects and declares the exchange. The queue is the other role's to declare; until it has, events come back as
    /// unroutable and stay pending.
    ///
    /// # Errors
    /// [`AmqpError`].
    pub async fn connect(broker: &Broker, signatures: Arc<EventSignatures>, spans: Spans) -> Result<Self, AmqpError> {
        let connection = broker.connect(CONNECTION_NAME, Frames::Small).await?;
        connection.declare(&[Declaration::TopicExchange(EVENTS_EXCHANGE)]).await?;
        Ok(Self { publisher: ConfirmedPublisher::open(connection).await?, signatures, spans })
    }

    /// Whether its connection is open, as far as this side knows.
    pub fn is_open(&self) -> bool {
        self.publisher.connection().is_open()
    }

    /// Whether the broker takes nothing at the moment.
    pub fn is_blocked(&self) -> bool {
        self.publisher.connection().is_blocked()
    }

    /// Closes the connection.
    pub async fn close(self) {
        self.publisher.into_connection().close().await;
    }

    /// An event takes as long as its batch, since the broker's answers come for all of it.
    fn trace(&self, event: &ClaimedEvent, outcome: &PublishOutcome, began: Instant) {
        if let Some(trace) = &event.traceparent {
            self.spans.record(|| Span {
                name: SpanName::Publish,
                trace,
                took: began.elapsed(),
                failed: *outcome != PublishOutcome::Confirmed,
                attributes: vec![("messaging.message.id", event.id.to_string())],
            });
        }
    }

    fn message(&self, event: &ClaimedEvent) -> Result<Outgoing, PublishOutcome> {
        let refused = |reason: &str| PublishOutcome::Refused(reason.to_owned());
        if event.kind != UserRegistered::TYPE {
            return Err(refused("unknown type of event"));
        }
        let decoded = UserRegistered::decode(event.payload.as_bytes()).map_err(|e| refused(&e.to_string()))?;
        let (message_id, subject) = (event.id.to_string(), decoded.user_id.to_string());
        let signed = SignedEvent { message_id: &message_id, subject: &subject, body: event.payload.as_bytes() };
        let signature = self.signatures.sign(&signed).map_err(|e| refused(&e.to_string()))?;
        let mut headers = vec![(SIGNATURE_HEADER, HeaderValue::Text(signature))];
        if let Some(request_id) = event.request_id.as_ref().map(RequestId::as_str) {
            headers.push((REQUEST_ID_HEADER, HeaderValue::Text(request_id.to_owned())));
        }
        if let Some(traceparent) = &event.traceparent {
            headers.push((TRACEPARENT_HEADER, HeaderValue::Text(traceparent.as_str().to_owned())));
        }
        Ok(Outgoing {
            exchange: EVENTS_EXCHANGE.to_owned(),
            routing_key: USER_REGISTERED_KEY.to_owned(),
            message_id,
            kind: Some(event.kind.clone()),
            headers,
            body: event.payload.clone().into_bytes(),
        })
    }
}

#[async_trait]
impl EventPublisher for OutboxPublisher {
    async fn publish(&self, events: &[ClaimedEvent]) -> Vec<PublishOutcome> {
        let began = Instant::now();
        let prepared: Vec<_> = events.iter().map(|event| self.message(event)).collect();
        let messages: Vec<Outgoing> = prepared.iter().filter_map(|p| p.as_ref().ok().cloned()).collect();
        let mut results = self.publisher.publish(&messages).await.into_iter();
        let outcomes: Vec<_> = prepared
            .into_iter()
            .map(|prepared| match prepared {
                Err(refused) => refused,
                Ok(_) => match results.next() {
                    Some(PublishResult::Confirmed) => PublishOutcome::Confirmed,
                    Some(PublishResult::Unroutable(words)) => PublishOutcome::Refused(format!("unroutable: {words}")),
                    Some(PublishResult::Nacked) => PublishOutcome::Refused("refused by the queue".to_owned()),
                    Some(PublishResult::Unanswered) | None => PublishOutcome::Unanswered,
                },
            })
            .collect();
        for (event, outcome) in events.iter().zip(&outcomes) {
            self.trace(event, outcome, began);
        }
        outcomes
    }
}
