//! What a row of the table of settings consists of: how it is shown, and the kinds of values with their bounds.

use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use slog::Level;

use crate::infra::config::parse;
use crate::infra::config::suggest::nearest;
use crate::infra::postgres::Shards;
use crate::infra::security::signing_key::SigningKey;
use crate::infra::{amqp, postgres};
use crate::kernel::{Role, Secret, SelfPost};

/// One setting as text: what `--help`, the configuration template and the documentation show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Environment variable. The key in a file is the same in lower case, the flag the same with dashes.
    pub env: &'static str,
    /// The role that reads it; `None` for both.
    pub role: Option<Role>,
    /// Its value where no layer has one.
    pub default: Fallback,
    /// Name of its value in `--help`.
    pub placeholder: &'static str,
    /// The values that it takes.
    pub accepts: Accepts,
    /// One sentence without a full stop.
    pub help: &'static str,
}

/// Where a setting's value comes from when no layer has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// This text.
    Text(&'static str),
    /// The setting is off, or its default depends on something else, as its help says.
    Absent,
    /// Startup fails. A secret, so it is read from the environment only.
    RequiredSecret,
    /// The setting is off. A secret, so it is read from the environment only.
    OptionalSecret,
}

/// The values that a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepts {
    /// Whole numbers, both ends included.
    Numbers(u64, u64),
    /// One of these words.
    Words(&'static [&'static str]),
    /// Texts of this form, as a noun phrase that can follow "must be".
    Form(&'static str),
}

impl fmt::Display for Accepts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Numbers(min, max) => write!(f, "{min} to {max}"),
            Self::Words(words) => match words {
                [others @ .., last] if !others.is_empty() => write!(f, "{} or {last}", others.join(", ")),
                words => f.write_str(&words.concat()),
            },
            Self::Form(form) => f.write_str(form),
        }
    }
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

    /// The variable that names a file with its value, if it is a secret.
    pub fn file_variable(&self) -> String {
        format!("{}_FILE", self.env)
    }

    /// Whether it is read from the environment only.
    pub const fn is_secret(&self) -> bool {
        matches!(self.default, Fallback::RequiredSecret | Fallback::OptionalSecret)
    }
}

/// How the text of a setting becomes a `T`.
#[derive(Clone, Copy)]
pub(super) struct Kind<T> {
    pub(super) placeholder: &'static str,
    pub(super) accepts: Accepts,
    parse: fn(&str) -> Option<T>,
    /// What exactly is wrong with a rejected text, as the end of a sentence, where that can be said. Shows no secret.
    explain: fn(&str) -> Option<String>,
}

impl<T> Kind<T> {
    /// A text of this form, which `parse` recognises.
    pub(super) const fn text(placeholder: &'static str, form: &'static str, parse: fn(&str) -> Option<T>) -> Self {
        Self { placeholder, accepts: Accepts::Form(form), parse, explain: |_| None }
    }

