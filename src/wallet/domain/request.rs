//! The identity of a request: its idempotency key, and a digest that tells another request under the same key.

use ring::digest::{Context, SHA256};

use crate::kernel::IdempotencyKey;
use crate::wallet::domain::texts::{sha256, update_optional};
use crate::wallet::domain::{AmountMinor, Description, Direction};

/// The first 16 bytes of the SHA-256 of a request's parsed fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestDigest([u8; 16]);

impl RequestDigest {
    /// A credit or debit. Whitespace and the order of fields in the body do not matter.
    pub fn of_post(direction: Direction, amount: AmountMinor, description: Option<&Description>) -> Self {
        let mut hash = Context::new(&SHA256);
        hash.update(b"purse.request.v1\n");
        hash.update(&[match direction {
            Direction::Credit => 1,
            Direction::Debit => 2,
        }]);
        hash.update(&amount.cents().to_be_bytes());
        // Reference and metadata have their places, so that requests without them keep their digest.
        for text in [description.map(Description::as_str), None, None] {
            update_optional(&mut hash, text);
        }
        let mut digest = [0; 16];
        for (to, from) in digest.iter_mut().zip(sha256(hash)) {
            *to = from;
        }
        Self(digest)
    }

    /// `None` unless there are 16 bytes.
    pub fn from_stored(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// As stored.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// A request that may be repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyedRequest {
    /// A retry has the same key.
    pub key: IdempotencyKey,
    /// A retry has the same digest.
    pub digest: RequestDigest,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(direction: Direction, cents: i64, description: Option<&str>) -> RequestDigest {
        let description = description.map(|text| Description::parse(text).expect("a description"));
        RequestDigest::of_post(direction, AmountMinor::try_new(cents).expect("amount"), description.as_ref())
    }

    #[test]
    fn two_requests_have_the_same_digest_only_if_every_field_is_the_same() {
        let one = digest(Direction::Credit, 5, Some("a"));
        assert_eq!(one, digest(Direction::Credit, 5, Some("a")));
        for other in [
            digest(Direction::Debit, 5, Some("a")),
            digest(Direction::Credit, 6, Some("a")),
            digest(Direction::Credit, 5, Some("b")),
            digest(Direction::Credit, 5, Some("")),
            digest(Direction::Credit, 5, None),
        ] {
            assert_ne!(one, other);
        }
        assert_ne!(digest(Direction::Credit, 5, Some("")), digest(Direction::Credit, 5, None));
    }

    #[test]
    fn a_stored_digest_never_changes_its_meaning() {
        use crate::wallet::domain::texts::tests::hex;
        assert_eq!(
            hex(digest(Direction::Credit, 1500, Some("first deposit")).as_bytes()),
            "35e0c2502e4f4b0943f9eaa2526af6c1"
        );
        assert_eq!(RequestDigest::from_stored(&[1; 16]).map(|digest| *digest.as_bytes()), Some([1; 16]));
        assert_eq!(RequestDigest::from_stored(&[1; 15]), None);
    }
}
