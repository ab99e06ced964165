//! Ports: what the use cases of this context need from adapters.

use async_trait::async_trait;

use crate::contracts::UserRegistered;
use crate::kernel::{DependencyError, EventId, IdempotencyKey, RequestId, Timestamp, TraceParent, UserId};
use crate::users::domain::{EmailAddress, Password, User};

/// The hash of a password with its parameters, as a PHC string. `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// `encoded` comes from the hasher or the store.
    pub fn new(encoded: String) -> Self {
        Self(encoded)
    }

    /// For the store and the hasher.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[hash]")
    }
}

/// The request that caused an event. It travels with the event into the logs of the other role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The `x-request-id` of that request.
    pub request_id: RequestId,
    /// The W3C trace context of that request.
    pub traceparent: TraceParent,
}

/// A new user and the event about it: both are stored, or neither.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The row of `users`.
    pub user: User,
    /// Never the password itself.
    pub password_hash: PasswordHash,
    /// Id of the outbox row and later the `message_id`.
    pub event_id: EventId,
    /// The payload for the wallet role.
    pub event: UserRegistered,
    /// The request that registered the user.
    pub origin: Origin,
    /// Stored with the user, so that a retry finds it.
    pub key: Option<IdempotencyKey>,
}

/// What a registration with the same key has stored before.
#[derive(Clone, Debug)]
pub struct EarlierRegistration {
    /// As it is stored now.
    pub user: User,
    /// As it is stored now.
    pub password_hash: PasswordHash,
}

/// Why a registration was not stored.
#[derive(Debug, thiserror::Error)]
pub enum AddUserError {
    /// The email address has an account.
    #[error("email address is taken")]
    EmailExists,
    /// Another registration has used the key.
    #[error("idempotency key was used before")]
    KeyUsed,
    /// The store failed; nothing was stored.
    #[error(transparent)]
    Store(#[from] DependencyError),
    /// The connection was lost during the commit, and the store cannot be reached since.
    #[error("outcome of the registration is unknown")]
    OutcomeUnknown(#[source] DependencyError),
}

/// What a login is checked against.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The user who logs in with them.
    pub user_id: UserId,
    /// The hash to compare with.
    pub password_hash: PasswordHash,
}

/// The replacement of a hash that was made with outdated parameters.
#[derive(Clone, Debug)]
pub struct HashRenewal {
    /// The user who has just logged in.
    pub user_id: UserId,
    /// The hash that the password was compared with.
    pub old: PasswordHash,
    /// The hash of the same password with the current parameters.
    pub new: PasswordHash,
}

/// Stores users.
#[async_trait]
pub trait UserStore: Send + Sync {
    /// Stores the user and the event in one database transaction. If the connection is lost during the commit, this looks
    /// up whether it succeeded before it returns.
    async fn add(&self, registration: Registration) -> Result<(), AddUserError>;
    /// The user whom a registration with this key has stored.
    async fn registered_with(&self, key: &IdempotencyKey) -> Result<Option<EarlierRegistration>, DependencyError>;
    /// `None` if the email address has no account.
    async fn credentials(&self, email: &EmailAddress) -> Result<Option<Credentials>, DependencyError>;
    /// Replaces `old` only if it is still stored, so that a concurrent change is not undone.
    async fn renew_password_hash(&self, renewal: HashRenewal) -> Result<(), DependencyError>;
}

/// Why a password was not hashed or compared.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// The queue is full; nothing was hashed.
    #[error("password hasher is busy")]
    Overloaded,
    /// A bug: the hasher failed or panicked.
    #[error("password hasher failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The result of comparing a password with a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordCheck {
    /// Also the result of comparing with no hash.
    Wrong,
    /// The hash has the current parameters.
    Correct,
    /// The hash has other parameters than the current ones; here is a current one.
    CorrectButOutdated(PasswordHash),
}

/// Hashes and compares passwords, off the threads that serve requests.
#[async_trait]
pub trait PasswordHasher: Send + Sync {
    /// Hashes with the current parameters.
    async fn hash(&self, password: Password) -> Result<PasswordHash, HashError>;
    /// Compares with `against`. `None` is always [`PasswordCheck::Wrong`] and takes as long as a comparison, so that the
    /// time does not reveal whether an email address has an account.
    async fn verify(
        &self,
        candidate: crate::kernel::Secret,
        against: Option<PasswordHash>,
    ) -> Result<PasswordCheck, HashError>;
}

