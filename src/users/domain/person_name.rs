//! A first or last name.

const CHARS_MAX: usize = 100;

/// A trimmed name of 1 to 100 characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersonName(String);

/// Why a text is not a [`PersonName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameRefused {
    /// Empty after trimming.
    #[error("must not be blank")]
    Blank,
    /// Over 100 characters after trimming.
    #[error("must be at most 100 characters long")]
    TooLong,
    /// A NUL, line break or other control character.
    #[error("must not contain control characters")]
    ControlCharacter,
}

impl PersonName {
    /// Trims the name.
    pub fn parse(text: &str) -> Result<Self, NameRefused> {
        let name = text.trim();
        if name.is_empty() {
            return Err(NameRefused::Blank);
        }
        if name.chars().count() > CHARS_MAX {
            return Err(NameRefused::TooLong);
        }
        if name.chars().any(char::is_control) {
            return Err(NameRefused::ControlCharacter);
        }
        Ok(Self(name.to_owned()))
    }

    /// A name that was accepted when it was stored. The rules may have become stricter since.
    pub const fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// Trimmed.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_trimmed() {
        assert_eq!(PersonName::parse("  Ada ").map(|n| n.as_str().to_owned()), Ok("Ada".to_owned()));
    }

    #[test]
    fn a_name_is_counted_in_characters_not_bytes() {
        assert!(PersonName::parse(&"ü".repeat(100)).is_ok());
        assert_eq!(PersonName::parse(&"ü".repeat(101)), Err(NameRefused::TooLong));
    }

    #[test]
    fn blank_names_and_control_characters_are_refused() {
        assert_eq!(PersonName::parse(" \t "), Err(NameRefused::Blank));
        assert_eq!(PersonName::parse(""), Err(NameRefused::Blank));
        assert_eq!(PersonName::parse("A\u{0}da"), Err(NameRefused::ControlCharacter));
        assert_eq!(PersonName::parse("A\nda"), Err(NameRefused::ControlCharacter));
    }
}
