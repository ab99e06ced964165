//! The dead letters: their queue, and each of them as an operator reads it (id, reason, attempts, age, content).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::contracts::{ATTEMPT_HEADER, DEAD_LETTER_QUEUE, ERROR_HEADER};
use crate::infra::amqp::{AmqpError, Broker, Browser, Death, Incoming};
use crate::kernel::{Timestamp, rfc3339};
use crate::operate::humanize::{FIELD_CHARS_MAX, UNKNOWN, cell, duration, field, harmless, seconds_between};

/// Name of the connections in the broker's listings.
pub(super) const CONNECTION_NAME: &str = "purse dlq";
/// Most messages that are read and returned at once, to list them or to find an id. Returning them takes a classic queue
/// half a second for this many, but ten and more for five times as many, and blocks the queue meanwhile.
pub(super) const READ_MAX: u32 = 2_000;
/// Bytes of the digest that identifies a message without an id.
const BODY_DIGEST_BYTES: usize = 8;

/// What `list` shows of a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DeadLetter {
    id: String,
    /// Of the body, whatever it says there: a dead letter may be no event.
    user: Option<String>,
    reason: Option<String>,
    /// Failed attempts before the last one.
    attempts: Option<i64>,
    /// When the event was created, or else sent, or else dead-lettered by the broker.
    at: Option<Timestamp>,
}

/// Opens the queue of dead letters and returns its depth.
pub(super) async fn open(broker: &Broker) -> Result<(Browser, u32), AmqpError> {
    Browser::open(broker, CONNECTION_NAME, DEAD_LETTER_QUEUE).await
}

/// The message id, or else a digest of the body.
pub(super) fn id_of(incoming: &Incoming) -> String {
    incoming.message_id().filter(|id| !id.is_empty()).unwrap_or_else(|| body_id(incoming.body()))
}

/// The text in the body's `userId`.
fn user_in(body: &[u8]) -> Option<String> {
    let Value::Object(mut fields) = serde_json::from_slice(body).ok()? else { return None };
    match fields.remove("userId")? {
        Value::String(user) => Some(user),
        _ => None,
    }
}

/// The message about an id that was not found among `total` dead letters.
pub(super) fn not_found(id: &str, total: u32) -> String {
    let id = harmless(id);
    if total > READ_MAX {
        format!(
            "no dead letter with ID {id} among the first {READ_MAX} of {total}. Redrive those with `purse dlq redrive --first {READ_MAX}`, then try again."
        )
    } else {
        format!("no dead letter with ID {id}. See `purse dlq list`.")
    }
}

fn body_id(body: &[u8]) -> String {
    let digest = digest(&SHA256, body);
    let hex = digest.as_ref().iter().take(BODY_DIGEST_BYTES).map(|byte| format!("{byte:02x}"));
    format!("body:{}", hex.collect::<String>())
}

/// The time in an id of purse, which is a UUID of version 7.
fn time_in(id: &str) -> Option<Timestamp> {
    let id = id.parse::<Uuid>().ok().filter(|id| id.get_version_num() == 7)?;
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    Timestamp::new(i64::try_from(seconds).ok()?, i32::try_from(nanos).ok()?).ok()
}

/// Bytes that are not text, cut as [`field`] cuts text.
fn base64_field(bytes: &[u8]) -> String {
    let shown = bytes.get(..FIELD_CHARS_MAX).unwrap_or(bytes);
    let encoded = STANDARD.encode(shown);
    match bytes.len().saturating_sub(shown.len()) {
        0 => format!("{encoded} (base64)"),
        hidden => format!("{encoded}… (base64; {hidden} more bytes; `--format json` shows all)"),
    }
}

fn describe(death: &Death) -> String {
    format!("dead-lettered by the broker: {} in {}", death.reason, death.queue)
}

