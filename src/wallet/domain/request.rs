//! The identity of a request: its idempotency key, and a digest that distinguishes another request under the same key.

use ring::digest::{Context, SHA256};

use crate::kernel::IdempotencyKey;
use crate::wallet::domain::texts::{sha256, update_optional};
use crate::wallet::domain::{Act, AmountMinor, Direction, Draft, OneOrMore};

/// The first 16 bytes of the SHA-256 of a request's parsed fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestDigest([u8; 16]);

impl RequestDigest {
    /// Whitespace and the order of fields in the body do not matter, nor what the server has chosen.
    pub fn of(drafts: &OneOrMore<Draft>) -> Self {
        let mut hash = Context::new(&SHA256);
        hash.update(b"purse.request.v1\n");
        if drafts.count() > 1 {
            hash.update(&[GROUP]);
            hash.update(&u32::try_from(drafts.count()).unwrap_or(u32::MAX).to_be_bytes());
        }
        for draft in drafts.iter() {
            update_with_act(&mut hash, &draft.act);
            for text in draft.texts.as_ref().map_or([None; 3], |salted| salted.texts.parts()) {
                update_optional(&mut hash, text);
            }
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

/// The first byte of a request for a group; the others are in [`update_with_act`].
const GROUP: u8 = 8;

/// The kind of the act in one byte, and its fields in a fixed order. A stored digest never changes its meaning.
fn update_with_act(hash: &mut Context, act: &Act) {
    let optional_amount = |hash: &mut Context, amount: Option<AmountMinor>| {
        hash.update(&amount.map_or(0, AmountMinor::cents).to_be_bytes());
    };
    match act {
        Act::Post { direction, amount } => {
            hash.update(&[match direction {
                Direction::Credit => 1,
                Direction::Debit => 2,
            }]);
            hash.update(&amount.cents().to_be_bytes());
        }
        Act::Transfer { amount, recipient, .. } => {
            hash.update(&[3]);
            hash.update(&amount.cents().to_be_bytes());
            hash.update(recipient.as_uuid().as_bytes());
        }
        Act::Hold { amount, lifetime } => {
            hash.update(&[4]);
            hash.update(&amount.cents().to_be_bytes());
            hash.update(&lifetime.seconds().to_be_bytes());
        }
        Act::Capture { hold, amount, is_final } => {
            hash.update(&[5]);
            hash.update(hold.as_uuid().as_bytes());
            optional_amount(hash, *amount);
            hash.update(&[u8::from(*is_final)]);
        }
        Act::Void { hold } => {
            hash.update(&[6]);
            hash.update(hold.as_uuid().as_bytes());
        }
        Act::Reverse { entry, amount, .. } => {
            hash.update(&[7]);
            hash.update(entry.as_uuid().as_bytes());
            optional_amount(hash, *amount);
        }
        // No request asks for it.
        Act::ExpireDue => hash.update(&[0]),
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
    use crate::kernel::{EntryId, UserId};
    use crate::wallet::domain::texts::tests::{SALT, hex};
    use crate::wallet::domain::{Description, HoldLifetime, OtherLeg, Reference, Salt, Texts};
    use uuid::Uuid;

    fn id(n: u128) -> EntryId {
        EntryId::from_uuid(Uuid::from_u128(n))
    }

    fn cents(cents: i64) -> AmountMinor {
        AmountMinor::try_new(cents).expect("amount")
    }

    fn draft(act: Act, description: Option<&str>, reference: Option<&str>) -> Draft {
        let texts = Texts {
            description: description.map(|text| Description::parse(text).expect("a description")),
            reference: reference.map(|text| Reference::parse(text).expect("a reference")),
            metadata: None,
        };
        Draft { id: id(1), act, texts: texts.salted(|| SALT) }
    }

    fn post(direction: Direction, amount: i64, description: Option<&str>) -> Draft {
        draft(Act::Post { direction, amount: cents(amount) }, description, None)
    }

    fn digest(draft: Draft) -> RequestDigest {
        RequestDigest::of(&draft.into())
    }

    #[test]
    fn two_requests_have_the_same_digest_only_if_every_field_is_the_same() {
        let transfer = |amount, recipient, leg| Act::Transfer {
            amount: cents(amount),
            recipient: UserId::from_uuid(Uuid::from_u128(recipient)),
            recipient_exists: leg > 1,
            leg: OtherLeg { id: id(leg), salt: SALT },
        };
        let hold = |amount, seconds| Act::Hold {
            amount: cents(amount),
            lifetime: HoldLifetime::try_new(seconds).expect("a lifetime"),
        };
        let capture =
            |hold, amount: Option<i64>, is_final| Act::Capture { hold: id(hold), amount: amount.map(cents), is_final };
        let reverse =
            |entry, amount: Option<i64>| Act::Reverse { entry: id(entry), amount: amount.map(cents), back: None };
        let act = |act| draft(act, None, None);
        let distinct = [
            post(Direction::Credit, 5, Some("a")),
            post(Direction::Debit, 5, Some("a")),
            post(Direction::Credit, 6, Some("a")),
            post(Direction::Credit, 5, Some("b")),
            post(Direction::Credit, 5, Some("")),
            post(Direction::Credit, 5, None),
            draft(Act::Post { direction: Direction::Credit, amount: cents(5) }, None, Some("a")),
            draft(Act::Post { direction: Direction::Credit, amount: cents(5) }, Some("a"), Some("a")),
            act(transfer(5, 7, 1)),
            act(transfer(6, 7, 1)),
            act(transfer(5, 8, 1)),
            act(hold(5, 60)),
            act(hold(6, 60)),
            act(hold(5, 61)),
            act(capture(7, None, true)),
            act(capture(8, None, true)),
            act(capture(7, Some(5), true)),
            act(capture(7, Some(5), false)),
            act(Act::Void { hold: id(7) }),
            act(Act::Void { hold: id(8) }),
            act(reverse(7, None)),
            act(reverse(8, None)),
            act(reverse(7, Some(5))),
        ];
        let digests: std::collections::HashSet<_> = distinct.iter().map(|d| *digest(d.clone()).as_bytes()).collect();
        assert_eq!(digests.len(), distinct.len());
        let group = |drafts: &[Draft]| RequestDigest::of(&OneOrMore::collect(drafts.iter().cloned()).expect("a draft"));
        let [a, b, c, ..] = &distinct;
        let group = |drafts: &[&Draft]| *group(&drafts.iter().map(|d| (*d).clone()).collect::<Vec<_>>()).as_bytes();
        let groups: std::collections::HashSet<_> =
            [group(&[a, b]), group(&[b, a]), group(&[a, b, c]), group(&[a, a])].into_iter().collect();
        assert!(groups.len() == 4 && groups.is_disjoint(&digests));
    }

    #[test]
    fn what_the_server_chose_is_not_part_of_the_digest() {
        let salted = |n: u128, salt| {
            let texts = Texts::of_description(Some(Description::parse("a").expect("a description")));
            let leg = OtherLeg { id: id(n), salt };
            let act = Act::Transfer {
                amount: cents(5),
                recipient: UserId::from_uuid(Uuid::nil()),
                recipient_exists: n == 1,
                leg,
            };
            Draft { id: id(n), act, texts: texts.salted(|| salt) }
        };
        assert_eq!(digest(salted(1, SALT)), digest(salted(2, Salt::new([7; 16]))));
    }

    #[test]
    fn a_stored_digest_never_changes_its_meaning() {
        assert_eq!(
            hex(digest(post(Direction::Credit, 1500, Some("first deposit"))).as_bytes()),
            "35e0c2502e4f4b0943f9eaa2526af6c1"
        );
        assert_eq!(RequestDigest::from_stored(&[1; 16]).map(|digest| *digest.as_bytes()), Some([1; 16]));
        assert_eq!(RequestDigest::from_stored(&[1; 15]), None);
    }
}
