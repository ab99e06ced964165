//! The email address that a user logs in with.

use email_address::{EmailAddress as Syntax, Options};
use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

/// Length limit in bytes.
///
/// # Source
/// RFC 5321 §4.5.3.1.3 (a path of 256 octets, less the angle brackets).
const BYTES_MAX: usize = 254;

/// A syntactically valid address, lower-cased and in Unicode's normal form C: spellings that differ only in case or in how a
/// letter with an accent is encoded belong to one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmailAddress(String);

/// Why a text is not an [`EmailAddress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmailRefused {
    /// Over 254 bytes, before or after normalization.
    #[error("must be at most 254 bytes long")]
    TooLong,
    /// Not `local@domain.tld`.
    #[error("must be an email address like name@example.com")]
    NotAnAddress,
}

impl EmailAddress {
    /// Whitespace at either end is refused, not trimmed.
    pub fn parse(text: &str) -> Result<Self, EmailRefused> {
        if text.len() > BYTES_MAX {
            return Err(EmailRefused::TooLong);
        }
        let lower: String = text.nfc().collect::<String>().to_lowercase().nfc().collect();
        if lower.len() > BYTES_MAX {
            return Err(EmailRefused::TooLong);
        }
        let options = Options::default()
            .with_required_tld() // `root@localhost` is refused
            .without_domain_literal() // `a@[127.0.0.1]` is refused
            .without_display_text(); // `Ada <ada@example.com>` is refused
        let plain = !lower.chars().any(|c| c.is_whitespace() || c.is_control());
        match Syntax::parse_with_options(&without_marks(&lower), options) {
            Ok(_) if plain => Ok(Self(lower)),
            _ => Err(EmailRefused::NotAnAddress),
        }
    }

    /// An address that was accepted when it was stored. The rules may have become stricter since.
    pub const fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// Lower-cased, in NFC.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The address with a letter for each combining mark that belongs to a letter or digit. Many scripts need marks, such as the
/// virama of Devanagari, and RFC 6531 allows them, but the parser takes letters only. A mark elsewhere stays, and is refused.
fn without_marks(address: &str) -> String {
    let mut in_word = false;
    address
        .chars()
        .map(|c| {
            let is_mark = in_word && is_combining_mark(c);
            in_word = is_mark || (c.is_alphanumeric() && !is_combining_mark(c));
            if is_mark { 'm' } else { c }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn two_spellings_that_differ_in_case_are_one_address() {
        assert_eq!(EmailAddress::parse("Ada.Lovelace@Example.COM"), EmailAddress::parse("ada.lovelace@example.com"));
    }

    #[test]
    fn a_text_that_is_not_an_address_is_refused() {
        for text in [
            "",
            "ada",
            "@example.com",
            "ada@",
            "ada@localhost",
            "a b@example.com",
            " ada@example.com",
            "ada@example.com ",
            "ada@exa mple.com",
            "ada@[127.0.0.1]",
            "Ada <ada@example.com>",
            "ada@@example.com",
            "ada@example.com\n",
            "ada\0@example.com",
            "\"a\u{1}b\"@example.com",
            "ada@example..com",
            // The standard allows these in quotes.
            "\"a b\"@example.com",
            "\"a\u{7f}b\"@example.com",
            "\"a\tb\"@example.com",
        ] {
            assert_eq!(EmailAddress::parse(text), Err(EmailRefused::NotAnAddress), "{text:?}");
        }
    }

    #[test]
    fn combining_marks_belong_to_their_letter_and_the_address_is_in_normal_form_c() {
        for (text, normal) in [
            ("संपर्क@डाटामेल.भारत", "संपर्क@डाटामेल.भारत"),
            ("Jose\u{301}@EXA\u{301}MPLE.com", "jos\u{e9}@ex\u{e1}mple.com"),
            ("a\u{301}\u{328}@example.com", "\u{105}\u{301}@example.com"),
        ] {
            assert_eq!(EmailAddress::parse(text).map(|e| e.as_str().to_owned()), Ok(normal.to_owned()), "{text}");
        }
        for text in ["\u{301}a@example.com", "a@\u{301}b.com", "a.\u{301}@b.com", "a-\u{301}@b.com"] {
            assert_eq!(EmailAddress::parse(text), Err(EmailRefused::NotAnAddress), "{text:?}");
        }
    }

    #[test]
    fn an_address_of_254_bytes_is_accepted_and_one_of_255_is_not() {
        let domain = ["d".repeat(61), "e".repeat(61), "f".repeat(61), "com".to_owned()].join(".");
        let of = |bytes: usize| format!("{}@{domain}", "a".repeat(bytes - domain.len() - 1));
        assert_eq!(EmailAddress::parse(&of(254)).map(|e| e.as_str().len()), Ok(254));
        assert_eq!(EmailAddress::parse(&of(255)), Err(EmailRefused::TooLong));
    }

    #[test]
    fn the_length_is_checked_before_and_after_lower_casing() {
        // Two bytes that become three, and three that become one.
        for (letter, count) in [("\u{130}", 100), ("\u{212a}", 85)] {
            let text = format!("{}@example.com", letter.repeat(count));
            assert_eq!(
                EmailAddress::parse(&text),
                Err(EmailRefused::TooLong),
                "{} bytes, {}",
                text.len(),
                text.to_lowercase().len()
            );
        }
    }

    proptest! {
        #[test]
        fn normalizing_again_changes_nothing_and_nfd_is_the_same_address(text in "[\\p{L}\\p{M}]{1,20}@[\\p{L}\\p{M}]{1,10}\\.[\\p{L}]{2,5}") {
            if let Ok(once) = EmailAddress::parse(&text) {
                prop_assert_eq!(EmailAddress::parse(once.as_str()), Ok(once.clone()));
                let decomposed: String = text.nfd().collect();
                if decomposed.len() <= BYTES_MAX {
                    prop_assert_eq!(EmailAddress::parse(&decomposed), Ok(once));
                }
            }
        }

        #[test]
        fn lower_casing_again_changes_nothing(text in "[a-zA-Z0-9.]{1,20}@[a-zA-Z]{1,10}\\.[a-zA-Z]{2,5}") {
            if let Ok(once) = EmailAddress::parse(&text) {
                prop_assert_eq!(EmailAddress::parse(once.as_str()), Ok(once));
            }
        }

        #[test]
        fn the_parser_never_panics(text in any::<String>()) {
            let _ = EmailAddress::parse(&text);
        }
    }
}
