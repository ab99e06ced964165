//! Publishes outbox events, signed and confirmed.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;

use crate::contracts::{
    EVENTS_EXCHANGE, REQUEST_ID_HEADER, SIGNATURE_HEADER, TRACEPARENT_HEADER, USER_REGISTERED_KEY, UserRegistered,
};
use crate::infra::amqp::{
    AmqpError, Broker, BrokerConnection, ConfirmedPublisher, Declaration, FrameSize, HeaderValue, Outgoing,
    PublishResult,
};
use crate::infra::security::event_signature::{EventSignatures, SignedEvent};
use crate::infra::telemetry::{Span, SpanName, Spans};
use crate::kernel::RequestId;
use crate::users::application::ports::{ClaimedEvent, EventPublisher, PublishOutcome};

/// Name of the connection in the broker's listings.
const CONNECTION_NAME: &str = "purse users: outbox";

/// [`EventPublisher`] on its own connection.
pub(crate) struct OutboxPublisher {
    publisher: ConfirmedPublisher,
    signatures: Arc<EventSignatures>,
    spans: Spans,
}

impl OutboxPublisher {
    /// Connects and declares the exchange. The wallet role declares the queue; until it has, events are returned as
    /// unroutable and stay pending.
    pub(crate) async fn connect(
        broker: &Broker,
        signatures: Arc<EventSignatures>,
        spans: Spans,
    ) -> Result<Self, AmqpError> {
        let connection = broker.connect(CONNECTION_NAME, FrameSize::Small).await?;
        connection.declare(&[Declaration::TopicExchange(EVENTS_EXCHANGE)]).await?;
        Ok(Self { publisher: ConfirmedPublisher::open(connection).await?, signatures, spans })
    }

    pub(crate) const fn connection(&self) -> &BrokerConnection {
        self.publisher.connection()
    }

    /// An event's span lasts as long as its batch, since the confirms come for all of it.
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
            return Err(refused("unknown event type"));
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
            exchange: EVENTS_EXCHANGE,
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
                    Some(PublishResult::Unroutable(reason)) => PublishOutcome::Refused(format!("unroutable: {reason}")),
                    Some(PublishResult::Nacked) => PublishOutcome::Rejected,
                    Some(PublishResult::Unconfirmed) | None => PublishOutcome::Unanswered,
                },
            })
            .collect();
        for (event, outcome) in events.iter().zip(&outcomes) {
            self.trace(event, outcome, began);
        }
        outcomes
    }
}
