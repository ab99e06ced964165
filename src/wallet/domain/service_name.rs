//! The name of a trusted back end.

const CHARS_MAX: usize = 32;

/// 1 to 32 lower-case letters, digits and hyphens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(String);

/// The text is not a [`ServiceName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 32 lower-case letters, digits and hyphens")]
pub struct ServiceNameRefused;

impl ServiceName {
    /// # Errors
    /// [`ServiceNameRefused`] if it is empty, too long, or has any other character.
    pub fn parse(text: &str) -> Result<Self, ServiceNameRefused> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let fits = (1..=CHARS_MAX).contains(&text.len()) && text.bytes().all(allowed);
        if fits { Ok(Self(text.to_owned())) } else { Err(ServiceNameRefused) }
    }

    /// A name that was accepted when it was stored. The rules may have become stricter since.
    pub const fn from_stored(text: String) -> Self {
        Self(text)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_has_a_short_name_of_lower_case_letters_digits_and_hyphens() {
        for valid in ["a", "payments", "shop-2", &"s".repeat(32)] {
            assert_eq!(ServiceName::parse(valid).map(|name| name.as_str().to_owned()), Ok(valid.to_owned()));
        }
        for refused in ["", "Payments", "a b", "a_b", "ü", &"s".repeat(33)] {
            assert_eq!(ServiceName::parse(refused), Err(ServiceNameRefused), "{refused:?}");
        }
    }
}
