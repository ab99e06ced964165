//! What a misspelled name or word probably means.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

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

/// The variables of `environment` that are probably misspelled settings, each with the index of the setting that is meant.
/// `settings` has the variables of each setting.
///
/// The environment belongs to many programs, so a variable is listed only if its name is almost that of a setting, or is
/// that of a setting with the prefix `PURSE_`, and the setting itself has no variable.
pub(super) fn misspelled<'e>(
    environment: &'e BTreeMap<OsString, OsString>,
    settings: &[Vec<String>],
) -> Vec<(&'e str, usize)> {
    let is_set = |name: &String| environment.contains_key(OsStr::new(name));
    let unset: Vec<(usize, &String)> = settings
        .iter()
        .enumerate()
        .filter(|(_, names)| !names.iter().any(is_set))
        .flat_map(|(index, names)| names.iter().map(move |name| (index, name)))
        .collect();
    let meant = |name: &str, value: &OsStr| {
        if settings.iter().flatten().any(|known| known == name) {
            return None;
        }
        if let Some(bare) = name.strip_prefix("PURSE_") {
            let is_link = value.as_encoded_bytes().starts_with(SERVICE_LINK);
            return unset.iter().find(|(_, own)| *own == bare && !is_link).map(|(index, _)| *index);
        }
        let near = unset.iter().filter(|(_, own)| own.len() >= NAME_CHARS_MIN).filter_map(|(index, own)| {
            let most = (own.len() / CHARS_PER_DIFFERENCE).min(DIFFERENCES_MAX);
            let differences = strsim::osa_distance(name, own);
            (differences <= most).then_some((differences, *index))
        });
        near.min().map(|(_, index)| index)
    };
    let named = environment.iter().filter_map(|(name, value)| Some((name.to_str()?, value)));
    named.filter_map(|(name, value)| Some((name, meant(name, value)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_is_recognised_and_another_word_is_not() {
        let levels = ["error", "warn", "info", "debug", "trace"];
        for (word, meant) in [("wran", "warn"), ("warning", "warn"), ("information", "info"), ("errors", "error")] {
            assert_eq!(nearest(word, levels), Some(meant), "{word}");
        }
        assert_eq!(nearest("prod", ["development", "production"]), Some("production"));
        for word in ["loud", "", "7", "critical"] {
            assert_eq!(nearest(word, levels), None, "{word}");
        }
    }
}
