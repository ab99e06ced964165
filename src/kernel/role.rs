//! The two services.

use std::fmt;
use std::str::FromStr;

/// The role of a process, fixed when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Registration, login, profile and the outbox.
    Users,
    /// Provisioning and the ledger.
    Wallet,
}

impl Role {
    /// In display order.
    pub const ALL: [Self; 2] = [Self::Users, Self::Wallet];

    /// As in flags, logs and file names.
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

/// The text is neither `users` nor `wallet`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the role must be `users` or `wallet`")]
pub struct UnknownRole;

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(UnknownRole)
    }
}
