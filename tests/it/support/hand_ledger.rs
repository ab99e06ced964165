use std::fmt::Write as _;

use purse::kernel::{EntryId, IdempotencyKey, Role, Timestamp, UserId};
use purse::wallet::domain::{
    Balance, Description, EntryHash, EntryKind, HashedEntry, KeyedRequest, Metadata, Origin, Reference, RequestDigest,
    Salt, SaltedTexts, Texts, TransferLeg,
};
use uuid::Uuid;

use super::World;

/// A row of the ledger that a test writes itself, of any kind.
#[derive(Clone, Debug)]
pub struct HandRow {
    pub kind: EntryKind,
    pub amount: i64,
    pub balance: i64,
    pub held: i64,
    pub origin: Option<Origin>,
    pub transfer: Option<TransferLeg>,
    pub expires_at: Option<Timestamp>,
    pub key: Option<&'static str>,
    pub description: Option<&'static str>,
    pub reference: Option<&'static str>,
    /// Canonical.
    pub metadata: Option<&'static str>,
    pub group_size: Option<i16>,
    pub posted_by: Option<&'static str>,
}

impl HandRow {
    pub const fn new(kind: EntryKind, amount: i64, balance: i64, held: i64) -> Self {
        Self {
            kind,
            amount,
            balance,
            held,
            origin: None,
            transfer: None,
            expires_at: None,
            key: None,
            description: None,
            reference: None,
            metadata: None,
            group_size: None,
            posted_by: None,
        }
    }

    /// The `nth` act on the row at `seq`, of which `left` is left.
    pub const fn on(self, seq: i64, nth: i32, left: i64) -> Self {
        Self { origin: Some(Origin { seq, nth, left }), ..self }
    }
}

/// A wallet whose entries a test writes itself, with the right hashes.
pub struct HandLedger {
    pub user: UserId,
    seq: i64,
    hash: EntryHash,
    /// The last group: the sequence number after it, and its time.
    group: Option<(i64, Timestamp)>,
    script: String,
}

/// `null`, or `text` in quotes.
fn quoted(text: Option<impl std::fmt::Display>) -> String {
    text.map_or_else(|| "null".to_owned(), |text| format!("'{text}'"))
}

fn bytes(bytes: &[u8]) -> String {
    bytes.iter().fold("\\x".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

impl HandLedger {
    /// A new wallet.
    pub fn new() -> Self {
        let user = UserId::from_uuid(Uuid::now_v7());
        let script = format!("INSERT INTO wallets (user_id, id) VALUES ('{user}', gen_random_uuid());");
        Self { script, ..Self::of(user) }
    }

    /// Another history of a wallet that exists.
    pub fn of(user: UserId) -> Self {
        Self { user, seq: 0, hash: EntryHash::genesis(user), group: None, script: String::new() }
    }

    /// Appends a row and returns its id.
    pub fn append(&mut self, row: &HandRow) -> EntryId {
        let id = EntryId::from_uuid(Uuid::now_v7());
        self.append_as(id, row);
        id
    }

    /// The same, under an id that is known before.
    pub fn append_as(&mut self, id: EntryId, row: &HandRow) {
        self.seq += 1;
        let now = Timestamp::now();
        let now = Timestamp::from_microsecond(now.as_microsecond()).expect("a time");
        if let Some(size) = row.group_size {
            self.group = Some((self.seq + i64::from(size), now));
        }
        // The entries of a group have one time.
        let created_at = self.group.filter(|(end, _)| self.seq < *end).map_or(now, |(_, at)| at);
        let request = row.key.map(|key| KeyedRequest {
            key: IdempotencyKey::parse(key).expect("a key"),
            digest: RequestDigest::from_stored(&[7; 16]).expect("16 bytes"),
        });
        let texts = Texts {
            description: row.description.map(|text| Description::parse(text).expect("a description")),
            reference: row.reference.map(|text| Reference::parse(text).expect("a reference")),
            metadata: row.metadata.map(|text| Metadata::from_stored(text.to_owned())),
        };
        let texts = texts.salted(|| Salt::new([9; 16]));
        self.hash = self.hash.next(&HashedEntry {
            user_id: self.user,
            seq: self.seq,
            id,
            kind: row.kind,
            amount: row.amount,
            balance_after: Balance::from_stored(row.balance).expect("a balance"),
            held_after: Balance::from_stored(row.held).expect("a balance"),
            created_at,
            origin: row.origin,
            transfer: row.transfer,
            expires_at: row.expires_at,
            request: request.as_ref(),
            texts: texts.as_ref().map(SaltedTexts::digest),
            group_size: row.group_size,
            posted_by: row.posted_by,
        });
        let number = |number: Option<i64>| number.map_or_else(|| "null".to_owned(), |number| number.to_string());
        write!(
            self.script,
            "INSERT INTO transactions (user_id, seq, id, type, amount_minor, balance_after_minor, held_after_minor, origin_seq,
                 origin_nth, origin_left_minor, transfer_id, counterparty_user_id, expires_at, idempotency_key, request_digest,
                 texts_digest, group_size, posted_by, created_at, hash)
             VALUES ('{}', {}, '{id}', '{}', {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, '{created_at}', '{}');",
            self.user,
            self.seq,
            row.kind.as_str(),
            row.amount,
            row.balance,
            row.held,
            number(row.origin.map(|origin| origin.seq)),
            number(row.origin.map(|origin| i64::from(origin.nth))),
            number(row.origin.map(|origin| origin.left)),
            quoted(row.transfer.map(|leg| leg.transfer)),
            quoted(row.transfer.map(|leg| leg.counterparty)),
            quoted(row.expires_at),
            quoted(row.key),
            quoted(request.map(|request| bytes(request.digest.as_bytes()))),
            quoted(texts.as_ref().map(|texts| bytes(texts.digest().as_bytes()))),
            number(row.group_size.map(i64::from)),
            quoted(row.posted_by),
            bytes(self.hash.as_bytes()),
        )
        .expect("written");
        if let Some(texts) = texts {
            write!(
                self.script,
                "INSERT INTO entry_texts (user_id, seq, salt, description, reference, metadata)
                 VALUES ('{}', {}, '{}', {}, {}, {});",
                self.user,
                self.seq,
                bytes(texts.salt.as_bytes()),
                quoted(row.description),
                quoted(row.reference),
                quoted(row.metadata),
            )
            .expect("written");
        }
    }

    /// Lists the hold at `seq` as open.
    pub fn list_open_hold(&mut self, seq: i64, id: EntryId, left: i64, acts: i32, expires_at: Timestamp) {
        write!(
            self.script,
            "INSERT INTO open_holds (user_id, seq, id, left_minor, acts, expires_at)
             VALUES ('{}', {seq}, '{id}', {left}, {acts}, '{expires_at}');",
            self.user
        )
        .expect("written");
    }

    /// Writes what was appended since the last call.
    pub async fn write(&mut self, world: &World) {
        let script = std::mem::take(&mut self.script);
        world.sql(Role::Wallet, &script).await;
    }
}
