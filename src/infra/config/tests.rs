//! Layers, rows and sections together.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use super::layers::{ConfigError, Flag, Layers};
use super::setting::{ALL, Accepts, RETRY_TTL_1_MS, Setting, UsersConfig, WalletConfig};
use crate::kernel::Role;

const VALID: &[(&str, &str)] = &[
    ("USERS_DATABASE_URL", "postgres://u:p@localhost/users"),
    ("WALLET_DATABASE_URL", "postgres://u:p@localhost/wallet"),
    ("RABBITMQ_URL", "amqp://guest:guest@localhost:5672/%2f"),
    ("JWT_PRIVATE_KEY", "ILIACHALLENGE"),
    ("INTERNAL_JWT_PRIVATE_KEY", "ILIACHALLENGE_INTERNAL"),
];

fn variables(pairs: &[(&str, &str)]) -> impl Iterator<Item = (OsString, OsString)> {
    pairs.iter().map(|(name, value)| ((*name).into(), (*value).into()))
}

fn layers(role: Role, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Layers {
    let mut all: BTreeMap<OsString, OsString> = variables(VALID).collect();
    all.extend(variables(environment));
    let flag = |value: &str| Flag { name: "--flag".to_owned(), value: value.into() };
    let flags = flags.iter().map(|(setting, value)| ((*setting).to_owned(), flag(value))).collect();
    Layers::new(ALL, role, Path::new("/nonexistent"), all, flags)
}

/// Every problem of the role's whole configuration.
fn problems_of(role: Role, environment: &[(&str, &str)]) -> Vec<String> {
    match role {
        Role::Users => problems(UsersConfig::build(layers(role, environment, &[]))),
        Role::Wallet => problems(WalletConfig::build(layers(role, environment, &[]))),
    }
}

fn problems<T>(built: Result<T, ConfigError>) -> Vec<String> {
    built.err().map(|e| e.0.iter().map(ToString::to_string).collect()).unwrap_or_default()
}

#[test]
fn the_defaults_are_the_contract() {
    let users = UsersConfig::build(layers(Role::Users, &[], &[])).expect("valid");
    assert_eq!(users.process.http.listen.to_string(), "0.0.0.0:3002");
    assert_eq!(users.access_token_ttl, Duration::from_hours(1));
    assert_eq!((users.register_limit.max.get(), users.login_limit.max.get()), (5, 10));
    assert_eq!(users.outbox_poll_interval, Duration::from_secs(1));
    let wallet = WalletConfig::build(layers(Role::Wallet, &[], &[])).expect("valid");
    assert_eq!(wallet.process.http.listen.to_string(), "0.0.0.0:3001");
    assert_eq!(wallet.retry_ttls.map(|t| t.as_secs()), [10, 30, 120]);
    assert_eq!((wallet.post_limit.max.get(), wallet.require_signed_events), (30, false));
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_default() {
    let port = |environment: &[_], flags: &[_]| {
        UsersConfig::build(layers(Role::Users, environment, flags)).expect("valid").process.http.listen.port()
    };
    assert_eq!(port(&[("USERS_PORT", "1")], &[("USERS_PORT", "2")]), 2);
    assert_eq!(port(&[("USERS_PORT", "1")], &[]), 1);
    assert_eq!(port(&[("USERS_PORT", "")], &[]), 3002, "an empty variable counts as unset");
}

#[test]
fn all_problems_are_reported_at_once_and_no_secret_is_shown() {
    let broken = [
        ("USERS_PORT", "70000"),
        ("RL_LOGIN_MAX", "ten"),
        ("ACCESS_TOKEN_TTL", "1 hour"),
        ("RABBITMQ_URL", "http://user:hunter22@x"),
        ("OTLP_URL", "http://user:hunter23@x"),
        ("LOG_LEVEL", "loud"),
    ];
    let problems = problems(UsersConfig::build(layers(Role::Users, &broken, &[])));
    for (name, value) in broken {
        let reported: Vec<_> = problems.iter().filter(|p| p.starts_with(name)).collect();
        assert_eq!(reported.len(), 1, "{name}: {problems:?}");
        assert_eq!(reported.iter().any(|p| p.contains(value)), !value.contains("hunter"), "{reported:?}");
        assert!(!reported.iter().any(|p| p.contains("hunter")), "{reported:?}");
    }
    assert_eq!(problems.len(), broken.len());
}

#[test]
fn a_missing_required_setting_is_reported() {
    let missing = Layers::new(ALL, Role::Wallet, Path::new("/nonexistent"), [], BTreeMap::new());
    let names: Vec<String> =
        problems(WalletConfig::build(missing)).iter().filter_map(|p| p.split(':').next().map(str::to_owned)).collect();
    assert_eq!(names, ["WALLET_DATABASE_URL", "RABBITMQ_URL", "JWT_PRIVATE_KEY", "INTERNAL_JWT_PRIVATE_KEY"]);
}

#[test]
fn a_short_key_is_a_warning_and_in_production_an_error() {
    let users = UsersConfig::build(layers(Role::Users, &[], &[])).expect("valid");
    assert!(users.process.warnings.iter().any(|w| w.starts_with("JWT_PRIVATE_KEY has 13 bytes")));
    let strict = problems(UsersConfig::build(layers(Role::Users, &[("APP_ENV", "production")], &[])));
    assert!(strict.iter().any(|p| p.starts_with("JWT_PRIVATE_KEY: has 13 bytes")), "{strict:?}");
}

#[test]
fn production_requires_signed_events_by_default() {
    let long = "k".repeat(40);
    let other = "i".repeat(40);
    let strict = [
        ("APP_ENV", "production"),
        ("JWT_PRIVATE_KEY", &long),
        ("INTERNAL_JWT_PRIVATE_KEY", &other),
        ("SELF_POST", "none"),
    ];
    let wallet = WalletConfig::build(layers(Role::Wallet, &strict, &[])).expect("valid");
    assert!(wallet.require_signed_events);
}

#[test]
fn the_two_keys_must_differ() {
    let same = [("INTERNAL_JWT_PRIVATE_KEY", "ILIACHALLENGE")];
    let reported = problems(UsersConfig::build(layers(Role::Users, &same, &[])));
    assert!(reported.iter().any(|p| p.starts_with("INTERNAL_JWT_PRIVATE_KEY: must differ")), "{reported:?}");
}

#[test]
fn the_key_of_receipts_is_no_key_that_the_other_role_has() {
    let shared = "c2lnbmluZ3NpZ25pbmdzaWduaW5nc2lnbmluZ3NpZ24=";
    for other in ["JWT_PRIVATE_KEY", "JWT_PRIVATE_KEY_PREVIOUS", "INTERNAL_JWT_PRIVATE_KEY"] {
        let same = [("LEDGER_SIGNING_KEY", shared), (other, shared)];
        let reported = problems(WalletConfig::build(layers(Role::Wallet, &same, &[])));
        assert!(reported.iter().any(|p| p.starts_with("LEDGER_SIGNING_KEY: must differ")), "{other}: {reported:?}");
    }
    let own = [("LEDGER_SIGNING_KEY", shared)];
    assert_eq!(WalletConfig::build(layers(Role::Wallet, &own, &[])).expect("valid").signing_keys.published().len(), 1);
}

#[test]
fn a_file_is_read_and_its_unknown_keys_and_secrets_are_refused() {
    let folder = std::env::temp_dir().join(format!("purse-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("folder");
    std::fs::write(folder.join("base.toml"), "log_level = \"debug\"\nusers_port = 4000\n").expect("base");
    std::fs::write(folder.join("users.toml"), "users_port = 4001\nusers_prot = 1\njwt_private_key = \"x\"\n")
        .expect("role");
    let environment: Vec<_> = variables(VALID).collect();
    let reported =
        problems(UsersConfig::build(Layers::new(ALL, Role::Users, &folder, environment.clone(), BTreeMap::new())));
    assert!(reported.iter().any(|p| p.contains("unknown key `users_prot`")), "{reported:?}");
    assert!(
        reported.iter().any(|p| p.starts_with("jwt_private_key in ") && p.contains(": is a secret")),
        "{reported:?}"
    );
    std::fs::write(folder.join("users.toml"), "users_port = 4001\n").expect("role");
    let users =
        UsersConfig::build(Layers::new(ALL, Role::Users, &folder, environment, BTreeMap::new())).expect("valid");
    assert_eq!((users.process.http.listen.port(), users.process.log.level), (4001, slog::Level::Debug));
    std::fs::remove_dir_all(&folder).expect("tidy");
}

#[test]
fn every_setting_has_a_name_of_its_own() {
    // Including the variables that name files.
    let files = ALL.iter().filter(|s| s.is_secret()).map(Setting::file_variable);
    let names: Vec<String> = ALL.iter().map(|s| s.env.to_owned()).chain(files).collect();
    assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
}

#[test]
fn key_and_flag_are_derived_from_the_variable() {
    assert_eq!((RETRY_TTL_1_MS.key().as_str(), RETRY_TTL_1_MS.flag().as_str()), ("retry_ttl_1_ms", "retry-ttl-1-ms"));
}

#[test]
fn every_setting_is_read_and_an_invalid_value_is_reported_with_what_is_accepted() {
    for role in Role::ALL {
        for setting in ALL.iter().filter(|s| s.role.is_none_or(|own| own == role)) {
            let too_large;
            let invalid = match setting.accepts {
                // Any text is a key; a missing one is reported by another test.
                Accepts::Form("any text") => continue,
                Accepts::Form(_) | Accepts::Words(_) => "~",
                Accepts::Numbers(_, max) => {
                    too_large = (max + 1).to_string();
                    too_large.as_str()
                }
            };
            let reported = problems_of(role, &[(setting.env, invalid)]);
            let [only] = reported.as_slice() else { panic!("{} of {role}: {reported:?}", setting.env) };
            assert!(only.starts_with(setting.env) && only.contains(&setting.accepts.to_string()), "{only}");
        }
    }
}

#[test]
fn the_bounds_of_a_row_are_included() {
    for (setting, bounds) in ALL.iter().filter_map(|s| match s.accepts {
        Accepts::Numbers(min, max) => Some((s, [min, max])),
        Accepts::Form(_) | Accepts::Words(_) => None,
    }) {
        for bound in bounds {
            let role = setting.role.unwrap_or(Role::Users);
            assert_eq!(problems_of(role, &[(setting.env, &bound.to_string())]), Vec::<String>::new(), "{bound}");
        }
    }
}

#[test]
fn every_word_of_a_row_is_accepted_and_a_word_that_is_almost_one_is_suggested() {
    for (setting, words) in ALL.iter().filter_map(|s| match s.accepts {
        Accepts::Words(words) => Some((s, words)),
        Accepts::Numbers(..) | Accepts::Form(_) => None,
    }) {
        for word in words.iter().filter(|word| **word != "production") {
            let role = setting.role.unwrap_or(Role::Users);
            assert_eq!(problems_of(role, &[(setting.env, word)]), Vec::<String>::new(), "{}", setting.env);
            let slip = format!("{word}s");
            let reported = problems_of(role, &[(setting.env, &slip)]);
            assert!(reported.iter().all(|p| p.ends_with(&format!("; did you mean {word}?"))), "{slip}: {reported:?}");
        }
    }
}

/// The variables that are taken for misspelled settings, each with the setting that is meant.
fn misspelled(pairs: &[(&str, &str)]) -> Vec<String> {
    let layers = Layers::new(ALL, Role::Users, Path::new("/nonexistent"), variables(pairs), BTreeMap::new());
    layers.misspelled_variables().iter().map(|(name, setting)| format!("{name} {}", setting.env)).collect()
}

#[test]
fn a_variable_that_is_almost_a_setting_is_found() {
    for (name, meant) in [
        ("RABBITMQ_URI", "RABBITMQ_URL"),
        ("JWT_PRIVTE_KEY", "JWT_PRIVATE_KEY"),
        ("USERS_DATABSE_URL_FILE", "USERS_DATABASE_URL"),
        ("DB_STATEMENT_TIMEOUT", "DB_STATEMENT_TIMEOUT_MS"),
        ("RL_LOGIN_MXA", "RL_LOGIN_MAX"),
        ("PURSE_LOG_LEVEL", "LOG_LEVEL"),
        ("PURSE_HOST", "HOST"),
    ] {
        assert_eq!(misspelled(&[(name, "x")]), [format!("{name} {meant}")]);
    }
}

#[test]
fn variables_of_other_programs_are_left_alone() {
    for name in [
        "PATH",
        "HOSTNAME",
        "LOGLEVEL",
        "LOG_LEVELS",
        "PORT",
        "USER",
        "HOSTS",
        "APP_ENVS",
        "RUST_LOG",
        "DB_POOL_MIN",
        "DATABASE_URL",
        "POSTGRES_URL",
        "AMQP_URL",
        "PURSE_CONFIG_DIR",
        "PURSE_DEV_DIR",
        "PURSE_VERSION",
        "USERS_SERVICE_HOST",
        "USERS_PORT_3002_TCP",
        "WALLET_DATABASE_NAME",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    ] {
        assert_eq!(misspelled(&[(name, "x")]), Vec::<String>::new(), "{name}");
    }
    assert_eq!(misspelled(&[("PURSE_USERS_PORT", "tcp://10.0.0.1:3002")]), Vec::<String>::new());
    // The setting has a value, so the other variable belongs to another program.
    assert_eq!(misspelled(&[("RABBITMQ_URI", "x"), ("RABBITMQ_URL", "y")]), Vec::<String>::new());
    assert_eq!(misspelled(&[("RABBITMQ_URI", "x"), ("RABBITMQ_URL_FILE", "y")]), Vec::<String>::new());
}
