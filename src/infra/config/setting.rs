//! The settings: one row each, and the sections in which the program reads them.
//!
//! The row is the one place for a setting's name, role, default, bounds and help; flags, file keys, `--help`, the
//! configuration template and the documentation are generated from it. To add one, add a row and a field of a section.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use ipnet::IpNet;
use slog::Level;

use crate::infra::amqp;
use crate::infra::config::kind::{self, count, millis, port, settings};
use crate::infra::config::layers::{ConfigError, Layers};
use crate::infra::postgres::{self, Shards};
use crate::infra::security::signing_key::{SigningKey, SigningKeys};
use crate::infra::telemetry::Spans;
use crate::kernel::{Role, Secret, SelfPost};

pub use crate::infra::config::kind::{
    Accepts, AppEnv, DatabaseUrl, Fallback, LogFormat, RateLimitStore, Setting, Typed,
};
use Fallback::{Absent, OptionalSecret, RequiredSecret, Text};

const BOTH: Option<Role> = None;
const USERS: Option<Role> = Some(Role::Users);
const WALLET: Option<Role> = Some(Role::Wallet);

settings! {
    APP_ENV: AppEnv = BOTH, Text("development"), kind::APP_ENVS, "Environment; production turns unsafe defaults into errors";
    HOST: IpAddr = BOTH, Text("0.0.0.0"), kind::ADDRESS, "Address to listen on";
    USERS_PORT: u16 = USERS, Text("3002"), port(), "Port of the users role (0 = any free port)";
    WALLET_PORT: u16 = WALLET, Text("3001"), port(), "Port of the wallet role (0 = any free port)";
    METRICS_PORT: u16 = BOTH, Absent, port(), "Serve /metrics on this port only instead of the API port (0 = any free port)";
    USERS_DATABASE_URL: DatabaseUrl = USERS, RequiredSecret, kind::POSTGRES_URL, "PostgreSQL database of the users role, as its least-privileged user";
    WALLET_DATABASE_URL: DatabaseUrl = WALLET, RequiredSecret, kind::POSTGRES_URL, "PostgreSQL database of the wallet role, as its least-privileged user";
    USERS_MIGRATION_DATABASE_URL: DatabaseUrl = USERS, OptionalSecret, kind::POSTGRES_URL, "The same database as its owner, used for migrations only; USERS_DATABASE_URL if unset";
    WALLET_MIGRATION_DATABASE_URL: DatabaseUrl = WALLET, OptionalSecret, kind::POSTGRES_URL, "The same database as its owner, used for migrations only; WALLET_DATABASE_URL if unset";
    WALLET_SHARDS: Shards = WALLET, Text("1"), kind::SHARDS, "Schemas over which the ledger is divided; fixed when the database is set up";
    RABBITMQ_URL: Vec<Secret> = BOTH, RequiredSecret, kind::AMQP_URLS, "RabbitMQ, amqp:// or amqps://; for a cluster a URL per node, tried in random order";
    JWT_PRIVATE_KEY: Secret = BOTH, RequiredSecret, kind::KEY, "HS256 key for access tokens; at least 32 bytes (enforced in production)";
    JWT_PRIVATE_KEY_PREVIOUS: Secret = BOTH, OptionalSecret, kind::KEY, "Previous key, accepted for verification only during key rotation";
    INTERNAL_JWT_PRIVATE_KEY: Secret = BOTH, RequiredSecret, kind::KEY, "HS256 key for events between the roles and for service tokens; at least 32 bytes (enforced in production) and different from JWT_PRIVATE_KEY";
    INTERNAL_JWT_PRIVATE_KEY_PREVIOUS: Secret = BOTH, OptionalSecret, kind::KEY, "Previous key for events and service tokens, accepted for verification only during key rotation";
    LEDGER_SIGNING_KEY: SigningKey = WALLET, OptionalSecret, kind::SIGNING_KEY, "Ed25519 key that signs receipts of the ledger; receipts are not signed if unset";
    LEDGER_SIGNING_KEY_PREVIOUS: Vec<SigningKey> = WALLET, OptionalSecret, kind::SIGNING_KEYS, "Other keys whose public keys are published: those that signed earlier receipts and, during key rotation, the next one";
    REQUIRE_SIGNED_EVENTS: bool = WALLET, Absent, kind::BOOL, "Reject unsigned events; if unset, true in production and false elsewhere (invalid signatures are always rejected)";
    ACCESS_TOKEN_TTL: Duration = USERS, Text("1h"), kind::WHOLE_SECONDS, "Lifetime of an access token";
    RATE_LIMIT_ENABLED: bool = BOTH, Text("true"), kind::BOOL, "Enforce rate limits";
    RATE_LIMIT_STORE: RateLimitStore = BOTH, Text("local"), kind::STORES, "Where rate limits are counted: in each process, or in PostgreSQL for all processes of a role";
    RL_REGISTER_MAX: NonZeroU32 = USERS, Text("5"), count(1, 1_000_000), "Registrations allowed per client IP per window";
    RL_REGISTER_WINDOW: Duration = USERS, Text("1m"), kind::DURATION, "Window of RL_REGISTER_MAX";
    RL_LOGIN_MAX: NonZeroU32 = USERS, Text("10"), count(1, 1_000_000), "Logins allowed per client IP per window";
    RL_LOGIN_WINDOW: Duration = USERS, Text("1m"), kind::DURATION, "Window of RL_LOGIN_MAX and RL_LOGIN_ACCOUNT_MAX";
    RL_LOGIN_ACCOUNT_MAX: NonZeroU32 = USERS, Text("30"), count(1, 1_000_000), "Logins allowed per account per window, from any IP";
    RL_TX_MAX: NonZeroU32 = WALLET, Text("30"), count(1, 1_000_000), "Posts allowed per user per window: credits, debits, transfers, reversals, holds, captures and voids";
    RL_TX_WINDOW: Duration = WALLET, Text("1m"), kind::DURATION, "Window of RL_TX_MAX and RL_BULK_MAX";
    RL_BULK_MAX: NonZeroU32 = WALLET, Text("1000"), count(1, 1_000_000), "Items of bulk requests allowed per user per window; a request with more of them than that is rejected with 400";
    RL_EXPORT_MAX: NonZeroU32 = WALLET, Text("10"), count(1, 1_000_000), "Statements allowed per user per window";
    RL_EXPORT_WINDOW: Duration = WALLET, Text("1m"), kind::DURATION, "Window of RL_EXPORT_MAX";
    RL_SERVICE_MAX: u32 = WALLET, Text("0"), count(0, 1_000_000), "Requests allowed per service per window; 0 = no limit";
    RL_SERVICE_WINDOW: Duration = WALLET, Text("1m"), kind::DURATION, "Window of RL_SERVICE_MAX";
    SELF_POST: SelfPost = WALLET, Absent, kind::SELF_POSTS, "What users may do to their own wallets without a service; if unset, credit,debit in development and an error in production";
    WALLET_PUBLIC_URL: String = BOTH, Absent, kind::WEB_URL, "Public URL of the wallet role: begins its links, such as Location; on /docs of the users role, port 3001 of the same host if unset";
    USERS_PUBLIC_URL: String = BOTH, Absent, kind::WEB_URL, "Public URL of the users role: begins its links, such as Location; on /docs of the wallet role, port 3002 of the same host if unset";
    TRUSTED_PROXIES: Vec<IpNet> = BOTH, Absent, kind::NETWORKS, "Trusted reverse proxies (whose X-Forwarded-For is honoured)";
    CORS_ORIGINS: Vec<String> = BOTH, Absent, kind::ORIGINS, "Origins whose pages may call the API from a browser; none if unset";
    RETRY_TTL_1_MS: Duration = WALLET, Text("10000"), millis(1, 86_400_000), "Delay before the first retry";
    RETRY_TTL_2_MS: Duration = WALLET, Text("30000"), millis(1, 86_400_000), "Delay before the second retry";
    RETRY_TTL_3_MS: Duration = WALLET, Text("120000"), millis(1, 86_400_000), "Delay before the third retry";
    PREFETCH: u16 = WALLET, Text("64"), count(1, 1_000), "AMQP prefetch (unacknowledged deliveries per consumer)";
    OUTBOX_POLL_INTERVAL_MS: Duration = USERS, Text("1000"), millis(10, 3_600_000), "Fallback polling interval of the outbox; a registration wakes the poller immediately";
    OUTBOX_BATCH_MAX: u32 = USERS, Text("500"), count(1, 10_000), "Events published per batch";
    OUTBOX_LEASE_MS: Duration = USERS, Text("10000"), millis(6_000, 600_000), "How long claimed events are reserved for the process that claimed them";
    OUTBOX_RETENTION: Duration = USERS, Text("30d"), kind::RETENTION, "How long published events are kept, so that they can be republished";
    HASH_QUEUE_MAX: usize = USERS, Text("64"), count(1, 10_000), "Maximum number of passwords being hashed or queued; further requests are rejected with 503";
    LEDGER_QUEUE_MAX: usize = WALLET, Text("4096"), count(1, 1_000_000), "Maximum number of ledger entries being written or queued; further requests are rejected with 503";
    LEDGER_LANES: usize = WALLET, Absent, count(1, 32), "Ledger batches written at the same time, a multiple of WALLET_SHARDS; if unset, 2 or WALLET_SHARDS, whichever is more";
    LEDGER_BATCH_MAX: usize = WALLET, Text("512"), count(1, 10_000), "Ledger entries written per database transaction; an atomic group is never split";
    HTTP_WORKERS: usize = BOTH, Absent, count(1, 256), "HTTP worker threads; one per CPU core if unset";
    DB_POOL_MAX: usize = BOTH, Text("10"), count(1, 1_000), "Connections in the database pool for requests";
    DB_ACQUIRE_TIMEOUT_MS: Duration = BOTH, Text("2000"), millis(10, 60_000), "Longest wait for a pooled connection";
    DB_STATEMENT_TIMEOUT_MS: Duration = BOTH, Text("3000"), millis(100, 60_000), "statement_timeout set on each session";
    DB_LOCK_TIMEOUT_MS: Duration = BOTH, Text("1000"), millis(10, 60_000), "lock_timeout set on each session";
    DB_CONNECTION_LIFETIME: Duration = BOTH, Text("10m"), kind::DURATION, "Age at which a pooled connection is replaced";
    SHUTDOWN_GRACE_MS: Duration = BOTH, Text("15000"), millis(100, 600_000), "Longest duration of a graceful shutdown";
    OTLP_URL: String = BOTH, Absent, kind::WEB_URL, "OpenTelemetry collector that receives spans over HTTP, like http://localhost:4318; needs a binary built with the feature otlp";
    LOG_LEVEL: Level = BOTH, Text("info"), kind::LEVELS, "Lowest level that is logged";
    LOG_FORMAT: LogFormat = BOTH, Absent, kind::FORMATS, "Log format; if unset, pretty on a terminal and json elsewhere";
}

