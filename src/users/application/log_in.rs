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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Timestamp, UserId};
    use crate::users::application::ports::{AddUserError, Credentials, PasswordHash, Registration};
    use crate::users::domain::Password;
    use async_trait::async_trait;
    use uuid::Uuid;

    /// A store with one person, which refuses to be written to.
    struct ReadOnly;

    #[async_trait]
    impl UserStore for ReadOnly {
        async fn add(&self, _: Registration) -> Result<(), AddUserError> {
            Err(AddUserError::EmailExists)
        }
        async fn credentials(&self, email: &EmailAddress) -> Result<Option<Credentials>, DependencyError> {
            let known = email.as_str() == "ada@example.com";
            let user_id = UserId::from_uuid(Uuid::nil());
            Ok(known.then(|| Credentials { user_id, password_hash: PasswordHash::new("old".to_owned()) }))
        }
        async fn renew_password_hash(&self, _: HashRenewal) -> Result<(), DependencyError> {
            Err(DependencyError::new("test", FailureClass::Unavailable, "on purpose"))
        }
    }

    /// A hasher that gives the answer it is told, and notes whether it was asked at all.
    struct Told(Result<Verdict, ()>, std::sync::atomic::AtomicUsize);

    #[async_trait]
    impl PasswordHasher for Told {
        async fn hash(&self, _: Password) -> Result<PasswordHash, HashError> {
            Err(HashError::Overloaded)
        }
        async fn verify(&self, _: Secret, _: Option<PasswordHash>) -> Result<Verdict, HashError> {
            self.1.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            self.0.clone().map_err(|()| HashError::Failed("on purpose".into()))
        }
    }

    struct Tokens(bool);

    impl TokenIssuer for Tokens {
        fn issue(&self, _: UserId, _: Timestamp) -> Result<AccessToken, TokenError> {
            let token = AccessToken { token: Secret::new("token"), expires_in_s: 60 };
            if self.0 { Ok(token) } else { Err(TokenError("on purpose".into())) }
        }
    }

    struct Noon;

    impl Clock for Noon {
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }
    }

    async fn log_in(email: &str, verdict: Result<Verdict, ()>, signs: bool) -> (Result<LoggedIn, LogInError>, usize) {
        let hasher = Arc::new(Told(verdict, 0.into()));
        let log_in = LogIn {
            users: Arc::new(ReadOnly),
            hasher: hasher.clone(),
            tokens: Arc::new(Tokens(signs)),
            clock: Arc::new(Noon),
        };
        let result = log_in.execute(EmailAddress::parse(email).ok(), Secret::new("x")).await;
        (result, hasher.1.load(std::sync::atomic::Ordering::SeqCst))
    }

    #[tokio::test]
    async fn a_hash_that_cannot_be_renewed_does_not_fail_the_login() {
        let outdated = Verdict::RightButOutdated(PasswordHash::new("new".to_owned()));
        let (result, _) = log_in("ada@example.com", Ok(outdated), true).await;
        assert!(result.expect("logged in").renewal_failed.is_some());
    }

    #[tokio::test]
    async fn an_unknown_address_is_hashed_for_too_and_ends_like_a_wrong_password() {
        for (email, verdict) in
            [("ada@example.com", Verdict::Wrong), ("eve@example.com", Verdict::Right), ("no address", Verdict::Wrong)]
        {
            let (result, asked) = log_in(email, Ok(verdict), true).await;
            assert!(matches!(result, Err(LogInError::InvalidCredentials)), "{email}");
            assert_eq!(asked, 1, "{email}");
        }
    }

    #[tokio::test]
    async fn what_breaks_down_on_our_side_is_a_bug_and_not_a_wrong_password() {
        let (hash, _) = log_in("ada@example.com", Err(()), true).await;
        let (token, _) = log_in("ada@example.com", Ok(Verdict::Right), false).await;
        assert!(matches!(&hash, Err(e @ LogInError::Hash(_)) if e.class() == FailureClass::Bug));
        assert!(matches!(&token, Err(e @ LogInError::Token(_)) if e.class() == FailureClass::Bug));
    }
}
