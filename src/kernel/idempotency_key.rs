//! The key that makes a request safe to retry.

const CHARS_MAX: usize = 128;

/// 1 to 128 visible ASCII characters. The scope of a transaction's key is its user, and that of a registration's the service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdempotencyKey(String);

/// The text is not an [`IdempotencyKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 128 visible ASCII characters")]
pub struct KeyRefused;

impl IdempotencyKey {
    /// # Errors
    /// [`KeyRefused`] if it is empty, too long, or has whitespace, control or non-ASCII characters.
    pub fn parse(text: &str) -> Result<Self, KeyRefused> {
        let fits = (1..=CHARS_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if fits { Ok(Self(text.to_owned())) } else { Err(KeyRefused) }
    }

    /// A key that was accepted when it was stored. The rules may have become stricter since.
    pub const fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// Exactly as sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_to_128_visible_ascii_characters() {
        for valid in ["!~", &"k".repeat(128)] {
            assert_eq!(IdempotencyKey::parse(valid).map(|key| key.as_str().to_owned()), Ok(valid.to_owned()));
        }
        for refused in ["", " ", "a b", "a\tb", "ü", "a\u{7f}", &"k".repeat(129)] {
            assert_eq!(IdempotencyKey::parse(refused), Err(KeyRefused), "{refused:?}");
        }
    }
}
