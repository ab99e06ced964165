//! Cryptography: access tokens, service tokens, event signatures, password hashes.

pub mod access_token;
mod claims;
pub(crate) mod event_signature;
mod hs256;
pub mod password_hash;
pub(crate) mod service_token;

pub use hs256::self_test;
