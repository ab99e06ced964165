//! Relay events from the outbox to the broker: claim, publish, settle.
//!
//! No database transaction is open while the broker is asked. An event is marked only when the broker has confirmed
//! that very one; everything else leaves it pending, so an event can be published twice and never be lost.

use std::sync::Arc;
use std::time::Duration;

use crate::kernel::{Backoff, DependencyError};
use crate::users::application::ports::{Claim, EventPublisher, Outbox, PublishOutcome, RefusedEvent, Settlement};

/// How long a refused event is left alone: the broker is there, but nobody listens for this event yet.
const REFUSED_BACKOFF: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));

/// The use case and its ports.
pub struct RelayOutbox {
    /// Where events wait.
    pub outbox: Arc<dyn Outbox>,
    /// Takes them to the broker.
    pub publisher: Arc<dyn EventPublisher>,
    /// Most events of one batch.
    pub batch_max: u32,
    /// How long nobody else may publish a claimed event.
    pub lease: Duration,
}

/// What one batch came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    /// Claimed events.
    pub claimed: usize,
    /// Confirmed and marked.
    pub confirmed: usize,
    /// Given back by the broker, with the reason of the first.
    pub refused: usize,
    /// The broker's words on the first refused one.
    pub first_refusal: Option<String>,
    /// Without an answer: the connection is not worth keeping.
    pub unanswered: usize,
    /// Rows of the claim that another process had taken over meanwhile.
    pub lost_to_others: u64,
    /// Whether the claim was full, so that more are likely to wait.
    pub more_likely: bool,
}

impl RelayOutbox {
    /// Relays one batch. `roll` is a random number in `0.0..1.0` that spreads the retries of refused events.
    ///
    /// # Errors
    /// [`DependencyError`] of the outbox; the claimed events are given back when their lease ends.
    pub async fn execute(&self, roll: f64) -> Result<Relayed, DependencyError> {
        let claim = self.outbox.claim(self.batch_max, self.lease).await?;
        if claim.events.is_empty() {
            return Ok(Relayed::default());
        }
        let outcomes = self.publisher.publish(&claim.events).await;
        let (settlement, mut relayed) = settle(&claim, outcomes, roll);
        relayed.more_likely = claim.events.len() >= usize::try_from(self.batch_max).unwrap_or(usize::MAX);
        let claimed = u64::try_from(relayed.claimed).unwrap_or(u64::MAX);
        let changed = self.outbox.settle(claim.token, settlement).await?;
        relayed.lost_to_others = claimed.saturating_sub(changed);
        Ok(relayed)
    }
}

/// Sorts the outcomes. An event without an outcome counts as unanswered.
fn settle(claim: &Claim, outcomes: Vec<PublishOutcome>, roll: f64) -> (Settlement, Relayed) {
    let mut settlement = Settlement::default();
    let padded = outcomes.into_iter().chain(std::iter::repeat(PublishOutcome::Unanswered));
    for (event, outcome) in claim.events.iter().zip(padded) {
        match outcome {
            PublishOutcome::Confirmed => settlement.confirmed.push(event.id),
            PublishOutcome::Unanswered => settlement.unanswered.push(event.id),
            PublishOutcome::Refused(reason) => settlement.refused.push(RefusedEvent {
                id: event.id,
                reason,
                retry_in: REFUSED_BACKOFF.delay(event.attempts, roll),
            }),
        }
    }
    let relayed = Relayed {
        claimed: claim.events.len(),
        confirmed: settlement.confirmed.len(),
        refused: settlement.refused.len(),
        first_refusal: settlement.refused.first().map(|r| r.reason.clone()),
        unanswered: settlement.unanswered.len(),
        ..Relayed::default()
    };
    (settlement, relayed)
}