/// What logs look like.
#[derive(Clone, Debug)]
pub(crate) struct LogConfig {
    pub(crate) level: Level,
    /// `None`: pretty if stdout is a terminal, else JSON.
    pub(crate) format: Option<LogFormat>,
}

impl LogConfig {
    fn read(l: &mut Layers) -> Self {
        Self { level: l.optional(&LOG_LEVEL).unwrap_or(Level::Info), format: l.optional(&LOG_FORMAT) }
    }
}

/// The HTTP listener.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Where the API is served.
    pub listen: SocketAddr,
    /// Where `/metrics` is served, if not with the API.
    pub metrics: Option<SocketAddr>,
    /// Threads, at least 1.
    pub workers: usize,
    /// Networks whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// Origins whose pages may call the API.
    pub cors_origins: Vec<String>,
    /// Where clients reach this role, without a trailing slash.
    pub own_url: Option<String>,
    /// Where clients reach the other role, without a trailing slash.
    pub other_role_url: Option<String>,
}

impl HttpConfig {
    /// Builds this section only, for the health check, which needs no secret.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem of the section.
    pub fn build(layers: Layers) -> Result<Self, ConfigError> {
        layers.build(|l| Some(Self::read(l)))
    }

    pub(super) fn read(l: &mut Layers) -> Self {
        let (port, own_url, other_role_url) = match l.role() {
            Role::Users => (USERS_PORT, USERS_PUBLIC_URL, WALLET_PUBLIC_URL),
            Role::Wallet => (WALLET_PORT, WALLET_PUBLIC_URL, USERS_PUBLIC_URL),
        };
        let host = l.optional(&HOST).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let listen = SocketAddr::new(host, l.value(&port));
        let metrics = l.optional(&METRICS_PORT).map(|port| SocketAddr::new(host, port));
        if metrics.is_some_and(|metrics| metrics.port() != 0 && metrics == listen) {
            l.problem_with(&METRICS_PORT, "must differ from the API port; unset it to serve /metrics there");
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            listen,
            metrics,
            workers: l.or_derived(&HTTP_WORKERS, cores),
            trusted_proxies: l.optional(&TRUSTED_PROXIES).unwrap_or_default(),
            cors_origins: l.optional(&CORS_ORIGINS).unwrap_or_default(),
            own_url: l.optional(&own_url),
            other_role_url: l.optional(&other_role_url),
        }
    }
}

