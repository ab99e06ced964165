//! The OpenAPI 3.1 document of a role, made of what each handler's file says of its endpoint.
//!
//! A refusal is shown by the very [`ApiError`](crate::infra::http::ApiError) that the handler answers with: status, code,
//! sentence and headers cannot drift. An answer's schema is derived from the type that is serialized. Only requests have
//! types for the document alone, because bodies are read field by field; the integration tests hold those, and the list
//! of routes, to what the servers really do.

mod answer;
mod document;
mod endpoint;

pub use document::{About, document};
pub use endpoint::{Endpoint, format};
pub use utoipa::openapi::OpenApi;
