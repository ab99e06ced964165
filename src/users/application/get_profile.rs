//! Read one's own profile.

use std::sync::Arc;

use crate::kernel::{Classified, DependencyError, FailureClass, UserId};
use crate::users::application::ports::UserStore;
use crate::users::domain::User;

/// The use case and its port.
pub struct GetProfile {
    /// Where people are kept.
    pub users: Arc<dyn UserStore>,
}

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The token is genuine, but nobody has its id.
    #[error("user does not exist")]
    NotFound,
    /// The store could not be asked, or not in time.
    #[error("profile could not be read")]
    Store(#[source] DependencyError),
}

impl Classified for ProfileError {
    fn class(&self) -> FailureClass {
        match self {
            Self::NotFound => FailureClass::Refused,
            Self::Store(e) => e.class(),
        }
    }
}

impl GetProfile {
    /// The person behind `id`.
    ///
    /// # Errors
    /// [`ProfileError`].
    pub async fn execute(&self, id: UserId) -> Result<User, ProfileError> {
        self.users.find(id).await.map_err(ProfileError::Store)?.ok_or(ProfileError::NotFound)
    }
}
