//! Register a user: hash the password, store the user and the event together, wake the relay, issue a token.

use std::sync::Arc;

use crate::contracts::UserRegistered;
use crate::kernel::{Classified, Clock, DependencyError, EventId, FailureClass, IdSource, UserId};
use crate::users::application::ports::{
    AccessToken, AddUserError, HashError, Origin, PasswordHasher, Registration, RelayWake, TokenError, TokenIssuer,
    UserStore,
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
}

/// Why a registration failed.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The email address has an account.
    #[error("email address is taken")]
    EmailExists,
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
            Self::EmailExists => FailureClass::Refused,
            Self::Overloaded => FailureClass::Transient,
            Self::Store(e) | Self::OutcomeUnknown(e) => e.class(),
            Self::Hash(_) | Self::Token(_) => FailureClass::Bug,
        }
    }
}

impl RegisterUser {
    /// Hashes before it checks the email address, so that the time does not reveal whether that has an account.
    ///
    /// # Errors
    /// [`RegisterError`]. Nothing is stored then, except with `Token` and perhaps with `OutcomeUnknown`.
    pub async fn execute(&self, new: NewUser, origin: Origin) -> Result<Registered, RegisterError> {
        let password_hash = self.hasher.hash(new.password).await.map_err(|e| match e {
            HashError::Overloaded => RegisterError::Overloaded,
            failed @ HashError::Failed(_) => RegisterError::Hash(failed),
        })?;
        let now = self.clock.now();
        let user = User {
            id: UserId::from_uuid(self.ids.next_id()),
            first_name: new.first_name,
            last_name: new.last_name,
            email: new.email,
            created_at: now,
        };
        let registration = Registration {
            event_id: EventId::from_uuid(self.ids.next_id()),
            event: UserRegistered { user_id: user.id },
            user: user.clone(),
            password_hash,
            origin,
        };
        self.users.add(registration).await.map_err(|e| match e {
            AddUserError::EmailExists => RegisterError::EmailExists,
            AddUserError::Store(e) => RegisterError::Store(e),
            AddUserError::OutcomeUnknown(e) => RegisterError::OutcomeUnknown(e),
        })?;
        self.relay.wake();
        let access_token = self.tokens.issue(user.id, now).map_err(RegisterError::Token)?;
        Ok(Registered { user, access_token })
    }
}
