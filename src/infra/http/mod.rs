//! HTTP without the routes of a role: errors, request fields, authentication, rate limits, health, metrics, endpoints with their
//! OpenAPI document and its page, and the middleware around every request.

mod admit;
mod api_error;
mod authenticate;
mod by_client;
mod connection;
mod cors;
mod docs_page;
mod errors_page;
mod fields;
mod health_routes;
mod idempotency;
mod json_body;
mod limit_policy;
mod metrics_page;
mod observe;
pub(crate) mod openapi;
mod public_url;
mod rate_limit;
mod server;
mod shared_limit;
mod sweep;
mod text_limit;

pub(crate) use api_error::{ApiError, Detail};
pub(crate) use authenticate::{Authenticated, AuthenticatedService, OnBehalfOf, authenticate, authenticate_service};
pub(crate) use by_client::ByClient;
pub(crate) use docs_page::{DocsPage, OtherRole};
pub use fields::Fields;
pub(crate) use health_routes::health_endpoints;
pub(crate) use idempotency::{REPLAYED, idempotency_key, key_reused, key_schema, with_key};
pub(crate) use json_body::{read_json, read_json_up_to};
pub(crate) use limit_policy::LimitPolicy;
pub(crate) use metrics_page::{RequestMetrics, metrics_routes};
pub(crate) use observe::{LongPoll, RequestContext};
pub(crate) use public_url::PublicUrl;
pub(crate) use rate_limit::{ByService, BySubject, CountBy, Limiter, Tally};
pub(crate) use server::{Application, ServerDeps, serve_on};
pub(crate) use shared_limit::{SharedLimit, SharedSweep};
pub(crate) use sweep::Sweep;
pub(crate) use text_limit::TextLimiter;
