//! Service tokens, with which a back end acts on behalf of users: compact JWS, HS256 with the internal key, over
//! `{iss, aud, scope, iat, exp}`; `iss` is the name of the service.
//!
//! Neither an access token nor the signature of an event is one: they have another `typ`, and a `sub`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::infra::config::TokenConfig;
use crate::infra::security::claims::{Audience, LEEWAY_S, is_readable, present, validation};
use crate::infra::security::hs256;
use crate::kernel::{Secret, ServiceName, Timestamp};

/// Value of `typ`, so that no other kind of token that the internal key signs is taken for this one (RFC 8725 §3.11).
const TYPE: &str = "service+jwt";
const AUDIENCE: &str = "wallet";
/// Longest time between `iat` and `exp`: there is no revocation list.
pub const LIFETIME_MAX: Duration = Duration::from_hours(24);

/// What a service may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Read balances and transactions.
    Read,
    /// Write transactions.
    Post,
}

/// The text is not the name of a [`Scope`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be wallet:read or wallet:post")]
pub struct UnknownScope;

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 2] = [Self::Read, Self::Post];

    /// As in the claim `scope`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "wallet:read",
            Self::Post => "wallet:post",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or(UnknownScope)
    }
}

#[derive(Serialize)]
struct NewClaims<'a> {
    iss: &'a str,
    aud: &'static str,
    scope: String,
    iat: i64,
    exp: i64,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    #[serde(rename = "aud")]
    _aud: Audience,
    #[serde(default, deserialize_with = "present")]
    scope: Option<String>,
    iat: i64,
    exp: i64,
    #[serde(default, rename = "nbf", deserialize_with = "present")]
    _nbf: Option<serde_json::Number>,
    /// Refused, even if it is null.
    #[serde(default, deserialize_with = "present")]
    sub: Option<serde_json::Value>,
}

/// Why a service token is rejected. For the log only: the client learns no reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("service token is not valid")]
pub struct InvalidServiceToken;

/// The token could not be signed, which is a bug.
#[derive(Debug, thiserror::Error)]
#[error("service token could not be signed")]
pub struct SigningFailed(#[source] jsonwebtoken::errors::Error);

/// What a valid service token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Who has the token.
    pub name: ServiceName,
    /// What it may do. Scopes that are not known are ignored (RFC 6749 §3.3).
    pub scopes: BTreeSet<Scope>,
}

/// Issues a token for `service`, valid from `now` for `ttl`, in whole seconds of at most [`LIFETIME_MAX`].
///
/// # Errors
/// [`SigningFailed`].
pub fn sign(key: &Secret, service: &Service, ttl: Duration, now: Timestamp) -> Result<Secret, SigningFailed> {
    hs256::install();
    let (iat, ttl_s) = (now.as_second(), i64::try_from(ttl.min(LIFETIME_MAX).as_secs()).unwrap_or(0));
    let scope = service.scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(" ");
    let claims = NewClaims { iss: service.name.as_str(), aud: AUDIENCE, scope, iat, exp: iat.saturating_add(ttl_s) };
    let header = Header { typ: Some(TYPE.to_owned()), ..Header::new(Algorithm::HS256) };
    let key = EncodingKey::from_secret(key.expose().as_bytes());
    jsonwebtoken::encode(&header, &claims, &key).map(Secret::new).map_err(SigningFailed)
}

/// Verifies service tokens.
pub struct ServiceVerifier {
    keys: Vec<DecodingKey>,
    validation: Validation,
}

impl ServiceVerifier {
    /// Accepts the current internal key, and the previous one during key rotation.
    pub fn new(config: &TokenConfig) -> Self {
        let keys = std::iter::once(&config.internal_key)
            .chain(&config.previous_internal_key)
            .map(|key| DecodingKey::from_secret(key.expose().as_bytes()))
            .collect();
        Self { keys, validation: validation(&[AUDIENCE], &["exp", "aud", "iss"]) }
    }

