//! Which of the two services a process is.

use std::fmt;
use std::str::FromStr;

/// The role a process plays, for its whole life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// People: registration, login, profile, the outbox.
    Users,
    /// Wallets: provisioning and the ledger.
    Wallet,
}

impl Role {
    /// Both, in the order in which they are listed to people.
    pub const ALL: [Self; 2] = [Self::Users, Self::Wallet];

    /// The name in flags, logs and file names.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Wallet => "wallet",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that is neither `users` nor `wallet`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a role is `users` or `wallet`")]
pub struct NotARole;

impl FromStr for Role {
    type Err = NotARole;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(NotARole)
    }
}
