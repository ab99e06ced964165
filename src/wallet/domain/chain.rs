//! The hash chain of a wallet. The hash of each entry covers the entry and the hash of the entry before it, so that nobody
//! can change, remove or insert an entry without changing every later hash.
//!
//! The format is fixed: binary, big-endian, each optional part announced by a flag. `ledger verify` computes it a second time,
//! in SQL.

use ring::digest::{Context, SHA256};

use crate::kernel::{EntryId, Timestamp, UserId};
use crate::wallet::domain::texts::sha256;
use crate::wallet::domain::{Balance, EntryKind, KeyedRequest, TextsDigest};

/// The earlier entry on which an entry acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The sequence number of that entry.
    pub seq: i64,
    /// How many acts on it there are with this one.
    pub nth: i32,
    /// Cents of it that are left.
    pub left: i64,
}

/// The transfer of which an entry is one leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferLeg {
    /// The id of the sender's entry.
    pub transfer: EntryId,
    /// The owner of the wallet with the other leg.
    pub counterparty: UserId,
}

/// Everything that the hash of an entry covers besides the hash before it.
#[derive(Clone, Copy, Debug)]
pub struct HashedEntry<'a> {
    /// The owner of the wallet.
    pub user_id: UserId,
    /// The sequence number in the wallet.
    pub seq: i64,
    /// Unique in the whole ledger.
    pub id: EntryId,
    /// What the entry does.
    pub kind: EntryKind,
    /// In cents; 0 only where the wallet is closed.
    pub amount: i64,
    /// After this entry.
    pub balance_after: Balance,
    /// After this entry, of that balance.
    pub held_after: Balance,
    /// Microseconds are hashed, which is what the database stores.
    pub created_at: Timestamp,
    /// Only of captures, voids, expiries and reversals.
    pub origin: Option<Origin>,
    /// Only of the legs of transfers.
    pub transfer: Option<TransferLeg>,
    /// Only of a hold.
    pub expires_at: Option<Timestamp>,
    /// Only with an idempotency key.
    pub request: Option<&'a KeyedRequest>,
    /// The texts themselves can be erased.
    pub texts: Option<TextsDigest>,
    /// Only of the first entry of an atomic group.
    pub group_size: Option<i16>,
    /// The service that posted it on behalf of the user.
    pub posted_by: Option<&'a str>,
}

/// The hash of an entry, or what stands for it before the first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHash([u8; 32]);

impl EntryHash {
    /// Before the first entry of a wallet.
    pub fn genesis(user: UserId) -> Self {
        let mut hash = Context::new(&SHA256);
        hash.update(b"purse.genesis.v1\n");
        hash.update(user.as_uuid().as_bytes());
        Self(sha256(hash))
    }

    /// After the last entry of a wallet that has no hash, because it is older than the chain.
    pub fn sealed(user: UserId, seq: i64, id: EntryId, balance: Balance, created_at: Timestamp) -> Self {
        let mut hash = Context::new(&SHA256);
        hash.update(b"purse.sealed.v1\n");
        hash.update(user.as_uuid().as_bytes());
        hash.update(&seq.to_be_bytes());
        hash.update(id.as_uuid().as_bytes());
        hash.update(&balance.cents().to_be_bytes());
        hash.update(&created_at.as_microsecond().to_be_bytes());
        Self(sha256(hash))
    }

