//! Access tokens: compact JWS with HS256; `sub` is the id of the user.

use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::infra::config::TokenConfig;
use crate::infra::security::claims::{Audience, is_readable, present, validation};
use crate::infra::security::hs256;
use crate::kernel::{Secret, Timestamp, UserId};

/// Accepted values of `aud`, which is optional.
const AUDIENCES: [&str; 3] = ["users", "wallet", "purse"];

#[derive(Serialize)]
struct NewClaims {
    sub: String,
    iat: i64,
    exp: i64,
}

/// jsonwebtoken treats an `nbf` of the wrong type as absent, so its type is checked here; it checks the value.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    #[serde(default, rename = "aud", deserialize_with = "present")]
    _aud: Option<Audience>,
    #[serde(default, rename = "nbf", deserialize_with = "present")]
    _nbf: Option<serde_json::Number>,
}

/// Why a token is rejected. For the log only: the client learns no reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// Wrong format, algorithm, signature, time or audience.
    #[error("token is not valid")]
    Invalid,
    /// `crit` requires an extension, and none is supported.
    #[error("token has a critical extension")]
    Critical,
    /// The signature is valid, but `sub` is not a user id.
    #[error("token has no user ID as its subject")]
    Subject,
}

/// The token could not be signed, which is a bug.
#[derive(Debug, thiserror::Error)]
#[error("token could not be signed")]
pub struct SigningFailed(#[source] jsonwebtoken::errors::Error);

pub(crate) struct TokenSigner {
    key: EncodingKey,
    ttl: Duration,
}

impl TokenSigner {
    /// `ttl` is in whole seconds.
    pub fn new(config: &TokenConfig, ttl: Duration) -> Self {
        hs256::install();
        Self { key: EncodingKey::from_secret(config.access_key.expose().as_bytes()), ttl }
    }

    /// Lifetime of a token in seconds.
    pub fn ttl_s(&self) -> i64 {
        i64::try_from(self.ttl.as_secs()).unwrap_or(i64::MAX)
    }

    /// Issues a token for `user`, valid from `now`.
    ///
    /// # Errors
    /// [`SigningFailed`].
    pub fn sign(&self, user: UserId, now: Timestamp) -> Result<Secret, SigningFailed> {
        let iat = now.as_second();
        let claims = NewClaims { sub: user.to_string(), iat, exp: iat.saturating_add(self.ttl_s()) };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.key).map(Secret::new).map_err(SigningFailed)
    }
}

/// Verifies signature, times, audience and subject.
pub struct TokenVerifier {
    keys: Vec<DecodingKey>,
    validation: Validation,
}

impl TokenVerifier {
    /// Accepts the current key, and the previous one during key rotation.
    pub fn new(config: &TokenConfig) -> Self {
        let keys = std::iter::once(&config.access_key)
            .chain(&config.previous_access_key)
            .map(|key| DecodingKey::from_secret(key.expose().as_bytes()))
            .collect();
        let validation = validation(&AUDIENCES, &["exp", "sub"]);
        Self { keys, validation }
    }

