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
