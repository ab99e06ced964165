//! The password that a user chooses.

use crate::kernel::Secret;

const CHARS_MIN: usize = 8;
/// Bounds the cost of a hash.
const BYTES_MAX: usize = 1024;

/// A password that is valid for a new account. Used exactly as sent: not trimmed, not normalized, not truncated.
///
/// # Source
/// OWASP ASVS 5.0 §6.2.1, §6.2.8, §6.2.9.
#[derive(Clone, Debug)]
pub struct Password(Secret);

/// Why a text is not a [`Password`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordRefused {
    /// Under 8 characters.
    #[error("must be at least 8 characters long")]
    TooShort,
    /// Over 1,024 bytes.
    #[error("must be at most 1024 bytes long")]
    TooLong,
    /// Contains U+0000.
    #[error("must not contain the NUL character")]
    ContainsNul,
}

impl Password {
    /// Checks length and characters; whether it is a good password is not checked.
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

    /// To compare it with a hash.
    pub fn into_secret(self) -> Secret {
        self.0
    }

    /// For the hasher only.
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
    fn a_password_of_1024_bytes_is_accepted_and_one_of_1025_is_not() {
        assert_eq!(refused(&"a".repeat(1024)), None);
        assert_eq!(refused(&"a".repeat(1025)), Some(PasswordRefused::TooLong));
    }

    #[test]
    fn whitespace_at_the_ends_belongs_to_the_password() {
        assert_eq!(Password::parse("  spaced  ").map(|p| p.expose().to_owned()), Ok("  spaced  ".to_owned()));
    }

    #[test]
    fn a_nul_character_has_an_error_of_its_own() {
        assert_eq!(refused("1234\u{0}5678"), Some(PasswordRefused::ContainsNul));
    }
}
