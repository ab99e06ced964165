//! Register a user: hash the password, store the user and the event together, wake the relay, issue a token. A retry with
//! the same key returns the user whom the first request has registered.

use std::sync::Arc;

use crate::contracts::UserRegistered;
use crate::kernel::{Classified, Clock, DependencyError, EventId, FailureClass, IdSource, IdempotencyKey, UserId};
use crate::users::application::ports::{
    AccessToken, AddUserError, EarlierRegistration, HashError, Origin, PasswordCheck, PasswordHasher, Registration,
    RelayWake, TokenError, TokenIssuer, UserStore,
};
use crate::users::domain::{EmailAddress, Password, PersonName, User};

/// The use case with its ports.
#[expect(missing_docs, reason = "each port has its own documentation")]
pub struct RegisterUser {
    pub users: Arc<dyn UserStore>,
    pub hasher: Arc<dyn PasswordHasher>,
    pub tokens: Arc<dyn TokenIssuer>,
    /// Is woken after the commit.
    pub relay: Arc<dyn RelayWake>,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn IdSource>,
}

/// A valid registration.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// Trimmed.
    pub first_name: PersonName,
    /// Trimmed.
    pub last_name: PersonName,
    /// Lower-cased.
    pub email: EmailAddress,
    /// Exactly as sent.
    pub password: Password,
}

/// A successful registration.
#[derive(Clone, Debug)]
pub struct Registered {
    /// As it is stored.
    pub user: User,
    /// For requests to either role.
    pub access_token: AccessToken,
    /// An earlier request with the same key has registered the user.
    pub is_replay: bool,
}

/// Why a registration failed.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The email address has an account.
    #[error("email address is taken")]
    EmailExists,
    /// The key was used for another registration.
    #[error("idempotency key was used for another registration")]
    KeyReused,
    /// The queue of the password hasher is full.
    #[error("too many passwords are being hashed")]
    Overloaded,
    /// The store failed or timed out; nothing was stored.
    #[error("registration could not be stored")]
    Store(#[source] DependencyError),
    /// The connection was lost during the commit, and the store cannot be reached since: the user may exist or not.
    #[error("outcome of the registration is unknown")]
    OutcomeUnknown(#[source] DependencyError),
    /// A bug in the password hasher.
    #[error("password could not be hashed")]
    Hash(#[source] HashError),
    /// A bug: the user is stored, but no token could be signed.
    #[error("no token for the new user")]
    Token(#[source] TokenError),
}

impl Classified for RegisterError {
    fn class(&self) -> FailureClass {
        match self {
            Self::EmailExists | Self::KeyReused => FailureClass::Refused,
            Self::Overloaded => FailureClass::Transient,
            Self::Store(e) | Self::OutcomeUnknown(e) => e.class(),
            Self::Hash(_) | Self::Token(_) => FailureClass::Bug,
        }
    }
}

impl From<HashError> for RegisterError {
    fn from(error: HashError) -> Self {
        match error {
            HashError::Overloaded => Self::Overloaded,
            failed @ HashError::Failed(_) => Self::Hash(failed),
        }
    }
}

impl RegisterUser {
    /// Hashes before it checks the email address, so that the time does not reveal whether that has an account.
    ///
    /// # Errors
    /// [`RegisterError`]. Nothing is stored then, except with `Token` and perhaps with `OutcomeUnknown`.
    pub async fn execute(
        &self,
        new: NewUser,
        key: Option<IdempotencyKey>,
        origin: Origin,
    ) -> Result<Registered, RegisterError> {
        if let Some(earlier) = self.earlier(key.as_ref()).await? {
            return self.replay(earlier, new).await;
        }
        let password_hash = self.hasher.hash(new.password.clone()).await?;
        let now = self.clock.now();
        let user = User {
            id: UserId::from_uuid(self.ids.next_id()),
            first_name: new.first_name.clone(),
            last_name: new.last_name.clone(),
            email: new.email.clone(),
            created_at: now,
        };
        let registration = Registration {
            event_id: EventId::from_uuid(self.ids.next_id()),
            event: UserRegistered { user_id: user.id },
            user: user.clone(),
            password_hash,
            origin,
            key: key.clone(),
        };
        let refused = match self.users.add(registration).await {
            Ok(()) => {
                self.relay.wake();
                return self.registered(user, false);
            }
            Err(AddUserError::EmailExists) => RegisterError::EmailExists,
            Err(AddUserError::KeyUsed) => RegisterError::KeyReused,
            Err(AddUserError::Store(e)) => return Err(RegisterError::Store(e)),
            Err(AddUserError::OutcomeUnknown(e)) => return Err(RegisterError::OutcomeUnknown(e)),
        };
        // A request with the same key may have been faster.
        match self.earlier(key.as_ref()).await? {
            Some(earlier) => self.replay(earlier, new).await,
            None => Err(refused),
        }
    }

    async fn earlier(&self, key: Option<&IdempotencyKey>) -> Result<Option<EarlierRegistration>, RegisterError> {
        match key {
            Some(key) => self.users.registered_with(key).await.map_err(RegisterError::Store),
            None => Ok(None),
        }
    }

    /// The result of the earlier request with the same key, if the two are the same. The password is compared with the stored
    /// hash: a digest of the request beside it could be guessed much faster.
    async fn replay(&self, earlier: EarlierRegistration, new: NewUser) -> Result<Registered, RegisterError> {
        let EarlierRegistration { user, password_hash } = earlier;
        let is_same = (&user.first_name, &user.last_name, &user.email) == (&new.first_name, &new.last_name, &new.email);
        // Compared in any case, so that the time does not reveal which field differs.
        let check = self.hasher.verify(new.password.into_secret(), Some(password_hash)).await?;
        if is_same && check != PasswordCheck::Wrong {
            self.registered(user, true)
        } else {
            Err(RegisterError::KeyReused)
        }
    }

    fn registered(&self, user: User, is_replay: bool) -> Result<Registered, RegisterError> {
        let access_token = self.tokens.issue(user.id, self.clock.now()).map_err(RegisterError::Token)?;
        Ok(Registered { user, access_token, is_replay })
    }
}
