//! A registered person.

use crate::kernel::{Timestamp, UserId};
use crate::users::domain::{EmailAddress, PersonName};

/// A person as registered. The password's hash is not part of it: only login reads that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Also the `sub` of the person's tokens and the owner of the wallet.
    pub id: UserId,
    /// Given name.
    pub first_name: PersonName,
    /// Family name.
    pub last_name: PersonName,
    /// Folded to lower case, unique.
    pub email: EmailAddress,
    /// When the registration was decided.
    pub created_at: Timestamp,
}
