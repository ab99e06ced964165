//! Write a batch of posts; one that makes it fail must fail alone.

use std::collections::HashSet;
use std::sync::Arc;

use crate::kernel::{Classified, DependencyError, FailureClass};
use crate::wallet::application::ports::{DraftOutcome, Journal, JournalError, LockWait, PostError, Posted};
use crate::wallet::domain::Draft;

/// The use case with its port.
#[derive(Clone)]
pub struct PostBatch {
    /// Where the batch is written.
    pub journal: Arc<dyn Journal>,
}

/// The result of one draft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DraftResult {
    /// For the request that posted it.
    Reply(Result<Posted, PostError>),
    /// Another process has locked the wallet: to be retried in a batch of that wallet alone.
    SetAside,
}

/// The result of a batch.
#[derive(Debug)]
pub struct BatchResult {
    /// One per draft, in their order.
    pub results: Vec<DraftResult>,
    /// The causes of failures, for the log.
    pub failures: Vec<JournalError>,
}

impl PostBatch {
    /// Writes `drafts` together. If one of them may be the reason for a failure, each is tried alone.
    pub async fn execute(&self, drafts: &[Draft], lock_wait: LockWait) -> BatchResult {
        match self.journal.commit(drafts, lock_wait).await {
            Ok(outcomes) => BatchResult { results: read(outcomes, lock_wait), failures: Vec::new() },
            Err(JournalError::NotDone(e)) if drafts.len() > 1 && may_pass_alone(&e) => {
                self.one_by_one(drafts, lock_wait, JournalError::NotDone(e)).await
            }
            Err(e) => {
                BatchResult { results: vec![DraftResult::Reply(Err(post_error(&e))); drafts.len()], failures: vec![e] }
            }
        }
    }

    async fn one_by_one(&self, drafts: &[Draft], lock_wait: LockWait, first: JournalError) -> BatchResult {
        let mut batch = BatchResult { results: Vec::with_capacity(drafts.len()), failures: vec![first] };
        // The lock may become free between two drafts of a user. The later one must not be written first.
        let mut set_aside = HashSet::new();
        for draft in drafts {
            if set_aside.contains(&draft.user_id) {
                batch.results.push(DraftResult::SetAside);
                continue;
            }
            match self.journal.commit(std::slice::from_ref(draft), lock_wait).await {
                Ok(outcomes) => {
                    let results = read(outcomes, lock_wait);
                    if results.contains(&DraftResult::SetAside) {
                        set_aside.insert(draft.user_id);
                    }
                    batch.results.extend(results);
                }
                Err(e) => {
                    batch.results.push(DraftResult::Reply(Err(post_error(&e))));
                    batch.failures.push(e);
                }
            }
        }
        batch
    }
}

/// Whether one draft may be the reason for the failure. A failed store or a lock would fail each of them again.
fn may_pass_alone(error: &DependencyError) -> bool {
    match error.class() {
        FailureClass::Unavailable | FailureClass::Transient => false,
        FailureClass::Refused | FailureClass::Permanent | FailureClass::Bug => true,
    }
}

fn read(outcomes: Vec<DraftOutcome>, lock_wait: LockWait) -> Vec<DraftResult> {
    outcomes
        .into_iter()
        .map(|outcome| match outcome {
            DraftOutcome::Posted(entry) => DraftResult::Reply(Ok(Posted::New(entry))),
            DraftOutcome::Replayed(entry) => DraftResult::Reply(Ok(Posted::Replayed(entry))),
            DraftOutcome::Refused(refused) => DraftResult::Reply(Err(PostError::Refused(refused))),
            DraftOutcome::NotLocked if lock_wait == LockWait::SkipLocked => DraftResult::SetAside,
            // Nothing was locked although the batch waited: there is nothing to lock.
            DraftOutcome::NotLocked => DraftResult::Reply(Err(PostError::NoWallet)),
        })
        .collect()
}

