//! Receipts as JSON. Every value has exactly one form, so that a receipt which is read again says exactly what was hashed: fields
//! that are unknown or occur twice, and values in another form, are refused.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::str::FromStr;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::infra::security::signing_key::Signature;
use crate::kernel::{EntryId, IdempotencyKey, Timestamp, UserId, rfc3339};
use crate::wallet::domain::{
    Balance, ChainLink, Description, EntryHash, EntryKind, Metadata, Origin, Receipt, RecordedEntry, Reference,
    RequestDigest, Salt, SaltedTexts, Texts, TextsDigest, TransferLeg,
};
use crate::wallet::http::wire::metadata_body;

/// The form of receipts, heads and pages.
pub const VERSION: u8 = 1;

/// An entry of the ledger with everything that its hash covers, and a signature.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[schema(as = Receipt)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReceiptBody {
    /// Always 1.
    #[schema(minimum = 1, maximum = 1)]
    pub version: u8,
    /// The entry.
    pub entry: LedgerEntryBody,
    /// Null without texts, and after they were erased.
    #[schema(required = true)]
    #[serde(deserialize_with = "nullable")]
    pub texts: Option<TextsBody>,
    /// SHA-256 that the hash continues, in hexadecimal: the hash of the entry before; of the user ID on the first entry; and a
    /// seal of the entry before if that has no hash.
    #[schema(min_length = 64, max_length = 64)]
    pub previous_hash: String,
    /// SHA-256 of the entry and of `previousHash`, in hexadecimal.
    #[schema(min_length = 64, max_length = 64)]
    pub hash: String,
    /// Null if this server has no signing key.
    #[schema(required = true)]
    #[serde(deserialize_with = "nullable")]
    pub signature: Option<SignatureBody>,
}

/// An entry of the ledger and its place in the hash chain.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[schema(as = ChainedEntry)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChainedEntryBody {
    /// The entry.
    pub entry: LedgerEntryBody,
    /// Null without texts, and after they were erased.
    #[schema(required = true)]
    #[serde(deserialize_with = "nullable")]
    pub texts: Option<TextsBody>,
    /// SHA-256 in hexadecimal; null on entries that are older than the hash chain.
    #[schema(required = true, min_length = 64, max_length = 64)]
    #[serde(deserialize_with = "nullable")]
    pub previous_hash: Option<String>,
    /// SHA-256 in hexadecimal; null on entries that are older than the hash chain.
    #[schema(required = true, min_length = 64, max_length = 64)]
    #[serde(deserialize_with = "nullable")]
    pub hash: Option<String>,
}

/// A page of the hash chain.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[schema(as = ChainPage)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChainPageBody {
    /// Always 1.
    #[schema(minimum = 1, maximum = 1)]
    pub version: u8,
    /// Oldest first.
    pub items: Vec<ChainedEntryBody>,
    /// Pass it as `after` to get the next page; null on the last page.
    #[schema(required = true, minimum = 1)]
    #[serde(deserialize_with = "nullable")]
    pub next_after: Option<i64>,
}

/// The head of a wallet's hash chain. A copy of it shows later whether any entry up to it was changed.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[schema(as = LedgerHead)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeadBody {
    /// Always 1.
    #[schema(minimum = 1, maximum = 1)]
    pub version: u8,
    /// Owner of the wallet.
    #[schema(format = "uuid")]
    pub user_id: String,
    /// Sequence number of the last entry; 0 without entries.
    #[schema(minimum = 0)]
    pub seq: i64,
    /// SHA-256 that the next entry will continue, in hexadecimal.
    #[schema(min_length = 64, max_length = 64)]
    pub hash: String,
    /// US cents.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    pub balance_minor: i64,
    /// US cents of the balance that are held.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    pub held_minor: i64,
    /// Time of the last entry; null without entries.
    #[schema(required = true, format = "date-time")]
    #[serde(deserialize_with = "nullable")]
    pub at: Option<String>,
    /// Null if this server has no signing key.
    #[schema(required = true)]
    #[serde(deserialize_with = "nullable")]
    pub signature: Option<SignatureBody>,
}

