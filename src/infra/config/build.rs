//! Builds the sections out of the layers: all of them, or all that is wrong with them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::str::FromStr as _;
use std::time::Duration;

use crate::infra::config::layers::{ConfigError, Layers};
use crate::infra::config::parse;
use crate::infra::config::sections::{
    AmqpConfig, AppEnv, DatabaseConfig, DatabaseUrl, HttpConfig, LogConfig, LogFormat, ProcessConfig, RateLimit,
    RateLimitStore, TokenConfig, UsersConfig, WalletConfig,
};
use crate::infra::config::setting::{self, Setting};
use crate::infra::telemetry::Spans;
use crate::infra::{amqp, postgres};
use crate::kernel::{Role, Secret};

/// Fewest bytes of an HS256 key that is not a warning.
///
/// # Source
/// RFC 7518 §3.2.
const KEY_BYTES_MIN: usize = 32;

impl UsersConfig {
    /// Builds the configuration of the users role.
    ///
    /// # Errors
    /// [`ConfigError`] with everything that is wrong.
    pub fn build(mut layers: Layers) -> Result<Self, ConfigError> {
        let l = &mut layers;
        let process = process(l);
        let access_token_ttl = l.value(&setting::ACCESS_TOKEN_TTL, Duration::ZERO, parse::duration);
        if access_token_ttl.subsec_nanos() != 0 {
            l.problem_with(&setting::ACCESS_TOKEN_TTL, "must be whole seconds: that is what tokens count in");
        }
        let register_limit = rate_limit(l, &setting::RL_REGISTER_MAX, &setting::RL_REGISTER_WINDOW);
        let login_limit = rate_limit(l, &setting::RL_LOGIN_MAX, &setting::RL_LOGIN_WINDOW);
        let account_limit = rate_limit(l, &setting::RL_LOGIN_ACCOUNT_MAX, &setting::RL_LOGIN_WINDOW);
        let outbox_poll_interval =
            l.value(&setting::OUTBOX_POLL_INTERVAL_MS, Duration::ZERO, |t| parse::millis(t, 10, 3_600_000));
        let outbox_batch_max = l.value(&setting::OUTBOX_BATCH_MAX, 0, |t| parse::integer_u32(t, 1, 10_000));
        let outbox_lease = l.value(&setting::OUTBOX_LEASE_MS, Duration::ZERO, |t| parse::millis(t, 6_000, 600_000));
        let hash_queue_max = l.value(&setting::HASH_QUEUE_MAX, 0, |t| parse::count(t, 1, 10_000));
        let config = process.map(|process| Self {
            process,
            access_token_ttl,
            register_limit,
            login_limit,
            account_limit,
            outbox_poll_interval,
            outbox_batch_max,
            outbox_lease,
            hash_queue_max,
        });
        finish(layers, config)
    }
}

impl WalletConfig {
    /// Builds the configuration of the wallet role.
    ///
    /// # Errors
    /// [`ConfigError`] with everything that is wrong.
    pub fn build(mut layers: Layers) -> Result<Self, ConfigError> {
        let l = &mut layers;
        let process = process(l);
        let post_limit = rate_limit(l, &setting::RL_TX_MAX, &setting::RL_TX_WINDOW);
        let retry_ttls = [setting::RETRY_TTL_1_MS, setting::RETRY_TTL_2_MS, setting::RETRY_TTL_3_MS]
            .map(|tier| l.value(&tier, Duration::ZERO, |t| parse::millis(t, 1, 86_400_000)));
        let prefetch = l.value(&setting::PREFETCH, 0, |t| parse::integer_u32(t, 1, 1_000));
        let require_signed_events = l.optional(&setting::REQUIRE_SIGNED_EVENTS, parse::boolean);
        let ledger_queue_max = l.value(&setting::LEDGER_QUEUE_MAX, 0, |t| parse::count(t, 1, 1_000_000));
        let ledger_batch_max = l.value(&setting::LEDGER_BATCH_MAX, 0, |t| parse::count(t, 1, 10_000));
        let production = app_env(l) == AppEnv::Production;
        let config = process.map(|mut process| {
            if production && require_signed_events == Some(false) {
                process
                    .warnings
                    .push("REQUIRE_SIGNED_EVENTS is false in production: unsigned events make wallets".into());
            }
            Self {
                process,
                post_limit,
                retry_ttls,
                prefetch: u16::try_from(prefetch).unwrap_or(u16::MAX),
                require_signed_events: require_signed_events.unwrap_or(production),
                ledger_queue_max,
                ledger_batch_max,
            }
        });
        finish(layers, config)
    }
}

