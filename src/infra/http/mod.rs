//! HTTP without the routes of a role: error bodies, request bodies and queries, authentication, rate limits, health, metrics,
//! the OpenAPI document and its page, and the middleware around every request.

mod api_error;
mod authenticate;
mod cors;
mod docs_page;
mod health_routes;
mod json_body;
mod metrics_page;
mod observe;
pub mod openapi;
mod query;
mod rate_limit;
mod shared_limit;
mod text_limit;

pub use api_error::{ApiError, Detail};
pub use authenticate::{Authenticated, authenticate};
pub use cors::cors;
pub use docs_page::{DocsPage, OtherRole};
pub use health_routes::{live, live_endpoint, ready, ready_endpoint};
pub use json_body::{JsonFields, read_json};
pub use metrics_page::{RequestMetrics, metrics_endpoint, metrics_routes};
pub use observe::{RequestContext, observe};
pub use query::QueryFields;
pub use rate_limit::{ByClient, BySubject, CountBy, Limiter, Sweep};
pub use shared_limit::{SharedLimit, SharedSweep};
pub use text_limit::TextLimiter;
