//! The name of a back end that acts on behalf of users.

use std::fmt;

const CHARS_MAX: usize = 32;

/// 1 to 32 of `a-z 0-9 -`: the `iss` of a service token, and `posted_by` of the entries that the service posts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(String);

/// The text is not a [`ServiceName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 32 characters of a-z, 0-9 and -")]
pub struct ServiceNameRefused;

impl ServiceName {
    /// # Errors
    /// [`ServiceNameRefused`].
    pub fn parse(text: &str) -> Result<Self, ServiceNameRefused> {
        let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        let fits = (1..=CHARS_MAX).contains(&text.len()) && text.bytes().all(plain);
        if fits { Ok(Self(text.to_owned())) } else { Err(ServiceNameRefused) }
    }

    /// A name that was accepted when it was stored. The rules may have become stricter since.
    pub const fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// As sent and stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_name_is_one_to_32_lower_case_letters_digits_and_hyphens() {
        for valid in ["a", "payments", "shop-2", "-", &"s".repeat(32)] {
            assert_eq!(ServiceName::parse(valid).map(|name| name.to_string()), Ok(valid.to_owned()));
        }
        for refused in ["", "Payments", "a b", "a_b", "a.b", "ü", "a\n", &"s".repeat(33)] {
            assert_eq!(ServiceName::parse(refused), Err(ServiceNameRefused), "{refused:?}");
        }
    }
}
