//! The table of settings.

use crate::kernel::Role;

/// One setting. Its file key is the variable in lower case, its flag the same with dashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Environment variable.
    pub env: &'static str,
    /// The role it belongs to, `None` for both.
    pub role: Option<Role>,
    /// What holds where nobody says otherwise, as text.
    pub default: Fallback,
    /// What its values look like, for `--help`.
    pub placeholder: &'static str,
    /// One sentence for people.
    pub help: &'static str,
}

/// Where a setting's value comes from when no layer has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// This text.
    Text(&'static str),
    /// Nothing: the setting is off without a value.
    Absent,
    /// Nothing, and a value is needed. A secret too, so the environment alone may give it.
    RequiredSecret,
    /// Nothing, and none is needed; a secret, so the environment alone may give it.
    OptionalSecret,
}

impl Setting {
    /// The key in `config/*.toml`.
    pub fn key(&self) -> String {
        self.env.to_ascii_lowercase()
    }

    /// The long flag, without its dashes.
    pub fn flag(&self) -> String {
        self.key().replace('_', "-")
    }

    /// Whether only the environment may give it.
    pub const fn is_secret(&self) -> bool {
        matches!(self.default, Fallback::RequiredSecret | Fallback::OptionalSecret)
    }
}

/// Writes the table: a constant a setting, and the list of all.
macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident = $role:expr, $default:expr, $placeholder:literal, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $name: Setting =
                Setting { env: stringify!($name), role: $role, default: $default, placeholder: $placeholder, help: $help };
        )*
        /// Every setting there is, in the order in which people are shown them.
        pub const ALL: &[Setting] = &[$($name),*];
    };
}

use Fallback::{Absent, OptionalSecret, RequiredSecret, Text};

const BOTH: Option<Role> = None;
const USERS: Option<Role> = Some(Role::Users);
const WALLET: Option<Role> = Some(Role::Wallet);

