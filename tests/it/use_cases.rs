//! Use cases when a port fails in ways that real servers do not on demand.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use purse::infra::system::System;
use purse::kernel::{
    Classified as _, DependencyError, EntryId, FailureClass, IdSource as _, IdempotencyKey, RequestId, Secret,
    Timestamp, TraceParent, UserId,
};
use purse::users::application::log_in::{LogIn, LogInError};
use purse::users::application::ports::{
    AccessToken, AddUserError, Credentials, EarlierRegistration, HashError, HashRenewal, Origin, PasswordCheck,
    PasswordHash, PasswordHasher, Registration, RelayWake, TokenError, TokenIssuer, UserStore,
};
use purse::users::application::register_user::{NewUser, RegisterError, RegisterUser};
use purse::users::domain::{EmailAddress, Password, PersonName};
use purse::wallet::application::ports::{Journal, JournalError, LockWait, OnExecuted, PostError};
use purse::wallet::application::post_batch::{PostBatch, PostingResult};
use purse::wallet::domain::{Act, AmountMinor, Decision, Direction, Draft, EntryRefused, Posting};

fn failed(class: FailureClass) -> DependencyError {
    DependencyError::new("a step", class, "broken for a test")
}

/// A store with one user that counts its calls.
#[derive(Default)]
struct FakeUsers {
    added: AtomicUsize,
    renewed: Mutex<Vec<HashRenewal>>,
}

#[async_trait]
impl UserStore for FakeUsers {
    async fn add(&self, _: Registration) -> Result<(), AddUserError> {
        self.added.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn registered_with(&self, _: &IdempotencyKey) -> Result<Option<EarlierRegistration>, DependencyError> {
        Ok(None)
    }

    async fn credentials(&self, _: &EmailAddress) -> Result<Option<Credentials>, DependencyError> {
        let password_hash = PasswordHash::new("old".to_owned());
        Ok(Some(Credentials { user_id: UserId::from_uuid(System.next_id()), password_hash }))
    }

    async fn renew_password_hash(&self, renewal: HashRenewal) -> Result<(), DependencyError> {
        self.renewed.lock().expect("renewals").push(renewal);
        Err(failed(FailureClass::Unavailable))
    }
}

/// A password hasher and token issuer with one behaviour.
#[derive(Clone, Copy, PartialEq, Eq)]
enum StubSecurity {
    Outdated,
    Busy,
    Broken,
    NoToken,
}

impl StubSecurity {
    fn hash_error(self) -> Option<HashError> {
        match self {
            Self::Busy => Some(HashError::Overloaded),
            Self::Broken => Some(HashError::Failed("broken for a test".into())),
            Self::Outdated | Self::NoToken => None,
        }
    }
}

#[async_trait]
impl PasswordHasher for StubSecurity {
    async fn hash(&self, _: Password) -> Result<PasswordHash, HashError> {
        self.hash_error().map_or_else(|| Ok(PasswordHash::new("new".to_owned())), Err)
    }

