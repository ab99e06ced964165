//! The client's own key-value pairs of an entry.

use std::collections::BTreeMap;

const PAIRS_MAX: usize = 20;
const KEY_CHARS_MAX: usize = 40;
const VALUE_CHARS_MAX: usize = 255;
const BYTES_MAX: usize = 4_096;

/// 1 to 20 pairs as canonical JSON: keys sorted by their bytes, no whitespace. This text is what is stored and hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata(String);

/// Why pairs are not [`Metadata`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataRefused {
    #[error("must have 1 to 20 keys")]
    Count,
    #[error("must have keys of 1 to 40 letters, digits, '_', '.' and '-'")]
    Key,
    #[error("must have values of at most 255 characters without control characters")]
    Value,
    #[error("must be at most 4096 bytes long in canonical form")]
    TooLong,
}

impl Metadata {
    /// # Errors
    /// [`MetadataRefused`].
    pub fn new(pairs: &BTreeMap<String, String>) -> Result<Self, MetadataRefused> {
        if !(1..=PAIRS_MAX).contains(&pairs.len()) {
            return Err(MetadataRefused::Count);
        }
        if !pairs.keys().all(|key| Self::is_key(key)) {
            return Err(MetadataRefused::Key);
        }
        let fits = |value: &String| value.chars().count() <= VALUE_CHARS_MAX && !value.chars().any(char::is_control);
        if !pairs.values().all(fits) {
            return Err(MetadataRefused::Value);
        }
        // A map of texts always serializes.
        let canonical = serde_json::to_string(pairs).unwrap_or_default();
        if canonical.len() > BYTES_MAX { Err(MetadataRefused::TooLong) } else { Ok(Self(canonical)) }
    }

    /// Whether a pair may have this key.
    pub fn is_key(key: &str) -> bool {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        (1..=KEY_CHARS_MAX).contains(&key.len()) && key.bytes().all(allowed)
    }

    /// Metadata that was accepted when it was stored. The rules may have become stricter since.
    pub const fn from_stored(canonical: String) -> Self {
        Self(canonical)
    }

    /// Canonical JSON.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One pair as it is in canonical JSON. Metadata has the pair exactly if its canonical form contains this text: a key has no
/// character that JSON escapes, and a quote within a value is escaped, so that `"key":` is only where a pair begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataPair(String);

impl MetadataPair {
    /// # Errors
    /// [`MetadataRefused`] for a pair that no [`Metadata`] has.
    pub fn new(key: &str, value: &str) -> Result<Self, MetadataRefused> {
        let pair = Metadata::new(&[(key.to_owned(), value.to_owned())].into())?;
        let within = pair.0.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        Ok(Self(within.unwrap_or_default().to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(pairs: &[(&str, &str)]) -> Result<String, MetadataRefused> {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Metadata::new(&pairs).map(|metadata| metadata.as_str().to_owned())
    }

    #[test]
    fn the_canonical_form_is_sorted_and_has_no_whitespace() {
        assert_eq!(of(&[("b", "2"), ("a", "ü \" \\ /")]), Ok(r#"{"a":"ü \" \\ /","b":"2"}"#.to_owned()));
        assert_eq!(of(&[("a", ""), ("B.1_x-y", "z")]), Ok(r#"{"B.1_x-y":"z","a":""}"#.to_owned()));
    }

    #[test]
    fn every_limit_is_named() {
        let long = "v".repeat(256);
        let many: Vec<String> = (0..21).map(|n| format!("k{n}")).collect();
        let pairs = |count: usize| many.iter().take(count).map(|key| (key.as_str(), "")).collect::<Vec<_>>();
        assert!(of(&pairs(20)).is_ok());
        assert_eq!(of(&pairs(21)), Err(MetadataRefused::Count));
        assert_eq!(of(&[]), Err(MetadataRefused::Count));
        for key in ["", "a b", "ü", "a/b", &"k".repeat(41)] {
            assert_eq!(of(&[(key, "")]), Err(MetadataRefused::Key), "{key:?}");
        }
        for value in ["a\nb", "\0", "\u{7f}", &long] {
            assert_eq!(of(&[("a", value)]), Err(MetadataRefused::Value), "{value:?}");
        }
        assert!(of(&[("a", &"ü".repeat(255))]).is_ok());
        let wide = "😀".repeat(250);
        let large: Vec<_> = ["a", "b", "c", "d"].into_iter().map(|key| (key, wide.as_str())).collect();
        assert!(of(&large).is_ok(), "4 values of 1,000 bytes");
        let larger: Vec<_> = ["a", "b", "c", "d", "e"].into_iter().map(|key| (key, wide.as_str())).collect();
        assert_eq!(of(&larger), Err(MetadataRefused::TooLong));
    }

    #[test]
    fn a_pair_is_not_found_within_keys_or_values_that_look_like_it() {
        let pair = MetadataPair::new("a", "1").expect("a pair");
        assert_eq!(pair.as_str(), r#""a":"1""#);
        let has = |pairs: &[(&str, &str)]| of(pairs).expect("metadata").contains(pair.as_str());
        assert!(has(&[("a", "1")]) && has(&[("0", "x"), ("a", "1"), ("b", "y")]));
        for other in
            [("aa", "1"), ("a", "11"), ("a", "1\""), ("b", "\"a\":\"1\""), ("b", "a\":\"1"), ("b", "\\\"a\":\"1\"")]
        {
            assert!(!has(&[other]), "{other:?}");
        }
        let braces = MetadataPair::new("b", "{}}").expect("a pair");
        assert!(of(&[("b", "{}}")]).expect("metadata").contains(braces.as_str()));
        assert!(!of(&[("b", "{")]).expect("metadata").contains(braces.as_str()));
        assert_eq!(MetadataPair::new("a b", "1"), Err(MetadataRefused::Key));
    }

    proptest! {
        #[test]
        fn metadata_contains_exactly_its_own_pairs(
            pairs in proptest::collection::btree_map("[ab.]{1,2}", r#"[ab":,{}\\]{0,5}"#, 1..5),
            key in "[ab.]{1,2}",
            value in r#"[ab":,{}\\]{0,5}"#,
        ) {
            let canonical = Metadata::new(&pairs).expect("metadata");
            let pair = MetadataPair::new(&key, &value).expect("a pair");
            prop_assert_eq!(canonical.as_str().contains(pair.as_str()), pairs.get(&key) == Some(&value));
            for (key, value) in &pairs {
                let own = MetadataPair::new(key, value).expect("a pair");
                prop_assert!(canonical.as_str().contains(own.as_str()));
            }
        }
    }
}
