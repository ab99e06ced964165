//! Ed25519 keys with which receipts are signed, and the public keys with which anyone can verify them.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

/// A public key, identified by its thumbprint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    x: [u8; 32],
    kid: String,
}

impl PublicKey {
    /// `x` is the public key as a JWK has it; `None` unless it is base64url of 32 bytes.
    ///
    /// # Source
    /// RFC 8037 §2.
    pub fn from_jwk(x: &str) -> Option<Self> {
        URL_SAFE_NO_PAD.decode(x).ok()?.try_into().ok().map(Self::new)
    }

    /// # Source
    /// RFC 7638 §3, with the members that RFC 8037 §2 names: the key ID is the thumbprint, so it needs no registry.
    fn new(x: [u8; 32]) -> Self {
        let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, URL_SAFE_NO_PAD.encode(x));
        Self { x, kid: URL_SAFE_NO_PAD.encode(digest(&SHA256, members.as_bytes())) }
    }

    /// As a JWK has it.
    pub fn x(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.x)
    }

    /// The thumbprint.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Whether `signature` is base64url of a signature of `message` with this key.
    pub fn verifies(&self, message: &[u8], signature: &str) -> bool {
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
        UnparsedPublicKey::new(&ED25519, self.x).verify(message, &signature).is_ok()
    }
}

/// A private key. `Debug` prints the ID of its public key only.
#[derive(Clone)]
pub struct SigningKey {
    pair: Arc<Ed25519KeyPair>,
    public: PublicKey,
}

impl SigningKey {
    /// `None` unless the text is base64 of the 32 bytes that RFC 8032 calls the private key.
    pub fn parse(text: &str) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&STANDARD.decode(text).ok()?).ok()?;
        let public = PublicKey::new(pair.public_key().as_ref().try_into().ok()?);
        Some(Self { pair: Arc::new(pair), public })
    }

    /// Base64url, as JWS has it.
    fn sign(&self, message: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(self.pair.sign(message))
    }
}

impl PartialEq for SigningKey {
    fn eq(&self, other: &Self) -> bool {
        self.public == other.public
    }
}

impl Eq for SigningKey {}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.public.kid).finish()
    }
}

/// A signature and the key that verifies it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The ID of that key.
    pub kid: String,
    /// Base64url.
    pub value: String,
}

/// The key that signs, if there is one, and those that are only published.
#[derive(Clone, Debug, Default)]
pub struct SigningKeys {
    current: Option<SigningKey>,
    /// Each key once, the current one first.
    published: Vec<PublicKey>,
}

impl SigningKeys {
    /// `previous` keys sign nothing.
    pub fn new(current: Option<SigningKey>, previous: &[SigningKey]) -> Self {
        let mut published: Vec<PublicKey> = Vec::new();
        for key in current.iter().chain(previous) {
            if !published.contains(&key.public) {
                published.push(key.public.clone());
            }
        }
        Self { current, published }
    }

    /// `None` without a key.
    pub fn sign(&self, message: &[u8]) -> Option<Signature> {
        let key = self.current.as_ref()?;
        Some(Signature { kid: key.public.kid.clone(), value: key.sign(message) })
    }

    /// What verifies the signatures of this process and of earlier ones.
    pub fn published(&self) -> &[PublicKey] {
        &self.published
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8037 appendix A.1, whose `d` is this in base64url.
    const SEED: &str = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
    const OTHER: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

    fn key(text: &str) -> SigningKey {
        SigningKey::parse(text).expect("a key")
    }

    /// RFC 8037 appendices A.2 to A.4.
    #[test]
    fn key_thumbprint_and_signature_are_those_of_the_rfc() {
        let keys = SigningKeys::new(Some(key(SEED)), &[]);
        let [public] = keys.published() else { panic!("one key") };
        assert_eq!(public.x(), "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        assert_eq!(public.kid(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        let message = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
        let signature = keys.sign(message).expect("signed");
        assert_eq!(signature.kid, public.kid());
        assert_eq!(
            signature.value,
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
        );
        let copied = PublicKey::from_jwk(&public.x()).expect("a key");
        assert_eq!(&copied, public);
        assert!(copied.verifies(message, &signature.value));
        assert!(!copied.verifies(b"another", &signature.value));
        assert!(!copied.verifies(message, ""));
        assert!(!key(OTHER).public.verifies(message, &signature.value));
    }

    #[test]
    fn a_key_is_base64_of_32_bytes() {
        let bytes = |count: usize| STANDARD.encode(vec![7; count]);
        assert!(SigningKey::parse(&bytes(32)).is_some());
        let url_safe = SEED.replace('/', "_");
        for refused in ["", "secret", &bytes(31), &bytes(33), &bytes(48), &format!(" {SEED}"), &url_safe] {
            assert!(SigningKey::parse(refused).is_none(), "{refused:?}");
        }
        assert!(PublicKey::from_jwk("AAAA").is_none());
    }

    #[test]
    fn previous_keys_are_published_once_and_sign_nothing() {
        let published =
            |keys: &SigningKeys| keys.published().iter().map(|key| key.kid().to_owned()).collect::<Vec<_>>();
        let (one, two) = (key(SEED), key(OTHER));
        let kids = [one.public.kid.clone(), two.public.kid.clone()];
        assert_eq!(published(&SigningKeys::new(Some(one.clone()), &[two, one])), kids);
        let retired = SigningKeys::new(None, &[key(SEED)]);
        assert_eq!((retired.sign(b"x"), published(&retired)), (None, vec![kids[0].clone()]));
    }

    #[test]
    fn a_key_does_not_print_itself() {
        assert_eq!(format!("{:?}", key(SEED)), r#"SigningKey("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k")"#);
    }
}