    async fn verify(&self, _: Secret, _: Option<PasswordHash>) -> Result<PasswordCheck, HashError> {
        self.hash_error()
            .map_or_else(|| Ok(PasswordCheck::CorrectButOutdated(PasswordHash::new("new".to_owned()))), Err)
    }
}

impl TokenIssuer for StubSecurity {
    fn issue(&self, _: UserId, _: Timestamp) -> Result<AccessToken, TokenError> {
        match self {
            Self::NoToken => Err(TokenError("broken for a test".into())),
            _ => Ok(AccessToken { token: Secret::new("token"), expires_in_s: 3600 }),
        }
    }
}

struct NoRelay;

impl RelayWake for NoRelay {
    fn wake(&self) {}
}

fn email() -> EmailAddress {
    EmailAddress::parse("ada@example.com").expect("address")
}

async fn log_in(users: &Arc<FakeUsers>, security: StubSecurity) -> Result<Option<DependencyError>, LogInError> {
    let users: Arc<dyn UserStore> = users.clone();
    let use_case = LogIn { users, hasher: Arc::new(security), tokens: Arc::new(security), clock: Arc::new(System) };
    use_case.execute(Some(email()), Secret::new("12345678")).await.map(|logged_in| logged_in.renewal_failed)
}

async fn register(users: &Arc<FakeUsers>, security: StubSecurity) -> Result<(), RegisterError> {
    let name = || PersonName::parse("Ada").expect("name");
    let password = Password::parse("12345678").expect("password");
    let new = NewUser { first_name: name(), last_name: name(), email: email(), password };
    let origin =
        Origin { request_id: RequestId::from_uuid(System.next_id()), traceparent: TraceParent::begin(&System) };
    let use_case = RegisterUser {
        users: users.clone(),
        hasher: Arc::new(security),
        tokens: Arc::new(security),
        relay: Arc::new(NoRelay),
        clock: Arc::new(System),
        ids: Arc::new(System),
    };
    use_case.execute(new, None, origin).await.map(drop)
}

#[tokio::test]
async fn a_login_succeeds_although_its_outdated_hash_cannot_be_renewed() {
    let users = Arc::new(FakeUsers::default());
    let renewal = log_in(&users, StubSecurity::Outdated).await.expect("logged in").expect("a failure to report");
    assert_eq!(renewal.class(), FailureClass::Unavailable);
    let renewed = users.renewed.lock().expect("renewals");
    assert_eq!(renewed.iter().map(|r| (r.old.expose(), r.new.expose())).collect::<Vec<_>>(), [("old", "new")]);
}

#[tokio::test]
async fn a_busy_hasher_is_transient_and_a_broken_one_is_a_bug() {
    let users = Arc::new(FakeUsers::default());
    let refused = |result: Result<_, LogInError>| result.expect_err("refused");
    let busy = refused(log_in(&users, StubSecurity::Busy).await);
    assert!(matches!(busy, LogInError::Overloaded) && busy.class() == FailureClass::Transient);
    let broken = refused(log_in(&users, StubSecurity::Broken).await);
    assert!(matches!(broken, LogInError::Hash(_)) && broken.class() == FailureClass::Bug);
    let no_token = refused(log_in(&users, StubSecurity::NoToken).await);
    assert!(matches!(no_token, LogInError::Token(_)) && no_token.class() == FailureClass::Bug);
    assert_eq!(LogInError::InvalidCredentials.class(), FailureClass::Refused);
}

#[tokio::test]
async fn without_a_hash_no_user_is_stored_and_without_a_token_the_user_is() {
    let users = Arc::new(FakeUsers::default());
    let refused = |result: Result<(), RegisterError>| result.expect_err("refused");
    let busy = refused(register(&users, StubSecurity::Busy).await);
    assert!(matches!(busy, RegisterError::Overloaded) && busy.class() == FailureClass::Transient);
    let broken = refused(register(&users, StubSecurity::Broken).await);
    assert!(matches!(broken, RegisterError::Hash(_)) && broken.class() == FailureClass::Bug);
    assert_eq!(users.added.load(Ordering::Relaxed), 0);
    let no_token = refused(register(&users, StubSecurity::NoToken).await);
    assert!(matches!(no_token, RegisterError::Token(_)) && no_token.class() == FailureClass::Bug);
    assert_eq!(users.added.load(Ordering::Relaxed), 1);
    assert_eq!(RegisterError::EmailExists.class(), FailureClass::Refused);
}

/// A journal that fails whenever the batch has one draft, and refuses the others.
struct FailingJournal {
    failing: EntryId,
    class: FailureClass,
    commits: AtomicUsize,
}

#[async_trait]
impl Journal for FailingJournal {
    async fn commit(&self, postings: &[Posting], _: LockWait, _: &OnExecuted) -> Result<Vec<Decision>, JournalError> {
        self.commits.fetch_add(1, Ordering::Relaxed);
        if postings.iter().any(|posting| posting.id() == self.failing) {
            return Err(JournalError::NotDone(failed(self.class)));
        }
        Ok(postings.iter().map(|_| Decision::Refuse { reason: EntryRefused::InsufficientFunds, draft: 0 }).collect())
    }
}

fn postings() -> Vec<Posting> {
    let posting = |_| {
        let draft = Draft {
            id: EntryId::from_uuid(System.next_id()),
            act: Act::Post { direction: Direction::Debit, amount: AmountMinor::try_new(1).expect("amount") },
            texts: None,
        };
        Posting::new(UserId::from_uuid(System.next_id()), draft.into(), None)
    };
    (0..3).map(posting).collect()
}

async fn post(class: FailureClass) -> (Vec<PostingResult>, usize, usize) {
    let postings = postings();
    let journal = Arc::new(FailingJournal { failing: postings[1].id(), class, commits: AtomicUsize::new(0) });
    let batch =
        PostBatch { journal: journal.clone() }.execute(&postings, LockWait::SkipLocked, &OnExecuted::default()).await;
    (batch.results, batch.failures.len(), journal.commits.load(Ordering::Relaxed))
}

#[tokio::test]
async fn a_post_that_fails_its_batch_fails_alone() {
    let refused = PostingResult::Reply(Err(PostError::Refused { reason: EntryRefused::InsufficientFunds, draft: 0 }));
    let (results, failures, commits) = post(FailureClass::Bug).await;
    assert_eq!(results, [refused.clone(), PostingResult::Reply(Err(PostError::Bug)), refused]);
    assert_eq!((failures, commits), (2, 4), "the batch, then each posting alone");
}

#[tokio::test]
async fn a_batch_is_not_split_while_the_store_is_unavailable() {
    for class in [FailureClass::Unavailable, FailureClass::Transient] {
        let (results, failures, commits) = post(class).await;
        assert_eq!(results, vec![PostingResult::Reply(Err(PostError::NotDone)); 3]);
        assert_eq!((failures, commits), (1, 1));
    }
}

/// A journal that gets no lock.
struct LockedJournal;

#[async_trait]
impl Journal for LockedJournal {
    async fn commit(&self, postings: &[Posting], _: LockWait, _: &OnExecuted) -> Result<Vec<Decision>, JournalError> {
        Ok(postings.iter().map(|posting| Decision::NotLocked { contested: posting.user_id }).collect())
    }
}

#[tokio::test]
async fn a_wallet_that_cannot_be_locked_is_held_or_after_waiting_does_not_exist() {
    let batch = PostBatch { journal: Arc::new(LockedJournal) };
    let postings = postings();
    let aside: Vec<_> =
        postings.iter().map(|posting| PostingResult::Undecided { contested: posting.user_id }).collect();
    assert_eq!(batch.execute(&postings, LockWait::SkipLocked, &OnExecuted::default()).await.results, aside);
    let gone = PostingResult::Reply(Err(PostError::NoWallet));
    assert_eq!(batch.execute(&postings, LockWait::WaitForAll, &OnExecuted::default()).await.results, vec![gone; 3]);
}
