//! Endpoints, and the OpenAPI 3.1 documents, which are built from them.
//!
//! Each handler's file declares one [`Endpoint`]: the route that is served and what the document says about it. An error
//! is documented by the [`ApiError`](crate::infra::http::ApiError) that the handler returns, a response body by the type
//! that is serialized, a request by the form that reads it. The integration tests compare all of them with what the
//! servers do.

mod document;
mod endpoint;
mod response;

pub use document::{About, RoleDocument};
pub use endpoint::{Endpoint, USER_ID, format, serve};
pub use utoipa::openapi::OpenApi;