/// Without a problem there is a configuration: a section is `None` only where a problem was noted.
fn finish<T>(layers: Layers, config: Option<T>) -> Result<T, ConfigError> {
    layers.finish(config)?.ok_or_else(|| ConfigError(Vec::new()))
}

fn app_env(l: &mut Layers) -> AppEnv {
    l.value(&setting::APP_ENV, AppEnv::Development, AppEnv::from_str)
}

fn process(l: &mut Layers) -> Option<ProcessConfig> {
    let role = l.role();
    let env = app_env(l);
    let mut warnings = Vec::new();
    let log = log_config(l);
    let http = http_config(l);
    let database = database_config(l);
    let amqp = amqp_config(l);
    let tokens = token_config(l, env, &mut warnings);
    let rate_limit_enabled = l.value(&setting::RATE_LIMIT_ENABLED, true, parse::boolean);
    let rate_limit_store = l.value(&setting::RATE_LIMIT_STORE, RateLimitStore::Local, RateLimitStore::from_str);
    let shutdown_grace = l.value(&setting::SHUTDOWN_GRACE_MS, Duration::ZERO, |t| parse::millis(t, 100, 600_000));
    let otlp_url = l.optional(&setting::OTLP_URL, parse::web_address);
    if otlp_url.is_some() && !Spans::AVAILABLE {
        warnings.push("OTLP_URL is set and this binary cannot send spans: build it with --features otlp".into());
    }
    Some(ProcessConfig {
        role,
        log,
        http,
        database: database?,
        amqp: amqp?,
        tokens: tokens?,
        rate_limit_enabled,
        otlp_url,
        rate_limit_store,
        shutdown_grace,
        warnings,
    })
}

/// The log section alone, for a command that needs no other.
fn log_config(l: &mut Layers) -> LogConfig {
    let level = l.value(&setting::LOG_LEVEL, slog::Level::Info, |text| match text {
        "error" => Ok(slog::Level::Error),
        "warn" => Ok(slog::Level::Warning),
        "info" => Ok(slog::Level::Info),
        "debug" => Ok(slog::Level::Debug),
        "trace" => Ok(slog::Level::Trace),
        _ => Err("must be error, warn, info, debug or trace"),
    });
    LogConfig { level, format: l.optional(&setting::LOG_FORMAT, LogFormat::from_str) }
}

impl HttpConfig {
    /// The listener alone, for the health check, which needs no secret.
    ///
    /// # Errors
    /// [`ConfigError`] with what is wrong with it.
    pub fn build(mut layers: Layers) -> Result<Self, ConfigError> {
        let http = http_config(&mut layers);
        layers.finish(http)
    }
}

impl AmqpConfig {
    /// The broker alone, for a command that needs nothing else.
    ///
    /// # Errors
    /// [`ConfigError`] with what is wrong with it.
    pub fn build(mut layers: Layers) -> Result<Self, ConfigError> {
        let amqp = amqp_config(&mut layers);
        finish(layers, amqp)
    }
}

fn amqp_config(l: &mut Layers) -> Option<AmqpConfig> {
    let url = l.optional(&setting::RABBITMQ_URL, |text| {
        amqp::is_broker_url(text).then(|| Secret::new(text)).ok_or(
            "must be a RabbitMQ URL like amqp://user:password@host:5672/%2f; its value is not shown because it is a secret",
        )
    });
    url.map(|url| AmqpConfig { url })
}

