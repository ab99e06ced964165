//! The client's own reference of an entry.

const CHARS_MAX: usize = 64;

/// 1 to 64 characters, stored exactly as sent. Not unique: a hold, its captures and their reversals may share one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference(String);

/// Why a text is not a [`Reference`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceRefused {
    /// Empty, or over 64 characters.
    #[error("must be 1 to 64 characters long")]
    Length,
    #[error("must not contain control characters")]
    Control,
}

impl Reference {
    /// # Errors
    /// [`ReferenceRefused`].
    pub fn parse(text: &str) -> Result<Self, ReferenceRefused> {
        if text.chars().any(char::is_control) {
            return Err(ReferenceRefused::Control);
        }
        if !(1..=CHARS_MAX).contains(&text.chars().count()) {
            return Err(ReferenceRefused::Length);
        }
        Ok(Self(text.to_owned()))
    }

    /// A reference that was accepted when it was stored. The rules may have become stricter since.
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
    fn a_reference_has_1_to_64_characters_and_no_control_character() {
        for valid in ["a", "order 17", &"ü".repeat(64)] {
            assert_eq!(Reference::parse(valid).map(|text| text.as_str().to_owned()), Ok(valid.to_owned()));
        }
        for (text, refused) in [
            ("", ReferenceRefused::Length),
            (&"ü".repeat(65), ReferenceRefused::Length),
            ("a\nb", ReferenceRefused::Control),
            ("a\0", ReferenceRefused::Control),
            ("\u{85}", ReferenceRefused::Control),
        ] {
            assert_eq!(Reference::parse(text), Err(refused), "{text:?}");
        }
    }
}
