//! Relay events from the outbox to the broker: claim, publish, settle.
//!
//! No database transaction is open while the broker is called. An event is marked as published only after the broker has
//! confirmed it; otherwise it stays pending. An event may be published twice but is never lost.

use std::sync::Arc;
use std::time::Duration;

use crate::kernel::{Backoff, DependencyError};
use crate::users::application::ports::{
    ClaimedBatch, EventPublisher, Outbox, PublishOutcome, RefusedEvent, Settlement,
};

/// Delay before a refused event is retried: the broker is up, but no queue takes this event yet.
const REFUSED_BACKOFF: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));

pub struct RelayOutbox {
    pub outbox: Arc<dyn Outbox>,
    pub publisher: Arc<dyn EventPublisher>,
    /// Maximum number of events per batch.
    pub batch_max: u32,
    /// How long no other process may publish a claimed event.
    pub lease: Duration,
}

/// The result of one batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    pub claimed: usize,
    /// Confirmed by the broker and marked as published.
    pub confirmed: usize,
    /// Returned or rejected by the broker, or impossible to publish.
    pub refused: usize,
    /// The refused ones that their queue rejected.
    pub rejected: usize,
    /// The reason that the broker gave for the first refused event.
    pub first_refusal: Option<String>,
    /// If there are any, the connection should be replaced.
    pub unanswered: usize,
    /// Events that another process claimed before this one settled them.
    pub lost_to_others: u64,
    /// The batch was full, so more events are likely to be pending.
    pub more_likely: bool,
}

impl Relayed {
    /// Whether there were events and the broker accepted none of them, so that further ones would fare no better.
    pub const fn is_futile(&self) -> bool {
        self.claimed > 0 && self.confirmed == 0
    }
}

