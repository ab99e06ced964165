//! Log a person in: compare the password, hand out a token, renew an outdated hash.

use std::sync::Arc;

use crate::kernel::{Classified, Clock, DependencyError, FailureClass, Secret};
use crate::users::application::ports::{
    AccessToken, HashError, HashRenewal, PasswordHasher, TokenError, TokenIssuer, UserStore, Verdict,
};
use crate::users::domain::EmailAddress;

/// The use case and its ports.
pub struct LogIn {
    /// Where the credentials are kept.
    pub users: Arc<dyn UserStore>,
    /// Compares.
    pub hasher: Arc<dyn PasswordHasher>,
    /// Makes the token.
    pub tokens: Arc<dyn TokenIssuer>,
    /// The present.
    pub clock: Arc<dyn Clock>,
}

/// What a login ends in when it succeeds.
#[derive(Debug)]
pub struct LoggedIn {
    /// For the requests that follow.
    pub access_token: AccessToken,
    /// Why an outdated hash could not be renewed; the login stands all the same, and the next one tries again.
    pub renewal_failed: Option<DependencyError>,
}

/// Why nobody was logged in.
#[derive(Debug, thiserror::Error)]
pub enum LogInError {
    /// Unknown address or wrong password; which of the two is not told.
    #[error("email or password is wrong")]
    InvalidCredentials,
    /// The hasher's queue is full.
    #[error("too many passwords are being hashed")]
    Overloaded,
    /// The store could not be asked, or not in time.
    #[error("credentials could not be read")]
    Store(#[source] DependencyError),
    /// The hasher broke down.
    #[error("password could not be compared")]
    Hash(#[source] HashError),
    /// No token could be made.
    #[error("no token for the user")]
    Token(#[source] TokenError),
}

impl Classified for LogInError {
    fn class(&self) -> FailureClass {
        match self {
            Self::InvalidCredentials => FailureClass::Refused,
            Self::Overloaded => FailureClass::Transient,
            Self::Store(e) => e.class(),
            Self::Hash(_) | Self::Token(_) => FailureClass::Bug,
        }
    }
}

impl LogIn {
    /// Logs in with any texts: one that could never be an address or a password is simply not the right one.
    ///
    /// # Errors
    /// [`LogInError`].
    pub async fn execute(&self, email: Option<EmailAddress>, password: Secret) -> Result<LoggedIn, LogInError> {
        let found = match &email {
            Some(email) => self.users.credentials(email).await.map_err(LogInError::Store)?,
            None => None,
        };
        let against = found.as_ref().map(|c| c.password_hash.clone());
        let verdict = self.hasher.verify(password, against).await.map_err(|e| match e {
            HashError::Overloaded => LogInError::Overloaded,
            failed @ HashError::Failed(_) => LogInError::Hash(failed),
        })?;
        let (credentials, renewed) = match (found, verdict) {
            (None, _) | (_, Verdict::Wrong) => return Err(LogInError::InvalidCredentials),
            (Some(credentials), Verdict::Right) => (credentials, None),
            (Some(credentials), Verdict::RightButOutdated(hash)) => (credentials, Some(hash)),
        };
        let user_id = credentials.user_id;
        let renewal_failed = match renewed {
            Some(new) => {
                self.users.renew_password_hash(HashRenewal { user_id, old: credentials.password_hash, new }).await.err()
            }
            None => None,
        };
        let access_token = self.tokens.issue(user_id, self.clock.now()).map_err(LogInError::Token)?;
        Ok(LoggedIn { access_token, renewal_failed })
    }
}