/// An Ed25519 signature of `"purse.receipt.v1\n"`, the 16 bytes of the user ID, `seq` in 8 bytes and the 32 bytes of `hash`.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[schema(as = ReceiptSignature)]
#[serde(deny_unknown_fields)]
pub struct SignatureBody {
    alg: SignatureAlgorithm,
    /// ID of the key in `/.well-known/purse-keys.json`.
    pub kid: String,
    /// Base64url of 64 bytes.
    pub value: String,
}

/// Of RFC 8037.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
pub enum SignatureAlgorithm {
    /// With the curve Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

/// Hold, void, expire and close are entries that a list of transactions does not have.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum LedgerEntryType {
    Credit,
    Debit,
    Hold,
    Void,
    Expire,
    Close,
}

/// Everything that the hash of an entry covers. A field that is absent does not apply to the entry.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[schema(as = LedgerEntry)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LedgerEntryBody {
    /// Owner of the wallet.
    #[schema(format = "uuid")]
    user_id: String,
    /// Sequence number in the wallet: 1, 2, 3, … without gaps.
    #[schema(minimum = 1)]
    seq: i64,
    #[schema(format = "uuid")]
    id: String,
    #[serde(rename = "type")]
    kind: LedgerEntryType,
    /// US cents; 0 only where the wallet is closed.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    amount_minor: i64,
    /// US cents.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    balance_after_minor: i64,
    /// US cents of the balance that are held after this entry.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    held_after_minor: i64,
    #[schema(format = "date-time")]
    created_at: String,
    #[serde(default, deserialize_with = "not_null", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    origin: Option<OriginBody>,
    #[serde(default, deserialize_with = "not_null", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    transfer: Option<TransferLegBody>,
    /// When the hold ends on its own.
    #[serde(default, deserialize_with = "not_null", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = "date-time")]
    expires_at: Option<String>,
    #[serde(default, deserialize_with = "not_null", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    idempotency_key: Option<String>,
    /// First 16 bytes of the SHA-256 of the request with that key, in hexadecimal.
    #[serde(default, deserialize_with = "not_null", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 32, max_length = 32)]
    request_digest: Option<String>,
    /// SHA-256 of the texts and their salt, in hexadecimal; stays when the texts are erased.
    #[serde(default, deserialize_with = "not_null", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 64, max_length = 64)]
    texts_digest: Option<String>,
    /// On the first entry of a group that was posted atomically: the number of its entries.
    #[serde(default, deserialize_with = "not_null", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 2, maximum = 100)]
    group_size: Option<i16>,
    /// The service that posted it on the user's behalf.
    #[serde(default, deserialize_with = "not_null", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    posted_by: Option<String>,
}

/// The earlier entry on which an entry acts.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[schema(as = EntryOrigin)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OriginBody {
    /// Its sequence number.
    #[schema(minimum = 1)]
    seq: i64,
    /// The number of this act on it.
    #[schema(minimum = 1)]
    nth: i32,
    /// US cents of it that are left after this act.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    left_minor: i64,
}

/// The transfer of which an entry is one leg.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[schema(as = TransferLeg)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TransferLegBody {
    #[schema(format = "uuid")]
    id: String,
    /// Owner of the wallet with the other leg.
    #[schema(format = "uuid")]
    user_id: String,
}

/// The texts of an entry, and what their digest needs.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[schema(as = ReceiptTexts)]
#[serde(deny_unknown_fields)]
pub struct TextsBody {
    /// 16 bytes in hexadecimal.
    #[schema(min_length = 32, max_length = 32)]
    salt: String,
    #[schema(required = true)]
    #[serde(deserialize_with = "nullable")]
    description: Option<String>,
    #[schema(required = true)]
    #[serde(deserialize_with = "nullable")]
    reference: Option<String>,
    #[schema(required = true)]
    #[serde(deserialize_with = "distinct")]
    metadata: Option<BTreeMap<String, String>>,
}

