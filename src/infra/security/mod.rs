//! Cryptography: access tokens, event signatures, password hashes.

pub mod access_token;
pub(crate) mod event_signature;
mod hs256;
pub mod password_hash;

pub use hs256::self_test;
