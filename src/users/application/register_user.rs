//! Register a person: hash, store person and event together, wake the relay, hand out a token.

use std::sync::Arc;

use crate::contracts::UserRegistered;
use crate::kernel::{Classified, Clock, DependencyError, EventId, FailureClass, IdSource, UserId};
use crate::users::application::ports::{
    AccessToken, AddUserError, HashError, Origin, PasswordHasher, Registration, RelayWake, TokenError, TokenIssuer,
    UserStore,
};
use crate::users::domain::{EmailAddress, Password, PersonName, User};

/// The use case and its ports.
pub struct RegisterUser {
    /// Where the person is kept.
    pub users: Arc<dyn UserStore>,
    /// Makes the hash.
    pub hasher: Arc<dyn PasswordHasher>,
    /// Makes the token.
    pub tokens: Arc<dyn TokenIssuer>,
    /// Woken after the commit.
    pub relay: Arc<dyn RelayWake>,
    /// The present.
    pub clock: Arc<dyn Clock>,
    /// New ids.
    pub ids: Arc<dyn IdSource>,
}

/// What a person sends to register, already parsed.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// Given name.
    pub first_name: PersonName,
    /// Family name.
    pub last_name: PersonName,
    /// Login name.
    pub email: EmailAddress,
    /// Chosen password.
    pub password: Password,
}

/// A person who has just been stored.
#[derive(Clone, Debug)]
pub struct Registered {
    /// As stored.
    pub user: User,
    /// For the requests that follow.
    pub access_token: AccessToken,
}

/// Why nobody was registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The address has an account.
    #[error("email address is taken")]
    EmailExists,
    /// The hasher's queue is full.
    #[error("too many passwords are being hashed")]
    Overloaded,
    /// The store could not be asked, or not in time.
    #[error("registration could not be stored")]
    Store(#[source] DependencyError),
    /// The hasher broke down.
    #[error("password could not be hashed")]
    Hash(#[source] HashError),
    /// The person is stored, but no token could be made.
    #[error("no token for the new user")]
    Token(#[source] TokenError),
}

impl Classified for RegisterError {
    fn class(&self) -> FailureClass {
        match self {
            Self::EmailExists => FailureClass::Refused,
            Self::Overloaded => FailureClass::Transient,
            Self::Store(e) => e.class(),
            Self::Hash(_) | Self::Token(_) => FailureClass::Bug,
        }
    }
}

impl RegisterUser {
    /// Registers `new`. The hash is made before the address is looked at, so that a taken one costs the same time.
    ///
    /// # Errors
    /// [`RegisterError`]; nothing is stored then, except under `Token`.
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
        })?;
        self.relay.wake();
        let access_token = self.tokens.issue(user.id, now).map_err(RegisterError::Token)?;
        Ok(Registered { user, access_token })
    }
}