impl LedgerEntryBody {
    pub(super) fn example() -> Self {
        Self {
            user_id: "0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e".to_owned(),
            seq: 1,
            id: "0190a5d4-3c1e-7a61-9d7b-000000000001".to_owned(),
            kind: LedgerEntryType::Credit,
            amount_minor: 1500,
            balance_after_minor: 1500,
            held_after_minor: 0,
            created_at: "2026-01-31T12:00:00.123456Z".to_owned(),
            origin: None,
            transfer: None,
            expires_at: None,
            idempotency_key: Some("order-17".to_owned()),
            request_digest: Some("000102030405060708090a0b0c0d0e0f".to_owned()),
            texts_digest: Some("96d5f43f67d8e91bcebe92cf37144230b40e8a9fe4f54c6bf8b2ed184337378f".to_owned()),
            group_size: None,
            posted_by: None,
        }
    }
}

impl ChainedEntryBody {
    /// The first vector of the tests of the hash.
    pub(super) fn example() -> Self {
        let metadata = [("a", "ü"), ("b", "2")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        Self {
            entry: LedgerEntryBody::example(),
            texts: Some(TextsBody {
                salt: "000102030405060708090a0b0c0d0e0f".to_owned(),
                description: Some("first deposit".to_owned()),
                reference: Some("order-17".to_owned()),
                metadata: Some(metadata.into()),
            }),
            previous_hash: Some("afec4a904b133dc1b2be3ee2c34a5fe7d12bec3405d676210069dd63611e8611".to_owned()),
            hash: Some("a8fd61b5ea284f8aac817e1097c9a80a5d12024a9e9b4cd205ac511c75dca643".to_owned()),
        }
    }
}

impl SignatureBody {
    pub(super) fn example() -> Self {
        Self {
            alg: SignatureAlgorithm::EdDsa,
            kid: "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k".to_owned(),
            value: "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg".to_owned(),
        }
    }
}

impl From<Signature> for SignatureBody {
    fn from(signature: Signature) -> Self {
        Self { alg: SignatureAlgorithm::EdDsa, kid: signature.kid, value: signature.value }
    }
}

impl From<&Receipt> for ChainedEntryBody {
    fn from(receipt: &Receipt) -> Self {
        Self {
            entry: LedgerEntryBody::from(&receipt.entry),
            texts: receipt.texts.as_ref().map(TextsBody::from),
            previous_hash: receipt.link.map(|link| hex(link.previous.as_bytes())),
            hash: receipt.link.map(|link| hex(link.hash.as_bytes())),
        }
    }
}

impl From<&RecordedEntry> for LedgerEntryBody {
    fn from(entry: &RecordedEntry) -> Self {
        Self {
            user_id: entry.user_id.to_string(),
            seq: entry.seq,
            id: entry.id.to_string(),
            kind: match entry.kind {
                EntryKind::Credit => LedgerEntryType::Credit,
                EntryKind::Debit => LedgerEntryType::Debit,
                EntryKind::Hold => LedgerEntryType::Hold,
                EntryKind::Void => LedgerEntryType::Void,
                EntryKind::Expire => LedgerEntryType::Expire,
                EntryKind::Close => LedgerEntryType::Close,
            },
            amount_minor: entry.amount.cents(),
            balance_after_minor: entry.balance_after.cents(),
            held_after_minor: entry.held_after.cents(),
            created_at: rfc3339(entry.created_at),
            origin: entry.origin.map(|Origin { seq, nth, left }| OriginBody { seq, nth, left_minor: left }),
            transfer: entry
                .transfer
                .map(|leg| TransferLegBody { id: leg.transfer.to_string(), user_id: leg.counterparty.to_string() }),
            expires_at: entry.expires_at.map(rfc3339),
            idempotency_key: entry.key.as_ref().map(|key| key.as_str().to_owned()),
            request_digest: entry.request_digest.map(|digest| hex(digest.as_bytes())),
            texts_digest: entry.texts_digest.map(|digest| hex(digest.as_bytes())),
            group_size: entry.group_size,
            posted_by: entry.posted_by.clone(),
        }
    }
}

impl From<&SaltedTexts> for TextsBody {
    fn from(salted: &SaltedTexts) -> Self {
        let Texts { description, reference, metadata } = &salted.texts;
        Self {
            salt: hex(salted.salt.as_bytes()),
            description: description.as_ref().map(|text| text.as_str().to_owned()),
            reference: reference.as_ref().map(|text| text.as_str().to_owned()),
            metadata: metadata.as_ref().map(metadata_body),
        }
    }
}

/// A field of a receipt does not have the form that purse writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not as purse writes it")]
pub struct Malformed(&'static str);

impl TryFrom<ReceiptBody> for Receipt {
    type Error = Malformed;

    fn try_from(body: ReceiptBody) -> Result<Self, Malformed> {
        if body.version != VERSION {
            return Err(Malformed("version"));
        }
        let ReceiptBody { entry, texts, previous_hash, hash, .. } = body;
        ChainedEntryBody { entry, texts, previous_hash: Some(previous_hash), hash: Some(hash) }.try_into()
    }
}

impl TryFrom<ChainedEntryBody> for Receipt {
    type Error = Malformed;

    fn try_from(body: ChainedEntryBody) -> Result<Self, Malformed> {
        let link = match (body.previous_hash, body.hash) {
            (None, None) => None,
            (Some(previous), Some(hash)) => {
                Some(ChainLink { previous: hash_of(&previous, "previousHash")?, hash: hash_of(&hash, "hash")? })
            }
            _ => return Err(Malformed("hash")),
        };
        let texts = body.texts.map(SaltedTexts::try_from).transpose()?;
        Ok(Self { entry: body.entry.try_into()?, texts, link })
    }
}

impl TryFrom<LedgerEntryBody> for RecordedEntry {
    type Error = Malformed;

    fn try_from(body: LedgerEntryBody) -> Result<Self, Malformed> {
        let cents = |cents, field| Balance::from_stored(cents).ok_or(Malformed(field));
        let transfer = body.transfer.map(|leg| {
            let transfer = exactly::<EntryId>(&leg.id, "transfer.id")?;
            Ok(TransferLeg { transfer, counterparty: exactly::<UserId>(&leg.user_id, "transfer.userId")? })
        });
        let key = body.idempotency_key.map(|key| IdempotencyKey::parse(&key).map_err(|_| Malformed("idempotencyKey")));
        let posted_by = body.posted_by.map(|name| {
            // Longer texts are not hashed as they are.
            if u8::try_from(name.len()).is_ok() { Ok(name) } else { Err(Malformed("postedBy")) }
        });
        Ok(Self {
            user_id: exactly(&body.user_id, "userId")?,
            seq: Some(body.seq).filter(|seq| *seq >= 1).ok_or(Malformed("seq"))?,
            id: exactly(&body.id, "id")?,
            kind: match body.kind {
                LedgerEntryType::Credit => EntryKind::Credit,
                LedgerEntryType::Debit => EntryKind::Debit,
                LedgerEntryType::Hold => EntryKind::Hold,
                LedgerEntryType::Void => EntryKind::Void,
                LedgerEntryType::Expire => EntryKind::Expire,
                LedgerEntryType::Close => EntryKind::Close,
            },
            amount: cents(body.amount_minor, "amountMinor")?,
            balance_after: cents(body.balance_after_minor, "balanceAfterMinor")?,
            held_after: cents(body.held_after_minor, "heldAfterMinor")?,
            created_at: time(&body.created_at, "createdAt")?,
            origin: body.origin.map(|OriginBody { seq, nth, left_minor }| Origin { seq, nth, left: left_minor }),
            transfer: transfer.transpose()?,
            expires_at: body.expires_at.map(|at| time(&at, "expiresAt")).transpose()?,
            key: key.transpose()?,
            request_digest: digest(body.request_digest, RequestDigest::from_stored, "requestDigest")?,
            texts_digest: digest(body.texts_digest, TextsDigest::from_stored, "textsDigest")?,
            group_size: body.group_size,
            posted_by: posted_by.transpose()?,
        })
    }
}

impl TryFrom<TextsBody> for SaltedTexts {
    type Error = Malformed;

    fn try_from(body: TextsBody) -> Result<Self, Malformed> {
        let salt = unhex(&body.salt).and_then(|bytes| bytes.try_into().ok()).ok_or(Malformed("salt"))?;
        let metadata = body.metadata.map(|pairs| serde_json::to_string(&pairs).map(Metadata::from_stored));
        let texts = Texts {
            description: body.description.map(Description::from_stored),
            reference: body.reference.map(Reference::from_stored),
            metadata: metadata.transpose().map_err(|_| Malformed("metadata"))?,
        };
        Ok(Self { salt: Salt::new(salt), texts })
    }
}

impl ChainPageBody {
    /// # Errors
    /// [`Malformed`] if it is in a form of another release.
    pub const fn check_version(&self) -> Result<(), Malformed> {
        if self.version == VERSION { Ok(()) } else { Err(Malformed("version")) }
    }
}

/// What a head says.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// The signature covers this, the sequence number and the hash.
    pub user_id: UserId,
    /// 0 without entries.
    pub seq: i64,
    /// What the next entry will continue.
    pub hash: EntryHash,
    /// Not covered by the signature.
    pub shown: ShownState,
}

/// The state of a wallet after an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShownState {
    balance: Balance,
    held: Balance,
    /// `None` without entries.
    at: Option<Timestamp>,
}

