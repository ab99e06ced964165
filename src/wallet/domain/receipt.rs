//! Receipts: an entry with everything that its hash covers, so that its owner can compute the hash again without purse.

use crate::kernel::{EntryId, IdempotencyKey, Timestamp, UserId};
use crate::wallet::domain::{
    Balance, EntryHash, EntryKind, HashedEntry, KeyedRequest, Origin, RequestDigest, SaltedTexts, TextsDigest,
    TransferLeg,
};

/// An entry of any kind with all columns of its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedEntry {
    /// The owner of the wallet.
    pub user_id: UserId,
    /// The sequence number in the wallet: 1, 2, 3, … without gaps.
    pub seq: i64,
    /// Unique in the whole ledger.
    pub id: EntryId,
    /// What the entry does.
    pub kind: EntryKind,
    /// 0 only where the wallet is closed.
    pub amount: Balance,
    /// After this entry.
    pub balance_after: Balance,
    /// After this entry, of that balance.
    pub held_after: Balance,
    /// Whole microseconds.
    pub created_at: Timestamp,
    /// Only of captures, voids, expiries and reversals.
    pub origin: Option<Origin>,
    /// Only of the legs of transfers.
    pub transfer: Option<TransferLeg>,
    /// Only of a hold.
    pub expires_at: Option<Timestamp>,
    /// The key of the request that created the entry.
    pub key: Option<IdempotencyKey>,
    /// With a key, unless the entry is older than the hash chain.
    pub request_digest: Option<RequestDigest>,
    /// Stays when the texts are erased. Absent on entries that are older than the hash chain.
    pub texts_digest: Option<TextsDigest>,
    /// Only of the first entry of an atomic group.
    pub group_size: Option<i16>,
    /// The service that posted it on behalf of the user.
    pub posted_by: Option<String>,
}

impl RecordedEntry {
    /// The hash of this entry if the hash before it is `previous`.
    #[must_use]
    pub fn hash_after(&self, previous: EntryHash) -> EntryHash {
        let request = self.key.clone().zip(self.request_digest).map(|(key, digest)| KeyedRequest { key, digest });
        previous.next(&HashedEntry {
            user_id: self.user_id,
            seq: self.seq,
            id: self.id,
            kind: self.kind,
            amount: self.amount.cents(),
            balance_after: self.balance_after,
            held_after: self.held_after,
            created_at: self.created_at,
            origin: self.origin,
            transfer: self.transfer,
            expires_at: self.expires_at,
            request: request.as_ref(),
            texts: self.texts_digest,
            group_size: self.group_size,
            posted_by: self.posted_by.as_deref(),
        })
    }

    /// What the next entry continues if this one has no hash.
    pub fn seal(&self) -> EntryHash {
        EntryHash::sealed(self.user_id, self.seq, self.id, self.balance_after, self.created_at)
    }

    /// Whether the hash covers every part. A key without a digest is not covered.
    fn is_covered(&self) -> bool {
        self.key.is_some() == self.request_digest.is_some()
    }
}

/// The place of an entry in the hash chain of its wallet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainLink {
    /// The hash of the entry before, or what stands for it.
    pub previous: EntryHash,
    /// The hash of the entry.
    pub hash: EntryHash,
}

/// An entry, its texts and its place in the hash chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The entry.
    pub entry: RecordedEntry,
    /// `None` without texts, and if they were erased.
    pub texts: Option<SaltedTexts>,
    /// `None` if the entry is older than the hash chain.
    pub link: Option<ChainLink>,
}

/// Why a receipt does not prove its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptFault {
    /// The hash of the entry is another one.
    #[error("the entry is not the one that was hashed")]
    Entry,
    /// The digest of the texts is another one.
    #[error("the texts are not those that were hashed")]
    Texts,
    /// The first entry of a wallet continues a hash that belongs to the wallet alone.
    #[error("the first entry of the wallet continues another chain")]
    Genesis,
    /// Two entries with consecutive sequence numbers are not linked.
    #[error("does not continue the hash of the entry before it")]
    Link,
    /// Once a wallet has hashes, every entry has one.
    #[error("has no hash, but the entry before it has one")]
    Unhashed,
}

impl Receipt {
    /// Computes the hash and the digest of the texts again. Nothing is known about an entry that is older than the hash chain.
    ///
    /// # Errors
    /// [`ReceiptFault`].
    pub fn check(&self) -> Result<(), ReceiptFault> {
        let Some(link) = self.link else { return Ok(()) };
        let RecordedEntry { user_id, seq, texts_digest, .. } = self.entry;
        if !self.entry.is_covered() || self.entry.hash_after(link.previous) != link.hash {
            return Err(ReceiptFault::Entry);
        }
        if self.texts.as_ref().is_some_and(|texts| Some(texts.digest()) != texts_digest) {
            return Err(ReceiptFault::Texts);
        }
        if seq == 1 && link.previous != EntryHash::genesis(user_id) {
            return Err(ReceiptFault::Genesis);
        }
        Ok(())
    }

    /// What the entries around this one have to fit.
    pub fn place(&self) -> ChainPlace {
        ChainPlace { previous: self.link.map(|link| link.previous), continued: self.continued() }
    }

    /// What a signature of this receipt is made of.
    pub fn signed_bytes(&self) -> Vec<u8> {
        signed_bytes(self.entry.user_id, self.entry.seq, self.continued())
    }

    /// The hash that the next entry continues: that of this entry or, if it has none, one that seals it.
    pub fn continued(&self) -> EntryHash {
        self.link.map_or_else(|| self.entry.seal(), |link| link.hash)
    }
}