/// The role's database.
#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// As the runtime user.
    pub url: DatabaseUrl,
    /// As the owner, for migrations only.
    pub migration_url: DatabaseUrl,
    /// Connections of the pool for requests; other pools have one or two.
    pub pool_max: usize,
    /// Longest wait for a pooled connection.
    pub acquire_timeout: Duration,
    /// Enforced by the server.
    pub statement_timeout: Duration,
    /// Enforced by the server.
    pub lock_timeout: Duration,
    /// Age at which a pooled connection is replaced, minus a jitter.
    pub connection_lifetime: Duration,
    /// Of the ledger; one in the users database.
    pub shards: Shards,
}

impl DatabaseConfig {
    /// Builds this section only, for a command that needs nothing else.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem of the section.
    pub fn build(layers: Layers) -> Result<Self, ConfigError> {
        layers.build(Self::read)
    }

    /// The same for the database of a role that need not be configured here: `None` if its URL is not set.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem of the section.
    pub fn build_if_set(layers: Layers) -> Result<Option<Self>, ConfigError> {
        let url = match layers.role() {
            Role::Users => USERS_DATABASE_URL,
            Role::Wallet => WALLET_DATABASE_URL,
        };
        if layers.look_up(&url).is_none() { Ok(None) } else { Self::build(layers).map(Some) }
    }

