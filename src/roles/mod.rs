//! The composition root: the two roles, and the life of the process that runs one.
//!
//! [`users`] and [`wallet`] assemble each role from the shared [`parts`]; [`process`] runs what they assemble.

mod parts;
mod process;
mod process_metrics;
mod users;
mod wallet;

pub use process::init_crypto;

use crate::infra::config::{ConfigError, Layers, MigrationConfig, ProcessConfig, UsersConfig, WalletConfig};
use crate::infra::http::openapi::RoleDocument;
use crate::kernel::{ExitError, Role};

/// The validated configuration of a role.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the variants are the roles")]
pub enum RoleConfig {
    Users(Box<UsersConfig>),
    Wallet(Box<WalletConfig>),
}

impl RoleConfig {
    /// # Errors
    /// [`ConfigError`] lists every problem.
    pub fn build(layers: Layers) -> Result<Self, ConfigError> {
        match layers.role() {
            Role::Users => UsersConfig::build(layers).map(|config| Self::Users(Box::new(config))),
            Role::Wallet => WalletConfig::build(layers).map(|config| Self::Wallet(Box::new(config))),
        }
    }

    /// The part that both roles have.
    pub const fn process(&self) -> &ProcessConfig {
        match self {
            Self::Users(config) => &config.process,
            Self::Wallet(config) => &config.process,
        }
    }
}

/// Serves until a signal stops the process.
///
/// # Errors
/// The process cannot start or continue.
pub fn serve(config: &RoleConfig) -> Result<(), ExitError> {
    match config {
        RoleConfig::Users(config) => {
            process::serve(&config.process, crate::users::postgres::MIGRATIONS, |c| users::assemble(config, c))
        }
        RoleConfig::Wallet(config) => {
            process::serve(&config.process, crate::wallet::postgres::MIGRATIONS, |c| wallet::assemble(config, c))
        }
    }
}

/// Applies the migrations of the role once, without waiting for the database.
///
/// # Errors
/// The database is unavailable or rejects a migration.
pub fn migrate(config: &MigrationConfig) -> Result<(), ExitError> {
    process::migrate_once(
        config,
        match config.role {
            Role::Users => crate::users::postgres::MIGRATIONS,
            Role::Wallet => crate::wallet::postgres::MIGRATIONS,
        },
    )
}

/// The OpenAPI document of a role, or of both in one, as indented JSON.
///
/// # Errors
/// It cannot be serialized, which is a bug.
pub fn openapi(role: Option<Role>) -> anyhow::Result<String> {
    let document = |role| match role {
        Role::Users => crate::users::http::document(),
        Role::Wallet => crate::wallet::http::document(),
    };
    let document = match role {
        Some(role) => document(role).build(),
        None => RoleDocument::merged([
            (document(Role::Users), parts::default_port(Role::Users)?),
            (document(Role::Wallet), parts::default_port(Role::Wallet)?),
        ]),
    };
    Ok(serde_json::to_string_pretty(&document)?)
}
