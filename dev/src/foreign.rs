//! Variables of the shell that were not meant for the roles. zsh sets `HOST`, deployments set `APP_ENV`, and other
//! projects have their own `LOG_LEVEL` or `JWT_PRIVATE_KEY`: they must not keep the stack from starting, and what is
//! ignored is shown.

use std::env;
use std::net::{IpAddr, Ipv4Addr};

/// Where the roles listen unless `HOST` says otherwise: only this machine can connect.
const HOST_DEFAULT: &str = "127.0.0.1";
/// Sets `APP_ENV` of the roles.
const APP_ENV_VARIABLE: &str = "PURSE_DEV_APP_ENV";
const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
const FORMATS: [&str; 2] = ["json", "pretty"];
/// Keys that the environment may set instead of the generated ones.
const KEYS: [&str; 4] =
    ["JWT_PRIVATE_KEY", "JWT_PRIVATE_KEY_PREVIOUS", "INTERNAL_JWT_PRIVATE_KEY", "INTERNAL_JWT_PRIVATE_KEY_PREVIOUS"];
/// Secrets that `up` sets itself, so that the roles would refuse a file beside them.
const FILES: [&str; 7] = [
    "USERS_DATABASE_URL_FILE",
    "USERS_MIGRATION_DATABASE_URL_FILE",
    "WALLET_DATABASE_URL_FILE",
    "WALLET_MIGRATION_DATABASE_URL_FILE",
    "RABBITMQ_URL_FILE",
    "JWT_PRIVATE_KEY_FILE",
    "INTERNAL_JWT_PRIVATE_KEY_FILE",
];

/// A variable that the roles get with another value than the shell has, or not at all, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replaced {
    pub name: &'static str,
    pub value: Option<String>,
    /// A sentence for the terminal.
    pub notice: Option<String>,
}

