//! Typed configuration: one table of settings, four layers, all problems reported at once.
//!
//! [`setting`] has the table and the sections that the rest of the program reads; a section cannot be built from a
//! configuration that has a problem.

mod file;
mod kind;
mod layers;
pub mod parse;
mod raw;
mod section;
pub mod setting;
mod suggest;
#[cfg(test)]
mod tests;

pub use layers::{ConfigError, Flag, Layers, Source};
pub use section::{Effective, Section, effective};
pub(crate) use setting::LogConfig;
pub use setting::{
    AmqpConfig, AppEnv, DatabaseConfig, DatabaseUrl, HttpConfig, LogFormat, MigrationConfig, OutboxConfig,
    ProcessConfig, RateLimit, RateLimitStore, ServiceTokenConfig, Setting, TokenConfig, UsersConfig, WalletConfig,
};