    /// The hash of `entry`, which follows the entry with this hash.
    #[must_use]
    pub fn next(self, entry: &HashedEntry<'_>) -> Self {
        let mut hash = Context::new(&SHA256);
        hash.update(b"purse.entry.v1\n");
        hash.update(&self.0);
        hash.update(entry.user_id.as_uuid().as_bytes());
        hash.update(&entry.seq.to_be_bytes());
        hash.update(entry.id.as_uuid().as_bytes());
        hash.update(&[entry.kind.code()]);
        hash.update(&entry.amount.to_be_bytes());
        hash.update(&entry.balance_after.cents().to_be_bytes());
        hash.update(&entry.held_after.cents().to_be_bytes());
        hash.update(&entry.created_at.as_microsecond().to_be_bytes());
        hash.update(&[flags(entry)]);
        if let Some(origin) = entry.origin {
            hash.update(&origin.seq.to_be_bytes());
            hash.update(&origin.nth.to_be_bytes());
            hash.update(&origin.left.to_be_bytes());
        }
        if let Some(leg) = entry.transfer {
            hash.update(leg.transfer.as_uuid().as_bytes());
            hash.update(leg.counterparty.as_uuid().as_bytes());
        }
        if let Some(expires_at) = entry.expires_at {
            hash.update(&expires_at.as_microsecond().to_be_bytes());
        }
        if let Some(request) = entry.request {
            update_short(&mut hash, request.key.as_str());
            hash.update(request.digest.as_bytes());
        }
        if let Some(texts) = entry.texts {
            hash.update(texts.as_bytes());
        }
        if let Some(size) = entry.group_size {
            hash.update(&size.to_be_bytes());
        }
        if let Some(service) = entry.posted_by {
            update_short(&mut hash, service);
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

/// Which optional parts follow.
const fn flags(entry: &HashedEntry<'_>) -> u8 {
    (entry.origin.is_some() as u8)
        | (entry.transfer.is_some() as u8) << 1
        | (entry.expires_at.is_some() as u8) << 2
        | (entry.request.is_some() as u8) << 3
        | (entry.texts.is_some() as u8) << 4
        | (entry.group_size.is_some() as u8) << 5
        | (entry.posted_by.is_some() as u8) << 6
}

/// The length in one byte, and the text. Keys and names of services are shorter than 256 bytes.
fn update_short(hash: &mut Context, text: &str) {
    hash.update(&[u8::try_from(text.len()).unwrap_or(u8::MAX)]);
    hash.update(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::IdempotencyKey;
    use crate::wallet::domain::texts::tests::{SALT, hex};
    use crate::wallet::domain::{RequestDigest, TextsDigest};
    use uuid::Uuid;

    const USER: UserId = UserId::from_uuid(Uuid::from_u128(0x0190_a5d4_3c1e_7a61_9d7b_3f2a_1b4c_5d6e));

    fn id(n: u128) -> EntryId {
        EntryId::from_uuid(Uuid::from_u128(0x0190_a5d4_3c1e_7a61_9d7b_0000_0000_0000 + n))
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn cents(cents: i64) -> Balance {
        Balance::from_stored(cents).expect("in range")
    }

    fn plain(seq: i64, kind: EntryKind, amount: i64, balance: i64, held: i64, time: &str) -> HashedEntry<'static> {
        HashedEntry {
            user_id: USER,
            seq,
            id: id(u128::try_from(seq).expect("positive")),
            kind,
            amount,
            balance_after: cents(balance),
            held_after: cents(held),
            created_at: at(time),
            origin: None,
            transfer: None,
            expires_at: None,
            request: None,
            texts: None,
            group_size: None,
            posted_by: None,
        }
    }

    /// A chain that has each optional part, computed by an independent implementation.
    #[test]
    fn every_hash_is_that_of_the_reference_implementation() {
        let request = KeyedRequest {
            key: IdempotencyKey::parse("order-17").expect("a key"),
            digest: RequestDigest::from_stored(SALT.as_bytes()).expect("16 bytes"),
        };
        let texts = TextsDigest::of(SALT, [Some("first deposit"), Some("order-17"), Some(r#"{"a":"ü","b":"2"}"#)]);
        let first = HashedEntry {
            request: Some(&request),
            texts: Some(texts),
            ..plain(1, EntryKind::Credit, 1500, 1500, 0, "2026-01-31T12:00:00.123456Z")
        };
        let hold = HashedEntry {
            expires_at: Some(at("2026-02-07T12:00:01Z")),
            ..plain(2, EntryKind::Hold, 400, 1500, 400, "2026-01-31T12:00:01Z")
        };
        let capture = HashedEntry {
            origin: Some(Origin { seq: 2, nth: 1, left: 0 }),
            ..plain(3, EntryKind::Debit, 250, 1250, 0, "2026-01-31T12:00:02.5Z")
        };
        let counterparty = UserId::from_uuid(Uuid::from_u128(0x0190_a5d4_3c1e_7a61_9d7b_0000_0000_beef));
        let transfer = HashedEntry {
            transfer: Some(TransferLeg { transfer: id(4), counterparty }),
            ..plain(4, EntryKind::Debit, 1000, 250, 0, "2026-01-31T12:00:03Z")
        };
        let group = HashedEntry {
            group_size: Some(2),
            posted_by: Some("payments"),
            ..plain(5, EntryKind::Credit, 7, 257, 0, "2026-01-31T12:00:04Z")
        };
        let mut hash = EntryHash::genesis(USER);
        assert_eq!(hex(hash.as_bytes()), "afec4a904b133dc1b2be3ee2c34a5fe7d12bec3405d676210069dd63611e8611");
        for (entry, expected) in [
            (first, "a8fd61b5ea284f8aac817e1097c9a80a5d12024a9e9b4cd205ac511c75dca643"),
            (hold, "28b10fa6c1da5f7759fa8c01ecfcbe2b39fc9639c9639508eab8fb3160d5b98f"),
            (capture, "2b4909007e7a6f26351a5b6acec3a5d164f5add6938ba80d89fe9e70bbf5064f"),
            (transfer, "8fe82dfce9b1d0403134e9be0fe932624a260c6d935d827686cbb6225483d52a"),
            (group, "964b5d47148d72adcab54214efb3cc405ad2578ccde25971cd168b8fa9bf1ec8"),
        ] {
            hash = hash.next(&entry);
            assert_eq!(hex(hash.as_bytes()), expected, "entry {}", entry.seq);
        }
        let sealed = EntryHash::sealed(USER, 7, id(7), cents(999), at("2026-01-31T12:00:00Z"));
        assert_eq!(hex(sealed.as_bytes()), "45184a1dd7ac2daf5fb11c4616281826c2357671502b6c8b1225ab998b656b79");
    }

    #[test]
    fn a_stored_hash_has_32_bytes() {
        assert_eq!(EntryHash::from_stored(&[7; 32]), Some(EntryHash([7; 32])));
        assert_eq!(EntryHash::from_stored(&[7; 31]), None);
    }
}