impl RelayOutbox {
    /// Relays one batch. `roll` is a random number in `0.0..1.0`: the jitter of retries.
    ///
    /// # Errors
    /// [`DependencyError`] of the outbox. Events that were claimed become free when their lease ends.
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

/// An event without an outcome counts as unanswered.
fn settle(claim: &ClaimedBatch, outcomes: Vec<PublishOutcome>, roll: f64) -> (Settlement, Relayed) {
    let mut settlement = Settlement::default();
    let padded = outcomes.into_iter().chain(std::iter::repeat(PublishOutcome::Unanswered));
    let mut rejected = 0;
    for (event, outcome) in claim.events.iter().zip(padded) {
        let reason = match outcome {
            PublishOutcome::Confirmed => {
                settlement.confirmed.push(event.id);
                continue;
            }
            PublishOutcome::Unanswered => {
                settlement.unanswered.push(event.id);
                continue;
            }
            PublishOutcome::Refused(reason) => reason,
            PublishOutcome::Rejected => {
                rejected += 1;
                "rejected by the queue".to_owned()
            }
        };
        let retry_in = REFUSED_BACKOFF.delay(event.attempts, roll);
        settlement.refused.push(RefusedEvent { id: event.id, reason, retry_in });
    }
    let relayed = Relayed {
        claimed: claim.events.len(),
        confirmed: settlement.confirmed.len(),
        refused: settlement.refused.len(),
        rejected,
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

    /// An outbox of which another process claims one event before it is settled.
    struct FakeOutbox {
        events: Vec<ClaimedEvent>,
        settled: Mutex<Option<Settlement>>,
        taken_over: u64,
    }

    #[async_trait]
    impl Outbox for FakeOutbox {
        async fn claim(&self, batch_max: u32, _: Duration) -> Result<ClaimedBatch, DependencyError> {
            let most = usize::try_from(batch_max).expect("count");
            Ok(ClaimedBatch { token: Uuid::nil(), events: self.events.iter().take(most).cloned().collect() })
        }

        async fn settle(&self, _: Uuid, settlement: Settlement) -> Result<u64, DependencyError> {
            let all = settlement.confirmed.len() + settlement.refused.len() + settlement.unanswered.len();
            *self.settled.lock().expect("lock") = Some(settlement);
            Ok(u64::try_from(all).expect("count") - self.taken_over)
        }
    }

    /// A broker with fixed outcomes that confirms no further event.
    struct StubBroker(Vec<PublishOutcome>);

    #[async_trait]
    impl EventPublisher for StubBroker {
        async fn publish(&self, _: &[ClaimedEvent]) -> Vec<PublishOutcome> {
            self.0.clone()
        }
    }

    async fn relay(
        events: Vec<ClaimedEvent>,
        outcomes: Vec<PublishOutcome>,
        batch_max: u32,
    ) -> (Relayed, Option<Settlement>) {
        let taken_over = u64::from(!events.is_empty());
        let outbox = Arc::new(FakeOutbox { events, settled: Mutex::new(None), taken_over });
        let lease = Duration::from_secs(1);
        let relay = RelayOutbox { outbox: outbox.clone(), publisher: Arc::new(StubBroker(outcomes)), batch_max, lease };
        let relayed = relay.execute(0.0).await.expect("relayed");
        let settled = outbox.settled.lock().expect("lock").clone();
        (relayed, settled)
    }

    #[tokio::test]
    async fn only_a_confirmed_event_is_marked_and_only_a_refused_one_counts_an_attempt() {
        let outcomes = vec![PublishOutcome::Confirmed, PublishOutcome::Refused("no route".to_owned())];
        let (relayed, settled) = relay(vec![event(1, 0), event(2, 3), event(3, 0)], outcomes, 10).await;
        let settled = settled.expect("settled");
        assert_eq!(settled.confirmed, [event(1, 0).id]);
        assert_eq!(
            settled.refused.iter().map(|r| (r.id, r.reason.as_str())).collect::<Vec<_>>(),
            [(event(2, 0).id, "no route")]
        );
        assert_eq!(settled.unanswered, [event(3, 0).id], "an event without an outcome is not confirmed");
        assert_eq!((relayed.claimed, relayed.confirmed, relayed.refused, relayed.unanswered), (3, 1, 1, 1));
        assert_eq!((relayed.lost_to_others, relayed.more_likely), (1, false));
        assert_eq!(relayed.first_refusal.as_deref(), Some("no route"));
    }

    #[tokio::test]
    async fn the_delay_of_an_event_that_is_refused_again_grows_up_to_ten_seconds() {
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
    async fn a_rejected_event_is_retried_like_a_refused_one_and_counted_as_rejected() {
        let outcomes = vec![PublishOutcome::Rejected, PublishOutcome::Refused("no route".to_owned())];
        let (relayed, settled) = relay(vec![event(1, 0), event(2, 0)], outcomes, 10).await;
        assert_eq!((relayed.refused, relayed.rejected), (2, 1));
        assert_eq!(settled.expect("settled").refused[0].reason, "rejected by the queue");
        assert_eq!(relayed.first_refusal.as_deref(), Some("rejected by the queue"));
    }

    #[tokio::test]
    async fn only_a_batch_of_which_nothing_was_confirmed_is_futile() {
        let refused = || PublishOutcome::Refused(String::new());
        for (outcomes, futile) in [
            (vec![refused(), refused()], true),
            (vec![PublishOutcome::Rejected, PublishOutcome::Unanswered], true),
            (vec![refused(), PublishOutcome::Confirmed], false),
        ] {
            let (relayed, _) = relay(vec![event(1, 0), event(2, 0)], outcomes, 2).await;
            assert_eq!(relayed.is_futile(), futile, "{relayed:?}");
        }
        let (relayed, _) = relay(Vec::new(), Vec::new(), 2).await;
        assert!(!relayed.is_futile(), "nothing was pending");
    }

    #[tokio::test]
    async fn a_full_batch_reports_that_more_is_likely_and_an_empty_one_changes_nothing() {
        let (relayed, _) = relay(vec![event(1, 0), event(2, 0)], vec![PublishOutcome::Confirmed; 2], 2).await;
        assert!(relayed.more_likely);
        let (relayed, settled) = relay(Vec::new(), Vec::new(), 2).await;
        assert_eq!((relayed, settled), (Relayed::default(), None));
    }
}
