use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use uuid::Uuid;

use super::User;

/// `JWT_PRIVATE_KEY` of every test environment.
pub const ACCESS_KEY: &str = "ILIACHALLENGE";
/// `INTERNAL_JWT_PRIVATE_KEY` of every test environment.
pub const INTERNAL_KEY: &str = "ILIACHALLENGE_INTERNAL";

/// A compact JWS signed with HMAC-SHA256, whatever its header says.
pub fn mint(header: &Value, claims: &Value, key: &str) -> String {
    let message = format!("{}.{}", part(header), part(claims));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.as_bytes());
    let signature = ring::hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Header or claims, as encoded in a token.
pub fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// Unix time of a moment that many seconds from now.
pub fn seconds_from_now(seconds: i64) -> i64 {
    purse::kernel::Timestamp::now().as_second() + seconds
}

/// A valid token for this user.
pub fn token_of(user_id: &str) -> String {
    mint(&json!({"alg": "HS256"}), &json!({"sub": user_id, "exp": seconds_from_now(600)}), ACCESS_KEY)
}

/// A valid token of a service with these scopes, which are separated by spaces.
pub fn service_token(service: &str, scopes: &str) -> String {
    let (now, exp) = (seconds_from_now(0), seconds_from_now(600));
    let claims = json!({"iss": service, "aud": "wallet", "scope": scopes, "iat": now, "exp": exp});
    mint(&json!({"alg": "HS256", "typ": "service+jwt"}), &claims, INTERNAL_KEY)
}

/// The path of an operation with its parameters filled in, and a token that the operation takes: that of the user, or that
/// of a service.
pub fn path_and_token(path: &str, user: &User, id: &str) -> (String, String) {
    let filled = path.replace("{userId}", &user.id).replace("{id}", id);
    let token = if filled == path.replace("{id}", id) {
        user.token.clone()
    } else {
        service_token("payments", "wallet:read wallet:post")
    };
    (filled, token)
}

/// The id of a user who was never registered.
pub fn unknown_user_id() -> String {
    Uuid::now_v7().to_string()
}
