//! Write a batch of posts; one that makes it fail must fail alone.

use std::collections::HashMap;
use std::sync::Arc;

use crate::kernel::{Classified, DependencyError, FailureClass, UserId};
use crate::wallet::application::ports::{Journal, JournalError, LockWait, OnExecuted, PostError, Posted};
use crate::wallet::domain::{Decision, EntryRefused, Posting};

/// The use case with its port.
#[derive(Clone)]
pub struct PostBatch {
    /// Where the batch is written.
    pub journal: Arc<dyn Journal>,
}

/// The result of one posting.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "most are replies; a box would only cost an allocation each")]
pub enum PostingResult {
    /// For the request that posted it.
    Reply(Result<Posted, PostError>),
    /// Another transaction has locked this wallet, or more of its holds are due than a batch ends: to be tried again.
    Undecided {
        /// The owner of the wallet.
        contested: UserId,
    },
}

/// The result of a batch.
#[derive(Debug)]
pub struct BatchResult {
    /// One per posting, in their order.
    pub results: Vec<PostingResult>,
    /// The causes of failures, for the log.
    pub failures: Vec<JournalError>,
}

impl PostBatch {
    /// Writes `postings` together. If one of them may be the reason for a failure, each is tried alone. Those that need a part of
    /// the store that is out of reach are left out. `executed` is not called for those that are tried alone.
    pub async fn execute(&self, postings: &[Posting], lock_wait: LockWait, executed: &OnExecuted) -> BatchResult {
        match self.journal.commit(postings, lock_wait, executed).await {
            Ok(decisions) => {
                let results = postings.iter().zip(decisions).map(|(posting, of_it)| result(posting, of_it, lock_wait));
                BatchResult { results: results.collect(), failures: Vec::new() }
            }
            Err(JournalError::NotDone(e)) if postings.len() > 1 && may_pass_alone(&e) => {
                self.one_by_one(postings, lock_wait, JournalError::NotDone(e)).await
            }
            Err(JournalError::PartNotDone { source, needs_it }) => {
                self.without_part(postings, (lock_wait, executed), source, needs_it).await
            }
            Err(e) => BatchResult {
                results: vec![PostingResult::Reply(Err(post_error(&e))); postings.len()],
                failures: vec![e],
            },
        }
    }

    /// Writes those that do not need the part. Each call leaves out at least one, and so ends.
    async fn without_part(
        &self,
        postings: &[Posting],
        (lock_wait, executed): (LockWait, &OnExecuted),
        source: DependencyError,
        needs_it: Vec<bool>,
    ) -> BatchResult {
        let others = postings.iter().zip(&needs_it).filter(|(_, needs_it)| !**needs_it);
        let others: Vec<_> = others.map(|(posting, _)| posting.clone()).collect();
        let rest = if others.is_empty() || others.len() == postings.len() {
            BatchResult { results: Vec::new(), failures: Vec::new() }
        } else {
            Box::pin(self.execute(&others, lock_wait, executed)).await
        };
        let mut of_others = rest.results.into_iter();
        let not_done = || PostingResult::Reply(Err(PostError::NotDone));
        let results = needs_it.iter().map(|needs_it| match needs_it {
            true => not_done(),
            false => of_others.next().unwrap_or_else(not_done),
        });
        let results = results.collect();
        let failure = JournalError::PartNotDone { source, needs_it };
        BatchResult { results, failures: std::iter::once(failure).chain(rest.failures).collect() }
    }

    async fn one_by_one(&self, postings: &[Posting], lock_wait: LockWait, first: JournalError) -> BatchResult {
        let mut batch = BatchResult { results: Vec::with_capacity(postings.len()), failures: vec![first] };
        // The lock may become free between two postings of a user. The later one must not be written first.
        let mut undecided = HashMap::<UserId, UserId>::new();
        let mut is_hopeless = false;
        for posting in postings {
            if is_hopeless {
                batch.results.push(PostingResult::Reply(Err(PostError::NotDone)));
                continue;
            }
            if let Some(contested) = undecided.get(&posting.user_id) {
                batch.results.push(PostingResult::Undecided { contested: *contested });
                continue;
            }
            match self.journal.commit(std::slice::from_ref(posting), lock_wait, &OnExecuted::default()).await {
                Ok(decisions) => {
                    for decision in decisions {
                        let result = result(posting, decision, lock_wait);
                        if let PostingResult::Undecided { contested } = result {
                            undecided.insert(posting.user_id, contested);
                        }
                        batch.results.push(result);
                    }
                }
                Err(e) => {
                    // Each of the others would wait as long, for the store or for the same lock.
                    is_hopeless = match &e {
                        JournalError::NotDone(e) => !may_pass_alone(e),
                        JournalError::PartNotDone { .. } => false,
                        JournalError::Unknown(_) => true,
                    };
                    batch.results.push(PostingResult::Reply(Err(post_error(&e))));
                    batch.failures.push(e);
                }
            }
        }
        batch
    }
}

