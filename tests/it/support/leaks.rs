//! Secrets that must never be logged. The whole output of every process of the suite is scanned when its test drops it;
//! processes log at `trace` unless a test sets another level.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{LazyLock, Mutex};

use purse::infra::config::setting;

use super::{ACCESS_KEY, PASSWORD};

/// Secret in any log.
const NEVER: &[(&str, &str)] = &[
    ("a token or a signature", "eyJ"),
    ("the hash of a password", "$argon2"),
    ("the password of the test users", PASSWORD),
    ("a key", ACCESS_KEY),
    ("the name of a person", "Lovelace"),
    ("a password for HTTP", "Basic "),
];

/// Shorter passwords are not searched for: they may be part of a number or a common word.
const PASSWORD_BYTES_MIN: usize = 12;

/// Every password that a test has sent so far.
static PASSWORDS: LazyLock<Mutex<BTreeSet<String>>> = LazyLock::new(Mutex::default);

/// Adds a password to search for.
pub fn note_password(password: &str) {
    if password.len() >= PASSWORD_BYTES_MIN && password != PASSWORD {
        PASSWORDS.lock().expect("passwords").insert(password.to_owned());
    }
}

/// Which secrets a process has printed, given its settings.
pub fn leaks(printed: &str, settings: &BTreeMap<String, String>) -> Vec<String> {
    let mut found: Vec<String> =
        NEVER.iter().filter(|(_, text)| printed.contains(text)).map(|(what, _)| (*what).to_owned()).collect();
    let is_secret = |name: &str| setting::ALL.iter().any(|setting| setting.env == name && setting.is_secret());
    for (name, value) in settings.iter().filter(|(name, _)| is_secret(name)) {
        let parts = value.split(',').filter_map(credentials).chain([value.as_str()]);
        if parts.into_iter().any(|part| !part.is_empty() && printed.contains(part)) {
            found.push(format!("the value of {name}"));
        }
    }
    found.extend(email(printed).map(|address| format!("an address: {address}")));
    let passwords = PASSWORDS.lock().expect("passwords");
    found.extend(passwords.iter().filter(|p| printed.contains(p.as_str())).map(|p| format!("a password: {p}")));
    found
}

/// `user:password@` of a URL; the password alone may be a common word.
fn credentials(url: &str) -> Option<&str> {
    let authority = url.split_once("://")?.1;
    authority.find('@').map(|at| &authority[..=at])
}

/// How Citus names the worker that an account could not reach.
const WORKER: [&str; 2] = ["_app@127.0.0.1", "_owner@127.0.0.1"];

/// The first text that looks like an email address, or like the login and host of a URL.
fn email(printed: &str) -> Option<&str> {
    let local = |c: char| c.is_alphanumeric() || "._%+-".contains(c);
    let domain = |c: char| c.is_alphanumeric() || ".-".contains(c);
    printed.match_indices('@').find_map(|(at, _)| {
        let begin = printed[..at].char_indices().rev().take_while(|(_, c)| local(*c)).last()?.0;
        let length: usize = printed[at + 1..].chars().take_while(|c| domain(*c)).map(char::len_utf8).sum();
        let host = &printed[at + 1..at + 1 + length];
        let found = &printed[begin..at + 1 + length];
        (host.trim_matches('.').contains('.') && !WORKER.iter().any(|worker| found.ends_with(worker))).then_some(found)
    })
}
