//! The composition root: what is built of what, and the life of a serving process.
//!
//! [`boot`] is what both roles share; [`users`] and [`wallet`] say what each is made of. No rule stands here.

mod boot;
mod users;
mod vitals;
mod wallet;

pub use boot::{ExitReason, self_test};

use std::path::Path;

use crate::infra::config::{ConfigError, HttpConfig, Layers, ProcessConfig, UsersConfig, WalletConfig};
use crate::infra::postgres::Migrations;
use crate::kernel::Role;

/// The checked configuration of a role.
#[derive(Clone, Debug)]
pub enum RoleConfig {
    /// Of the users role.
    Users(Box<UsersConfig>),
    /// Of the wallet role.
    Wallet(Box<WalletConfig>),
}

impl RoleConfig {
    /// Builds the configuration that `layers` describe.
    ///
    /// # Errors
    /// [`ConfigError`] with everything that is wrong.
    pub fn build(layers: Layers) -> Result<Self, ConfigError> {
        match layers.role() {
            Role::Users => UsersConfig::build(layers).map(|config| Self::Users(Box::new(config))),
            Role::Wallet => WalletConfig::build(layers).map(|config| Self::Wallet(Box::new(config))),
        }
    }

    /// What both roles have.
    pub const fn process(&self) -> &ProcessConfig {
        match self {
            Self::Users(config) => &config.process,
            Self::Wallet(config) => &config.process,
        }
    }

    const fn migrations(&self) -> Migrations {
        match self {
            Self::Users(_) => crate::users::postgres::MIGRATIONS,
            Self::Wallet(_) => crate::wallet::postgres::MIGRATIONS,
        }
    }
}

/// Serves until asked to stop, and says how it ended.
pub fn serve(config: RoleConfig) -> ExitReason {
    boot::run(config)
}

/// Applies the role's migrations and ends.
pub fn migrate(config: &RoleConfig) -> ExitReason {
    boot::migrate_only(config)
}

/// The OpenAPI document of a role, as JSON for people to read.
///
/// # Errors
/// When it cannot be written, which is our own fault.
pub fn openapi(role: Role) -> Result<String, serde_json::Error> {
    let document = match role {
        Role::Users => crate::users::http::document(),
        Role::Wallet => crate::wallet::http::document(),
    };
    serde_json::to_string_pretty(&document)
}

/// Where a health check of this process has to ask.
pub fn probe_address(http: &HttpConfig) -> std::net::SocketAddr {
    let mut address = http.listen;
    if address.ip().is_unspecified() {
        let loopback = match address.ip() {
            std::net::IpAddr::V4(_) => std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
            std::net::IpAddr::V6(_) => std::net::IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        };
        address.set_ip(loopback);
    }
    address
}

/// The default folder of configuration files.
pub fn default_config_folder() -> &'static Path {
    Path::new("config")
}
