//! A password as a person chose it.

use crate::kernel::Secret;

/// Fewest characters.
const CHARS_MIN: usize = 8;
/// Most bytes: beyond it, hashing would be a way to keep us busy.
const BYTES_MAX: usize = 1024;

/// A password that may become an account's. Taken exactly as sent: no trimming, no folding, no truncation.
///
/// # Source
/// OWASP ASVS 5.0 §6.2.1, §6.2.8, §6.2.9.
#[derive(Clone, Debug)]
pub struct Password(Secret);

/// Why a text cannot become a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordRefused {
    /// Under 8 characters.
    #[error("must be at least 8 characters long")]
    TooShort,
    /// Over 1,024 bytes.
    #[error("must be at most 1024 bytes long")]
    TooLong,
    /// Holds U+0000.
    #[error("must not contain the NUL character")]
    ContainsNul,
}

impl Password {
    /// Takes a text as a password.
    ///
    /// # Errors
    /// [`PasswordRefused`] with the rule that was broken.
    pub fn parse(text: &str) -> Result<Self, PasswordRefused> {
        if text.len() > BYTES_MAX {
            return Err(PasswordRefused::TooLong);
        }
        if text.contains('\0') {
            return Err(PasswordRefused::ContainsNul);
        }
        if text.chars().count() < CHARS_MIN {
            return Err(PasswordRefused::TooShort);
        }
        Ok(Self(Secret::new(text)))
    }

    /// The text, for the hasher alone.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> Option<PasswordRefused> {
        Password::parse(text).err()
    }

    #[test]
    fn eight_characters_are_enough_and_seven_are_not() {
        assert_eq!(refused("12345678"), None);
        assert_eq!(refused("1234567"), Some(PasswordRefused::TooShort));
        assert_eq!(refused("üüüüüüü"), Some(PasswordRefused::TooShort), "14 bytes, but 7 characters");
    }

    #[test]
    fn a_password_of_1024_bytes_is_taken_and_one_of_1025_is_not() {
        assert_eq!(refused(&"a".repeat(1024)), None);
        assert_eq!(refused(&"a".repeat(1025)), Some(PasswordRefused::TooLong));
    }

    #[test]
    fn blanks_at_the_ends_belong_to_the_password() {
        assert_eq!(Password::parse("  spaced  ").map(|p| p.expose().to_owned()), Ok("  spaced  ".to_owned()));
    }

    #[test]
    fn nul_is_refused_by_its_own_name() {
        assert_eq!(refused("1234\u{0}5678"), Some(PasswordRefused::ContainsNul));
    }
}
