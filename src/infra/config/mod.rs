//! Typed configuration: one table of settings, four layers, all problems at once.
//!
//! [`setting`] is the table: a setting's variable, default, role and help stand there once, and flags, file keys,
//! templates and the README's table follow from it. [`layers`] looks a value up. [`sections`] is what the rest of
//! the house reads; none of it can be built from a configuration with a problem.

mod build;
pub mod layers;
pub mod parse;
pub mod sections;
pub mod setting;

pub use layers::{ConfigError, Layers, Problem};
pub use sections::{
    AmqpConfig, AppEnv, DatabaseConfig, DatabaseUrl, HttpConfig, LogConfig, LogFormat, ProcessConfig, RateLimit,
    RateLimitStore, TokenConfig, UsersConfig, WalletConfig,
};
pub use setting::Setting;
