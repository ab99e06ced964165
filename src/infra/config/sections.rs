//! What the rest of the house reads: one typed section a subject.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use crate::kernel::{Role, Secret};

/// How strict a process is about unsafe values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppEnv {
    /// Unsafe values are warnings.
    Development,
    /// Unsafe values are errors.
    Production,
}

impl FromStr for AppEnv {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "development" => Ok(Self::Development),
            "production" => Ok(Self::Production),
            _ => Err("must be development or production"),
        }
    }
}

/// A form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For a person at a terminal.
    Pretty,
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "json" => Ok(Self::Json),
            "pretty" => Ok(Self::Pretty),
            _ => Err("must be json or pretty"),
        }
    }
}

/// Logs.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Lowest level that is written.
    pub level: slog::Level,
    /// `None`: by what stdout is.
    pub format: Option<LogFormat>,
}

/// The listener and its threads.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where `/metrics` is, if not there.
    pub metrics: Option<SocketAddr>,
    /// Threads that serve requests.
    pub workers: usize,
    /// Networks whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Origins whose pages may call the API.
    pub cors_origins: Vec<String>,
    /// Where clients reach the other role, without a slash at its end.
    pub other_role_url: Option<String>,
}

/// A connection URL that parses; it holds a password, so it does not print itself.
#[derive(Clone, Debug)]
pub struct DatabaseUrl(pub(super) Secret);

impl DatabaseUrl {
    /// The URL, for the driver.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

/// The role's database.
#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// As the runtime user.
    pub url: DatabaseUrl,
    /// As the owner, for migrations alone.
    pub migration_url: DatabaseUrl,
    /// Connections of the pool.
    pub pool_max: usize,
    /// Longest wait for one of them.
    pub acquire_timeout: Duration,
    /// Longest run of a statement, kept by the server.
    pub statement_timeout: Duration,
    /// Longest wait for a lock, kept by the server.
    pub lock_timeout: Duration,
}

/// The broker.
#[derive(Clone, Debug)]
pub struct AmqpConfig {
    /// Holds a password.
    pub url: Secret,
}

/// Keys and lifetimes of what we sign.
#[derive(Clone, Debug)]
pub struct TokenConfig {
    /// Signs and verifies access tokens.
    pub access_key: Secret,
    /// Verifies them too, while keys change.
    pub previous_access_key: Option<Secret>,
    /// Signs and verifies events between the roles.
    pub internal_key: Secret,
}

/// So many requests in so much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests.
    pub max: NonZeroU32,
    /// Time.
    pub window: Duration,
}

/// Where the counts of the rate limits are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateLimitStore {
    /// In each process, for itself alone.
    Local,
    /// There, and in the role's database for all processes of the role together.
    Postgres,
}

impl FromStr for RateLimitStore {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "local" => Ok(Self::Local),
            "postgres" => Ok(Self::Postgres),
            _ => Err("must be local or postgres"),
        }
    }
}

/// What both roles have.
#[derive(Clone, Debug)]
pub struct ProcessConfig {
    /// Which role this process is.
    pub role: Role,
    /// Logs.
    pub log: LogConfig,
    /// Listener.
    pub http: HttpConfig,
    /// Database.
    pub database: DatabaseConfig,
    /// Broker.
    pub amqp: AmqpConfig,
    /// Keys.
    pub tokens: TokenConfig,
    /// Whether requests are limited at all.
    pub rate_limit_enabled: bool,
    /// Where they are counted.
    pub rate_limit_store: RateLimitStore,
    /// Where spans go, without a slash at its end.
    pub otlp_url: Option<String>,
    /// Longest time of a shutdown.
    pub shutdown_grace: Duration,
    /// What is unsafe and only a warning outside production: logged at boot.
    pub warnings: Vec<String>,
}

/// All of the users role.
#[derive(Clone, Debug)]
pub struct UsersConfig {
    /// What both roles have.
    pub process: ProcessConfig,
    /// Lifetime of an access token.
    pub access_token_ttl: Duration,
    /// Registrations by address.
    pub register_limit: RateLimit,
    /// Logins by address.
    pub login_limit: RateLimit,
    /// Logins by account, whatever address they come from.
    pub account_limit: RateLimit,
    /// Fallback poll of the outbox.
    pub outbox_poll_interval: Duration,
    /// Events of one batch.
    pub outbox_batch_max: u32,
    /// How long a claim holds.
    pub outbox_lease: Duration,
    /// Passwords that may wait.
    pub hash_queue_max: usize,
}

/// All of the wallet role.
#[derive(Clone, Debug)]
pub struct WalletConfig {
    /// What both roles have.
    pub process: ProcessConfig,
    /// Credits and debits by user.
    pub post_limit: RateLimit,
    /// Waits of the retry ladder, first to last.
    pub retry_ttls: [Duration; 3],
    /// Deliveries in hand at once.
    pub prefetch: u16,
    /// Whether an unsigned event is refused.
    pub require_signed_events: bool,
    /// Posts that may wait.
    pub ledger_queue_max: usize,
    /// Posts of one database transaction.
    pub ledger_batch_max: usize,
}
