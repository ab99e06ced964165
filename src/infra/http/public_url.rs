//! Links of this role to itself.

use std::sync::Arc;

use actix_web::{HttpRequest, web};

/// Where clients reach this role, without a trailing slash. Empty if that is not configured: links are then paths, which are
/// right unless a proxy adds a prefix.
#[derive(Clone, Debug)]
pub struct PublicUrl(Arc<str>);

impl PublicUrl {
    pub fn new(url: Option<&str>) -> Self {
        Self(url.unwrap_or_default().into())
    }

    /// That of the process that received the request.
    pub fn of(request: &HttpRequest) -> Self {
        request.app_data::<web::Data<Self>>().map_or_else(|| Self::new(None), |url| Self::clone(url))
    }

    /// A link to `path`, which begins with a slash.
    pub fn to(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }
}