/// What replaces the shell's variables for the roles.
pub(crate) fn replaced() -> Vec<Replaced> {
    replaced_in(&|name| env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
}

/// `value_of` reads a variable.
fn replaced_in(value_of: &dyn Fn(&str) -> Option<String>) -> Vec<Replaced> {
    let set = |name: &str| value_of(name).filter(|value| !value.is_empty());
    let mut all = Vec::new();
    let mut replace = |name, value: Option<&str>, notice: Option<String>| {
        all.push(Replaced { name, value: value.map(str::to_owned), notice });
    };

    let app_env = set(APP_ENV_VARIABLE).unwrap_or_else(|| "development".to_owned());
    let foreign = set("APP_ENV").filter(|value| *value != app_env);
    let notice = foreign.map(|value| {
        format!("APP_ENV={} is ignored: the roles run with {app_env}; {APP_ENV_VARIABLE} changes that", short(&value))
    });
    replace("APP_ENV", Some(&app_env), notice);

    match set("HOST") {
        Some(host) if !is_local(&host) => {
            let why = "the roles listen on 127.0.0.1; HOST=0.0.0.0 lets other machines connect";
            replace("HOST", Some(HOST_DEFAULT), Some(format!("HOST={} is ignored: {why}", short(&host))));
        }
        Some(_) => {}
        None => replace("HOST", Some(HOST_DEFAULT), None),
    }
    for (name, known) in [("LOG_LEVEL", &LEVELS[..]), ("LOG_FORMAT", &FORMATS)] {
        if let Some(value) = set(name).filter(|value| !known.contains(&value.as_str())) {
            let notice = format!("{name}={} is ignored: it can be {}", short(&value), known.join(", "));
            replace(name, None, Some(notice));
        }
    }
    // Both roles would listen on it.
    if let Some(port) = set("METRICS_PORT").filter(|port| port != "0") {
        let notice = format!("METRICS_PORT={} is ignored: /metrics is on the port of each role", short(&port));
        replace("METRICS_PORT", None, Some(notice));
    }
    for name in KEYS {
        if set(name).is_some_and(|key| !is_key(&key)) {
            replace(name, None, Some(format!("{name} is ignored: it is not one line of text")));
        }
    }
    for name in FILES.into_iter().filter(|name| set(name).is_some()) {
        replace(name, None, Some(format!("{name} is ignored: `up` sets that secret itself")));
    }
    all
}

/// Whether the roles can be reached at 127.0.0.1 if they listen on this address.
fn is_local(host: &str) -> bool {
    host.parse().is_ok_and(|address: IpAddr| address.is_unspecified() || address == Ipv4Addr::LOCALHOST)
}

/// Whether the roles take this text as a key; another project's may be a PEM file.
pub(crate) fn is_key(text: &str) -> bool {
    text == text.trim() && !text.is_empty() && !text.chars().any(|c| c.is_control() || c == '\u{fffd}')
}

/// A foreign value on one line.
fn short(value: &str) -> String {
    value.chars().take(40).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_shell(variables: &[(&str, &str)]) -> Vec<Replaced> {
        let value_of = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        replaced_in(&value_of)
    }

    const UNCHANGED: &str = "the shell's";
    const REMOVED: &str = "none";

    fn value<'a>(all: &'a [Replaced], name: &str) -> &'a str {
        let found = all.iter().find(|one| one.name == name);
        found.map_or(UNCHANGED, |one| one.value.as_deref().unwrap_or(REMOVED))
    }

    #[test]
    fn the_roles_run_in_development_and_on_this_machine_whatever_the_shell_has() {
        for variables in
            [&[][..], &[("APP_ENV", "production"), ("HOST", "mymachine")], &[("HOST", ""), ("APP_ENV", "")]]
        {
            let all = in_shell(variables);
            assert_eq!(value(&all, "APP_ENV"), "development", "{all:?}");
            assert_eq!(value(&all, "HOST"), "127.0.0.1", "{all:?}");
        }
        let all = in_shell(&[("APP_ENV", "production"), ("HOST", "my\nmachine")]);
        let notices: Vec<&str> = all.iter().filter_map(|one| one.notice.as_deref()).collect();
        assert!(
            matches!(notices[..], [app_env, host]
            if app_env.starts_with("APP_ENV=production is ignored") && host.starts_with("HOST=my\\nmachine is ignored")),
            "{notices:?}"
        );
    }

    #[test]
    fn what_is_meant_for_the_stack_reaches_the_roles() {
        for host in ["0.0.0.0", "127.0.0.1", "::"] {
            assert_eq!(value(&in_shell(&[("HOST", host)]), "HOST"), UNCHANGED, "{host}");
        }
        // `up` waits for the roles at 127.0.0.1.
        for host in ["192.0.2.7", "::1", "127.0.0.1:80", "localhost"] {
            assert_eq!(value(&in_shell(&[("HOST", host)]), "HOST"), "127.0.0.1", "{host}");
        }
        let meant = in_shell(&[
            ("PURSE_DEV_APP_ENV", "production"),
            ("APP_ENV", "production"),
            ("LOG_LEVEL", "debug"),
            ("LOG_FORMAT", "json"),
            ("METRICS_PORT", "0"),
            ("JWT_PRIVATE_KEY", "ILIACHALLENGE"),
        ]);
        assert_eq!(value(&meant, "APP_ENV"), "production");
        assert!(meant.iter().all(|one| one.notice.is_none()) && meant.len() == 2, "{meant:?}");
    }

    #[test]
    fn what_would_end_a_role_is_taken_away_and_shown() {
        for (name, foreign) in [
            ("LOG_LEVEL", "INFO"),
            ("LOG_LEVEL", "warning"),
            ("LOG_FORMAT", "text"),
            ("METRICS_PORT", "9464"),
            ("JWT_PRIVATE_KEY", "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n"),
            ("INTERNAL_JWT_PRIVATE_KEY_PREVIOUS", " x"),
            ("JWT_PRIVATE_KEY_FILE", "/run/secrets/jwt"),
            ("RABBITMQ_URL_FILE", "/run/secrets/broker"),
        ] {
            let all = in_shell(&[(name, foreign)]);
            let notice = all.iter().find(|one| one.name == name).and_then(|one| one.notice.clone()).unwrap_or_default();
            assert_eq!(value(&all, name), REMOVED, "{all:?}");
            assert!(notice.starts_with(name) && !notice.contains("PRIVATE KEY---"), "{notice}");
        }
    }
}