impl ShownState {
    /// Before the first entry.
    pub const EMPTY: Self = Self { balance: Balance::ZERO, held: Balance::ZERO, at: None };
}

impl From<&RecordedEntry> for ShownState {
    fn from(entry: &RecordedEntry) -> Self {
        Self { balance: entry.balance_after, held: entry.held_after, at: Some(entry.created_at) }
    }
}

impl HeadBody {
    /// # Errors
    /// [`Malformed`].
    pub fn read(&self) -> Result<Head, Malformed> {
        if self.version != VERSION {
            return Err(Malformed("version"));
        }
        let cents = |cents, field| Balance::from_stored(cents).ok_or(Malformed(field));
        Ok(Head {
            user_id: exactly(&self.user_id, "userId")?,
            seq: Some(self.seq).filter(|seq| *seq >= 0).ok_or(Malformed("seq"))?,
            hash: hash_of(&self.hash, "hash")?,
            shown: ShownState {
                balance: cents(self.balance_minor, "balanceMinor")?,
                held: cents(self.held_minor, "heldMinor")?,
                at: self.at.as_deref().map(|at| time(at, "at")).transpose()?,
            },
        })
    }
}

/// Lower case.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The reverse of [`hex`].
fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| match byte {
        b'0'..=b'9' => Some(byte.wrapping_sub(b'0')),
        b'a'..=b'f' => Some(byte.wrapping_sub(b'a').wrapping_add(10)),
        _ => None,
    };
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}

