//! What the use cases of this context need of the outside.

use async_trait::async_trait;

use crate::contracts::UserRegistered;
use crate::kernel::{DependencyError, EventId, RequestId, Timestamp, TraceParent, UserId};
use crate::users::domain::{EmailAddress, Password, User};

/// The encoded hash of a password, parameters included (PHC string). Not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// Takes over what the hasher made or the store kept.
    pub fn new(encoded: String) -> Self {
        Self(encoded)
    }

    /// The encoded form, for the store and the hasher.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[hash]")
    }
}

/// The request that an event comes from, carried along so that the other role's logs name it too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// `x-request-id` of that request.
    pub request_id: RequestId,
    /// Its trace context.
    pub traceparent: TraceParent,
}

/// A registration as it is stored: the person and the event, or neither.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The new person.
    pub user: User,
    /// Of the password that was sent.
    pub password_hash: PasswordHash,
    /// Id of the outbox row, later the `message_id`.
    pub event_id: EventId,
    /// What the other role is told.
    pub event: UserRegistered,
    /// Where it comes from.
    pub origin: Origin,
}

/// Why a registration was not stored.
#[derive(Debug, thiserror::Error)]
pub enum AddUserError {
    /// Somebody has this address already.
    #[error("email address is taken")]
    EmailExists,
    /// The store could not tell.
    #[error(transparent)]
    Store(#[from] DependencyError),
}

/// What login compares with.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Whose they are.
    pub user_id: UserId,
    /// Of the password chosen.
    pub password_hash: PasswordHash,
}

/// A hash made again under today's parameters.
#[derive(Clone, Debug)]
pub struct HashRenewal {
    /// Whose it is.
    pub user_id: UserId,
    /// The one that was compared with.
    pub old: PasswordHash,
    /// Of the same password.
    pub new: PasswordHash,
}

/// Where people are kept.
#[async_trait]
pub trait UserStore: Send + Sync {
    /// Stores the person and the event in one database transaction.
    async fn add(&self, registration: Registration) -> Result<(), AddUserError>;
    /// The credentials behind an address, if anybody has it.
    async fn credentials(&self, email: &EmailAddress) -> Result<Option<Credentials>, DependencyError>;
    /// Replaces `old` by `new` if it still stands there, so that a concurrent change is not undone.
    async fn renew_password_hash(&self, renewal: HashRenewal) -> Result<(), DependencyError>;
}

/// Why the hasher gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// Its queue is full; nothing was hashed.
    #[error("password hasher is busy")]
    Overloaded,
    /// It broke down over this password.
    #[error("password hasher failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The result of a verification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is another password.
    Wrong,
    /// It is the one.
    Right,
    /// It is the one, and here is its hash under today's parameters.
    RightButOutdated(PasswordHash),
}

/// Turns passwords into hashes, off the threads that serve requests.
#[async_trait]
pub trait PasswordHasher: Send + Sync {
    /// Hashes a new password.
    async fn hash(&self, password: Password) -> Result<PasswordHash, HashError>;
    /// Compares with `against`; `None` costs as much as a comparison and is always [`Verdict::Wrong`], so that an
    /// unknown address cannot be told from a wrong password by the time it takes.
    async fn verify(
        &self,
        candidate: crate::kernel::Secret,
        against: Option<PasswordHash>,
    ) -> Result<Verdict, HashError>;
}

/// One outbox row that this process has claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedEvent {
    /// Row id and `message_id`.
    pub id: EventId,
    /// `type` of the message.
    pub kind: String,
    /// Body of the message, byte for byte.
    pub payload: String,
    /// How often it was refused before.
    pub attempts: u32,
    /// Absent on rows written by hand.
    pub request_id: Option<RequestId>,
    /// Absent on rows written by hand.
    pub traceparent: Option<TraceParent>,
}

/// A batch that this process alone may publish until the lease ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Proof of the lease: settling under another token changes nothing.
    pub token: uuid::Uuid,
    /// Oldest first.
    pub events: Vec<ClaimedEvent>,
}

/// What the broker said to one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishOutcome {
    /// Routed and stored: the only outcome that lets a row be marked.
    Confirmed,
    /// The broker gave it back or refused it: it stays pending and its attempt counts.
    Refused(String),
    /// No answer: the broker is away or too slow. It stays pending and no attempt is spent.
    Unanswered,
}

/// A refused event with the wait that follows from its attempts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedEvent {
    /// The row.
    pub id: EventId,
    /// What the broker said.
    pub reason: String,
    /// How long to leave it alone.
    pub retry_in: std::time::Duration,
}

/// How each event of a claim ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settlement {
    /// To be marked published.
    pub confirmed: Vec<EventId>,
    /// To be tried later.
    pub refused: Vec<RefusedEvent>,
    /// To be given back as they were.
    pub unanswered: Vec<EventId>,
}

/// Where events wait.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Leases up to `batch_max` pending events that are due. The lease ends by itself after `lease`.
    async fn claim(&self, batch_max: u32, lease: std::time::Duration) -> Result<Claim, DependencyError>;
    /// Writes down how a claim ended. Rows that another process has claimed since are left alone; returns how many
    /// rows were changed.
    async fn settle(&self, token: uuid::Uuid, settlement: Settlement) -> Result<u64, DependencyError>;
}

/// Takes events to the broker.
#[async_trait]
pub trait EventPublisher: Send + Sync {
    /// Publishes all of them and waits for all answers; the outcomes stand in the order of `events`.
    async fn publish(&self, events: &[ClaimedEvent]) -> Vec<PublishOutcome>;
}

/// Tells the relay that there is work, so that a registration does not wait for the next poll.
pub trait RelayWake: Send + Sync {
    /// Never waits; a second wake before the first is handled is the same as one.
    fn wake(&self);
}

/// A signed access token and what its bearer is told about it.
#[derive(Clone, Debug)]
pub struct AccessToken {
    /// Compact JWS.
    pub token: crate::kernel::Secret,
    /// Lifetime from now, in seconds.
    pub expires_in_s: i64,
}

/// Why no token could be made.
#[derive(Debug, thiserror::Error)]
#[error("access token could not be signed")]
pub struct TokenError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Makes access tokens.
pub trait TokenIssuer: Send + Sync {
    /// A token for `user`, valid from `now` on.
    fn issue(&self, user: UserId, now: Timestamp) -> Result<AccessToken, TokenError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_shown_to_the_store_and_to_no_log() {
        let hash = PasswordHash::new("$argon2id$v=19$m=8,t=1,p=1$salt$hash".to_owned());
        assert_eq!(hash.expose(), "$argon2id$v=19$m=8,t=1,p=1$salt$hash");
        assert_eq!(format!("{hash:?}"), "[hash]");
    }
}
