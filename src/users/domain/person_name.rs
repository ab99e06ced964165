//! A first or last name.

use unicode_normalization::char::is_combining_mark;

const CHARS_MAX: usize = 100;

/// Characters that show nothing, beside whitespace, control characters and combining marks: the default ignorable ones, the
/// annotation marks, and the empty Braille pattern.
///
/// # Source
/// `DerivedCoreProperties.txt` of Unicode 17, `Default_Ignorable_Code_Point`.
const INVISIBLE: [std::ops::RangeInclusive<char>; 18] = [
    '\u{ad}'..='\u{ad}',
    '\u{34f}'..='\u{34f}',
    '\u{61c}'..='\u{61c}',
    '\u{115f}'..='\u{1160}',
    '\u{17b4}'..='\u{17b5}',
    '\u{180b}'..='\u{180f}',
    '\u{200b}'..='\u{200f}',
    '\u{202a}'..='\u{202e}',
    '\u{2060}'..='\u{206f}',
    '\u{2800}'..='\u{2800}',
    '\u{3164}'..='\u{3164}',
    '\u{fe00}'..='\u{fe0f}',
    '\u{feff}'..='\u{feff}',
    '\u{ffa0}'..='\u{ffa0}',
    '\u{fff0}'..='\u{fffb}',
    '\u{1bca0}'..='\u{1bca3}',
    '\u{1d173}'..='\u{1d17a}',
    '\u{e0000}'..='\u{e0fff}',
];

/// Whether a character shows something by itself.
fn is_visible(c: char) -> bool {
    !(c.is_whitespace() || c.is_control() || is_combining_mark(c) || INVISIBLE.iter().any(|range| range.contains(&c)))
}

/// A trimmed name of 1 to 100 characters, at least one of them visible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersonName(String);

/// Why a text is not a [`PersonName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameRefused {
    /// Without a visible character.
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
        if name.chars().count() > CHARS_MAX {
            return Err(NameRefused::TooLong);
        }
        if name.chars().any(char::is_control) {
            return Err(NameRefused::ControlCharacter);
        }
        if !name.chars().any(is_visible) {
            return Err(NameRefused::Blank);
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

    #[test]
    fn a_name_without_a_visible_character_is_blank() {
        for invisible in ["\u{200b}", "\u{2060}", "\u{feff}", "\u{ad}", "\u{301}", "\u{93f}", "\u{3164}", "\u{2800}"] {
            assert_eq!(PersonName::parse(invisible), Err(NameRefused::Blank), "{invisible:?}");
            let name = format!("A{invisible}");
            assert_eq!(PersonName::parse(&name).map(|n| n.as_str().to_owned()), Ok(name), "kept as sent");
        }
        for visible in ["-", "李", "😀", "\u{e9}", "\u{600}"] {
            assert!(PersonName::parse(visible).is_ok(), "{visible:?}");
        }
    }
}
