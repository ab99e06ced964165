//! The texts of an entry, which are stored apart from it and can be erased; the entry has only their digest.

use ring::digest::{Context, SHA256};

use crate::wallet::domain::{Description, Metadata, Reference};

/// 16 random bytes, so that nobody can guess an erased text and compare its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Salt([u8; 16]);

impl Salt {
    /// The caller guarantees that nobody can predict `bytes`.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// As stored.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// What the client wrote on an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    /// A note for the user.
    pub description: Option<Description>,
    /// The client's own reference; not unique.
    pub reference: Option<Reference>,
    /// The client's own key-value pairs.
    pub metadata: Option<Metadata>,
}

impl Texts {
    /// Only with a description.
    pub const fn of_description(description: Option<Description>) -> Self {
        Self { description, reference: None, metadata: None }
    }

    /// Whether there is no text.
    pub const fn is_empty(&self) -> bool {
        self.description.is_none() && self.reference.is_none() && self.metadata.is_none()
    }

    /// Whoever stores or hashes them does so in this order.
    pub fn parts(&self) -> [Option<&str>; 3] {
        [
            self.description.as_ref().map(Description::as_str),
            self.reference.as_ref().map(Reference::as_str),
            self.metadata.as_ref().map(Metadata::as_str),
        ]
    }

    /// `None` without any text. `salt` is called only if there is one.
    pub fn salted(self, salt: impl FnOnce() -> Salt) -> Option<SaltedTexts> {
        if self.is_empty() { None } else { Some(SaltedTexts { salt: salt(), texts: self }) }
    }
}

/// The texts of a new entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaltedTexts {
    /// Erased together with the texts.
    pub salt: Salt,
    /// At least one.
    pub texts: Texts,
}

impl SaltedTexts {
    /// What the entry keeps of them.
    pub fn digest(&self) -> TextsDigest {
        TextsDigest::of(self.salt, self.texts.parts())
    }
}

/// The SHA-256 of the texts of an entry and of their salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextsDigest([u8; 32]);

impl TextsDigest {
    /// The texts are the description, the reference and the metadata as canonical JSON. Each is prefixed with its length, so
    /// that no two lists of texts are hashed alike.
    pub(super) fn of(salt: Salt, texts: [Option<&str>; 3]) -> Self {
        let mut hash = Context::new(&SHA256);
        hash.update(b"purse.texts.v1\n");
        hash.update(&salt.0);
        for text in texts {
            update_optional(&mut hash, text);
        }
        Self(sha256(hash))
    }

    /// `None` unless there are 32 bytes.
    pub fn from_stored(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// As stored.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// `00` for no text, else `01`, the length in four bytes, and the text.
pub(super) fn update_optional(hash: &mut Context, text: Option<&str>) {
    match text {
        None => hash.update(&[0]),
        Some(text) => {
            hash.update(&[1]);
            hash.update(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
            hash.update(text.as_bytes());
        }
    }
}

/// The 32 bytes of a SHA-256.
pub(super) fn sha256(hash: Context) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (to, from) in bytes.iter_mut().zip(hash.finish().as_ref()) {
        *to = *from;
    }
    bytes
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::wallet::domain) fn hex(bytes: &[u8]) -> String {
        use std::fmt::Write as _;
        bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("written");
            text
        })
    }

    /// 00 to 0f.
    pub(in crate::wallet::domain) const SALT: Salt = Salt::new([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);

    #[test]
    fn the_digest_of_texts_is_that_of_the_reference_implementation() {
        let digest = |texts| hex(TextsDigest::of(SALT, texts).as_bytes());
        assert_eq!(
            digest([Some("first deposit"), Some("order-17"), Some(r#"{"a":"ü","b":"2"}"#)]),
            "96d5f43f67d8e91bcebe92cf37144230b40e8a9fe4f54c6bf8b2ed184337378f"
        );
        let description = Description::parse("first deposit").expect("a description");
        let texts = Texts::of_description(Some(description)).salted(|| SALT).expect("a text");
        assert_eq!(hex(texts.digest().as_bytes()), digest([Some("first deposit"), None, None]));
        assert_eq!(Texts::default().salted(|| SALT), None);
    }

    #[test]
    fn no_two_lists_of_texts_have_one_digest() {
        let digests = [
            [Some("a"), Some("bc"), None],
            [Some("ab"), Some("c"), None],
            [Some("abc"), None, None],
            [None, Some("abc"), None],
            [Some("abc"), Some(""), None],
            [Some("abc"), None, Some("")],
            [Some("a\u{1}b"), Some("c"), None],
            [Some("a"), Some("b\u{1}c"), None],
        ]
        .map(|texts| hex(TextsDigest::of(SALT, texts).as_bytes()));
        let distinct: std::collections::BTreeSet<_> = digests.iter().collect();
        assert_eq!(distinct.len(), digests.len());
        let salted = TextsDigest::of(Salt::new([7; 16]), [Some("abc"), None, None]);
        assert!(!digests.contains(&hex(salted.as_bytes())), "the salt is part of it");
    }
}