    /// Returns the service of a token that is valid at `now`.
    ///
    /// # Errors
    /// [`InvalidServiceToken`].
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Service, InvalidServiceToken> {
        if !is_readable(token) {
            return Err(InvalidServiceToken);
        }
        let decode = |key| jsonwebtoken::decode::<Claims>(token, key, &self.validation).ok();
        let decoded = self.keys.iter().find_map(decode).ok_or(InvalidServiceToken)?;
        let (header, claims) = (decoded.header, decoded.claims);
        let is_service_token = header.typ.is_some_and(|kind| kind.eq_ignore_ascii_case(TYPE)) && header.crit.is_none();
        if !is_service_token || claims.sub.is_some() || !is_short_lived(claims.iat, claims.exp, now) {
            return Err(InvalidServiceToken);
        }
        let name = ServiceName::parse(&claims.iss).map_err(|_| InvalidServiceToken)?;
        let scopes = claims.scope.iter().flat_map(|scopes| scopes.split(' ')).filter_map(|scope| scope.parse().ok());
        Ok(Service { name, scopes: scopes.collect() })
    }
}

/// Whether a token ends at most [`LIFETIME_MAX`] after it was issued, and was not issued in the future, from where it would
/// be valid for longer.
fn is_short_lived(iat: i64, exp: i64, now: Timestamp) -> bool {
    let lifetime = exp.checked_sub(iat).and_then(|seconds| u64::try_from(seconds).ok());
    let leeway = i64::try_from(LEEWAY_S).unwrap_or(0);
    lifetime.is_some_and(|seconds| seconds <= LIFETIME_MAX.as_secs()) && iat <= now.as_second().saturating_add(leeway)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infra::security::access_token::{TokenSigner, TokenVerifier};
    use crate::infra::security::event_signature::{EventSignatures, SignedEvent};
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::{Value, json};

    const KEY: &str = "an internal key of 32 bytes, or more";

    fn config() -> TokenConfig {
        TokenConfig {
            access_key: Secret::new("an access key of 32 bytes, or a bit more"),
            previous_access_key: None,
            internal_key: Secret::new(KEY),
            previous_internal_key: Some(Secret::new("the previous internal key")),
        }
    }

    fn payments(scopes: &[Scope]) -> Service {
        Service { name: ServiceName::parse("payments").expect("a name"), scopes: scopes.iter().copied().collect() }
    }

    fn verify(token: &str) -> Result<Service, InvalidServiceToken> {
        ServiceVerifier::new(&config()).verify(token, Timestamp::now())
    }

    fn mint(header: &Value, claims: &Value, key: &str) -> String {
        let part = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let tag = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.as_bytes()), message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
    }

    fn claims(changed: Value) -> Value {
        let now = Timestamp::now().as_second();
        let mut claims =
            json!({"iss": "payments", "aud": "wallet", "scope": "wallet:read", "iat": now, "exp": now + 60});
        let Value::Object(changed) = changed else { panic!("not an object") };
        for (name, value) in changed {
            claims[name] = value;
        }
        claims
    }

    #[test]
    fn an_issued_token_is_accepted_with_exactly_its_scopes() {
        for scopes in [&[][..], &[Scope::Read], &[Scope::Post], &Scope::ALL] {
            for key in [KEY, "the previous internal key"] {
                let token = sign(&Secret::new(key), &payments(scopes), LIFETIME_MAX, Timestamp::now()).expect("signed");
                assert_eq!(verify(token.expose()), Ok(payments(scopes)));
            }
        }
    }

    #[test]
    fn scopes_are_separated_by_spaces_and_unknown_ones_are_ignored() {
        let header = json!({"alg": "HS256", "typ": TYPE});
        for (scope, expected) in [
            (json!(""), &[][..]),
            (json!("wallet:read"), &[Scope::Read]),
            (json!("wallet:post wallet:read"), &Scope::ALL),
            (json!("wallet:post  admin wallet:post"), &[Scope::Post]),
            (json!("wallet:post,wallet:read"), &[]),
            (json!("WALLET:POST wallet:postx wallet"), &[]),
        ] {
            let token = mint(&header, &claims(json!({"scope": scope})), KEY);
            assert_eq!(verify(&token), Ok(payments(expected)), "{scope}");
        }
    }

    #[test]
    fn every_invalid_service_token_is_rejected() {
        let header = json!({"alg": "HS256", "typ": TYPE});
        let now = Timestamp::now().as_second();
        let changed = |changed: Value| mint(&header, &claims(changed), KEY);
        for (about, token) in [
            ("empty", String::new()),
            ("another key", mint(&header, &claims(json!({})), "another key")),
            ("the access key", mint(&header, &claims(json!({})), config().access_key.expose())),
            ("no typ", mint(&json!({"alg": "HS256"}), &claims(json!({})), KEY)),
            ("typ of another token", mint(&json!({"alg": "HS256", "typ": "JWT"}), &claims(json!({})), KEY)),
            ("crit", mint(&json!({"alg": "HS256", "typ": TYPE, "crit": ["exp"]}), &claims(json!({})), KEY)),
            ("alg none", mint(&json!({"alg": "none", "typ": TYPE}), &claims(json!({})), KEY)),
            ("a subject", changed(json!({"sub": "0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e"}))),
            ("a null subject", changed(json!({"sub": null}))),
            ("another audience", changed(json!({"aud": "users"}))),
            ("an audience that is no text", changed(json!({"aud": 1}))),
            ("no audience", mint(&header, &json!({"iss": "payments", "iat": now, "exp": now + 60}), KEY)),
            ("no issuer", mint(&header, &json!({"aud": "wallet", "iat": now, "exp": now + 60}), KEY)),
            ("an issuer that is no service name", changed(json!({"iss": "Payments"}))),
            ("a list of scopes", changed(json!({"scope": ["wallet:post"]}))),
            ("null scopes", changed(json!({"scope": null}))),
            ("no iat", mint(&header, &json!({"iss": "payments", "aud": "wallet", "exp": now + 60}), KEY)),
            ("no exp", mint(&header, &json!({"iss": "payments", "aud": "wallet", "iat": now}), KEY)),
            ("expired", changed(json!({"iat": now - 60, "exp": now - 6}))),
            ("exp before iat", changed(json!({"iat": now + 4, "exp": now + 3}))),
            ("valid for a second too long", changed(json!({"exp": now + 86_401}))),
            ("valid for a year", changed(json!({"exp": now + 31_536_000}))),
            ("issued in the future", changed(json!({"iat": now + 60, "exp": now + 86_400}))),
            ("the largest times", changed(json!({"iat": i64::MIN, "exp": i64::MAX}))),
            ("not yet valid", changed(json!({"nbf": now + 60}))),
            ("nbf a text", changed(json!({"nbf": "now"}))),
        ] {
            assert_eq!(verify(&token), Err(InvalidServiceToken), "{about}");
        }
        assert_eq!(
            verify(&changed(json!({}))),
            Ok(payments(&[Scope::Read])),
            "the tokens above are variants of this one"
        );
    }

    #[test]
    fn no_token_is_taken_for_one_of_another_kind() {
        let config = config();
        let (user, now) = ("0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e", Timestamp::now());
        let access = TokenSigner::new(&config, Duration::from_mins(1)).sign(user.parse().expect("id"), now);
        assert_eq!(verify(access.expect("signed").expose()), Err(InvalidServiceToken));
        let events = EventSignatures::new(&config.internal_key, None);
        let event = SignedEvent { message_id: "m", subject: user, body: b"{}" };
        assert_eq!(verify(&events.sign(&event).expect("signed")), Err(InvalidServiceToken));
        let service = sign(&config.internal_key, &payments(&Scope::ALL), LIFETIME_MAX, now).expect("signed");
        assert!(TokenVerifier::new(&config).verify(service.expose()).is_err());
        assert!(events.verify(service.expose(), &event).is_err());
    }
}
