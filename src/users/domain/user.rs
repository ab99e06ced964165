//! A registered user.

use crate::kernel::{Timestamp, UserId};
use crate::users::domain::{EmailAddress, PersonName};

/// A user as registered. The hash of the password is not part of it: only a login reads that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Also the `sub` of access tokens and the owner of the wallet.
    pub id: UserId,
    /// Trimmed.
    pub first_name: PersonName,
    /// Trimmed.
    pub last_name: PersonName,
    /// Lower-cased and unique.
    pub email: EmailAddress,
    /// By the clock of the process that registered the user.
    pub created_at: Timestamp,
}