settings! {
    APP_ENV = BOTH, Text("development"), "ENV", "development or production; production turns unsafe defaults into errors";
    HOST = BOTH, Text("0.0.0.0"), "ADDRESS", "Address to listen on";
    USERS_PORT = USERS, Text("3002"), "PORT", "Port of the users role; 0 takes a free one";
    WALLET_PORT = WALLET, Text("3001"), "PORT", "Port of the wallet role; 0 takes a free one";
    METRICS_PORT = BOTH, Absent, "PORT", "Port for /metrics alone, which is then not on the role's own port; 0 takes a free one";
    USERS_DATABASE_URL = USERS, RequiredSecret, "URL", "PostgreSQL of the users role, as its least-privileged user";
    WALLET_DATABASE_URL = WALLET, RequiredSecret, "URL", "PostgreSQL of the wallet role, as its least-privileged user";
    USERS_MIGRATION_DATABASE_URL = USERS, OptionalSecret, "URL", "The same database as its owner, for migrations alone; USERS_DATABASE_URL if unset";
    WALLET_MIGRATION_DATABASE_URL = WALLET, OptionalSecret, "URL", "The same database as its owner, for migrations alone; WALLET_DATABASE_URL if unset";
    RABBITMQ_URL = BOTH, RequiredSecret, "URL", "RabbitMQ, amqp:// or amqps://";
    JWT_PRIVATE_KEY = BOTH, RequiredSecret, "KEY", "HS256 key of access tokens; 32 bytes or more, which production insists on";
    JWT_PRIVATE_KEY_PREVIOUS = BOTH, OptionalSecret, "KEY", "Key that tokens may still be signed with while keys change; verifies only";
    INTERNAL_JWT_PRIVATE_KEY = BOTH, RequiredSecret, "KEY", "Key that signs events between the roles; must differ from JWT_PRIVATE_KEY";
    REQUIRE_SIGNED_EVENTS = WALLET, Absent, "BOOL", "Refuse unsigned events; true in production and false elsewhere unless set (a wrong signature is always refused)";
    ACCESS_TOKEN_TTL = USERS, Text("1h"), "DURATION", "Lifetime of an access token";
    RATE_LIMIT_ENABLED = BOTH, Text("true"), "BOOL", "Whether requests are limited at all";
    RATE_LIMIT_STORE = BOTH, Text("local"), "STORE", "local or postgres: each process counts for itself, or all processes of a role together";
    RL_REGISTER_MAX = USERS, Text("5"), "COUNT", "Registrations from one address a window";
    RL_REGISTER_WINDOW = USERS, Text("1m"), "DURATION", "Window of RL_REGISTER_MAX";
    RL_LOGIN_MAX = USERS, Text("10"), "COUNT", "Logins from one address a window";
    RL_LOGIN_WINDOW = USERS, Text("1m"), "DURATION", "Window of RL_LOGIN_MAX and RL_LOGIN_ACCOUNT_MAX";
    RL_LOGIN_ACCOUNT_MAX = USERS, Text("30"), "COUNT", "Logins to one account a window, from whatever addresses";
    RL_TX_MAX = WALLET, Text("30"), "COUNT", "Credits and debits of one user a window";
    RL_TX_WINDOW = WALLET, Text("1m"), "DURATION", "Window of RL_TX_MAX";
    WALLET_PUBLIC_URL = USERS, Absent, "URL", "Where clients reach the wallet role, for the link on /docs; port 3001 of the same host if unset";
    USERS_PUBLIC_URL = WALLET, Absent, "URL", "Where clients reach the users role, for the link on /docs; port 3002 of the same host if unset";
    TRUSTED_PROXIES = BOTH, Absent, "CIDRS", "Networks whose X-Forwarded-For is believed, separated by commas";
    CORS_ORIGINS = BOTH, Absent, "ORIGINS", "Origins like https://app.example.com whose pages may call the API, separated by commas; none if unset";
    RETRY_TTL_1_MS = WALLET, Text("10000"), "MS", "Wait in the first retry tier";
    RETRY_TTL_2_MS = WALLET, Text("30000"), "MS", "Wait in the second retry tier";
    RETRY_TTL_3_MS = WALLET, Text("120000"), "MS", "Wait in the third retry tier";
    PREFETCH = WALLET, Text("64"), "COUNT", "Deliveries in hand at once";
    OUTBOX_POLL_INTERVAL_MS = USERS, Text("1000"), "MS", "Fallback poll of the outbox; a registration wakes the poller at once";
    OUTBOX_BATCH_MAX = USERS, Text("500"), "COUNT", "Events published in one batch";
    OUTBOX_LEASE_MS = USERS, Text("10000"), "MS", "How long claimed events are left to the process that claimed them";
    HASH_QUEUE_MAX = USERS, Text("64"), "COUNT", "Passwords that may wait to be hashed before requests are turned away";
    LEDGER_QUEUE_MAX = WALLET, Text("4096"), "COUNT", "Posts that may wait before requests are turned away";
    LEDGER_BATCH_MAX = WALLET, Text("512"), "COUNT", "Posts written in one database transaction";
    HTTP_WORKERS = BOTH, Absent, "COUNT", "Threads that serve HTTP; as many as cores if unset";
    DB_POOL_MAX = BOTH, Text("10"), "COUNT", "Database connections of the pool";
    DB_ACQUIRE_TIMEOUT_MS = BOTH, Text("2000"), "MS", "Longest wait for a pooled connection";
    DB_STATEMENT_TIMEOUT_MS = BOTH, Text("3000"), "MS", "Longest run of one statement, kept by the server";
    DB_LOCK_TIMEOUT_MS = BOTH, Text("1000"), "MS", "Longest wait for a lock, kept by the server";
    SHUTDOWN_GRACE_MS = BOTH, Text("15000"), "MS", "Longest time that a shutdown may take";
    OTLP_URL = BOTH, Absent, "URL", "OpenTelemetry collector that takes spans by HTTP, like http://localhost:4318; needs a binary built with the feature otlp";
    LOG_LEVEL = BOTH, Text("info"), "LEVEL", "error, warn, info, debug or trace";
    LOG_FORMAT = BOTH, Absent, "FORMAT", "json or pretty; pretty on a terminal and json elsewhere unless set";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_setting_has_a_name_of_its_own() {
        assert_eq!(ALL.iter().map(|s| s.env).collect::<HashSet<_>>().len(), ALL.len());
    }

    #[test]
    fn key_and_flag_follow_from_the_variable() {
        assert_eq!(
            (RETRY_TTL_1_MS.key().as_str(), RETRY_TTL_1_MS.flag().as_str()),
            ("retry_ttl_1_ms", "retry-ttl-1-ms")
        );
    }
}
