//! Log a user in: compare the password, issue a token, renew an outdated hash.

use std::sync::Arc;

use crate::kernel::{Classified, Clock, DependencyError, FailureClass, Secret};
use crate::users::application::ports::{
    AccessToken, HashError, HashRenewal, PasswordCheck, PasswordHasher, TokenError, TokenIssuer, UserStore,
};
use crate::users::domain::EmailAddress;

/// The use case with its ports.
#[expect(missing_docs, reason = "each port has its own documentation")]
pub struct LogIn {
    /// Read for the credentials, written to renew a hash.
    pub users: Arc<dyn UserStore>,
    /// Compares, also when there is no account.
    pub hasher: Arc<dyn PasswordHasher>,
    pub tokens: Arc<dyn TokenIssuer>,
    /// When the token is issued.
    pub clock: Arc<dyn Clock>,
}

/// A successful login.
#[derive(Debug)]
pub struct LoggedIn {
    /// For requests to either role.
    pub access_token: AccessToken,
    /// Why an outdated hash was not renewed. The login succeeds all the same, and the next one tries again.
    pub renewal_failed: Option<DependencyError>,
}

/// Why a login failed.
#[derive(Debug, thiserror::Error)]
pub enum LogInError {
    /// Unknown email address or wrong password.
    #[error("email or password is wrong")]
    InvalidCredentials,
    /// The queue of the password hasher is full.
    #[error("too many passwords are being hashed")]
    Overloaded,
    /// The store failed or timed out.
    #[error("credentials could not be read")]
    Store(#[source] DependencyError),
    /// A bug in the password hasher.
    #[error("password could not be compared")]
    Hash(#[source] HashError),
    /// A bug: no token could be signed.
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
    /// `email` is `None` if the text that was sent is not an email address; the login then fails like any other.
    ///
    /// # Errors
    /// [`LogInError`].
    pub async fn execute(&self, email: Option<EmailAddress>, password: Secret) -> Result<LoggedIn, LogInError> {
        let found = match &email {
            Some(email) => self.users.credentials(email).await.map_err(LogInError::Store)?,
            None => None,
        };
        let against = found.as_ref().map(|c| c.password_hash.clone());
        let check = self.hasher.verify(password, against).await.map_err(|e| match e {
            HashError::Overloaded => LogInError::Overloaded,
            failed @ HashError::Failed(_) => LogInError::Hash(failed),
        })?;
        let (credentials, renewed) = match (found, check) {
            (None, _) | (_, PasswordCheck::Wrong) => return Err(LogInError::InvalidCredentials),
            (Some(credentials), PasswordCheck::Correct) => (credentials, None),
            (Some(credentials), PasswordCheck::CorrectButOutdated(hash)) => (credentials, Some(hash)),
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
    use crate::kernel::{IdempotencyKey, Timestamp, UserId};
    use crate::users::application::ports::{
        AddUserError, Credentials, EarlierRegistration, PasswordHash, Registration,
    };
    use crate::users::domain::Password;
    use async_trait::async_trait;
    use uuid::Uuid;

    /// A store with one user that cannot be written to.
    struct ReadOnlyStore;

    #[async_trait]
    impl UserStore for ReadOnlyStore {
        async fn add(&self, _: Registration) -> Result<(), AddUserError> {
            Err(AddUserError::EmailExists)
        }
        async fn registered_with(&self, _: &IdempotencyKey) -> Result<Option<EarlierRegistration>, DependencyError> {
            Ok(None)
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

    /// A hasher with a fixed result that counts its calls.
    struct StubHasher(Result<PasswordCheck, ()>, std::sync::atomic::AtomicUsize);

    #[async_trait]
    impl PasswordHasher for StubHasher {
        async fn hash(&self, _: Password) -> Result<PasswordHash, HashError> {
            Err(HashError::Overloaded)
        }
        async fn verify(&self, _: Secret, _: Option<PasswordHash>) -> Result<PasswordCheck, HashError> {
            self.1.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            self.0.clone().map_err(|()| HashError::Failed("on purpose".into()))
        }
    }

    struct StubIssuer(bool);

    impl TokenIssuer for StubIssuer {
        fn issue(&self, _: UserId, _: Timestamp) -> Result<AccessToken, TokenError> {
            let token = AccessToken { token: Secret::new("token"), expires_in_s: 60 };
            if self.0 { Ok(token) } else { Err(TokenError("on purpose".into())) }
        }
    }

    struct StoppedClock;

    impl Clock for StoppedClock {
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }
    }

    async fn log_in(
        email: &str,
        check: Result<PasswordCheck, ()>,
        signs: bool,
    ) -> (Result<LoggedIn, LogInError>, usize) {
        let hasher = Arc::new(StubHasher(check, 0.into()));
        let log_in = LogIn {
            users: Arc::new(ReadOnlyStore),
            hasher: hasher.clone(),
            tokens: Arc::new(StubIssuer(signs)),
            clock: Arc::new(StoppedClock),
        };
        let result = log_in.execute(EmailAddress::parse(email).ok(), Secret::new("x")).await;
        (result, hasher.1.load(std::sync::atomic::Ordering::SeqCst))
    }

    #[tokio::test]
    async fn a_hash_that_cannot_be_renewed_does_not_fail_the_login() {
        let outdated = PasswordCheck::CorrectButOutdated(PasswordHash::new("new".to_owned()));
        let (result, _) = log_in("ada@example.com", Ok(outdated), true).await;
        assert!(result.expect("logged in").renewal_failed.is_some());
    }

    #[tokio::test]
    async fn an_unknown_email_address_costs_a_comparison_and_ends_like_a_wrong_password() {
        for (email, check) in [
            ("ada@example.com", PasswordCheck::Wrong),
            ("eve@example.com", PasswordCheck::Correct),
            ("no address", PasswordCheck::Wrong),
        ] {
            let (result, calls) = log_in(email, Ok(check), true).await;
            assert!(matches!(result, Err(LogInError::InvalidCredentials)), "{email}");
            assert_eq!(calls, 1, "{email}");
        }
    }

    #[tokio::test]
    async fn a_failed_hasher_or_signer_is_a_bug_and_not_a_wrong_password() {
        let (hash, _) = log_in("ada@example.com", Err(()), true).await;
        let (token, _) = log_in("ada@example.com", Ok(PasswordCheck::Correct), false).await;
        assert!(matches!(&hash, Err(e @ LogInError::Hash(_)) if e.class() == FailureClass::Bug));
        assert!(matches!(&token, Err(e @ LogInError::Token(_)) if e.class() == FailureClass::Bug));
    }
}