    /// Why a URL probably means something else than it says, with the name of its setting.
    fn doubts(&self, role: Role) -> Vec<String> {
        let (url, migration_url) = Self::urls(role);
        // Without a URL of the owner's own, it is the other one.
        let owners = (self.migration_url.expose() != self.url.expose()).then_some((migration_url, &self.migration_url));
        let urls = std::iter::once((url, &self.url)).chain(owners);
        urls.filter_map(|(setting, url)| {
            Some(format!("{} {}", setting.env, postgres::database_url_doubt(url.expose())?))
        })
        .collect()
    }

    const fn urls(role: Role) -> (Typed<DatabaseUrl>, Typed<DatabaseUrl>) {
        match role {
            Role::Users => (USERS_DATABASE_URL, USERS_MIGRATION_DATABASE_URL),
            Role::Wallet => (WALLET_DATABASE_URL, WALLET_MIGRATION_DATABASE_URL),
        }
    }

    pub(super) fn read(l: &mut Layers) -> Option<Self> {
        let (url, migration_url) = Self::urls(l.role());
        let (url, migration_url) = (l.optional(&url), l.optional(&migration_url));
        Some(Self {
            pool_max: l.value(&DB_POOL_MAX),
            acquire_timeout: l.value(&DB_ACQUIRE_TIMEOUT_MS),
            statement_timeout: l.value(&DB_STATEMENT_TIMEOUT_MS),
            lock_timeout: l.value(&DB_LOCK_TIMEOUT_MS),
            connection_lifetime: l.value(&DB_CONNECTION_LIFETIME),
            shards: match l.role() {
                Role::Users => Shards::ONE,
                Role::Wallet => l.value(&WALLET_SHARDS),
            },
            migration_url: migration_url.or_else(|| url.clone())?,
            url: url?,
        })
    }
}

