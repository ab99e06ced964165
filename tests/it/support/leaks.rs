//! What must not stand in a log. Every process of the whole suite is looked through when its test is done with it, and
//! logs at `trace` unless the test says otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{LazyLock, Mutex};

use purse::infra::config::setting;

use super::{ACCESS_KEY, PASSWORD};

/// What is secret in whatever log it stands.
const NEVER: &[(&str, &str)] = &[
    ("a token or a signature", "eyJ"),
    ("the hash of a password", "$argon2"),
    ("the password of the test users", PASSWORD),
    ("a key", ACCESS_KEY),
    ("the name of a person", "Lovelace"),
    ("a password for HTTP", "Basic "),
];

/// Shortest password that is looked for: a shorter one may be part of a number or a common word.
const PASSWORD_BYTES_MIN: usize = 12;

/// Every password that any test has sent so far.
static PASSWORDS: LazyLock<Mutex<BTreeSet<String>>> = LazyLock::new(Mutex::default);

/// Notes a password that somebody sends; the usual one is known already.
pub fn sent(password: &str) {
    if password.len() >= PASSWORD_BYTES_MIN && password != PASSWORD {
        PASSWORDS.lock().expect("passwords").insert(password.to_owned());
    }
}

/// Which secrets stand in what a process has printed, given the settings that it ran with.
pub fn leaks(printed: &str, settings: &BTreeMap<String, String>) -> Vec<String> {
    let mut found: Vec<String> =
        NEVER.iter().filter(|(_, text)| printed.contains(text)).map(|(what, _)| (*what).to_owned()).collect();
    let is_secret = |name: &str| setting::ALL.iter().any(|setting| setting.env == name && setting.is_secret());
    for (name, value) in settings.iter().filter(|(name, _)| is_secret(name)) {
        let parts = credentials(value).into_iter().chain([value.as_str()]);
        if parts.into_iter().any(|part| !part.is_empty() && printed.contains(part)) {
            found.push(format!("the value of {name}"));
        }
    }
    found.extend(email(printed).map(|address| format!("an address: {address}")));
    let passwords = PASSWORDS.lock().expect("passwords");
    found.extend(passwords.iter().filter(|p| printed.contains(p.as_str())).map(|p| format!("a password: {p}")));
    found
}

/// `user:password@` of a URL: the password alone may be a common word.
fn credentials(url: &str) -> Option<&str> {
    let authority = url.split_once("://")?.1;
    authority.find('@').map(|at| &authority[..=at])
}

/// The first text that looks like an email address, or like the login and host of a URL.
fn email(printed: &str) -> Option<&str> {
    let local = |c: char| c.is_alphanumeric() || "._%+-".contains(c);
    let domain = |c: char| c.is_alphanumeric() || ".-".contains(c);
    printed.match_indices('@').find_map(|(at, _)| {
        let begin = printed[..at].char_indices().rev().take_while(|(_, c)| local(*c)).last()?.0;
        let length: usize = printed[at + 1..].chars().take_while(|c| domain(*c)).map(char::len_utf8).sum();
        let host = &printed[at + 1..at + 1 + length];
        host.trim_matches('.').contains('.').then(|| &printed[begin..at + 1 + length])
    })
}