/// Whether one posting may be the reason for the failure. A failed store or a lock would fail each of them again.
fn may_pass_alone(error: &DependencyError) -> bool {
    match error.class() {
        FailureClass::Unavailable | FailureClass::Transient => false,
        FailureClass::Refused | FailureClass::Permanent | FailureClass::Bug => true,
    }
}

fn result(posting: &Posting, decision: Decision, lock_wait: LockWait) -> PostingResult {
    match decision {
        Decision::Post(entries) => PostingResult::Reply(Ok(Posted::New(entries))),
        Decision::Replay(entries) => PostingResult::Reply(Ok(Posted::Replayed(entries))),
        Decision::Settled => PostingResult::Reply(Ok(Posted::Settled)),
        Decision::Refuse { reason, draft } => PostingResult::Reply(Err(PostError::Refused { reason, draft })),
        // The next batch ends more of them.
        Decision::MoreDue => PostingResult::Undecided { contested: posting.user_id },
        Decision::NotLocked { contested } => {
            let waited = match lock_wait {
                LockWait::SkipLocked => false,
                LockWait::WaitForOne(wallet) => wallet == contested,
                LockWait::WaitForAll => true,
            };
            // A wallet that is not locked although the batch waited for it does not exist.
            if waited && contested == posting.user_id {
                PostingResult::Reply(Err(PostError::NoWallet))
            } else if waited && posting.other_wallet() == Some(contested) {
                PostingResult::Reply(Err(PostError::Refused { reason: EntryRefused::RecipientNotFound, draft: 0 }))
            } else {
                PostingResult::Undecided { contested }
            }
        }
    }
}