/// Where an entry is attached to the hash chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainPlace {
    /// The hash that it continues; `None` if it is older than the hash chain.
    pub previous: Option<EntryHash>,
    /// The hash that the next entry continues.
    pub continued: EntryHash,
}

impl ChainPlace {
    /// Checks that this entry continues the chain of `before`, the entry with the sequence number before its own.
    ///
    /// # Errors
    /// [`ReceiptFault::Link`] and [`ReceiptFault::Unhashed`].
    pub fn check_after(&self, before: &Self) -> Result<(), ReceiptFault> {
        match (self.previous, before.previous) {
            (None, None) => Ok(()),
            (None, Some(_)) => Err(ReceiptFault::Unhashed),
            (Some(previous), _) if previous == before.continued => Ok(()),
            (Some(_), _) => Err(ReceiptFault::Link),
        }
    }
}

/// What a signature of a wallet's head is made of: the hash after the entry with this sequence number, 0 before the first one.
pub fn signed_bytes(user: UserId, seq: i64, hash: EntryHash) -> Vec<u8> {
    [b"purse.receipt.v1\n".as_slice(), user.as_uuid().as_bytes().as_slice(), &seq.to_be_bytes(), hash.as_bytes()]
        .concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wallet::domain::{Description, Salt, Texts};
    use uuid::Uuid;

    const USER: UserId = UserId::from_uuid(Uuid::from_u128(7));

    fn cents(cents: i64) -> Balance {
        Balance::from_stored(cents).expect("in range")
    }

    fn texts(description: &str) -> SaltedTexts {
        let description = Description::parse(description).expect("a description");
        SaltedTexts { salt: Salt::new([1; 16]), texts: Texts::of_description(Some(description)) }
    }

    /// A chained receipt after `previous`; the first one with texts and a key.
    fn receipt(seq: i64, previous: EntryHash) -> Receipt {
        let texts = (seq == 1).then(|| texts("salary"));
        let entry = RecordedEntry {
            user_id: USER,
            seq,
            id: EntryId::from_uuid(Uuid::from_u128(1)),
            kind: EntryKind::Credit,
            amount: cents(5),
            balance_after: cents(5 * seq),
            held_after: Balance::ZERO,
            created_at: "2026-01-31T12:00:00.123456Z".parse().expect("a time"),
            origin: None,
            transfer: None,
            expires_at: None,
            key: (seq == 1).then(|| IdempotencyKey::parse("k").expect("a key")),
            request_digest: (seq == 1).then(|| RequestDigest::from_stored(&[2; 16]).expect("16 bytes")),
            texts_digest: texts.as_ref().map(SaltedTexts::digest),
            group_size: None,
            posted_by: None,
        };
        let link = Some(ChainLink { previous, hash: entry.hash_after(previous) });
        Receipt { entry, texts, link }
    }

    fn first() -> Receipt {
        receipt(1, EntryHash::genesis(USER))
    }

    #[test]
    fn a_receipt_proves_its_entry_also_after_its_texts_were_erased() {
        assert_eq!(first().check(), Ok(()));
        assert_eq!(Receipt { texts: None, ..first() }.check(), Ok(()));
    }

    #[test]
    fn a_receipt_of_which_anything_was_changed_proves_nothing() {
        let mut changed = first();
        changed.entry.amount = cents(6);
        assert_eq!(changed.check(), Err(ReceiptFault::Entry));
        // Neither half of a keyed request would be hashed.
        let mut without_digest = first();
        without_digest.entry.request_digest = None;
        let previous = EntryHash::genesis(USER);
        without_digest.link = Some(ChainLink { previous, hash: without_digest.entry.hash_after(previous) });
        assert_eq!(without_digest.check(), Err(ReceiptFault::Entry));
        let mut other_text = first();
        other_text.texts = Some(texts("wages"));
        assert_eq!(other_text.check(), Err(ReceiptFault::Texts));
        let texts = first().texts;
        assert_eq!(Receipt { texts, ..receipt(2, previous) }.check(), Err(ReceiptFault::Texts), "it has none");
    }

    #[test]
    fn the_first_entry_continues_the_hash_of_its_own_wallet() {
        let other = EntryHash::genesis(UserId::from_uuid(Uuid::from_u128(8)));
        assert_eq!(receipt(1, other).check(), Err(ReceiptFault::Genesis));
        assert_eq!(receipt(2, other).check(), Ok(()), "nothing is known about the entry before");
    }

    #[test]
    fn consecutive_entries_are_linked_by_their_hashes() {
        let first = first();
        assert_eq!(receipt(2, first.continued()).place().check_after(&first.place()), Ok(()));
        assert_eq!(receipt(2, EntryHash::genesis(USER)).place().check_after(&first.place()), Err(ReceiptFault::Link));
    }

    #[test]
    fn the_first_hash_seals_the_last_entry_without_one() {
        let old = Receipt { link: None, ..first() };
        assert_eq!((old.check(), old.place().check_after(&old.place())), (Ok(()), Ok(())));
        let next = receipt(2, old.continued());
        assert_eq!(next.place().check_after(&old.place()), Ok(()));
        let mut changed = old.clone();
        changed.entry.balance_after = cents(6);
        assert_eq!(next.place().check_after(&changed.place()), Err(ReceiptFault::Link));
        assert_eq!(old.place().check_after(&first().place()), Err(ReceiptFault::Unhashed));
    }
}