/// What the commands for the outbox need.
#[derive(Clone, Debug)]
pub struct OutboxConfig {
    /// The users database.
    pub database: DatabaseConfig,
    /// How long published events are kept.
    pub retention: Duration,
}

impl OutboxConfig {
    /// Builds these sections only.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem of the sections.
    pub fn build(layers: Layers) -> Result<Self, ConfigError> {
        layers.build(Self::read)
    }

    pub(super) fn read(l: &mut Layers) -> Option<Self> {
        let (database, retention) = (DatabaseConfig::read(l), l.value(&OUTBOX_RETENTION));
        Some(Self { database: database?, retention })
    }
}

/// What a migration needs: neither keys nor a broker.
#[derive(Clone, Debug)]
pub struct MigrationConfig {
    /// The role whose database is migrated.
    pub role: Role,
    pub(crate) log: LogConfig,
    /// The role's database.
    pub database: DatabaseConfig,
}

impl MigrationConfig {
    /// Builds these sections only.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem of the sections.
    pub fn build(layers: Layers) -> Result<Self, ConfigError> {
        layers.build(Self::read)
    }

    pub(super) fn read(l: &mut Layers) -> Option<Self> {
        let (role, log, database) = (l.role(), LogConfig::read(l), DatabaseConfig::read(l));
        Some(Self { role, log, database: database? })
    }
}

/// The broker.
#[derive(Clone, Debug)]
pub struct AmqpConfig {
    /// Valid URLs, which contain passwords.
    pub urls: Vec<Secret>,
}

impl AmqpConfig {
    /// Builds this section only, for a command that needs nothing else.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem of the section.
    pub fn build(layers: Layers) -> Result<Self, ConfigError> {
        layers.build(Self::read)
    }

    pub(super) fn read(l: &mut Layers) -> Option<Self> {
        Some(Self { urls: l.optional(&RABBITMQ_URL)? })
    }
}

/// The keys of tokens and events.
#[derive(Clone, Debug)]
pub struct TokenConfig {
    /// Signs and verifies access tokens.
    pub access_key: Secret,
    /// Verifies access tokens too, during key rotation.
    pub previous_access_key: Option<Secret>,
    /// Signs and verifies events between the roles and service tokens.
    pub internal_key: Secret,
    /// Verifies events and service tokens too, during key rotation.
    pub previous_internal_key: Option<Secret>,
}

/// Shorter HS256 keys are a warning in development and an error in production.
///
/// # Source
/// RFC 7518 §3.2.
const KEY_BYTES_MIN: usize = 32;

/// Reads a key and reports it if it is short.
fn key(l: &mut Layers, env: AppEnv, warnings: &mut Vec<String>, setting: &Typed<Secret>) -> Option<Secret> {
    let key = l.optional(setting)?;
    let bytes = key.expose().len();
    if bytes < KEY_BYTES_MIN {
        let plural = if bytes == 1 { "" } else { "s" };
        let weak = format!("has {bytes} byte{plural}; under {KEY_BYTES_MIN} it can be guessed offline from any token");
        match env {
            AppEnv::Production => {
                l.problem_with(setting, format!("{weak}. Generate one with `openssl rand -base64 48`."));
            }
            AppEnv::Development => warnings.push(format!("{} {weak}", setting.env)),
        }
    }
    Some(key)
}