impl DeadLetter {
    pub(super) fn read(incoming: &Incoming) -> Self {
        let id = id_of(incoming);
        let death = incoming.last_death();
        let reason = incoming.header_text(ERROR_HEADER).or_else(|| death.as_ref().map(describe));
        let at = time_in(&id).or_else(|| incoming.sent_at()).or_else(|| death.and_then(|death| death.at));
        Self { id, user: user_in(incoming.body()), reason, attempts: incoming.header_int(ATTEMPT_HEADER), at }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    fn age_seconds(&self, now: Timestamp) -> Option<i64> {
        self.at.map(|at| seconds_between(at, now))
    }

    fn age(&self, now: Timestamp) -> String {
        self.age_seconds(now).map_or_else(|| UNKNOWN.to_owned(), duration)
    }

    /// As an item of a JSON list.
    pub(super) fn json(&self, now: Timestamp) -> Value {
        json!({
            "id": self.id, "userId": self.user, "reason": self.reason, "attempts": self.attempts,
            "at": self.at.map(rfc3339), "ageSeconds": self.age_seconds(now),
        })
    }

    /// As a row of a table.
    pub(super) fn row(&self, now: Timestamp) -> Vec<String> {
        let attempts = self.attempts.map_or_else(|| UNKNOWN.to_owned(), |n| n.to_string());
        let reason = self.reason.as_deref().map_or_else(|| UNKNOWN.to_owned(), cell);
        let user = self.user.as_deref().map_or_else(|| UNKNOWN.to_owned(), cell);
        vec![harmless(&self.id), user, attempts, self.age(now), reason]
    }

    /// With type, headers and body, as JSON.
    pub(super) fn full_json(&self, incoming: &Incoming, now: Timestamp) -> Value {
        let mut full = self.json(now);
        let (text, bytes) = match std::str::from_utf8(incoming.body()) {
            Ok(text) => (Some(text), None),
            Err(_) => (None, Some(STANDARD.encode(incoming.body()))),
        };
        if let Value::Object(fields) = &mut full {
            fields.insert("type".to_owned(), incoming.kind().into());
            fields.insert("contentType".to_owned(), incoming.content_type().into());
            fields.insert("headers".to_owned(), incoming.headers_json().into());
            fields.insert("body".to_owned(), text.into());
            fields.insert("bodyBase64".to_owned(), bytes.into());
        }
        full
    }

    /// With type, headers and body, as rows of a table.
    pub(super) fn full_rows(&self, incoming: &Incoming, now: Timestamp) -> Vec<Vec<String>> {
        let known = |text: Option<String>| text.map_or_else(|| UNKNOWN.to_owned(), |text| field(&text));
        let age = match self.at {
            Some(at) => format!("{} (since {})", self.age(now), rfc3339(at)),
            None => UNKNOWN.to_owned(),
        };
        let body = match std::str::from_utf8(incoming.body()) {
            Ok(text) => field(text),
            Err(_) => base64_field(incoming.body()),
        };
        let mut rows: Vec<(String, String)> = [
            ("id", field(&self.id)),
            ("user", known(self.user.clone())),
            ("reason", known(self.reason.clone())),
            ("attempts", known(self.attempts.map(|n| n.to_string()))),
            ("age", age),
            ("type", known(incoming.kind())),
            ("content type", known(incoming.content_type())),
            ("body", body),
        ]
        .map(|(name, text)| (name.to_owned(), text))
        .into();
        for (name, value) in incoming.headers_json() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            rows.push((format!("header {}", harmless(&name)), field(&text)));
        }
        rows.into_iter().map(|(name, text)| vec![name, text]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_version_7_contains_the_time_of_the_event() {
        let known = time_in("0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e").map(|at| at.to_string());
        assert_eq!(known.as_deref(), Some("2024-07-12T07:24:28.062Z"));
        for unknown in ["poison-1", "", "6f1c1b1e-6a0d-4b53-8c8f-0a5a3a2f6f7e"] {
            assert_eq!(time_in(unknown), None, "{unknown:?}");
        }
    }

    #[test]
    fn the_user_is_what_the_body_says_and_unknown_where_it_says_nothing() {
        assert_eq!(user_in(br#"{"userId":"u-1","plan":2}"#).as_deref(), Some("u-1"));
        for body in [&b""[..], b"{}", b"[]", b"{\"userId\":5}", b"\xff", b"{\"userId\":\"u"] {
            assert_eq!(user_in(body), None, "{body:?}");
        }
    }

    #[test]
    fn a_message_without_an_id_is_identified_by_its_body() {
        assert_eq!(body_id(b""), "body:e3b0c44298fc1c14");
        assert_ne!(body_id(b"a"), body_id(b"b"));
    }
}
