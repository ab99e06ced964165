//! Signatures of events between the roles: permission to publish to the broker is not enough to create wallets.
//!
//! A compact JWS, HS256 with the internal key, over `{iss, aud, jti, sub, bh}`; `bh` is the hash of the body. It has no `exp`
//! because a message may stay in a queue for the whole duration of an outage.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use ring::digest;
use serde::{Deserialize, Serialize};

use crate::infra::security::hs256;
use crate::kernel::Secret;

const ISSUER: &str = "users";
const AUDIENCE: &str = "wallet";

#[derive(Serialize, Deserialize, PartialEq, Eq)]
struct Claims {
    iss: String,
    aud: String,
    jti: String,
    sub: String,
    bh: String,
}

/// What a signature covers.
#[derive(Clone, Copy, Debug)]
pub struct SignedEvent<'a> {
    /// AMQP property of the message.
    pub message_id: &'a str,
    /// The user of the event.
    pub subject: &'a str,
    /// The exact bytes of the message.
    pub body: &'a [u8],
}

impl SignedEvent<'_> {
    fn claims(&self) -> Claims {
        Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            jti: self.message_id.to_owned(),
            sub: self.subject.to_owned(),
            bh: URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, self.body)),
        }
    }
}

/// Why a signature is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureRefused {
    /// Not a JWS, or not of the internal key.
    #[error("signature is not valid")]
    Invalid,
    /// Valid for another message, user or body.
    #[error("signature belongs to another event")]
    OtherEvent,
}

/// The event could not be signed, which is a bug.
#[derive(Debug, thiserror::Error)]
#[error("event could not be signed")]
pub struct SigningFailed(#[source] jsonwebtoken::errors::Error);

pub struct EventSignatures {
    signing: EncodingKey,
    /// The current key first.
    verifying: Vec<DecodingKey>,
    validation: Validation,
}

impl EventSignatures {
    /// Signs with the internal key, and accepts also the previous one during key rotation.
    pub fn new(internal_key: &Secret, previous: Option<&Secret>) -> Self {
        hs256::install();
        let mut validation = Validation::new(Algorithm::HS256);
        validation.validate_exp = false; // see the module documentation
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["iss", "aud", "sub"]);
        let keys = std::iter::once(internal_key).chain(previous).map(|key| key.expose().as_bytes());
        let verifying = keys.map(DecodingKey::from_secret).collect();
        Self { signing: EncodingKey::from_secret(internal_key.expose().as_bytes()), verifying, validation }
    }

    /// Returns the value of the `x-signature` header.
    ///
    /// # Errors
    /// [`SigningFailed`].
    pub fn sign(&self, event: &SignedEvent<'_>) -> Result<String, SigningFailed> {
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &event.claims(), &self.signing).map_err(SigningFailed)
    }

    /// Checks that `signature` covers exactly this event.
    ///
    /// # Errors
    /// [`SignatureRefused`].
    pub fn verify(&self, signature: &str, event: &SignedEvent<'_>) -> Result<(), SignatureRefused> {
        let decode = |key| jsonwebtoken::decode::<Claims>(signature, key, &self.validation).ok();
        let decoded = self.verifying.iter().find_map(decode).ok_or(SignatureRefused::Invalid)?;
        if decoded.header.crit.is_some() {
            return Err(SignatureRefused::Invalid);
        }
        if decoded.claims == event.claims() { Ok(()) } else { Err(SignatureRefused::OtherEvent) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: SignedEvent<'_> = SignedEvent { message_id: "m1", subject: "u1", body: b"{}" };

    #[test]
    fn a_signature_is_valid_for_its_own_event_only() {
        let signatures = EventSignatures::new(&Secret::new("internal"), None);
        let signature = signatures.sign(&EVENT).expect("signed");
        assert_eq!(signatures.verify(&signature, &EVENT), Ok(()));
        for other in [
            SignedEvent { message_id: "m2", ..EVENT },
            SignedEvent { subject: "u2", ..EVENT },
            SignedEvent { body: b"{ }", ..EVENT },
        ] {
            assert_eq!(signatures.verify(&signature, &other), Err(SignatureRefused::OtherEvent), "{other:?}");
        }
    }

    #[test]
    fn a_signature_of_another_key_is_rejected() {
        let signatures = EventSignatures::new(&Secret::new("internal"), None);
        let other = EventSignatures::new(&Secret::new("access"), None).sign(&EVENT).expect("signed");
        assert_eq!(signatures.verify(&other, &EVENT), Err(SignatureRefused::Invalid));
        assert_eq!(signatures.verify("", &EVENT), Err(SignatureRefused::Invalid));
    }
    #[test]
    fn the_previous_key_verifies_and_never_signs() {
        let [old, new] = ["old", "new"].map(Secret::new);
        let (before, during, after) = (
            EventSignatures::new(&old, None),
            EventSignatures::new(&new, Some(&old)),
            EventSignatures::new(&new, None),
        );
        let (old_signature, new_signature) =
            (before.sign(&EVENT).expect("signed"), during.sign(&EVENT).expect("signed"));
        assert_eq!(during.verify(&old_signature, &EVENT), Ok(()));
        assert_eq!(during.verify(&new_signature, &EVENT), Ok(()));
        assert_eq!(after.verify(&new_signature, &EVENT), Ok(()));
        assert_eq!(after.verify(&old_signature, &EVENT), Err(SignatureRefused::Invalid));
        let other = SignedEvent { subject: "u2", ..EVENT };
        assert_eq!(during.verify(&old_signature, &other), Err(SignatureRefused::OtherEvent));
    }
}