impl TokenConfig {
    fn read(l: &mut Layers, env: AppEnv, warnings: &mut Vec<String>) -> Option<Self> {
        let mut key = |setting: &Typed<Secret>| key(l, env, warnings, setting);
        let access_key = key(&JWT_PRIVATE_KEY);
        let previous_access_key = key(&JWT_PRIVATE_KEY_PREVIOUS);
        let internal_key = key(&INTERNAL_JWT_PRIVATE_KEY);
        let previous_internal_key = key(&INTERNAL_JWT_PRIVATE_KEY_PREVIOUS);
        for (setting, key) in
            [(&INTERNAL_JWT_PRIVATE_KEY, &internal_key), (&INTERNAL_JWT_PRIVATE_KEY_PREVIOUS, &previous_internal_key)]
        {
            if key.is_some() && (*key == access_key || *key == previous_access_key) {
                let why =
                    "must differ from the keys of access tokens: otherwise anyone who has a token key can forge events";
                l.problem_with(setting, why);
            }
        }
        Some(Self { access_key: access_key?, previous_access_key, internal_key: internal_key?, previous_internal_key })
    }
}

impl TokenConfig {
    /// Every key that is set.
    fn all(&self) -> impl Iterator<Item = &Secret> {
        let current = [&self.access_key, &self.internal_key];
        current.into_iter().chain(&self.previous_access_key).chain(&self.previous_internal_key)
    }
}

/// What the command that issues service tokens needs.
#[derive(Clone, Debug)]
pub struct ServiceTokenConfig {
    /// Signs service tokens.
    pub internal_key: Secret,
    /// Unsafe values that are errors in production.
    pub warnings: Vec<String>,
}

impl ServiceTokenConfig {
    /// Builds this section only.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem of the section.
    pub fn build(layers: Layers) -> Result<Self, ConfigError> {
        layers.build(Self::read)
    }

    pub(super) fn read(l: &mut Layers) -> Option<Self> {
        let (env, mut warnings) = (l.value(&APP_ENV), Vec::new());
        let internal_key = key(l, env, &mut warnings, &INTERNAL_JWT_PRIVATE_KEY);
        Some(Self { internal_key: internal_key?, warnings })
    }
}

/// `max` requests per `window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Also the number of requests that are allowed at once.
    pub max: NonZeroU32,
    /// Time after which an exhausted limit is full again; above zero.
    pub window: Duration,
}

impl RateLimit {
    fn read(l: &mut Layers, max: &Typed<NonZeroU32>, window: &Typed<Duration>) -> Self {
        Self { max: l.optional(max).unwrap_or(NonZeroU32::MIN), window: l.value(window) }
    }

    /// `None` for a maximum of 0, which stands for no limit.
    fn read_optional(l: &mut Layers, max: &Typed<u32>, window: &Typed<Duration>) -> Option<Self> {
        let window = l.value(window);
        NonZeroU32::new(l.value(max)).map(|max| Self { max, window })
    }
}

/// What both roles read.
#[derive(Clone, Debug)]
pub struct ProcessConfig {
    /// The role of this process.
    pub role: Role,
    env: AppEnv,
    pub(crate) log: LogConfig,
    /// The HTTP listener.
    pub http: HttpConfig,
    /// The role's database.
    pub database: DatabaseConfig,
    /// The broker.
    pub amqp: AmqpConfig,
    /// The keys of tokens and events.
    pub tokens: TokenConfig,
    /// Whether rate limits are enforced.
    pub rate_limit_enabled: bool,
    /// Where rate limits are counted.
    pub rate_limit_store: RateLimitStore,
    /// Where spans are sent, without a trailing slash.
    pub otlp_url: Option<String>,
    /// Longest duration of a graceful shutdown.
    pub shutdown_grace: Duration,
    /// Unsafe values that are errors in production, valid ones that probably do not mean what they say, and variables that
    /// are probably misspelled; logged at startup.
    pub warnings: Vec<String>,
}

