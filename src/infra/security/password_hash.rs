//! Argon2id password hashes. Hashing blocks for tens of milliseconds, so only the dedicated hasher threads call it.

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use ring::rand::{SecureRandom as _, SystemRandom};

const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// RFC 9106 §3.1 and §4.
const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;

/// Hashes and verifies passwords.
///
/// # Source
/// OWASP Password Storage Cheat Sheet: Argon2id with m=19456 (19 MiB), t=2, p=1.
#[derive(Clone)]
pub struct Argon2id {
    argon2: Argon2<'static>,
    /// The hash that unknown users are compared with, so that they take as long as known ones.
    dummy: String,
    /// Working memory, reused by every hash. Freed and allocated each time, it would make the system allocator keep hundreds
    /// of MiB during a flood of logins.
    memory: Vec<Block>,
}

/// Argon2 failed, or the stored text is not a hash.
#[derive(Debug, thiserror::Error)]
#[error("password hash: {0}")]
pub struct HashingFailed(String);

/// The result of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compared {
    /// The password is wrong.
    Different,
    /// The password is right.
    Same,
    /// The password is right; its stored hash has outdated parameters and should be replaced with this one.
    SameRehashed(String),
}

fn failed(why: impl std::fmt::Display) -> HashingFailed {
    HashingFailed(why.to_string())
}

impl Argon2id {
    /// Computes the dummy hash, which takes as long as any other.
    ///
    /// # Errors
    /// [`HashingFailed`] if the parameters are invalid.
    pub fn try_new() -> Result<Self, HashingFailed> {
        let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(failed)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let mut hasher = Self { argon2, dummy: String::new(), memory: Vec::new() };
        hasher.dummy = hasher.hash("the password of the dummy hash")?;
        // This one is only cloned; each clone allocates its own.
        hasher.memory = Vec::new();
        Ok(hasher)
    }

    /// Returns a PHC string with a new random salt.
    ///
    /// # Errors
    /// [`HashingFailed`].
    pub fn hash(&mut self, password: &str) -> Result<String, HashingFailed> {
        let mut salt = [0; SALT_BYTES];
        SystemRandom::new().fill(&mut salt).map_err(|_| failed("no random numbers"))?;
        let salt = Salt::new(&salt).map_err(failed)?;
        let argon2 = self.argon2.clone();
        let hash = PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(argon2.params()).map_err(failed)?,
            salt: Some(salt),
            hash: Some(self.run(&argon2, password, &salt, HASH_BYTES)?),
        };
        Ok(hash.to_string())
    }

    /// Compares `password` with a stored hash, with the parameters of that hash. Without one, returns
    /// [`Compared::Different`] after the same time.
    ///
    /// # Errors
    /// [`HashingFailed`] when `stored` is not a hash.
    pub fn compare(&mut self, password: &str, stored: Option<&str>) -> Result<Compared, HashingFailed> {
        let hash = PasswordHash::new(stored.unwrap_or(&self.dummy)).map_err(failed)?;
        let (Some(salt), Some(expected)) = (hash.salt, hash.hash) else {
            return Err(failed("salt or hash is missing"));
        };
        let algorithm = Algorithm::try_from(hash.algorithm.as_str()).map_err(failed)?;
        let version = hash.version.map_or(Ok(Version::V0x10), Version::try_from).map_err(failed)?;
        let argon2 = Argon2::new(algorithm, version, Params::try_from(&hash).map_err(failed)?);
        // A constant-time comparison.
        let same = self.run(&argon2, password, &salt, expected.len())? == expected;
        match stored {
            Some(stored) if same && self.is_current(stored) => Ok(Compared::Same),
            Some(_) if same => self.hash(password).map(Compared::SameRehashed),
            Some(_) | None => Ok(Compared::Different),
        }
    }

    fn run(&mut self, argon2: &Argon2<'_>, password: &str, salt: &[u8], bytes: usize) -> Result<Output, HashingFailed> {
        let mut out = [0; Output::MAX_LENGTH];
        let out = out.get_mut(..bytes).ok_or_else(|| failed("hash is too long"))?;
        self.memory.resize(argon2.params().block_count(), Block::default());
        argon2.hash_password_into_with_memory(password.as_bytes(), salt, out, &mut self.memory).map_err(failed)?;
        Output::new(out).map_err(failed)
    }

    fn is_current(&self, stored: &str) -> bool {
        let parameters = |phc: &str| phc.split('$').take(4).map(str::to_owned).collect::<Vec<_>>();
        parameters(stored) == parameters(&self.dummy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use argon2::password_hash::PasswordHasher as _;

    #[test]
    fn the_parameters_are_those_of_the_owasp_cheat_sheet() {
        let hash = Argon2id::try_new().and_then(|mut a| a.hash("12345678")).expect("hash");
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
    }

    #[test]
    fn a_password_of_100_characters_and_its_first_72_are_two_passwords() {
        let mut argon2 = Argon2id::try_new().expect("argon2");
        let long = "x".repeat(100);
        let hash = argon2.hash(&long).expect("hash");
        assert_eq!(argon2.compare(&long, Some(&hash)).expect("compared"), Compared::Same);
        assert_eq!(argon2.compare(&long[..72], Some(&hash)).expect("compared"), Compared::Different);
    }

    #[test]
    fn no_password_matches_an_unknown_user() {
        let mut argon2 = Argon2id::try_new().expect("argon2");
        assert_eq!(argon2.compare("the password of the dummy hash", None).expect("compared"), Compared::Different);
    }

    #[test]
    fn a_hash_with_outdated_parameters_is_replaced() {
        let mut argon2 = Argon2id::try_new().expect("argon2");
        let weak = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(8, 1, 1, None).expect("params"));
        let stored = weak.hash_password(b"12345678").expect("hash").to_string();
        argon2.hash("another, in the same memory").expect("hash");
        let Compared::SameRehashed(renewed) = argon2.compare("12345678", Some(&stored)).expect("compared") else {
            panic!("an outdated hash was left")
        };
        assert_eq!(argon2.compare("12345678", Some(&renewed)).expect("compared"), Compared::Same);
    }

    #[test]
    fn a_text_that_is_not_a_hash_is_an_error_and_not_a_wrong_password() {
        assert!(Argon2id::try_new().expect("argon2").compare("12345678", Some("plain")).is_err());
    }
}
