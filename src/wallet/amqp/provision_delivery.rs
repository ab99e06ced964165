//! Reads a delivery of `wallet.provision`.

use std::sync::Arc;

use crate::contracts::{
    ATTEMPT_HEADER, EventRefused, REQUEST_ID_HEADER, SIGNATURE_HEADER, TRACEPARENT_HEADER, UserRegistered,
};
use crate::infra::amqp::{AmqpError, Incoming};
use crate::infra::security::event_signature::{EventSignatures, SignatureRefused, SignedEvent};
use crate::kernel::{RequestId, TraceParent, UserId};
use crate::wallet::application::retry_ladder::{Attempt, RetryLadder};

/// An unacknowledged delivery, with what can be read without decoding its body.
#[derive(Debug)]
pub(crate) struct ProvisionDelivery {
    incoming: Incoming,
    /// `message_id`, if the publisher set one.
    pub(crate) event_id: Option<String>,
    /// Id of the HTTP request that caused the event.
    pub(crate) request_id: Option<RequestId>,
    pub(crate) traceparent: Option<TraceParent>,
    /// Failed attempts so far.
    pub(crate) attempt: Attempt,
    /// How often a consumer crashed or lost its connection before it acknowledged this message.
    pub(crate) earlier_deliveries: u32,
}

/// Why a delivery can never be processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Poison {
    #[error(transparent)]
    Body(#[from] EventRefused),
    #[error(transparent)]
    Signature(#[from] SignatureRefused),
    #[error("event is not signed")]
    Unsigned,
}

#[derive(Clone)]
pub(crate) struct DeliveryReader {
    pub(crate) signatures: Arc<EventSignatures>,
    /// Whether an unsigned event is poison; an invalid signature always is.
    pub(crate) require_signed: bool,
    pub(crate) ladder: Arc<RetryLadder>,
}

impl DeliveryReader {
    /// Reads properties and headers; invalid ones count as missing.
    pub(crate) fn open(&self, incoming: Incoming) -> ProvisionDelivery {
        let left_queue = incoming.last_death().map(|death| death.queue);
        ProvisionDelivery {
            event_id: incoming.message_id(),
            request_id: incoming.header_text(REQUEST_ID_HEADER).as_deref().and_then(RequestId::parse),
            traceparent: incoming.header_text(TRACEPARENT_HEADER).as_deref().and_then(TraceParent::parse),
            attempt: self.ladder.attempt(incoming.header_int(ATTEMPT_HEADER), left_queue.as_deref()),
            earlier_deliveries: incoming.earlier_deliveries(),
            incoming,
        }
    }

    /// Decodes and verifies the event, and returns the user who needs a wallet.
    pub(crate) fn user(&self, delivery: &ProvisionDelivery) -> Result<UserId, Poison> {
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
    pub(crate) fn body(&self) -> &[u8] {
        self.incoming.body()
    }

    /// The header `x-signature`. If it is not text it is an invalid signature, not a missing one.
    pub(crate) fn signature(&self) -> Option<String> {
        self.incoming
            .has_header(SIGNATURE_HEADER)
            .then(|| self.incoming.header_text(SIGNATURE_HEADER).unwrap_or_default())
    }

    /// The property `type`.
    pub(crate) fn kind(&self) -> Option<String> {
        self.incoming.kind()
    }

    /// Acknowledges it. If this fails, the broker redelivers it.
    pub(crate) async fn ack(&self) -> Result<(), AmqpError> {
        self.incoming.ack().await
    }
}