impl DatabaseConfig {
    /// The role's database alone, for a command that needs nothing else.
    ///
    /// # Errors
    /// [`ConfigError`] with what is wrong with it.
    pub fn build(mut layers: Layers) -> Result<Self, ConfigError> {
        let database = database_config(&mut layers);
        finish(layers, database)
    }
}

fn http_config(l: &mut Layers) -> HttpConfig {
    let (port_setting, other_role) = match l.role() {
        Role::Users => (setting::USERS_PORT, setting::WALLET_PUBLIC_URL),
        Role::Wallet => (setting::WALLET_PORT, setting::USERS_PUBLIC_URL),
    };
    let host = l.value(&setting::HOST, IpAddr::V4(Ipv4Addr::UNSPECIFIED), parse::address);
    let as_port = |t: &str| t.parse::<u16>().map_err(|_| "must be a port from 0 to 65535");
    let port = l.value(&port_setting, 0, as_port);
    let metrics_port = l.optional(&setting::METRICS_PORT, as_port);
    if metrics_port.is_some_and(|metrics_port| metrics_port != 0 && metrics_port == port) {
        l.problem_with(
            &setting::METRICS_PORT,
            "must be another port than the role's own; unset, /metrics is on that one",
        );
    }
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let workers = l.optional(&setting::HTTP_WORKERS, |t| parse::count(t, 1, 256));
    let trusted_proxies = l.optional(&setting::TRUSTED_PROXIES, parse::networks).unwrap_or_default();
    let cors_origins = l.optional(&setting::CORS_ORIGINS, parse::origins).unwrap_or_default();
    let other_role_url = l.optional(&other_role, parse::web_address);
    let listen = SocketAddr::new(host, port);
    let metrics = metrics_port.map(|port| SocketAddr::new(host, port));
    HttpConfig {
        listen,
        metrics,
        workers: workers.unwrap_or_else(cores),
        trusted_proxies,
        cors_origins,
        other_role_url,
    }
}

fn database_config(l: &mut Layers) -> Option<DatabaseConfig> {
    let (url, migration_url) = match l.role() {
        Role::Users => (setting::USERS_DATABASE_URL, setting::USERS_MIGRATION_DATABASE_URL),
        Role::Wallet => (setting::WALLET_DATABASE_URL, setting::WALLET_MIGRATION_DATABASE_URL),
    };
    let read = |text: &str| {
        postgres::is_database_url(text).then(|| DatabaseUrl(Secret::new(text))).ok_or(
            "must be a PostgreSQL URL like postgres://user:password@host:5432/database; its value is not shown because it is a secret",
        )
    };
    let url = l.optional(&url, read);
    let migration_url = l.optional(&migration_url, read);
    let pool_max = l.value(&setting::DB_POOL_MAX, 0, |t| parse::count(t, 1, 1_000));
    let acquire_timeout = l.value(&setting::DB_ACQUIRE_TIMEOUT_MS, Duration::ZERO, |t| parse::millis(t, 10, 60_000));
    let statement_timeout =
        l.value(&setting::DB_STATEMENT_TIMEOUT_MS, Duration::ZERO, |t| parse::millis(t, 100, 60_000));
    let lock_timeout = l.value(&setting::DB_LOCK_TIMEOUT_MS, Duration::ZERO, |t| parse::millis(t, 10, 60_000));
    let url = url?;
    Some(DatabaseConfig {
        migration_url: migration_url.unwrap_or_else(|| url.clone()),
        url,
        pool_max,
        acquire_timeout,
        statement_timeout,
        lock_timeout,
    })
}