fn post_error(error: &JournalError) -> PostError {
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
    use crate::wallet::domain::{AmountMinor, Direction, EntryRefused, LedgerHead};
    use async_trait::async_trait;
    use futures_util::FutureExt as _;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::sync::Mutex;
    use uuid::Uuid;

    /// A journal that fails for whole batches, for drafts of one amount, or during the commit.
    struct FailingJournal {
        whole: Option<FailureClass>,
        cents: Option<(i64, FailureClass)>,
        unknown: bool,
    }

    fn failed(class: FailureClass) -> DependencyError {
        DependencyError::new("test", class, "on purpose")
    }

    #[async_trait]
    impl Journal for FailingJournal {
        async fn commit(&self, drafts: &[Draft], _: LockWait) -> Result<Vec<DraftOutcome>, JournalError> {
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
                    3 => DraftOutcome::Replayed(LedgerHead::EMPTY.append(draft, Timestamp::UNIX_EPOCH).expect("entry")),
                    _ => DraftOutcome::Posted(LedgerHead::EMPTY.append(draft, Timestamp::UNIX_EPOCH).expect("entry")),
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

    async fn results(journal: FailingJournal, cents: &[i64], lock_wait: LockWait) -> (Vec<String>, usize) {
        let drafts: Vec<_> = cents.iter().map(|c| draft(*c)).collect();
        let batch = PostBatch { journal: Arc::new(journal) }.execute(&drafts, lock_wait).await;
        let word = |result: DraftResult| match result {
            DraftResult::SetAside => "set aside".to_owned(),
            DraftResult::Reply(Ok(Posted::New(_))) => "new".to_owned(),
            DraftResult::Reply(Ok(Posted::Replayed(_))) => "replayed".to_owned(),
            DraftResult::Reply(Err(e)) => e.to_string(),
        };
        (batch.results.into_iter().map(word).collect(), batch.failures.len())
    }

    const WORKING: FailingJournal = FailingJournal { whole: None, cents: None, unknown: false };

    #[tokio::test]
    async fn each_outcome_becomes_a_reply_and_a_locked_wallet_is_retried() {
        let (results, failures) = results(WORKING, &[1, 2, 3, 4], LockWait::SkipLocked).await;
        assert_eq!(results, ["set aside", "debit exceeds the balance", "replayed", "new"]);
        assert_eq!(failures, 0);
    }

    #[tokio::test]
    async fn a_wallet_that_cannot_be_locked_after_waiting_does_not_exist() {
        assert_eq!(results(WORKING, &[1], LockWait::Wait).await.0, ["user has no wallet"]);
    }

    #[tokio::test]
    async fn a_draft_that_fails_its_batch_fails_alone() {
        let broken =
            FailingJournal { whole: Some(FailureClass::Bug), cents: Some((7, FailureClass::Bug)), unknown: false };
        let (results, failures) = results(broken, &[5, 7, 6], LockWait::SkipLocked).await;
        assert_eq!(results, ["new", "post failed with an internal error", "new"]);
        assert_eq!(failures, 2, "the batch's and the draft's own");
    }

    #[tokio::test]
    async fn a_draft_that_was_alone_is_not_tried_twice() {
        let broken = FailingJournal { whole: None, cents: Some((7, FailureClass::Bug)), unknown: false };
        assert_eq!(
            results(broken, &[7], LockWait::SkipLocked).await,
            (vec!["post failed with an internal error".to_owned()], 1)
        );
    }

    #[tokio::test]
    async fn after_a_failure_of_the_store_or_a_lock_drafts_are_not_tried_one_by_one() {
        for class in [FailureClass::Unavailable, FailureClass::Transient] {
            let journal = FailingJournal { whole: Some(class), cents: None, unknown: false };
            let (results, failures) = results(journal, &[5, 6], LockWait::Wait).await;
            assert_eq!((results, failures), (vec!["ledger could not be written".to_owned(); 2], 1));
        }
    }

    #[tokio::test]
    async fn an_outcome_that_cannot_be_looked_up_is_unknown() {
        let unknown = FailingJournal { whole: None, cents: None, unknown: true };
        assert_eq!(results(unknown, &[5], LockWait::Wait).await.0, ["outcome of the post is unknown"]);
    }

    fn draft_of(number: u128, user: u128) -> Draft {
        Draft {
            id: EntryId::from_uuid(Uuid::from_u128(number)),
            user_id: UserId::from_uuid(Uuid::from_u128(user)),
            ..draft(4)
        }
    }

    /// A journal that fails for every batch of several drafts. Each wallet is locked by another process for a number of
    /// attempts, then free.
    struct BusyJournal(Mutex<HashMap<UserId, u32>>);

    #[async_trait]
    impl Journal for BusyJournal {
        async fn commit(&self, drafts: &[Draft], lock_wait: LockWait) -> Result<Vec<DraftOutcome>, JournalError> {
            let [draft] = drafts else { return Err(JournalError::NotDone(failed(FailureClass::Bug))) };
            let mut locked = self.0.lock().expect("locks");
            if let Some(attempts) = locked.get_mut(&draft.user_id).filter(|attempts| **attempts > 0) {
                *attempts -= 1;
                if lock_wait == LockWait::SkipLocked {
                    return Ok(vec![DraftOutcome::NotLocked]);
                }
            }
            Ok(vec![DraftOutcome::Posted(LedgerHead::EMPTY.append(draft, Timestamp::UNIX_EPOCH).expect("entry"))])
        }
    }

    /// Which of the users' drafts are set aside after a batch that was tried one by one.
    fn set_aside(users: &[u128], locked: &[(u128, u32)], lock_wait: LockWait) -> Vec<bool> {
        let drafts: Vec<_> = (1..).zip(users).map(|(number, user)| draft_of(number, *user)).collect();
        let locked = locked.iter().map(|(user, attempts)| (UserId::from_uuid(Uuid::from_u128(*user)), *attempts));
        let journal = Arc::new(BusyJournal(Mutex::new(locked.collect())));
        let batch = PostBatch { journal }.execute(&drafts, lock_wait).now_or_never().expect("the journal never waits");
        batch.results.into_iter().map(|result| result == DraftResult::SetAside).collect()
    }

    #[test]
    fn once_a_post_is_set_aside_the_later_posts_of_its_user_are_set_aside_too() {
        let (a, b) = (1, 2);
        assert_eq!(
            set_aside(&[a, b, a, b, a], &[(a, 1)], LockWait::SkipLocked),
            [true, false, true, false, true],
            "the lock is free again at the second post of a"
        );
        assert_eq!(
            set_aside(&[a, b, a], &[(a, 1)], LockWait::Wait),
            [false; 3],
            "a batch that waits sets nothing aside"
        );
    }

    proptest! {
        #[test]
        fn no_post_overtakes_an_earlier_one_of_its_user(
            users in proptest::collection::vec(0_u128..4, 2..40),
            locked in proptest::collection::vec((0_u128..4, 0_u32..5), 0..4),
        ) {
            let set_aside = set_aside(&users, &locked, LockWait::SkipLocked);
            for user in 0..4 {
                let of_user: Vec<bool> =
                    users.iter().zip(&set_aside).filter(|(owner, _)| **owner == user).map(|(_, set_aside)| *set_aside).collect();
                prop_assert!(of_user.is_sorted(), "user {}: {:?}", user, of_user);
                let is_locked = locked.iter().rev().any(|(owner, attempts)| *owner == user && *attempts > 0);
                prop_assert!(is_locked || !of_user.contains(&true), "user {} is set aside without a lock", user);
            }
        }
    }
}
