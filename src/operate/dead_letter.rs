//! A dead letter as a person reads it: which event it was, why it lies here, how often it was tried, how old it is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::contracts::{ATTEMPT_HEADER, ERROR_HEADER};
use crate::infra::amqp::{Death, Incoming};
use crate::kernel::Timestamp;
use crate::operate::humanize::{UNKNOWN, cell, duration, harmless, seconds_between};

/// What stands before the digest that names a message without an id.
const BODY_PREFIX: &str = "body:";
/// Bytes of that digest that are shown.
const BODY_DIGEST_BYTES: usize = 8;

/// What a list shows of a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DeadLetter {
    /// What it is called by.
    pub(super) id: String,
    /// Why it lies here.
    pub(super) reason: Option<String>,
    /// Failed attempts before the last one.
    pub(super) attempts: Option<i64>,
    /// When the event was made, or when the broker gave it up, whichever is known.
    pub(super) at: Option<Timestamp>,
}

/// What a message is called by: its id, or else what its body makes.
pub(super) fn id_of(incoming: &Incoming) -> String {
    incoming.message_id().filter(|id| !id.is_empty()).unwrap_or_else(|| name_of_body(incoming.body()))
}

fn name_of_body(body: &[u8]) -> String {
    let digest = digest(&SHA256, body);
    let hex = digest.as_ref().iter().take(BODY_DIGEST_BYTES).map(|byte| format!("{byte:02x}"));
    format!("{BODY_PREFIX}{}", hex.collect::<String>())
}

/// The time in an id of ours, which is a UUID of version 7.
fn time_in(id: &str) -> Option<Timestamp> {
    let id = id.parse::<Uuid>().ok().filter(|id| id.get_version_num() == 7)?;
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    Timestamp::new(i64::try_from(seconds).ok()?, i32::try_from(nanos).ok()?).ok()
}

fn words_of(death: &Death) -> String {
    format!("the broker gave it up: {} in {}", death.reason, death.queue)
}

impl DeadLetter {
    /// Reads it off the message.
    pub(super) fn read(incoming: &Incoming) -> Self {
        let id = id_of(incoming);
        let death = incoming.last_death();
        let reason = incoming.header_text(ERROR_HEADER).or_else(|| death.as_ref().map(words_of));
        let at = time_in(&id).or_else(|| incoming.sent_at()).or_else(|| death.and_then(|death| death.at));
        Self { id, reason, attempts: incoming.header_int(ATTEMPT_HEADER), at }
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
            "id": self.id, "reason": self.reason, "attempts": self.attempts,
            "at": self.at.map(|at| at.to_string()), "ageSeconds": self.age_seconds(now),
        })
    }

    /// As a row of a table.
    pub(super) fn row(&self, now: Timestamp) -> Vec<String> {
        let attempts = self.attempts.map_or_else(|| UNKNOWN.to_owned(), |n| n.to_string());
        let reason = self.reason.as_deref().map_or_else(|| UNKNOWN.to_owned(), cell);
        vec![harmless(&self.id), attempts, self.age(now), reason]
    }

    /// With everything that the message holds, as JSON.
    pub(super) fn whole_json(&self, incoming: &Incoming, now: Timestamp) -> Value {
        let mut whole = self.json(now);
        let (text, bytes) = match std::str::from_utf8(incoming.body()) {
            Ok(text) => (Some(text), None),
            Err(_) => (None, Some(STANDARD.encode(incoming.body()))),
        };
        if let Value::Object(fields) = &mut whole {
            fields.insert("type".to_owned(), incoming.kind().into());
            fields.insert("contentType".to_owned(), incoming.content_type().into());
            fields.insert("headers".to_owned(), incoming.headers_json().into());
            fields.insert("body".to_owned(), text.into());
            fields.insert("bodyBase64".to_owned(), bytes.into());
        }
        whole
    }

    /// With everything that the message holds, for a person.
    pub(super) fn whole_rows(&self, incoming: &Incoming, now: Timestamp) -> Vec<Vec<String>> {
        let known = |text: Option<String>| text.map_or_else(|| UNKNOWN.to_owned(), |text| harmless(&text));
        let age = match self.at {
            Some(at) => format!("{} (since {at})", self.age(now)),
            None => UNKNOWN.to_owned(),
        };
        let body = match std::str::from_utf8(incoming.body()) {
            Ok(text) => harmless(text),
            Err(_) => format!("{} (base64)", STANDARD.encode(incoming.body())),
        };
        let mut rows: Vec<(String, String)> = [
            ("id", harmless(&self.id)),
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
            rows.push((format!("header {}", harmless(&name)), harmless(&text)));
        }
        rows.into_iter().map(|(name, text)| vec![name, text]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_ids_tell_when_the_event_was_made() {
        let known = time_in("0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e").map(|at| at.to_string());
        assert_eq!(known.as_deref(), Some("2024-07-12T07:24:28.062Z"));
        for unknown in ["poison-1", "", "6f1c1b1e-6a0d-4b53-8c8f-0a5a3a2f6f7e"] {
            assert_eq!(time_in(unknown), None, "{unknown:?}");
        }
    }

    #[test]
    fn a_message_without_an_id_is_named_by_its_body() {
        assert_eq!(name_of_body(b""), "body:e3b0c44298fc1c14");
        assert_ne!(name_of_body(b"a"), name_of_body(b"b"));
    }
}