    /// One of `words`, each of which `parse` recognises.
    const fn word(placeholder: &'static str, words: &'static [&'static str], parse: fn(&str) -> Option<T>) -> Self {
        Self { placeholder, accepts: Accepts::Words(words), parse, explain: |_| None }
    }

    const fn number(placeholder: &'static str, (min, max): (u64, u64), parse: fn(&str) -> Option<T>) -> Self {
        Self { placeholder, accepts: Accepts::Numbers(min, max), parse, explain: |_| None }
    }

    const fn explained(mut self, explain: fn(&str) -> Option<String>) -> Self {
        self.explain = explain;
        self
    }

    /// The value, or the end of a sentence that begins with the text.
    pub(super) fn read(&self, text: &str) -> Result<T, String> {
        match self.accepts {
            Accepts::Numbers(min, max) if parse::integer(text, min, max).is_none() => None,
            Accepts::Numbers(..) | Accepts::Words(_) | Accepts::Form(_) => (self.parse)(text),
        }
        .ok_or_else(|| match self.accepts {
            Accepts::Numbers(..) => format!("must be a whole number from {}", self.accepts),
            Accepts::Words(words) => {
                let meant = nearest(&text.to_ascii_lowercase(), words.iter().copied());
                let question = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
                format!("must be {}{question}", self.accepts)
            }
            Accepts::Form(form) => (self.explain)(text).unwrap_or_else(|| format!("must be {form}")),
        })
    }
}

/// A whole number from `min` to `max`, which `T` can hold.
pub(super) const fn count<T: FromStr>(min: u64, max: u64) -> Kind<T> {
    Kind::number("COUNT", (min, max), |text| text.parse().ok())
}

/// The form of a [`SigningKey`].
const SEED: &str = "32 random bytes in base64, as `openssl rand -base64 32` prints them";

/// A port; 0 lets the operating system choose one.
pub(super) const fn port() -> Kind<u16> {
    Kind::number("PORT", (0, 65_535), |text| text.parse().ok())
}

/// Whole milliseconds from `min` to `max`.
pub(super) const fn millis(min: u64, max: u64) -> Kind<Duration> {
    Kind::number("MS", (min, max), |text| text.parse().ok().map(Duration::from_millis))
}

pub(super) const ADDRESS: Kind<IpAddr> = Kind::text("ADDRESS", "an IP address like 0.0.0.0 or ::1", |t| t.parse().ok());
pub(super) const SHARDS: Kind<Shards> =
    Kind::text("COUNT", "a power of two from 1 to 32", |t| t.parse().ok().and_then(Shards::new));
pub(super) const BOOL: Kind<bool> = Kind::word("BOOL", &["true", "false"], |t| t.parse().ok());
pub(super) const NETWORKS: Kind<Vec<IpNet>> =
    Kind::text("CIDRS", "networks like 10.0.0.0/8, separated by commas", parse::networks);
pub(super) const ORIGINS: Kind<Vec<String>> = Kind::text(
    "ORIGINS",
    "origins like https://app.example.com, separated by commas, without paths or wildcards",
    parse::origins,
);
pub(super) const WEB_URL: Kind<String> =
    Kind::text("URL", "a URL like https://example.com, without a query", parse::web_address);
pub(super) const DURATION: Kind<Duration> =
    Kind::text("DURATION", "a duration up to 24h, like 500ms, 10s, 1m or 1h", parse::duration);
pub(super) const WHOLE_SECONDS: Kind<Duration> =
    Kind::text("DURATION", "a duration of whole seconds up to 24h, like 10s, 1m or 1h", parse::whole_seconds);
pub(super) const RETENTION: Kind<Duration> =
    Kind::text("DURATION", "a duration from 1h to 36500d, like 12h or 30d", parse::retention);
pub(super) const POSTGRES_URL: Kind<DatabaseUrl> =
    Kind::text("URL", "a PostgreSQL URL like postgres://user:password@host:5432/database", |t| {
        postgres::is_database_url(t).then(|| DatabaseUrl(Secret::new(t)))
    })
    .explained(postgres::database_url_problem);
pub(super) const AMQP_URLS: Kind<Vec<Secret>> = Kind::text(
    "URL",
    "a RabbitMQ URL like amqp://user:password@host:5672/%2f, or several, separated by commas",
    amqp::broker_urls,
)
.explained(amqp::broker_urls_problem);
pub(super) const KEY: Kind<Secret> = Kind::text("KEY", "any text", |t| Some(Secret::new(t)));
pub(super) const SIGNING_KEY: Kind<SigningKey> = Kind::text("KEY", SEED, SigningKey::parse);
pub(super) const SIGNING_KEYS: Kind<Vec<SigningKey>> =
    Kind::text("KEYS", "keys like LEDGER_SIGNING_KEY, separated by commas", parse::signing_keys);
pub(super) const APP_ENVS: Kind<AppEnv> = Kind::word("ENV", &["development", "production"], |t| match t {
    "development" => Some(AppEnv::Development),
    "production" => Some(AppEnv::Production),
    _ => None,
});
pub(super) const STORES: Kind<RateLimitStore> = Kind::word("STORE", &["local", "postgres"], |t| match t {
    "local" => Some(RateLimitStore::Local),
    "postgres" => Some(RateLimitStore::Postgres),
    _ => None,
});
pub(super) const SELF_POSTS: Kind<SelfPost> = Kind::text("ACTS", "`credit,debit`, `debit` or `none`", SelfPost::parse);
pub(super) const LEVELS: Kind<Level> = Kind::word("LEVEL", &["error", "warn", "info", "debug", "trace"], |t| match t {
    "error" => Some(Level::Error),
    "warn" => Some(Level::Warning),
    "info" => Some(Level::Info),
    "debug" => Some(Level::Debug),
    "trace" => Some(Level::Trace),
    _ => None,
});
pub(super) const FORMATS: Kind<LogFormat> = Kind::word("FORMAT", &["json", "pretty"], |t| match t {
    "json" => Some(LogFormat::Json),
    "pretty" => Some(LogFormat::Pretty),
    _ => None,
});

/// How strict a process is about unsafe values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AppEnv {
    /// Unsafe values are warnings.
    #[default]
    Development,
    /// Unsafe values are errors.
    Production,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For a person at a terminal.
    Pretty,
}

/// Where rate limits are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RateLimitStore {
    /// In each process, for that process only.
    #[default]
    Local,
    /// Also in the role's database, for all processes of the role together.
    Postgres,
}

/// A valid connection URL. It contains a password, so it cannot be printed.
#[derive(Clone, Debug)]
pub struct DatabaseUrl(Secret);

impl DatabaseUrl {
    pub(crate) fn expose(&self) -> &str {
        self.0.expose()
    }
}

/// A row of the table with the type of its value.
pub struct Typed<T> {
    row: Setting,
    pub(super) kind: Kind<T>,
}

impl<T> Typed<T> {
    pub(super) const fn new(
        env: &'static str,
        role: Option<Role>,
        default: Fallback,
        kind: Kind<T>,
        help: &'static str,
    ) -> Self {
        let row = Setting { env, role, default, placeholder: kind.placeholder, accepts: kind.accepts, help };
        Self { row, kind }
    }

    pub(super) const fn row(&self) -> Setting {
        self.row
    }

    /// Reads a value of this setting from another place than its layers, such as an argument of a command.
    ///
    /// # Errors
    /// The end of a sentence that begins with the text.
    pub fn read(&self, text: &str) -> Result<T, String> {
        self.kind.read(text)
    }
}

impl<T> Deref for Typed<T> {
    type Target = Setting;

    fn deref(&self) -> &Setting {
        &self.row
    }
}

/// Writes the table: one constant per row, and the list of all rows.
macro_rules! settings {
    ($($name:ident: $value:ty = $role:expr, $default:expr, $kind:expr, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $name: Typed<$value> = Typed::new(stringify!($name), $role, $default, $kind, $help);
        )*
        /// Every setting, in the order of `--help` and of the documentation.
        pub const ALL: &[Setting] = &[$($name.row()),*];
    };
}
pub(super) use settings;
