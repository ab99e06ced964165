//! Argon2id over passwords. Blocks for tens of milliseconds: only the hasher's own threads call it.

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};

/// Memory, in KiB.
const MEMORY_KIB: u32 = 19 * 1024;
/// Passes over it.
const PASSES: u32 = 2;
/// Lanes.
const LANES: u32 = 1;

/// Hashes and verifies under today's parameters.
///
/// # Source
/// OWASP Password Storage Cheat Sheet: Argon2id with m=19456 (19 MiB), t=2, p=1.
pub struct Argon2id {
    argon2: Argon2<'static>,
    /// Of a password that nobody has: verifying against it costs what a real one costs.
    nobody: String,
}

/// Argon2 could not run, or the store holds what is no hash.
#[derive(Debug, thiserror::Error)]
#[error("password hash: {0}")]
pub struct HashingFailed(String);

/// The result of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compared {
    /// Another password.
    Different,
    /// The same.
    Same,
    /// The same, but the hash was made with other parameters; here is one with today's.
    SameRehashed(String),
}

impl Argon2id {
    /// Prepares the parameters and the hash of nobody.
    ///
    /// # Errors
    /// [`HashingFailed`] if the parameters are refused.
    pub fn try_new() -> Result<Self, HashingFailed> {
        let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|e| HashingFailed(e.to_string()))?;
        let mut hasher =
            Self { argon2: Argon2::new(Algorithm::Argon2id, Version::V0x13, params), nobody: String::new() };
        hasher.nobody = hasher.hash("nobody has this password")?;
        Ok(hasher)
    }

    /// The PHC string of `password`, with a salt of its own.
    ///
    /// # Errors
    /// [`HashingFailed`].
    pub fn hash(&self, password: &str) -> Result<String, HashingFailed> {
        self.argon2
            .hash_password(password.as_bytes())
            .map(|hash| hash.to_string())
            .map_err(|e| HashingFailed(e.to_string()))
    }

    /// Compares `password` with a stored hash, under the parameters that the hash names. Without one it compares with
    /// the hash of nobody and says [`Compared::Different`], in the same time.
    ///
    /// # Errors
    /// [`HashingFailed`] when `stored` is no hash.
    pub fn compare(&self, password: &str, stored: Option<&str>) -> Result<Compared, HashingFailed> {
        let hash = PasswordHash::new(stored.unwrap_or(&self.nobody)).map_err(|e| HashingFailed(e.to_string()))?;
        match (self.argon2.verify_password(password.as_bytes(), &hash), stored) {
            (Ok(()), Some(stored)) if self.is_current(stored) => Ok(Compared::Same),
            (Ok(()), Some(_)) => self.hash(password).map(Compared::SameRehashed),
            (Ok(()), None) | (Err(argon2::password_hash::Error::PasswordInvalid), _) => Ok(Compared::Different),
            (Err(e), _) => Err(HashingFailed(e.to_string())),
        }
    }

    fn is_current(&self, stored: &str) -> bool {
        let parameters = |phc: &str| phc.split('$').take(4).map(str::to_owned).collect::<Vec<_>>();
        parameters(stored) == parameters(&self.nobody)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_are_the_cheat_sheets() {
        let hash = Argon2id::try_new().and_then(|a| a.hash("12345678")).expect("hash");
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
    }

    #[test]
    fn a_password_of_100_characters_and_its_first_72_are_two_passwords() {
        let argon2 = Argon2id::try_new().expect("argon2");
        let long = "x".repeat(100);
        let hash = argon2.hash(&long).expect("hash");
        assert_eq!(argon2.compare(&long, Some(&hash)).expect("compared"), Compared::Same);
        assert_eq!(argon2.compare(&long[..72], Some(&hash)).expect("compared"), Compared::Different);
    }

    #[test]
    fn nobody_is_never_anybody() {
        let argon2 = Argon2id::try_new().expect("argon2");
        assert_eq!(argon2.compare("nobody has this password", None).expect("compared"), Compared::Different);
    }

    #[test]
    fn a_hash_with_smaller_parameters_is_made_again() {
        let argon2 = Argon2id::try_new().expect("argon2");
        let weak = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(8, 1, 1, None).expect("params"));
        let stored = weak.hash_password(b"12345678").expect("hash").to_string();
        let Compared::SameRehashed(renewed) = argon2.compare("12345678", Some(&stored)).expect("compared") else {
            panic!("an outdated hash was left")
        };
        assert_eq!(argon2.compare("12345678", Some(&renewed)).expect("compared"), Compared::Same);
    }

    #[test]
    fn what_is_no_hash_is_an_error_and_not_a_wrong_password() {
        assert!(Argon2id::try_new().expect("argon2").compare("12345678", Some("plain")).is_err());
    }
}
