//! What is fuzzed: each target reads bytes as the outside may send them, and checks what has to hold of whatever comes
//! out. The same functions read the corpus in `just test`, without a fuzzer.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use purse::contracts::UserRegistered;
use purse::infra::config::{TokenConfig, parse};
use purse::infra::http::Fields;
use purse::infra::security::access_token::TokenVerifier;
use purse::kernel::{RequestId, Secret, TraceParent, UserId};
use purse::wallet::application::{ListKind, PagedList};
use purse::wallet::domain::AmountMinor;

/// A name, and what it does with some bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target, under the name of its program and of its corpus.
pub const TARGETS: [Target; 7] = [
    ("event", event),
    ("cursor", cursor),
    ("request_id", request_id),
    ("traceparent", traceparent),
    ("duration", duration),
    ("amount", amount),
    ("token", token),
];

/// The body of a message.
pub fn event(bytes: &[u8]) {
    if let Ok(event) = UserRegistered::decode(bytes) {
        assert_eq!(UserRegistered::decode(event.encode().as_bytes()), Ok(event));
        // A reader that keeps every field cannot keep a number like 1e999, which an event may contain in an unknown field.
        if let Ok(object) = serde_json::from_slice::<serde_json::Value>(bytes) {
            let named = object["userId"].as_str().expect("userId is a text");
            assert_eq!(named.to_lowercase(), event.user_id.to_string(), "the user that is named, and no other");
        }
    }
}

/// `?cursor=` of a history.
pub fn cursor(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let user: UserId = "0190a5d4-3c1e-7d2b-8f4a-6e5d4c3b2a19".parse().expect("a user ID");
    for kind in [ListKind::Transactions, ListKind::Holds] {
        let list = PagedList { kind, user };
        if let Ok(cursor) = list.decode(text) {
            assert!(cursor.before_seq >= 1);
            assert_eq!(list.decode(&list.encode(cursor)), Ok(cursor));
        }
    }
}

/// `x-request-id`.
pub fn request_id(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(id) = RequestId::parse(text) {
        assert_eq!(id.as_str(), text, "kept as it is");
        assert!((1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()));
        assert!(!text.contains(['"', '\\', '{', '}', '<', '>', '/', '%', ',', ';']));
    }
}

/// `traceparent`.
pub fn traceparent(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(trace) = TraceParent::parse(text) {
        assert_eq!(trace.as_str(), text, "kept as it is");
        assert!(text.len() == 55 && text.is_ascii());
        assert!(trace.trace_id().len() == 32 && trace.trace_id().bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}

/// A duration, and the other readers of settings.
pub fn duration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(duration) = parse::duration(text) {
        assert!(!duration.is_zero() && duration.as_secs() <= 24 * 3600, "{text}");
        let digits = text.trim_end_matches(|c: char| c.is_ascii_lowercase());
        assert!(digits.bytes().all(|byte| byte.is_ascii_digit()), "{text}");
    }
    if let Some(number) = parse::integer(text, 3, 9) {
        assert!((3..=9).contains(&number));
    }
    if let Some(networks) = parse::networks(text) {
        assert!(networks.len() <= text.split(',').count());
    }
}

/// A body with an amount of money.
pub fn amount(bytes: &[u8]) {
    let Ok(fields) = Fields::json(bytes) else { return };
    if let Ok(amount) = fields.read(|fields| fields.integer("amountMinor", AmountMinor::try_new, |schema| schema)) {
        let cents = amount.cents();
        assert!((1..=9_007_199_254_740_991).contains(&cents));
        // The amount is written in the body with exactly these digits.
        assert!(std::str::from_utf8(bytes).expect("JSON is UTF-8").contains(&cents.to_string()));
    }
}

/// The key of [`token`]; the fuzzer does not know it.
const KEY: &str = "a key that no fuzzer finds";

/// `Authorization: Bearer …`: the bytes themselves, and the bytes as a header and claims that we have signed.
pub fn token(bytes: &[u8]) {
    let verifier = TokenVerifier::new(&TokenConfig {
        access_key: Secret::new(KEY),
        previous_access_key: None,
        internal_key: Secret::new("another"),
        previous_internal_key: None,
    });
    if let Ok(text) = std::str::from_utf8(bytes) {
        assert!(verifier.verify(text).is_err(), "an unsigned token was accepted: {text}");
    }
    let at = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (header, claims) = bytes.split_at(at);
    let claims = claims.get(1..).unwrap_or_default();
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, KEY.as_bytes());
    let tag = URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, message.as_bytes()));
    if let Ok(user) = verifier.verify(&format!("{message}.{tag}")) {
        // As above: not everything that is skipped can be kept.
        if let Ok(named) = serde_json::from_slice::<serde_json::Value>(claims) {
            assert_eq!(named["sub"].as_str().map(str::to_lowercase), Some(user.to_string()));
            assert!(named["exp"].is_number());
        }
        if let Ok(header) = serde_json::from_slice::<serde_json::Value>(header) {
            assert!(header["alg"] == "HS256" && header["crit"].is_null());
        }
    }
}