fn token_config(l: &mut Layers, env: AppEnv, warnings: &mut Vec<String>) -> Option<TokenConfig> {
    let access_key = key(l, &setting::JWT_PRIVATE_KEY, env, warnings);
    let previous_access_key = key(l, &setting::JWT_PRIVATE_KEY_PREVIOUS, env, warnings);
    let internal_key = key(l, &setting::INTERNAL_JWT_PRIVATE_KEY, env, warnings);
    if internal_key.is_some() && (internal_key == access_key || internal_key == previous_access_key) {
        l.problem_with(
            &setting::INTERNAL_JWT_PRIVATE_KEY,
            "must differ from the keys of access tokens: otherwise whoever has a token's key can forge events",
        );
    }
    Some(TokenConfig { access_key: access_key?, previous_access_key, internal_key: internal_key? })
}

fn key(l: &mut Layers, setting: &Setting, env: AppEnv, warnings: &mut Vec<String>) -> Option<Secret> {
    let key = l.secret(setting)?;
    let bytes = key.expose().len();
    if bytes < KEY_BYTES_MIN {
        let weak = format!("has {bytes} bytes; under {KEY_BYTES_MIN} it can be guessed offline from any token");
        match env {
            AppEnv::Production => l.problem_with(setting, format!("{weak}. Make one with `openssl rand -base64 48`.")),
            AppEnv::Development => warnings.push(format!("{} {weak}", setting.env)),
        }
    }
    Some(key)
}

