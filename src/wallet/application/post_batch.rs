//! Write a batch of posts, and let one that breaks it fail alone.

use std::sync::Arc;

use crate::kernel::{Classified, DependencyError, FailureClass};
use crate::wallet::application::ports::{DraftOutcome, Journal, JournalError, Patience, PostError, Posted};
use crate::wallet::domain::Draft;

/// The use case and its port.
#[derive(Clone)]
pub struct PostBatch {
    /// The store under it.
    pub journal: Arc<dyn Journal>,
}

/// What one draft of a batch comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DraftResult {
    /// To be answered.
    Answer(Result<Posted, PostError>),
    /// Another process holds the wallet: to be tried again alone, in its order.
    Held,
}

/// The results of a batch, in the order of its drafts, and what went wrong on the way, for the log.
#[derive(Debug)]
pub struct BatchResult {
    /// One a draft.
    pub results: Vec<DraftResult>,
    /// The failures that the answers do not tell.
    pub failures: Vec<JournalError>,
}

impl PostBatch {
    /// Writes `drafts` together. If the batch as a whole fails by its content, each draft is tried alone.
    pub async fn execute(&self, drafts: &[Draft], patience: Patience) -> BatchResult {
        match self.journal.commit(drafts, patience).await {
            Ok(outcomes) => BatchResult { results: read(outcomes, patience), failures: Vec::new() },
            Err(JournalError::NotDone(e)) if drafts.len() > 1 && may_pass_alone(&e) => {
                self.one_by_one(drafts, patience, JournalError::NotDone(e)).await
            }
            Err(e) => {
                BatchResult { results: vec![DraftResult::Answer(Err(answer(&e))); drafts.len()], failures: vec![e] }
            }
        }
    }

    async fn one_by_one(&self, drafts: &[Draft], patience: Patience, first: JournalError) -> BatchResult {
        let mut batch = BatchResult { results: Vec::with_capacity(drafts.len()), failures: vec![first] };
        for draft in drafts {
            match self.journal.commit(std::slice::from_ref(draft), patience).await {
                Ok(outcomes) => batch.results.extend(read(outcomes, patience)),
                Err(e) => {
                    batch.results.push(DraftResult::Answer(Err(answer(&e))));
                    batch.failures.push(e);
                }
            }
        }
        batch
    }
}

/// Whether the failure may lie in one of the drafts rather than in the store or a lock, which would fail each of them
/// again, one after the other.
fn may_pass_alone(error: &DependencyError) -> bool {
    match error.class() {
        FailureClass::Unavailable | FailureClass::Transient => false,
        FailureClass::Refused | FailureClass::Permanent | FailureClass::Bug => true,
    }
}

fn read(outcomes: Vec<DraftOutcome>, patience: Patience) -> Vec<DraftResult> {
    outcomes
        .into_iter()
        .map(|outcome| match outcome {
            DraftOutcome::Posted(entry) => DraftResult::Answer(Ok(Posted::New(entry))),
            DraftOutcome::Replayed(entry) => DraftResult::Answer(Ok(Posted::Replayed(entry))),
            DraftOutcome::Refused(refused) => DraftResult::Answer(Err(PostError::Refused(refused))),
            DraftOutcome::NotLocked if patience == Patience::SkipHeld => DraftResult::Held,
            // Having waited for the lock, its absence means that there is nothing to lock.
            DraftOutcome::NotLocked => DraftResult::Answer(Err(PostError::NoWallet)),
        })
        .collect()
}