impl ProcessConfig {
    fn read(l: &mut Layers) -> Option<Self> {
        let env = l.value(&APP_ENV);
        let mut warnings = Vec::new();
        let log = LogConfig::read(l);
        let http = HttpConfig::read(l);
        let database = DatabaseConfig::read(l);
        let amqp = AmqpConfig::read(l);
        if let Some(doubt) = amqp.iter().flat_map(|amqp| &amqp.urls).find_map(|url| amqp::doubt(url.expose())) {
            warnings.push(format!("{} {doubt}", RABBITMQ_URL.env));
        }
        warnings.extend(database.as_ref().into_iter().flat_map(|database| database.doubts(l.role())));
        let tokens = TokenConfig::read(l, env, &mut warnings);
        for (name, meant) in l.misspelled_variables() {
            warnings.push(format!("{name} is set and is not a setting; did you mean {}?", meant.env));
        }
        let otlp_url = l.optional(&OTLP_URL);
        if otlp_url.is_some() && !Spans::AVAILABLE {
            warnings.push("OTLP_URL is set and this binary cannot send spans: build it with --features otlp".into());
        }
        Some(Self {
            role: l.role(),
            env,
            log,
            http,
            rate_limit_enabled: l.value(&RATE_LIMIT_ENABLED),
            rate_limit_store: l.value(&RATE_LIMIT_STORE),
            otlp_url,
            shutdown_grace: l.value(&SHUTDOWN_GRACE_MS),
            warnings,
            database: database?,
            amqp: amqp?,
            tokens: tokens?,
        })
    }
}

/// The configuration of the users role.
#[derive(Clone, Debug)]
pub struct UsersConfig {
    /// What both roles read.
    pub process: ProcessConfig,
    /// Lifetime of an access token, in whole seconds.
    pub access_token_ttl: Duration,
    /// Registrations per client IP.
    pub register_limit: RateLimit,
    /// Logins per client IP.
    pub login_limit: RateLimit,
    /// Logins per account.
    pub account_limit: RateLimit,
    /// Fallback polling interval of the outbox.
    pub outbox_poll_interval: Duration,
    /// Events per batch.
    pub outbox_batch_max: u32,
    /// How long claimed events are reserved.
    pub outbox_lease: Duration,
    /// How long published events are kept.
    pub outbox_retention: Duration,
    /// Passwords that may wait to be hashed.
    pub hash_queue_max: usize,
}

impl UsersConfig {
    /// Builds the configuration of the users role.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem.
    pub fn build(layers: Layers) -> Result<Self, ConfigError> {
        layers.build(Self::read)
    }

    pub(super) fn read(l: &mut Layers) -> Option<Self> {
        let process = ProcessConfig::read(l);
        Some(Self {
            access_token_ttl: l.value(&ACCESS_TOKEN_TTL),
            register_limit: RateLimit::read(l, &RL_REGISTER_MAX, &RL_REGISTER_WINDOW),
            login_limit: RateLimit::read(l, &RL_LOGIN_MAX, &RL_LOGIN_WINDOW),
            account_limit: RateLimit::read(l, &RL_LOGIN_ACCOUNT_MAX, &RL_LOGIN_WINDOW),
            outbox_poll_interval: l.value(&OUTBOX_POLL_INTERVAL_MS),
            outbox_batch_max: l.value(&OUTBOX_BATCH_MAX),
            outbox_lease: l.value(&OUTBOX_LEASE_MS),
            outbox_retention: l.value(&OUTBOX_RETENTION),
            hash_queue_max: l.value(&HASH_QUEUE_MAX),
            process: process?,
        })
    }
}

/// The configuration of the wallet role.
#[derive(Clone, Debug)]
pub struct WalletConfig {
    /// What both roles read.
    pub process: ProcessConfig,
    /// Credits and debits per user.
    pub post_limit: RateLimit,
    /// Items of bulk requests per user.
    pub bulk_limit: RateLimit,
    /// Requests per service.
    pub service_limit: Option<RateLimit>,
    /// What users may do to their own wallets.
    pub self_post: SelfPost,
    /// Statements per user.
    pub export_limit: RateLimit,
    /// Delays before the first, second and third retry.
    pub retry_ttls: [Duration; 3],
    /// Unacknowledged deliveries of the consumer.
    pub prefetch: u16,
    /// Whether unsigned events are rejected.
    pub require_signed_events: bool,
    /// Credits and debits that may wait to be written.
    pub ledger_queue_max: usize,
    /// Credits and debits per database transaction.
    pub ledger_batch_max: usize,
    /// Batches written at the same time.
    pub ledger_lanes: usize,
    /// The keys of receipts.
    pub signing_keys: SigningKeys,
}