fn rate_limit(l: &mut Layers, max: &Setting, window: &Setting) -> RateLimit {
    let max = l.value(max, 1, |t| parse::integer_u32(t, 1, 1_000_000));
    let window = l.value(window, Duration::from_secs(1), parse::duration);
    RateLimit { max: NonZeroU32::new(max).unwrap_or(NonZeroU32::MIN), window }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::path::Path;

    const SOUND: &[(&str, &str)] = &[
        ("USERS_DATABASE_URL", "postgres://u:p@localhost/users"),
        ("WALLET_DATABASE_URL", "postgres://u:p@localhost/wallet"),
        ("RABBITMQ_URL", "amqp://guest:guest@localhost:5672/%2f"),
        ("JWT_PRIVATE_KEY", "ILIACHALLENGE"),
        ("INTERNAL_JWT_PRIVATE_KEY", "ILIACHALLENGE_INTERNAL"),
    ];

    fn layers(role: Role, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Layers {
        let own = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let mut all = own(SOUND);
        all.extend(own(environment));
        Layers::new(role, Path::new("/nonexistent"), all, own(flags))
    }

    fn problems<T>(built: Result<T, ConfigError>) -> Vec<String> {
        built.err().map(|e| e.0.iter().map(ToString::to_string).collect()).unwrap_or_default()
    }

    #[test]
    fn the_defaults_are_the_contract() {
        let users = UsersConfig::build(layers(Role::Users, &[], &[])).expect("sound");
        assert_eq!(users.process.http.listen.to_string(), "0.0.0.0:3002");
        assert_eq!(users.access_token_ttl, Duration::from_hours(1));
        assert_eq!((users.register_limit.max.get(), users.login_limit.max.get()), (5, 10));
        assert_eq!(users.outbox_poll_interval, Duration::from_secs(1));
        let wallet = WalletConfig::build(layers(Role::Wallet, &[], &[])).expect("sound");
        assert_eq!(wallet.process.http.listen.to_string(), "0.0.0.0:3001");
        assert_eq!(wallet.retry_ttls.map(|t| t.as_secs()), [10, 30, 120]);
        assert_eq!((wallet.post_limit.max.get(), wallet.require_signed_events), (30, false));
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_the_default() {
        let port = |environment: &[_], flags: &[_]| {
            UsersConfig::build(layers(Role::Users, environment, flags)).expect("sound").process.http.listen.port()
        };
        assert_eq!(port(&[("USERS_PORT", "1")], &[("USERS_PORT", "2")]), 2);
        assert_eq!(port(&[("USERS_PORT", "1")], &[]), 1);
        assert_eq!(port(&[("USERS_PORT", "")], &[]), 3002, "an empty variable counts as unset");
    }

    #[test]
    fn all_problems_are_told_at_once_and_no_secret_is_shown() {
        let broken = [
            ("USERS_PORT", "70000"),
            ("RL_LOGIN_MAX", "ten"),
            ("ACCESS_TOKEN_TTL", "1 hour"),
            ("RABBITMQ_URL", "http://user:hunter22@x"),
            ("LOG_LEVEL", "loud"),
        ];
        let problems = problems(UsersConfig::build(layers(Role::Users, &broken, &[])));
        for (name, value) in broken {
            let told: Vec<_> = problems.iter().filter(|p| p.starts_with(name)).collect();
            assert_eq!(told.len(), 1, "{name}: {problems:?}");
            assert_eq!(told.iter().any(|p| p.contains(value)), name != "RABBITMQ_URL", "{told:?}");
        }
        assert_eq!(problems.len(), broken.len());
    }

    #[test]
    fn what_is_required_and_missing_is_told() {
        let missing = Layers::new(Role::Wallet, Path::new("/nonexistent"), [], BTreeMap::new());
        let names: Vec<String> = problems(WalletConfig::build(missing))
            .iter()
            .filter_map(|p| p.split(':').next().map(str::to_owned))
            .collect();
        assert_eq!(names, ["WALLET_DATABASE_URL", "RABBITMQ_URL", "JWT_PRIVATE_KEY", "INTERNAL_JWT_PRIVATE_KEY"]);
    }

    #[test]
    fn a_short_key_is_a_warning_and_in_production_an_error() {
        let users = UsersConfig::build(layers(Role::Users, &[], &[])).expect("sound");
        assert!(users.process.warnings.iter().any(|w| w.starts_with("JWT_PRIVATE_KEY has 13 bytes")));
        let strict = problems(UsersConfig::build(layers(Role::Users, &[("APP_ENV", "production")], &[])));
        assert!(strict.iter().any(|p| p.starts_with("JWT_PRIVATE_KEY: has 13 bytes")), "{strict:?}");
    }

    #[test]
    fn production_requires_signed_events_unless_told_otherwise() {
        let long = "k".repeat(40);
        let other = "i".repeat(40);
        let strict = [("APP_ENV", "production"), ("JWT_PRIVATE_KEY", &long), ("INTERNAL_JWT_PRIVATE_KEY", &other)];
        let wallet = WalletConfig::build(layers(Role::Wallet, &strict, &[])).expect("sound");
        assert!(wallet.require_signed_events);
    }

    #[test]
    fn the_two_keys_must_differ() {
        let same = [("INTERNAL_JWT_PRIVATE_KEY", "ILIACHALLENGE")];
        let told = problems(UsersConfig::build(layers(Role::Users, &same, &[])));
        assert!(told.iter().any(|p| p.starts_with("INTERNAL_JWT_PRIVATE_KEY: must differ")), "{told:?}");
    }

    #[test]
    fn a_file_is_read_and_its_unknown_keys_and_secrets_are_refused() {
        let folder = std::env::temp_dir().join(format!("purse-config-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("folder");
        std::fs::write(folder.join("base.toml"), "log_level = \"debug\"\nusers_port = 4000\n").expect("base");
        std::fs::write(folder.join("users.toml"), "users_port = 4001\nusers_prot = 1\njwt_private_key = \"x\"\n")
            .expect("role");
        let environment: Vec<_> = SOUND.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let told =
            problems(UsersConfig::build(Layers::new(Role::Users, &folder, environment.clone(), BTreeMap::new())));
        assert!(told.iter().any(|p| p.contains("unknown key `users_prot`")), "{told:?}");
        assert!(told.iter().any(|p| p.contains("`jwt_private_key` is a secret")), "{told:?}");
        std::fs::write(folder.join("users.toml"), "users_port = 4001\n").expect("role");
        let users = UsersConfig::build(Layers::new(Role::Users, &folder, environment, BTreeMap::new())).expect("sound");
        assert_eq!((users.process.http.listen.port(), users.process.log.level), (4001, slog::Level::Debug));
        std::fs::remove_dir_all(&folder).expect("tidy");
    }
}
