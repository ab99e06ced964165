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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::EventId;
    use crate::users::application::ports::ClaimedEvent;
    use async_trait::async_trait;
    use std::sync::Mutex;
    use uuid::Uuid;

    fn event(n: u128, attempts: u32) -> ClaimedEvent {
        ClaimedEvent {
            id: EventId::from_uuid(Uuid::from_u128(n)),
            kind: "UserRegistered".to_owned(),
            payload: "{}".to_owned(),
            attempts,
            request_id: None,
            traceparent: None,
        }
    }

    /// An outbox of given events, one of which another process has taken over by the time it is settled.
    struct Shelf {
        events: Vec<ClaimedEvent>,
        settled: Mutex<Option<Settlement>>,
        taken_over: u64,
    }

    #[async_trait]
    impl Outbox for Shelf {
        async fn claim(&self, batch_max: u32, _: Duration) -> Result<Claim, DependencyError> {
            let most = usize::try_from(batch_max).expect("count");
            Ok(Claim { token: Uuid::nil(), events: self.events.iter().take(most).cloned().collect() })
        }

        async fn settle(&self, _: Uuid, settlement: Settlement) -> Result<u64, DependencyError> {
            let all = settlement.confirmed.len() + settlement.refused.len() + settlement.unanswered.len();
            *self.settled.lock().expect("lock") = Some(settlement);
            Ok(u64::try_from(all).expect("count") - self.taken_over)
        }
    }

    /// A broker that answers as it is told, and says nothing to the rest.
    struct Broker(Vec<PublishOutcome>);

    #[async_trait]
    impl EventPublisher for Broker {
        async fn publish(&self, _: &[ClaimedEvent]) -> Vec<PublishOutcome> {
            self.0.clone()
        }
    }

    async fn relay(
        events: Vec<ClaimedEvent>,
        answers: Vec<PublishOutcome>,
        batch_max: u32,
    ) -> (Relayed, Option<Settlement>) {
        let taken_over = u64::from(!events.is_empty());
        let shelf = Arc::new(Shelf { events, settled: Mutex::new(None), taken_over });
        let lease = Duration::from_secs(1);
        let outbox: Arc<dyn Outbox> = shelf.clone();
        let relay = RelayOutbox { outbox, publisher: Arc::new(Broker(answers)), batch_max, lease };
        let relayed = relay.execute(0.0).await.expect("relayed");
        let settled = shelf.settled.lock().expect("lock").clone();
        (relayed, settled)
    }

    #[tokio::test]
    async fn only_a_confirmed_event_is_marked_and_only_a_refused_one_spends_an_attempt() {
        let answers = vec![PublishOutcome::Confirmed, PublishOutcome::Refused("no route".to_owned())];
        let (relayed, settled) = relay(vec![event(1, 0), event(2, 3), event(3, 0)], answers, 10).await;
        let settled = settled.expect("settled");
        assert_eq!(settled.confirmed, [event(1, 0).id]);
        assert_eq!(
            settled.refused.iter().map(|r| (r.id, r.reason.as_str())).collect::<Vec<_>>(),
            [(event(2, 0).id, "no route")]
        );
        assert_eq!(settled.unanswered, [event(3, 0).id], "an event without an answer is not taken for confirmed");
        assert_eq!((relayed.claimed, relayed.confirmed, relayed.refused, relayed.unanswered), (3, 1, 1, 1));
        assert_eq!((relayed.lost_to_others, relayed.more_likely), (1, false));
        assert_eq!(relayed.first_refusal.as_deref(), Some("no route"));
    }

    #[tokio::test]
    async fn an_event_that_is_refused_again_waits_no_less_and_never_long() {
        let refused = || vec![PublishOutcome::Refused(String::new())];
        let mut last = Duration::ZERO;
        for attempts in [0, 1, 5, 50, u32::MAX] {
            let (_, settled) = relay(vec![event(1, attempts)], refused(), 10).await;
            let wait = settled.expect("settled").refused[0].retry_in;
            assert!(wait >= last && wait <= Duration::from_secs(10), "{attempts}: {wait:?}");
            last = wait;
        }
    }

    #[tokio::test]
    async fn a_full_claim_says_that_more_is_likely_and_an_empty_one_touches_nothing() {
        let (relayed, _) = relay(vec![event(1, 0), event(2, 0)], vec![PublishOutcome::Confirmed; 2], 2).await;
        assert!(relayed.more_likely);
        let (relayed, settled) = relay(Vec::new(), Vec::new(), 2).await;
        assert_eq!((relayed, settled), (Relayed::default(), None));
    }
}