    /// Returns the user of a valid token.
    ///
    /// # Errors
    /// [`InvalidToken`].
    ///
    /// # Source
    /// RFC 8725 §3.1–3.11; RFC 7515 §4.1.11 for `crit`.
    pub fn verify(&self, token: &str) -> Result<UserId, InvalidToken> {
        if !is_readable(token) {
            return Err(InvalidToken::Invalid);
        }
        let decoded = self
            .keys
            .iter()
            .find_map(|key| jsonwebtoken::decode::<Claims>(token, key, &self.validation).ok())
            .ok_or(InvalidToken::Invalid)?;
        if decoded.header.crit.is_some() {
            return Err(InvalidToken::Critical);
        }
        decoded.claims.sub.parse().map_err(|_| InvalidToken::Subject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::{Value, json};

    const SUB: &str = "0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e";

    fn config(previous: Option<&str>) -> TokenConfig {
        TokenConfig {
            access_key: Secret::new("ILIACHALLENGE"),
            previous_access_key: previous.map(Secret::new),
            internal_key: Secret::new("ILIACHALLENGE_INTERNAL"),
            previous_internal_key: None,
        }
    }

    fn mint(header: &Value, claims: &Value, key: &str) -> String {
        let part = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let tag = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.as_bytes()), message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
    }

    fn verify(token: &str) -> Result<String, InvalidToken> {
        TokenVerifier::new(&config(None)).verify(token).map(|id| id.to_string())
    }

    fn now() -> i64 {
        Timestamp::now().as_second()
    }

    #[test]
    fn an_issued_token_is_accepted_for_its_user() {
        let signer = TokenSigner::new(&config(None), Duration::from_hours(1));
        let token = signer.sign(SUB.parse().expect("id"), Timestamp::now()).expect("signed");
        assert_eq!(verify(token.expose()), Ok(SUB.to_owned()));
    }

    #[test]
    fn a_minimal_token_of_another_issuer_is_accepted() {
        let token = mint(&json!({"alg": "HS256"}), &json!({"sub": SUB, "exp": now() + 60}), "ILIACHALLENGE");
        assert_eq!(verify(&token), Ok(SUB.to_owned()));
    }

    #[test]
    fn every_invalid_token_is_rejected() {
        let hs256 = json!({"alg": "HS256", "typ": "JWT"});
        let good = json!({"sub": SUB, "exp": now() + 60});
        let with = |key: &str, value: Value| {
            let mut claims = good.clone();
            claims[key] = value;
            claims
        };
        let genuine = mint(&hs256, &good, "ILIACHALLENGE");
        let shapes: Vec<(&str, String)> = vec![
            ("empty", String::new()),
            ("two segments", "a.b".into()),
            ("four segments", format!("{genuine}.x")),
            ("padded", format!("{genuine}=")),
            ("cut signature", genuine[..genuine.len() - 2].to_owned()),
            ("no signature", format!("{}.", genuine.rsplit_once('.').expect("dots").0)),
            ("alg none", mint(&json!({"alg": "none"}), &good, "ILIACHALLENGE")),
            ("alg None", mint(&json!({"alg": "None"}), &good, "ILIACHALLENGE")),
            ("alg HS512", mint(&json!({"alg": "HS512"}), &good, "ILIACHALLENGE")),
            ("alg RS256", mint(&json!({"alg": "RS256"}), &good, "ILIACHALLENGE")),
            ("no alg", mint(&json!({"typ": "JWT"}), &good, "ILIACHALLENGE")),
            ("crit", mint(&json!({"alg": "HS256", "crit": ["exp"]}), &good, "ILIACHALLENGE")),
            ("internal key", mint(&hs256, &good, "ILIACHALLENGE_INTERNAL")),
            ("empty key", mint(&hs256, &good, "")),
            ("expired", mint(&hs256, &with("exp", json!(now() - 6)), "ILIACHALLENGE")),
            ("no exp", mint(&hs256, &json!({"sub": SUB}), "ILIACHALLENGE")),
            ("exp a text", mint(&hs256, &with("exp", json!("soon")), "ILIACHALLENGE")),
            ("not yet", mint(&hs256, &with("nbf", json!(now() + 60)), "ILIACHALLENGE")),
            ("no sub", mint(&hs256, &json!({"exp": now() + 60}), "ILIACHALLENGE")),
            ("sub empty", mint(&hs256, &with("sub", json!("")), "ILIACHALLENGE")),
            ("sub a path", mint(&hs256, &with("sub", json!("../../x")), "ILIACHALLENGE")),
            ("sub a number", mint(&hs256, &with("sub", json!(7)), "ILIACHALLENGE")),
            ("sub a list", mint(&hs256, &with("sub", json!([SUB])), "ILIACHALLENGE")),
            ("another audience", mint(&hs256, &with("aud", json!("bank")), "ILIACHALLENGE")),
            ("claims a list", mint(&hs256, &json!([SUB]), "ILIACHALLENGE")),
            ("too long", mint(&hs256, &with("pad", json!("x".repeat(5000))), "ILIACHALLENGE")),
        ];
        for (shape, token) in shapes {
            assert!(verify(&token).is_err(), "{shape}");
        }
        assert_eq!(verify(&genuine), Ok(SUB.to_owned()), "the tokens above are variants of this one");
    }

    #[test]
    fn the_previous_key_verifies_during_key_rotation() {
        let token = mint(&json!({"alg": "HS256"}), &json!({"sub": SUB, "exp": now() + 60}), "the old one");
        assert_eq!(verify(&token), Err(InvalidToken::Invalid));
        let both = TokenVerifier::new(&config(Some("the old one")));
        assert_eq!(both.verify(&token).map(|id| id.to_string()), Ok(SUB.to_owned()));
    }
}
