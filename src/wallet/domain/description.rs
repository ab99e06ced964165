//! The client's description of an entry.

const CHARS_MAX: usize = 255;

/// Up to 255 characters, stored exactly as sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description(String);

/// Why a text is not a [`Description`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescriptionRefused {
    /// Over 255 characters.
    #[error("must be at most 255 characters long")]
    TooLong,
    /// Contains U+0000, which PostgreSQL cannot store.
    #[error("must not contain the NUL character")]
    ContainsNul,
}

impl Description {
    /// May be empty.
    pub fn parse(text: &str) -> Result<Self, DescriptionRefused> {
        if text.contains('\0') {
            return Err(DescriptionRefused::ContainsNul);
        }
        if text.chars().count() > CHARS_MAX {
            return Err(DescriptionRefused::TooLong);
        }
        Ok(Self(text.to_owned()))
    }

    /// A description that was accepted when it was stored. The rules may have become stricter since.
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
    fn a_description_is_counted_in_characters_not_bytes() {
        let longest = "ü".repeat(255);
        assert_eq!(Description::parse(&longest).map(|d| d.as_str().to_owned()), Ok(longest), "stored as sent");
        assert_eq!(Description::parse(&"ü".repeat(256)), Err(DescriptionRefused::TooLong));
    }

    #[test]
    fn nul_is_refused_and_an_empty_description_is_accepted() {
        assert_eq!(Description::parse("a\0b"), Err(DescriptionRefused::ContainsNul));
        assert_eq!(Description::parse("").map(|d| d.as_str().len()), Ok(0));
    }
}