impl WalletConfig {
    /// Builds the configuration of the wallet role.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem.
    pub fn build(layers: Layers) -> Result<Self, ConfigError> {
        layers.build(Self::read)
    }

    pub(super) fn read(l: &mut Layers) -> Option<Self> {
        let mut process = ProcessConfig::read(l);
        let production = process.as_ref().is_some_and(|process| process.env == AppEnv::Production);
        let require_signed_events = l.or_derived(&REQUIRE_SIGNED_EVENTS, production);
        if let Some(process) = process.as_mut().filter(|_| production && !require_signed_events) {
            let unsafe_value = "REQUIRE_SIGNED_EVENTS is false in production: unsigned events create wallets";
            process.warnings.push(unsafe_value.to_owned());
        }
        let signing_keys = read_signing_keys(l, process.as_ref().map(|process| &process.tokens));
        Some(Self {
            self_post: self_post(l, production),
            post_limit: RateLimit::read(l, &RL_TX_MAX, &RL_TX_WINDOW),
            bulk_limit: RateLimit::read(l, &RL_BULK_MAX, &RL_TX_WINDOW),
            service_limit: RateLimit::read_optional(l, &RL_SERVICE_MAX, &RL_SERVICE_WINDOW),
            export_limit: RateLimit::read(l, &RL_EXPORT_MAX, &RL_EXPORT_WINDOW),
            retry_ttls: [RETRY_TTL_1_MS, RETRY_TTL_2_MS, RETRY_TTL_3_MS].map(|tier| l.value(&tier)),
            prefetch: l.value(&PREFETCH),
            require_signed_events,
            ledger_queue_max: l.value(&LEDGER_QUEUE_MAX),
            ledger_lanes: ledger_lanes(l, process.as_ref()),
            ledger_batch_max: l.value(&LEDGER_BATCH_MAX),
            signing_keys,
            process: process?,
        })
    }
}

/// Lanes of a process where there are not more shards.
const LANES_MIN: usize = 2;

/// What `LEDGER_LANES` is if it is unset.
pub(crate) fn default_lanes(shards: Shards) -> usize {
    usize::from(shards.count()).max(LANES_MIN)
}

/// Each shard has lanes of its own, so that a batch is of several shards only where it transfers between them.
fn ledger_lanes(l: &mut Layers, process: Option<&ProcessConfig>) -> usize {
    let shards = process.map_or(Shards::ONE, |process| process.database.shards);
    let lanes = l.or_derived(&LEDGER_LANES, default_lanes(shards));
    if !lanes.is_multiple_of(usize::from(shards.count())) {
        l.problem_with(&LEDGER_LANES, format!("is {lanes} and must be a multiple of WALLET_SHARDS, which is {shards}"));
    }
    lanes
}

/// The keys of receipts. A key of tokens or events does not sign them: the users role has it too.
fn read_signing_keys(l: &mut Layers, tokens: Option<&TokenConfig>) -> SigningKeys {
    let current = l.optional(&LEDGER_SIGNING_KEY);
    let previous = l.optional(&LEDGER_SIGNING_KEY_PREVIOUS).unwrap_or_default();
    let mut others = tokens.into_iter().flat_map(TokenConfig::all).filter_map(|key| SigningKey::parse(key.expose()));
    if others.any(|other| current.as_ref() == Some(&other)) {
        l.problem_with(&LEDGER_SIGNING_KEY, "must differ from the keys of access tokens and events");
    }
    SigningKeys::new(current, &previous)
}

/// Production has no default: money that is free for every user must not go live by accident.
fn self_post(l: &mut Layers, production: bool) -> SelfPost {
    if production && l.look_up(&SELF_POST).is_none() {
        let why = "is required in production: `debit` or `none` if back ends fill the wallets, and `credit,debit` if every \
                   user may credit their own wallet without limit";
        l.problem_with(&SELF_POST, why);
    }
    l.or_derived(&SELF_POST, SelfPost::default())
}
