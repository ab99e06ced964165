//! What the verification of every kind of token has in common.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, Validation};
use serde::{Deserialize, Deserializer};

use crate::infra::security::hs256;

/// Tolerated clock difference between machines, in seconds.
pub(super) const LEEWAY_S: u64 = 5;
/// Longer tokens are rejected unread; ours have about 200 bytes.
const TOKEN_BYTES_MAX: usize = 4096;

/// RFC 7519 §4.1.3: a string or a list of strings. jsonwebtoken treats an `aud` of another type as absent, so its type is
/// checked by this; it checks the value.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Audience {
    One(#[expect(dead_code, reason = "only its type is checked")] String),
    Many(#[expect(dead_code, reason = "only its type is checked")] Vec<String>),
}

/// A claim that may be absent, but not null, unless `T` can be null.
pub(super) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Whether a token is short enough to be decoded, and its header and claims are valid UTF-8: the JSON parser does not
/// validate strings that it skips.
pub(super) fn is_readable(token: &str) -> bool {
    let decoded = token.split('.').take(2).map(|part| URL_SAFE_NO_PAD.decode(part));
    let mut utf8 = decoded.map(|part| part.is_ok_and(|bytes| std::str::from_utf8(&bytes).is_ok()));
    token.len() <= TOKEN_BYTES_MAX && utf8.all(|is_utf8| is_utf8)
}

/// Checks the signature, the times and that the token is for one of `audiences`, if it names any; `required` are the claims
/// that it must have.
pub(super) fn validation(audiences: &[&str], required: &[&str]) -> Validation {
    hs256::install();
    let mut validation = Validation::new(Algorithm::HS256); // the only algorithm, whatever the header says
    validation.leeway = LEEWAY_S; // the crate's default is a minute
    validation.validate_exp = true;
    validation.validate_nbf = true; // off by default
    validation.validate_aud = true;
    validation.set_audience(audiences); // rejects tokens for others (RFC 7519 §4.1.3)
    validation.set_required_spec_claims(required);
    validation
}
