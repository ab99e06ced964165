//! What a misspelled name or word probably means.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use crate::infra::config::kind::Setting;

/// Least similarity of a suggestion (Jaro), from 0 to 1.
const SIMILARITY_MIN: f64 = 0.75;
/// Variables are compared with settings of at least this many characters: shorter names are too common to be purse's own.
const NAME_CHARS_MIN: usize = 10;
/// A variable may differ from a setting in one of this many characters, at most in [`DIFFERENCES_MAX`].
const CHARS_PER_DIFFERENCE: usize = 6;
const DIFFERENCES_MAX: usize = 3;
/// Kubernetes sets variables like `PURSE_USERS_PORT` to such values, for every service of the namespace.
const SERVICE_LINK: &[u8] = b"tcp://";

/// The known word that is most similar to `word`, if one is similar enough.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let similar = known.into_iter().map(|known| (strsim::jaro(word, known), known));
    let best = similar.filter(|(similarity, _)| *similarity >= SIMILARITY_MIN).max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.map(|(_, known)| known)
}

/// The variables of `environment` that are probably misspelled settings, each with the setting that is meant.
///
/// The environment belongs to many programs, so a variable is listed only if its name is almost that of a setting, or is
/// that of a setting with the prefix `PURSE_`, and the setting itself has no variable.
pub(super) fn misspelled<'e>(
    environment: &'e BTreeMap<OsString, OsString>,
    table: &'static [Setting],
) -> Vec<(&'e str, &'static Setting)> {
    let is_set = |name: &str| environment.contains_key(OsStr::new(name));
    let names = |setting: &Setting| {
        let file = setting.is_secret().then(|| setting.file_variable());
        std::iter::once(setting.env.to_owned()).chain(file)
    };
    let known: Vec<String> = table.iter().flat_map(names).collect();
    let unset: Vec<(&'static Setting, String)> = table
        .iter()
        .filter(|setting| !names(setting).any(|name| is_set(&name)))
        .flat_map(|setting| names(setting).map(move |name| (setting, name)))
        .collect();
    let meant = |name: &str, value: &OsStr| {
        if known.iter().any(|known| known == name) {
            return None;
        }
        if let Some(bare) = name.strip_prefix("PURSE_") {
            let is_link = value.as_encoded_bytes().starts_with(SERVICE_LINK);
            return unset.iter().find(|(_, own)| own == bare && !is_link).map(|(setting, _)| *setting);
        }
        let near = unset.iter().filter(|(_, own)| own.len() >= NAME_CHARS_MIN).filter_map(|(setting, own)| {
            let most = (own.len() / CHARS_PER_DIFFERENCE).min(DIFFERENCES_MAX);
            let differences = strsim::osa_distance(name, own);
            (differences <= most).then_some((differences, *setting))
        });
        near.min_by_key(|(differences, _)| *differences).map(|(_, setting)| setting)
    };
    environment
        .iter()
        .filter_map(|(name, value)| name.to_str().and_then(|name| Some((name, meant(name, value)?))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infra::config::setting::ALL;

    fn found(pairs: &[(&str, &str)]) -> Vec<String> {
        let environment = pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        misspelled(&environment, ALL).iter().map(|(name, setting)| format!("{name} {}", setting.env)).collect()
    }

    #[test]
    fn a_slip_of_the_pen_is_recognised_and_another_word_is_not() {
        let levels = ["error", "warn", "info", "debug", "trace"];
        for (word, meant) in [("wran", "warn"), ("warning", "warn"), ("information", "info"), ("errors", "error")] {
            assert_eq!(nearest(word, levels), Some(meant), "{word}");
        }
        assert_eq!(nearest("prod", ["development", "production"]), Some("production"));
        for word in ["loud", "", "7", "critical"] {
            assert_eq!(nearest(word, levels), None, "{word}");
        }
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
            assert_eq!(found(&[(name, "x")]), [format!("{name} {meant}")]);
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
            assert_eq!(found(&[(name, "x")]), Vec::<String>::new(), "{name}");
        }
        assert_eq!(found(&[("PURSE_USERS_PORT", "tcp://10.0.0.1:3002")]), Vec::<String>::new());
        // The setting has a value, so the other variable is somebody else's.
        assert_eq!(found(&[("RABBITMQ_URI", "x"), ("RABBITMQ_URL", "y")]), Vec::<String>::new());
        assert_eq!(found(&[("RABBITMQ_URI", "x"), ("RABBITMQ_URL_FILE", "y")]), Vec::<String>::new());
    }
}