fn answer(error: &JournalError) -> PostError {
    match error {
        JournalError::Unknown(_) => PostError::OutcomeUnknown,
        JournalError::NotDone(e) => match e.class() {
            FailureClass::Unavailable | FailureClass::Transient => PostError::NotDone,
            FailureClass::Refused | FailureClass::Permanent | FailureClass::Bug => PostError::Bug,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{EntryId, Timestamp, UserId};
    use crate::wallet::domain::{AmountMinor, Direction, EntryRefused, Head};
    use async_trait::async_trait;
    use uuid::Uuid;

    /// A journal that fails on purpose: for a whole batch, and for the drafts of one amount.
    struct Failing {
        whole: Option<FailureClass>,
        cents: Option<(i64, FailureClass)>,
        unknown: bool,
    }

    fn failed(class: FailureClass) -> DependencyError {
        DependencyError::new("test", class, "on purpose")
    }

    #[async_trait]
    impl Journal for Failing {
        async fn commit(&self, drafts: &[Draft], _: Patience) -> Result<Vec<DraftOutcome>, JournalError> {
            if self.unknown {
                return Err(JournalError::Unknown(failed(FailureClass::Unavailable)));
            }
            if let Some(class) = self.whole.filter(|_| drafts.len() > 1) {
                return Err(JournalError::NotDone(failed(class)));
            }
            if let Some((_, class)) = self.cents.filter(|(c, _)| drafts.iter().any(|d| d.amount.cents() == *c)) {
                return Err(JournalError::NotDone(failed(class)));
            }
            Ok(drafts
                .iter()
                .map(|draft| match draft.amount.cents() {
                    1 => DraftOutcome::NotLocked,
                    2 => DraftOutcome::Refused(EntryRefused::InsufficientFunds),
                    3 => DraftOutcome::Replayed(Head::EMPTY.append(draft, Timestamp::UNIX_EPOCH).expect("entry")),
                    _ => DraftOutcome::Posted(Head::EMPTY.append(draft, Timestamp::UNIX_EPOCH).expect("entry")),
                })
                .collect())
        }
    }

    fn draft(cents: i64) -> Draft {
        Draft {
            id: EntryId::from_uuid(Uuid::nil()),
            user_id: UserId::from_uuid(Uuid::nil()),
            direction: Direction::Credit,
            amount: AmountMinor::try_new(cents).expect("amount"),
            description: None,
            idempotency_key: None,
        }
    }

    async fn results(journal: Failing, cents: &[i64], patience: Patience) -> (Vec<String>, usize) {
        let drafts: Vec<_> = cents.iter().map(|c| draft(*c)).collect();
        let batch = PostBatch { journal: Arc::new(journal) }.execute(&drafts, patience).await;
        let word = |result: DraftResult| match result {
            DraftResult::Held => "held".to_owned(),
            DraftResult::Answer(Ok(Posted::New(_))) => "new".to_owned(),
            DraftResult::Answer(Ok(Posted::Replayed(_))) => "replayed".to_owned(),
            DraftResult::Answer(Err(e)) => e.to_string(),
        };
        (batch.results.into_iter().map(word).collect(), batch.failures.len())
    }

    const SOUND: Failing = Failing { whole: None, cents: None, unknown: false };

    #[tokio::test]
    async fn each_outcome_becomes_its_answer_and_a_held_wallet_is_tried_again() {
        let (told, failures) = results(SOUND, &[1, 2, 3, 4], Patience::SkipHeld).await;
        assert_eq!(told, ["held", "debit exceeds the balance", "replayed", "new"]);
        assert_eq!(failures, 0);
    }

    #[tokio::test]
    async fn a_wallet_that_was_waited_for_and_is_not_there_does_not_exist() {
        assert_eq!(results(SOUND, &[1], Patience::Wait).await.0, ["user has no wallet"]);
    }

    #[tokio::test]
    async fn a_draft_that_breaks_a_batch_fails_alone() {
        let broken = Failing { whole: Some(FailureClass::Bug), cents: Some((7, FailureClass::Bug)), unknown: false };
        let (told, failures) = results(broken, &[5, 7, 6], Patience::SkipHeld).await;
        assert_eq!(told, ["new", "post broke down", "new"]);
        assert_eq!(failures, 2, "the batch's and the draft's own");
    }

    #[tokio::test]
    async fn a_draft_that_was_alone_is_not_tried_twice() {
        let broken = Failing { whole: None, cents: Some((7, FailureClass::Bug)), unknown: false };
        assert_eq!(results(broken, &[7], Patience::SkipHeld).await, (vec!["post broke down".to_owned()], 1));
    }

    #[tokio::test]
    async fn what_fails_the_store_or_a_lock_is_not_tried_draft_by_draft() {
        for class in [FailureClass::Unavailable, FailureClass::Transient] {
            let away = Failing { whole: Some(class), cents: None, unknown: false };
            let (told, failures) = results(away, &[5, 6], Patience::Wait).await;
            assert_eq!((told, failures), (vec!["ledger could not be written".to_owned(); 2], 1));
        }
    }

    #[tokio::test]
    async fn an_outcome_that_cannot_be_found_out_is_told_as_unknown() {
        let unknown = Failing { whole: None, cents: None, unknown: true };
        assert_eq!(results(unknown, &[5], Patience::Wait).await.0, ["outcome of the post is unknown"]);
    }
}
