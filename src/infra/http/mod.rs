//! HTTP without routes: the error form, reading bodies and queries, tokens, limits, health, metrics, the API's document
//! and the page that shows it, and what wraps every request.

mod api_error;
mod authenticate;
mod cors;
mod docs_page;
mod fields;
mod health_routes;
mod json_body;
mod metrics_page;
mod observe;
pub mod openapi;
mod rate_limit;
mod shared_limit;
mod text_limit;

pub use api_error::{ApiError, Detail};
pub use authenticate::{Authenticated, authenticate};
pub use cors::cors;
pub use docs_page::{DocsPage, OtherRole};
pub use fields::Fields;
pub use health_routes::{live, live_endpoint, ready, ready_endpoint};
pub(crate) use json_body::read_json;
pub use metrics_page::{RequestMetrics, metrics_endpoint, metrics_routes};
pub use observe::{RequestContext, observe};
pub use rate_limit::{ByClient, BySubject, Limiter, Sweep, Throttle};
pub use shared_limit::{SharedLimit, SharedSweep};
pub use text_limit::TextLimiter;