fn post_error(error: &JournalError) -> PostError {
    match error {
        JournalError::Unknown(_) => PostError::OutcomeUnknown,
        JournalError::PartNotDone { .. } => PostError::NotDone,
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
    use crate::wallet::domain::{
        Act, AmountMinor, Balance, Direction, Draft, Entry, EntryKind, EntryRefused, OneOrMore, OtherLeg, Salt, Texts,
    };
    use async_trait::async_trait;
    use futures_util::FutureExt as _;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::sync::Mutex;
    use uuid::Uuid;

    /// A journal that only decides, and never waits.
    trait Decides: Send + Sync {
        fn decide(&self, postings: &[Posting], lock_wait: LockWait) -> Result<Vec<Decision>, JournalError>;
    }

    #[async_trait]
    impl<D: Decides> Journal for D {
        async fn commit(
            &self,
            postings: &[Posting],
            lock_wait: LockWait,
            _: &OnExecuted,
        ) -> Result<Vec<Decision>, JournalError> {
            self.decide(postings, lock_wait)
        }
    }

    /// A journal that fails for whole batches, for postings of one amount, or during the commit.
    struct FailingJournal {
        whole: Option<FailureClass>,
        cents: Option<(i64, FailureClass)>,
        unknown: bool,
    }

    fn failed(class: FailureClass) -> DependencyError {
        DependencyError::new("test", class, "on purpose")
    }

    impl Decides for FailingJournal {
        fn decide(&self, postings: &[Posting], _: LockWait) -> Result<Vec<Decision>, JournalError> {
            if self.unknown {
                return Err(JournalError::Unknown(failed(FailureClass::Unavailable)));
            }
            if let Some(class) = self.whole.filter(|_| postings.len() > 1) {
                return Err(JournalError::NotDone(failed(class)));
            }
            if let Some((_, class)) = self.cents.filter(|(c, _)| postings.iter().any(|p| cents_of(p) == *c)) {
                return Err(JournalError::NotDone(failed(class)));
            }
            Ok(postings
                .iter()
                .map(|posting| match cents_of(posting) {
                    1 => Decision::NotLocked { contested: posting.user_id },
                    2 => Decision::Refuse { reason: EntryRefused::InsufficientFunds, draft: 0 },
                    3 => Decision::Replay(entry_of(posting)),
                    _ => Decision::Post(entry_of(posting)),
                })
                .collect())
        }
    }

    fn posting(number: u128, user: u128, cents: i64) -> Posting {
        let draft = Draft {
            id: EntryId::from_uuid(Uuid::from_u128(number)),
            act: Act::Post { direction: Direction::Credit, amount: AmountMinor::try_new(cents).expect("amount") },
            texts: None,
        };
        Posting::new(UserId::from_uuid(Uuid::from_u128(user)), draft.into(), None)
    }

    fn cents_of(posting: &Posting) -> i64 {
        let Act::Post { amount, .. } = posting.drafts.first().act else { panic!("not a post") };
        amount.cents()
    }

    fn entry_of(posting: &Posting) -> OneOrMore<Entry> {
        posting.drafts.map(|draft| Entry {
            id: draft.id,
            seq: 1,
            kind: EntryKind::Credit,
            amount: AmountMinor::try_new(1).expect("amount"),
            balance_after: Balance::ZERO,
            held_after: Balance::ZERO,
            acts_on: None,
            transfer: None,
            expires_at: None,
            texts: Texts::default(),
            posted_by: None,
            created_at: Timestamp::UNIX_EPOCH,
        })
    }

    async fn results(journal: impl Decides + 'static, cents: &[i64], lock_wait: LockWait) -> (Vec<String>, usize) {
        let postings: Vec<_> = cents.iter().map(|c| posting(0, 0, *c)).collect();
        let batch =
            PostBatch { journal: Arc::new(journal) }.execute(&postings, lock_wait, &OnExecuted::default()).await;
        let word = |result: PostingResult| match result {
            PostingResult::Undecided { .. } => "undecided".to_owned(),
            PostingResult::Reply(Ok(Posted::New(_))) => "new".to_owned(),
            PostingResult::Reply(Ok(Posted::Replayed(_))) => "replayed".to_owned(),
            PostingResult::Reply(Ok(Posted::Settled)) => "settled".to_owned(),
            PostingResult::Reply(Err(e)) => e.to_string(),
        };
        (batch.results.into_iter().map(word).collect(), batch.failures.len())
    }

    const WORKING: FailingJournal = FailingJournal { whole: None, cents: None, unknown: false };

    #[tokio::test]
    async fn each_outcome_becomes_a_reply_and_a_locked_wallet_is_retried() {
        let (results, failures) = results(WORKING, &[1, 2, 3, 4], LockWait::SkipLocked).await;
        assert_eq!(results, ["undecided", "debit exceeds the available balance", "replayed", "new"]);
        assert_eq!(failures, 0);
    }

    #[tokio::test]
    async fn a_wallet_that_cannot_be_locked_after_waiting_does_not_exist() {
        let wait = LockWait::WaitForOne(UserId::from_uuid(Uuid::nil()));
        assert_eq!(results(WORKING, &[1], wait).await.0, ["user has no wallet"]);
        assert_eq!(results(WORKING, &[1], LockWait::WaitForAll).await.0, ["user has no wallet"]);
    }

    #[tokio::test]
    async fn a_posting_that_fails_its_batch_fails_alone() {
        let broken =
            FailingJournal { whole: Some(FailureClass::Bug), cents: Some((7, FailureClass::Bug)), unknown: false };
        let (results, failures) = results(broken, &[5, 7, 6], LockWait::SkipLocked).await;
        assert_eq!(results, ["new", "post failed with an internal error", "new"]);
        assert_eq!(failures, 2, "the batch's and the posting's own");
    }

    #[tokio::test]
    async fn a_posting_that_was_alone_is_not_tried_twice() {
        let broken = FailingJournal { whole: None, cents: Some((7, FailureClass::Bug)), unknown: false };
        assert_eq!(
            results(broken, &[7], LockWait::SkipLocked).await,
            (vec!["post failed with an internal error".to_owned()], 1)
        );
    }

    #[tokio::test]
    async fn after_a_failure_of_the_store_or_a_lock_postings_are_not_tried_one_by_one() {
        for class in [FailureClass::Unavailable, FailureClass::Transient] {
            let journal = FailingJournal { whole: Some(class), cents: None, unknown: false };
            let (results, failures) = results(journal, &[5, 6], LockWait::WaitForAll).await;
            assert_eq!((results, failures), (vec!["ledger could not be written".to_owned(); 2], 1));
        }
    }

    #[tokio::test]
    async fn when_the_store_or_a_lock_fails_a_posting_that_is_tried_alone_the_ones_after_it_are_not_tried() {
        for class in [FailureClass::Unavailable, FailureClass::Transient] {
            let journal = FailingJournal { whole: Some(FailureClass::Bug), cents: Some((7, class)), unknown: false };
            let (results, failures) = results(journal, &[5, 7, 6, 1], LockWait::SkipLocked).await;
            let not_done = "ledger could not be written";
            assert_eq!((results, failures), (["new", not_done, not_done, not_done].map(str::to_owned).to_vec(), 2));
        }
    }

    /// A journal with parts, those of the same tens digit of the cents. Some are out of reach; batches with `bug` fail because of it.
    struct Parts {
        out_of_reach: Vec<i64>,
        bug: Option<i64>,
    }

    impl Decides for Parts {
        fn decide(&self, postings: &[Posting], _: LockWait) -> Result<Vec<Decision>, JournalError> {
            if postings.iter().any(|posting| Some(cents_of(posting)) == self.bug) {
                return Err(JournalError::NotDone(failed(FailureClass::Bug)));
            }
            let needs = |posting: &Posting, part: i64| cents_of(posting) / 10 == part;
            let down = self.out_of_reach.iter().find(|part| postings.iter().any(|posting| needs(posting, **part)));
            if let Some(part) = down {
                let needs_it = postings.iter().map(|posting| needs(posting, *part)).collect();
                return Err(JournalError::PartNotDone { source: failed(FailureClass::Unavailable), needs_it });
            }
            Ok(postings.iter().map(|posting| Decision::Post(entry_of(posting))).collect())
        }
    }

    #[tokio::test]
    async fn parts_that_are_out_of_reach_fail_only_the_postings_that_need_them() {
        let not_done = "ledger could not be written";
        for (bug, failures, of_bug) in [(None, 2, "new"), (Some(9), 4, "post failed with an internal error")] {
            let (results, seen) =
                results(Parts { out_of_reach: vec![2, 3], bug }, &[5, 21, 9, 31, 41, 7], LockWait::SkipLocked).await;
            assert_eq!(results, ["new", not_done, of_bug, not_done, "new", "new"]);
            assert_eq!(seen, failures);
        }
        let all = results(Parts { out_of_reach: vec![2], bug: None }, &[21, 22], LockWait::SkipLocked).await;
        assert_eq!(all, (vec![not_done.to_owned(); 2], 1));
    }

    #[tokio::test]
    async fn an_outcome_that_cannot_be_looked_up_is_unknown() {
        let unknown = FailingJournal { whole: None, cents: None, unknown: true };
        assert_eq!(results(unknown, &[5], LockWait::WaitForAll).await.0, ["outcome of the post is unknown"]);
    }

    /// A journal for which one wallet is never locked. Like the ledger it holds back the later postings of an initiator.
    struct Contested(UserId);

    impl Decides for Contested {
        fn decide(&self, postings: &[Posting], _: LockWait) -> Result<Vec<Decision>, JournalError> {
            Ok(vec![Decision::NotLocked { contested: self.0 }; postings.len()])
        }
    }

    #[tokio::test]
    async fn a_wallet_that_a_batch_waited_for_in_vain_ends_only_the_postings_that_need_it() {
        let user = |n| UserId::from_uuid(Uuid::from_u128(n));
        let transfer = |from: u128, to: u128| {
            let leg = OtherLeg { id: EntryId::from_uuid(Uuid::nil()), salt: Salt::new([0; 16]) };
            let amount = AmountMinor::try_new(1).expect("amount");
            let act = Act::Transfer { amount, recipient: user(to), recipient_exists: true, leg };
            Posting::new(user(from), Draft { id: EntryId::from_uuid(Uuid::nil()), act, texts: None }.into(), None)
        };
        let postings = [transfer(1, 9), transfer(1, 2), posting(3, 1, 4), posting(4, 9, 4)];
        let not_found =
            PostingResult::Reply(Err(PostError::Refused { reason: EntryRefused::RecipientNotFound, draft: 0 }));
        let aside = PostingResult::Undecided { contested: user(9) };
        let no_wallet = PostingResult::Reply(Err(PostError::NoWallet));
        let batch = PostBatch { journal: Arc::new(Contested(user(9))) };
        for wait in [LockWait::WaitForOne(user(9)), LockWait::WaitForAll] {
            let results = batch.execute(&postings, wait, &OnExecuted::default()).await.results;
            assert_eq!(results, [not_found.clone(), aside.clone(), aside.clone(), no_wallet.clone()]);
        }
        for wait in [LockWait::SkipLocked, LockWait::WaitForOne(user(1))] {
            assert_eq!(batch.execute(&postings, wait, &OnExecuted::default()).await.results, vec![aside.clone(); 4]);
        }
    }

    /// A journal that fails for every batch of several postings. Each wallet is locked by another process for a number of
    /// attempts, then free.
    struct BusyJournal(Mutex<HashMap<UserId, u32>>);

    impl Decides for BusyJournal {
        fn decide(&self, postings: &[Posting], lock_wait: LockWait) -> Result<Vec<Decision>, JournalError> {
            let [posting] = postings else { return Err(JournalError::NotDone(failed(FailureClass::Bug))) };
            let mut locked = self.0.lock().expect("locks");
            if let Some(attempts) = locked.get_mut(&posting.user_id).filter(|attempts| **attempts > 0) {
                *attempts -= 1;
                if lock_wait == LockWait::SkipLocked {
                    return Ok(vec![Decision::NotLocked { contested: posting.user_id }]);
                }
            }
            Ok(vec![Decision::Post(entry_of(posting))])
        }
    }

    /// Which of the users' postings are undecided after a batch that was tried one by one.
    fn undecided(users: &[u128], locked: &[(u128, u32)], lock_wait: LockWait) -> Vec<bool> {
        let postings: Vec<_> = (1..).zip(users).map(|(number, user)| posting(number, *user, 4)).collect();
        let locked = locked.iter().map(|(user, attempts)| (UserId::from_uuid(Uuid::from_u128(*user)), *attempts));
        let journal = Arc::new(BusyJournal(Mutex::new(locked.collect())));
        let batch = PostBatch { journal }
            .execute(&postings, lock_wait, &OnExecuted::default())
            .now_or_never()
            .expect("the journal never waits");
        batch.results.into_iter().map(|result| matches!(result, PostingResult::Undecided { .. })).collect()
    }

    #[test]
    fn once_a_post_is_undecided_the_later_posts_of_its_user_are_too() {
        let (a, b) = (1, 2);
        assert_eq!(
            undecided(&[a, b, a, b, a], &[(a, 1)], LockWait::SkipLocked),
            [true, false, true, false, true],
            "the lock is free again at the second post of a"
        );
        assert_eq!(
            undecided(&[a, b, a], &[(a, 1)], LockWait::WaitForAll),
            [false; 3],
            "a batch that waits decides everything"
        );
    }

    proptest! {
        #[test]
        fn no_post_overtakes_an_earlier_one_of_its_user(
            users in proptest::collection::vec(0_u128..4, 2..40),
            locked in proptest::collection::vec((0_u128..4, 0_u32..5), 0..4),
        ) {
            let undecided = undecided(&users, &locked, LockWait::SkipLocked);
            for user in 0..4 {
                let of_user: Vec<bool> =
                    users.iter().zip(&undecided).filter(|(owner, _)| **owner == user).map(|(_, undecided)| *undecided).collect();
                prop_assert!(of_user.is_sorted(), "user {}: {:?}", user, of_user);
                let is_locked = locked.iter().rev().any(|(owner, attempts)| *owner == user && *attempts > 0);
                prop_assert!(is_locked || !of_user.contains(&true), "user {} is undecided without a lock", user);
            }
        }
    }
}
