//! The whole document: what all endpoints share, and the endpoints.

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

use super::answer::{Answer, ERROR};
use super::endpoint::Endpoint;
use crate::infra::http::ApiError;
use crate::infra::http::api_error::Body;
use crate::kernel::Role;

/// What the document says of a role before its endpoints.
pub struct About {
    /// Whose document it is.
    pub role: Role,
    /// What the role is for and how to begin, as Markdown.
    pub text: &'static str,
    /// The groups of its endpoints, with a sentence each.
    pub tags: &'static [(&'static str, &'static str)],
}

/// Headers of answers: the name, whether it is a whole number, an example, and what it says.
const HEADERS: [(&str, bool, &str, &str); 10] = [
    (
        "x-request-id",
        false,
        "0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e",
        "The id of this request in every log line: the one that was sent, if it has 1 to 64 of `A-Z a-z 0-9 . _ -`, \
         else a new one.",
    ),
    (
        "traceparent",
        false,
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "The trace of this request (W3C Trace Context): the one that was sent, if it is well formed, else a new one.",
    ),
    ("retry-after", true, "2", "Seconds after which the same request should be sent again."),
    ("www-authenticate", false, "Bearer", "How to authenticate."),
    ("allow", false, "GET, HEAD, POST", "The methods that the resource has."),
    ("ratelimit-limit", true, "30", "Requests that may be made at once."),
    ("ratelimit-remaining", true, "29", "Requests that may still be made now."),
    ("ratelimit-reset", true, "2", "Seconds until a request may be made again."),
    ("ratelimit-policy", false, "30;w=60", "The limit: so many requests in a window of so many seconds."),
    (
        "idempotent-replayed",
        false,
        "true",
        "Present where the answer is the one that an earlier request with the same key got.",
    ),
];

/// The document of a role.
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
        // The API's, not the binary's: what is running is nobody's business.
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

/// What every endpoint may refer to.
fn shared() -> ComponentsBuilder {
    let token = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some("An `accessToken`: the users role hands one out to whoever registers or logs in."));
    let mut nowhere = Answer::default();
    nowhere.refusal(&ApiError::no_route());
    let mut no_method = Answer::default();
    no_method.refusal(&ApiError::no_method());
    no_method.header(header::ALLOW.as_str());
    let mut components = ComponentsBuilder::new()
        .security_scheme("bearer", SecurityScheme::Http(token.build()))
        .schema(ERROR, Body::schema());
    let mut nested = Vec::new();
    Body::schemas(&mut nested);
    for (name, schema) in nested {
        components = components.schema(name, schema);
    }
    for (name, answer) in [("NotFound", nowhere), ("MethodNotAllowed", no_method)] {
        components = components.response(name, answer.build());
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
        // Any text is taken, so the schema says no more; what is of another form is replaced.
        (
            "x-request-id",
            "Your name for this request, 1 to 64 of `A-Z a-z 0-9 . _ -`; it comes back, and stands in our logs.",
        ),
        ("traceparent", "Your trace (W3C Trace Context, version 00)."),
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