fn hash_of(text: &str, field: &'static str) -> Result<EntryHash, Malformed> {
    unhex(text).and_then(|bytes| EntryHash::from_stored(&bytes)).ok_or(Malformed(field))
}

fn digest<T>(text: Option<String>, read: fn(&[u8]) -> Option<T>, field: &'static str) -> Result<Option<T>, Malformed> {
    text.map(|text| unhex(&text).and_then(|bytes| read(&bytes)).ok_or(Malformed(field))).transpose()
}

/// A value in the form in which it is written.
fn exactly<T: FromStr + ToString>(text: &str, field: &'static str) -> Result<T, Malformed> {
    text.parse::<T>().ok().filter(|value| value.to_string() == text).ok_or(Malformed(field))
}

fn time(text: &str, field: &'static str) -> Result<Timestamp, Malformed> {
    text.parse::<Timestamp>().ok().filter(|at| rfc3339(*at) == text).ok_or(Malformed(field))
}

/// A field that is null rather than absent, so that a receipt has one form only.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Option::deserialize(deserializer)
}

/// A field that is absent rather than null, for the same reason.
fn not_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A map, or null, in which no key occurs twice: of two values only one would be hashed.
fn distinct<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<BTreeMap<String, String>>, D::Error> {
    struct Pairs;

    impl<'de> Visitor<'de> for Pairs {
        type Value = Option<BTreeMap<String, String>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of texts, or null")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut pairs = BTreeMap::new();
            while let Some((key, value)) = map.next_entry()? {
                if pairs.insert(key, value).is_some() {
                    return Err(A::Error::custom("a key of the metadata occurs twice"));
                }
            }
            Ok(Some(pairs))
        }
    }

    deserializer.deserialize_any(Pairs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn example() -> Value {
        serde_json::to_value(ChainedEntryBody::example()).expect("JSON")
    }

    fn read(json: &Value) -> Result<Receipt, String> {
        let body: ChainedEntryBody = serde_json::from_str(&json.to_string()).map_err(|e| e.to_string())?;
        Receipt::try_from(body).map_err(|e| e.to_string())
    }

    #[test]
    fn the_example_of_the_document_is_a_receipt_that_proves_its_entry() {
        let receipt = read(&example()).expect("a receipt");
        assert_eq!(receipt.check(), Ok(()));
        assert_eq!(serde_json::to_value(ChainedEntryBody::from(&receipt)).expect("JSON"), example());
    }

    #[test]
    fn every_optional_part_of_an_entry_is_read_as_it_was_written() {
        let mut json = example();
        for (name, value) in [
            ("origin", json!({"seq": 7, "nth": 2, "leftMinor": 3})),
            (
                "transfer",
                json!({"id": "0190a5d4-3c1e-7a61-9d7b-000000000004", "userId": "0190a5d4-3c1e-7a61-9d7b-00000000beef"}),
            ),
            ("expiresAt", json!("2026-02-07T12:00:01.000000Z")),
            ("groupSize", json!(2)),
            ("postedBy", json!("payments")),
        ] {
            json["entry"][name] = value;
        }
        for kind in ["credit", "debit", "hold", "void", "expire", "close"] {
            json["entry"]["type"] = json!(kind);
            let receipt = read(&json).expect("a receipt");
            assert_eq!(serde_json::to_value(ChainedEntryBody::from(&receipt)).expect("JSON"), json);
        }
    }

    #[test]
    fn a_receipt_in_any_other_form_is_refused() {
        let cases = [
            ("/entry/createdAt", json!("2026-01-31T12:00:00.1234567Z")),
            ("/entry/createdAt", json!("2026-01-31T13:00:00.123456+01:00")),
            ("/entry/id", json!("0190A5D4-3C1E-7A61-9D7B-000000000001")),
            ("/entry/seq", json!(0)),
            ("/entry/amountMinor", json!(-1)),
            ("/entry/amountMinor", json!(1500.0)),
            ("/entry/amountMinor", json!("1500")),
            ("/entry/type", json!("refund")),
            ("/entry/textsDigest", json!("96d5")),
            ("/entry/postedBy", json!("x".repeat(256))),
            ("/entry/idempotencyKey", json!("")),
            ("/entry/origin", json!(null)),
            ("/entry/postedBy", json!(null)),
            ("/entry", json!([])),
            ("/texts/salt", json!("000102030405060708090A0B0C0D0E0F")),
            ("/texts/metadata", json!({"a": 1})),
            ("/hash", json!(null)),
            ("/hash", json!("é".repeat(32))),
            ("/previousHash", json!("")),
        ];
        for (place, value) in cases {
            let mut json = example();
            let (object, name) = place.rsplit_once('/').expect("a path");
            json.pointer_mut(object).expect("an object")[name] = value.clone();
            assert!(read(&json).is_err(), "{place} {value}");
        }
        for unknown in ["", "/entry", "/texts"] {
            let mut json = example();
            json.pointer_mut(unknown).expect("an object")["note"] = json!("not hashed");
            assert!(read(&json).is_err(), "{unknown}");
        }
        for (once, twice) in [(r#""seq":1"#, r#""seq":1,"seq":2"#), (r#"{"a":"ü""#, r#"{"a":"x","a":"ü""#)] {
            let text = serde_json::to_string(&ChainedEntryBody::example()).expect("JSON");
            assert!(text.contains(once), "{text}");
            assert!(serde_json::from_str::<ChainedEntryBody>(&text.replacen(once, twice, 1)).is_err(), "{twice}");
        }
    }
}
