//! The role that is checked.

use crate::infra::config::{ProcessConfig, UsersConfig, WalletConfig};

/// Shown in `pg_stat_activity` and in the broker's listings.
pub(super) const NAME: &str = "purse doctor";

/// What is checked.
pub(crate) enum Target {
    Users(Box<UsersConfig>),
    Wallet(Box<WalletConfig>),
}

impl Target {
    pub(super) fn process(&self) -> &ProcessConfig {
        match self {
            Self::Users(config) => &config.process,
            Self::Wallet(config) => &config.process,
        }
    }
}
