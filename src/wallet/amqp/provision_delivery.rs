//! Reads a delivery of `wallet.provision`.

use std::sync::Arc;

use crate::contracts::{
    ATTEMPT_HEADER, EventRefused, REQUEST_ID_HEADER, SIGNATURE_HEADER, TRACEPARENT_HEADER, UserRegistered,
};
use crate::infra::amqp::{AmqpError, Incoming};
use crate::infra::security::event_signature::{EventSignatures, SignatureRefused, SignedEvent};
use crate::kernel::{RequestId, TraceParent, UserId};
use crate::wallet::application::retry_ladder::{Attempt, RetryLadder};

/// A delivery in hand, with what can be read off its envelope.
#[derive(Debug)]
pub struct ProvisionDelivery {
    incoming: Incoming,
    /// `message_id`, where the publisher set one.
    pub event_id: Option<String>,
    /// The request that caused it.
    pub request_id: Option<RequestId>,
    /// Its trace.
    pub traceparent: Option<TraceParent>,
    /// Failed attempts so far.
    pub attempt: Attempt,
    /// How often it was in somebody's hand who died or lost the connection before answering.
    pub unanswered_before: u32,
}

/// Why a delivery can never be handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Poison {
    /// Its body is no event.
    #[error(transparent)]
    Body(#[from] EventRefused),
    /// Its signature is wrong.
    #[error(transparent)]
    Signature(#[from] SignatureRefused),
    /// It has none, and one is required.
    #[error("event is not signed")]
    Unsigned,
}

/// Reads deliveries under one policy.
#[derive(Clone)]
pub struct DeliveryReader {
    /// Verifies signatures.
    pub signatures: Arc<EventSignatures>,
    /// Whether an unsigned event is refused; a wrong signature always is.
    pub require_signed: bool,
    /// Knows the tiers.
    pub ladder: Arc<RetryLadder>,
}

impl DeliveryReader {
    /// Reads the envelope; this cannot fail.
    pub fn open(&self, incoming: Incoming) -> ProvisionDelivery {
        let last_death = incoming.last_death_queue();
        ProvisionDelivery {
            event_id: incoming.message_id(),
            request_id: incoming.header_text(REQUEST_ID_HEADER).as_deref().and_then(RequestId::parse),
            traceparent: incoming.header_text(TRACEPARENT_HEADER).as_deref().and_then(TraceParent::parse),
            attempt: self.ladder.attempt(incoming.header_int(ATTEMPT_HEADER), last_death.as_deref()),
            unanswered_before: incoming.unanswered_before(),
            incoming,
        }
    }

    /// Whose wallet it asks for.
    ///
    /// # Errors
    /// [`Poison`].
    pub fn user(&self, delivery: &ProvisionDelivery) -> Result<UserId, Poison> {
        let event = UserRegistered::decode(delivery.body())?;
        match delivery.signature() {
            None if self.require_signed => return Err(Poison::Unsigned),
            None => {}
            Some(signature) => {
                let signed = SignedEvent {
                    message_id: delivery.event_id.as_deref().unwrap_or_default(),
                    subject: &event.user_id.to_string(),
                    body: delivery.body(),
                };
                self.signatures.verify(&signature, &signed)?;
            }
        }
        Ok(event.user_id)
    }
}

impl ProvisionDelivery {
    /// Body.
    pub fn body(&self) -> &[u8] {
        self.incoming.body()
    }

    /// `x-signature`, if there is one of whatever type: what is no text is no valid signature either.
    pub fn signature(&self) -> Option<String> {
        self.incoming
            .has_header(SIGNATURE_HEADER)
            .then(|| self.incoming.header_text(SIGNATURE_HEADER).unwrap_or_default())
    }

    /// `type`.
    pub fn kind(&self) -> Option<String> {
        self.incoming.kind()
    }

    /// Settles it as done with.
    ///
    /// # Errors
    /// [`AmqpError`] when the broker will not hear of it: it delivers it again.
    pub async fn ack(&self) -> Result<(), AmqpError> {
        self.incoming.ack().await
    }
}
