//! Tokens as anybody with a key, or without one, could make them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use uuid::Uuid;

/// The key of access tokens in every world.
pub const ACCESS_KEY: &str = "ILIACHALLENGE";
/// The key of events in every world.
pub const INTERNAL_KEY: &str = "ILIACHALLENGE_INTERNAL";

/// A compact JWS whose signature is HMAC-SHA256, whatever its header says.
pub fn mint(header: &Value, claims: &Value, key: &str) -> String {
    let message = format!("{}.{}", part(header), part(claims));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.as_bytes());
    let signature = ring::hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// One part of a token.
pub fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// Seconds since 1970, so many from now.
pub fn seconds_from_now(seconds: i64) -> i64 {
    purse::kernel::Timestamp::now().as_second() + seconds
}

/// A genuine token of this user.
pub fn token_of(user_id: &str) -> String {
    mint(&json!({"alg": "HS256"}), &json!({"sub": user_id, "exp": seconds_from_now(600)}), ACCESS_KEY)
}

/// The id of a user that nobody has heard of.
pub fn stranger() -> String {
    Uuid::now_v7().to_string()
}