/// An outbox row that this process has claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedEvent {
    /// Also the `message_id`.
    pub id: EventId,
    /// The `type` of the message.
    pub kind: String,
    /// The body of the message, byte for byte.
    pub payload: String,
    /// How often the broker has refused it before.
    pub attempts: u32,
    /// `None` on rows inserted by hand.
    pub request_id: Option<RequestId>,
    /// `None` on rows inserted by hand.
    pub traceparent: Option<TraceParent>,
}

/// Events that only this process may publish until the lease ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedBatch {
    /// Settling with another token changes nothing.
    pub token: uuid::Uuid,
    /// Oldest first.
    pub events: Vec<ClaimedEvent>,
}

/// How publishing one event ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishOutcome {
    /// Routed and stored: the only outcome after which a row is marked as published.
    Confirmed,
    /// The broker returned it, or it cannot be published at all: it stays pending, and the attempt counts.
    Refused(String),
    /// The queue rejected it: it stays pending, and the attempt counts. Another connection may be accepted.
    Rejected,
    /// The broker is unreachable or too slow: it stays pending, and no attempt counts.
    Unanswered,
}

/// An event that the broker refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedEvent {
    /// Id of the outbox row.
    pub id: EventId,
    /// The reason that the broker gave.
    pub reason: String,
    /// Delay before the next attempt.
    pub retry_in: std::time::Duration,
}

/// How each event of a claimed batch ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settlement {
    /// To be marked as published.
    pub confirmed: Vec<EventId>,
    /// To be retried later.
    pub refused: Vec<RefusedEvent>,
    /// To be released unchanged.
    pub unanswered: Vec<EventId>,
}

/// The transactional outbox: events that have yet to be published.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Claims up to `batch_max` pending events that are due, oldest first, for the duration of `lease`.
    async fn claim(&self, batch_max: u32, lease: std::time::Duration) -> Result<ClaimedBatch, DependencyError>;
    /// Stores how a claimed batch ended and returns the number of changed rows. Rows that another process has claimed
    /// since are left unchanged.
    async fn settle(&self, token: uuid::Uuid, settlement: Settlement) -> Result<u64, DependencyError>;
}

/// Published events, which are kept so that they can be published again.
#[async_trait]
pub trait PublishedEvents: Send + Sync {
    /// Deletes up to `most` events that were published more than `retention` ago by the database's clock, those published
    /// first before others, and returns how many it deleted. Skips those that another process is deleting.
    async fn delete_expired(&self, retention: std::time::Duration, most: u32) -> Result<u64, DependencyError>;
}

/// Publishes events to the broker.
#[async_trait]
pub trait EventPublisher: Send + Sync {
    /// Waits for the confirms of all events. The outcomes are in the order of `events`.
    async fn publish(&self, events: &[ClaimedEvent]) -> Vec<PublishOutcome>;
}

/// Wakes the relay, so that a new event does not wait for the next poll.
pub trait RelayWake: Send + Sync {
    /// Never blocks. Several wakes before the relay runs count as one.
    fn wake(&self);
}

/// A signed access token.
#[derive(Clone, Debug)]
pub struct AccessToken {
    /// A compact JWS.
    pub token: crate::kernel::Secret,
    /// Lifetime from now, in seconds.
    pub expires_in_s: i64,
}

/// A token could not be signed, which is a bug.
#[derive(Debug, thiserror::Error)]
#[error("access token could not be signed")]
pub struct TokenError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Issues access tokens.
pub trait TokenIssuer: Send + Sync {
    /// A token for `user`, valid from `now` on.
    fn issue(&self, user: UserId, now: Timestamp) -> Result<AccessToken, TokenError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_does_not_show_the_hash() {
        let hash = PasswordHash::new("$argon2id$v=19$m=8,t=1,p=1$salt$hash".to_owned());
        assert_eq!(hash.expose(), "$argon2id$v=19$m=8,t=1,p=1$salt$hash");
        assert_eq!(format!("{hash:?}"), "[hash]");
    }
}
