//! The whole document: its endpoints and what they share.

use actix_web::http::header;
use serde_json::json;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{ParameterBuilder, ParameterIn};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ComponentsBuilder, InfoBuilder, LicenseBuilder, ObjectBuilder, OpenApi, OpenApiBuilder, PathsBuilder, Required,
    Server, Type,
};
use utoipa::{PartialSchema as _, ToSchema as _};

use super::endpoint::Endpoint;
use super::response::{ERROR, ResponseDoc};
use crate::infra::http::ApiError;
use crate::infra::http::api_error::Body;
use crate::kernel::Role;

/// The introduction to a role's document.
pub struct About {
    pub role: Role,
    /// Markdown.
    pub text: &'static str,
    /// Names of groups of endpoints, with their descriptions.
    pub tags: &'static [(&'static str, &'static str)],
}

/// Response headers: the name, whether the value is an integer, an example, and the description.
const HEADERS: [(&str, bool, &str, &str); 10] = [
    (
        "x-request-id",
        false,
        "0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e",
        "The id of this request in the logs: the one that was sent, if it is 1 to 64 characters of \
         `A-Z a-z 0-9 . _ -`, else a new one.",
    ),
    (
        "traceparent",
        false,
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "The trace of this request (W3C Trace Context): the one that was sent, if it is valid, else a new one.",
    ),
    ("retry-after", true, "2", "Seconds to wait before a retry."),
    ("www-authenticate", false, "Bearer", "How to authenticate."),
    ("allow", false, "GET, HEAD, POST", "The methods of the resource."),
    ("ratelimit-limit", true, "30", "Requests allowed per window."),
    ("ratelimit-remaining", true, "29", "Requests left in the current window."),
    ("ratelimit-reset", true, "2", "Seconds until the next request is allowed."),
    ("ratelimit-policy", false, "30;w=60", "The limit, as requests and window in seconds."),
    ("idempotent-replayed", false, "true", "Present if this is the response of an earlier request with the same key."),
];

pub fn document<Api: 'static>(about: &About, endpoints: impl IntoIterator<Item = Endpoint<Api>>) -> OpenApi {
    let mut paths = PathsBuilder::new();
    let mut components = shared();
    for endpoint in endpoints {
        for (name, schema) in &endpoint.schemas {
            components = components.schema(name, schema.clone());
        }
        paths = paths.path(endpoint.path, endpoint.describe());
    }
    let info = InfoBuilder::new()
        .title(format!("purse: {}", about.role))
        // The version of the API: that of the binary is not public.
        .version("v1")
        .description(Some(format!("{}\n\n{}", about.text, include_str!("conventions.md"))))
        .license(Some(LicenseBuilder::new().name("GPL-3.0-or-later").identifier(Some("GPL-3.0-or-later")).build()));
    let tags = about.tags.iter().map(|(name, text)| TagBuilder::new().name(*name).description(Some(*text)).build());
    OpenApiBuilder::new()
        .info(info.build())
        .servers(Some([Server::new("/")]))
        .tags(Some(tags))
        .paths(paths.build())
        .components(Some(components.build()))
        .build()
}

/// The components that every endpoint may refer to.
fn shared() -> ComponentsBuilder {
    let token = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some("An `accessToken`, as returned by the users role on registration and login."));
    let mut nowhere = ResponseDoc::default();
    nowhere.error(&ApiError::no_route());
    let mut no_method = ResponseDoc::default();
    no_method.error(&ApiError::no_method());
    no_method.header(header::ALLOW.as_str());
    let mut components = ComponentsBuilder::new()
        .security_scheme("bearer", SecurityScheme::Http(token.build()))
        .schema(ERROR, Body::schema());
    let mut nested = Vec::new();
    Body::schemas(&mut nested);
    for (name, schema) in nested {
        components = components.schema(name, schema);
    }
    for (name, response) in [("NotFound", nowhere), ("MethodNotAllowed", no_method)] {
        components = components.response(name, response.build());
    }
    for (name, is_integer, example, text) in HEADERS {
        let kind = if is_integer { Type::Integer } else { Type::String };
        let example = example.parse::<u64>().map_or_else(|_| json!(example), |number| json!(number));
        let header = HeaderBuilder::new()
            .description(Some(text))
            .schema(Some(ObjectBuilder::new().schema_type(kind).build()))
            .example(Some(example));
        components = components.header(name, header.build());
    }
    for (name, text) in [
        // No value is refused: an invalid one is replaced.
        (
            "x-request-id",
            "Your id for this request: 1 to 64 characters of `A-Z a-z 0-9 . _ -`. It is returned with the response and \
             written to the logs.",
        ),
        ("traceparent", "Your trace context (W3C, version 00)."),
    ] {
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(text))
            .schema(Some(ObjectBuilder::new().schema_type(Type::String).build()));
        components = components.parameter(name, parameter.build());
    }
    components
}
