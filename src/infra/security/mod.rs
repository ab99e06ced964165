//! Cryptography: access tokens, service tokens, event signatures, signatures of receipts, password hashes.

pub mod access_token;
mod claims;
pub(crate) mod event_signature;
mod hs256;
pub mod password_hash;
pub(crate) mod service_token;
pub mod signing_key;

pub use hs256::self_test;
