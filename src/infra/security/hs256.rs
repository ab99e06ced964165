//! The cryptography provider of `jsonwebtoken`, with HMAC-SHA256 only.
//!
//! The crate's own backends include RSA and elliptic curves, which we do not use; a provider with one algorithm cannot be
//! tricked into another.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind, new_error};
use jsonwebtoken::signature::{Error as SignatureError, Signer, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey};
use ring::hmac;

struct Hs256(hmac::Key);

impl Hs256 {
    fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }
}

impl Signer<Vec<u8>> for Hs256 {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        Ok(hmac::sign(&self.0, message).as_ref().to_vec())
    }
}

impl JwtSigner for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

impl Verifier<Vec<u8>> for Hs256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        // Constant-time comparison.
        hmac::verify(&self.0, message, signature).map_err(|_| SignatureError::new())
    }
}

impl JwtVerifier for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

fn refuse_other(algorithm: Algorithm, family: AlgorithmFamily) -> Result<(), Error> {
    if algorithm == Algorithm::HS256 && family == AlgorithmFamily::Hmac {
        Ok(())
    } else {
        Err(new_error(ErrorKind::InvalidAlgorithm))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that the provider requires")]
fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    refuse_other(*algorithm, key.family())?;
    Ok(Box::new(Hs256::new(key.as_bytes())))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that the provider requires")]
fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    refuse_other(*algorithm, key.family())?;
    Ok(Box::new(Hs256::new(key.try_get_as_bytes()?)))
}

static PROVIDER: CryptoProvider =
    CryptoProvider { signer_factory: signer, verifier_factory: verifier, key_utils: KeyUtils::new_unimplemented() };

/// Installs the provider of the process; idempotent. Without it, the first token would panic.
pub(super) fn install() {
    // An error means that it is already installed.
    let _ = PROVIDER.install_default();
}

/// Checks at startup that the installed provider accepts the example of the RFC and rejects it when altered.
///
/// # Errors
/// A sentence for the operator; a process that cannot verify tokens must not start.
///
/// # Source
/// RFC 7515 appendix A.1.
pub fn self_test() -> Result<(), &'static str> {
    install();
    let key = DecodingKey::from_base64_secret(
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ+EstJQLr/T+1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow==",
    )
    .map_err(|_| "the key of the token self-test cannot be read")?;
    let message = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let verifies = |signature: &str| {
        jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key, Algorithm::HS256)
            .map_err(|_| "the token self-test could not run: the wrong cryptography provider is installed")
    };
    match (
        verifies("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")?,
        verifies("dBjgtJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")?,
    ) {
        (true, false) => Ok(()),
        _ => Err("the token self-test failed: this build cannot tell valid tokens from forged ones"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_example_of_the_rfc_is_accepted_and_an_altered_one_is_not() {
        assert_eq!(super::self_test(), Ok(()));
    }
}
