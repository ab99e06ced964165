//! The whole document: its endpoints and what they share.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{ParameterBuilder, ParameterIn};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::server::{ServerBuilder, ServerVariableBuilder};
use utoipa::openapi::tag::{Tag, TagBuilder};
use utoipa::openapi::{
    ComponentsBuilder, ContactBuilder, InfoBuilder, LicenseBuilder, ObjectBuilder, OpenApi, OpenApiBuilder, PathItem,
    PathsBuilder, Ref, RefOr, Required, Schema, Server, Type,
};
use utoipa::{PartialSchema as _, ToSchema as _};

use super::endpoint::{BEARER, Endpoint, Operation, SERVICE};
use super::response::{ALWAYS, ResponseDoc};
use crate::infra::http::ApiError;
use crate::infra::http::api_error::{Body, ERROR, ERROR_CODE, PROBLEM, Problem};
use crate::kernel::Role;

/// The introduction to a role's document.
pub struct About {
    pub role: Role,
    /// Markdown.
    pub text: &'static str,
    /// Names of groups of endpoints, with their descriptions.
    pub tags: &'static [(&'static str, &'static str)],
}

/// What one role says about its endpoints.
pub struct RoleDocument {
    about: About,
    operations: Vec<Operation>,
}

/// Response headers: the name, whether the value is an integer, an example, and the description.
const HEADERS: [(&str, bool, &str, &str); 16] = [
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
    ("link", false, "</docs/errors#RATE_LIMITED>; rel=\"help\"", "The documentation of the error code."),
    ("location", false, "/v1/transactions/0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e", "Where to get what was created."),
    (
        "ratelimit",
        false,
        "\"transactions\";r=29;t=2",
        "If a rate limit has counted the request: its name, the requests left, and the seconds until one more is allowed.",
    ),
    (
        "ratelimit-policy",
        false,
        "\"transactions\";q=30;w=60",
        "If a rate limit has counted the request: its name, the requests allowed per window, and the window in seconds.",
    ),
    ("ratelimit-limit", true, "30", "If a rate limit has counted the request: the requests allowed per window."),
    ("ratelimit-remaining", true, "29", "If a rate limit has counted the request: the requests left."),
    ("ratelimit-reset", true, "2", "Seconds until the next request is allowed."),
    ("idempotent-replayed", false, "true", "Present if this is the response of an earlier request with the same key."),
    (
        "content-disposition",
        false,
        "attachment; filename=\"purse-2026-01-01-2026-02-01.csv\"",
        "The name under which browsers save the file.",
    ),
    ("statement-opening-minor", true, "1234", "The balance at the start of the period, in US cents."),
    ("statement-closing-minor", true, "2734", "The balance at the end of the period, in US cents."),
    (
        "statement-final",
        false,
        "true",
        "`true` if no transaction of the period can be missing; `false` if the period is not over.",
    ),
];

impl RoleDocument {
    pub fn new<Api: 'static>(about: About, endpoints: impl IntoIterator<Item = Endpoint<Api>>) -> Self {
        Self { about, operations: endpoints.into_iter().filter_map(Endpoint::described).collect() }
    }

    /// The document that the role serves.
    pub fn build(self) -> OpenApi {
        let (title, text) = (format!("purse: {}", self.about.role), self.about.text.to_owned());
        let mut parts = Parts::default();
        parts.add(self, None);
        // Relative to the document, so that it is right behind a proxy that adds a path.
        parts.build(&title, &text, vec![Server::new(".")])
    }

    /// Both roles in one document, for one client of both. Each path has the server of its role.
    pub fn merged(documents: impl IntoIterator<Item = (Self, &'static str)>) -> OpenApi {
        let (mut parts, mut servers) = (Parts::default(), Vec::new());
        for (document, port) in documents {
            let server = server_of(document.about.role, port);
            parts.add(document, Some(&server));
            servers.push(server);
        }
        parts.build("purse", include_str!("both_roles.md"), servers)
    }
}

/// The server of a role in the document of both, at a URL that the client chooses.
fn server_of(role: Role, port: &str) -> Server {
    let url = ServerVariableBuilder::new()
        .default_value(format!("http://localhost:{port}"))
        .description(Some(format!("Base URL of the {role} role.")));
    ServerBuilder::new()
        .url(format!("{{{role}}}"))
        .description(Some(format!("The {role} role.")))
        .parameter(role.as_str(), url)
        .build()
}

/// The parts of a document, as far as the operations that were added need them.
#[derive(Default)]
struct Parts {
    tags: Vec<Tag>,
    paths: BTreeMap<String, PathItem>,
    schemas: BTreeMap<String, RefOr<Schema>>,
    responses: BTreeMap<String, ResponseDoc>,
    codes: BTreeSet<&'static str>,
    headers: BTreeSet<String>,
    /// Security schemes.
    schemes: BTreeSet<&'static str>,
}

impl Parts {
    fn add(&mut self, document: RoleDocument, server: Option<&Server>) {
        let tag = |(name, text): &(&str, &str)| TagBuilder::new().name(*name).description(Some(*text)).build();
        self.tags.extend(document.about.tags.iter().map(tag));
        for Operation { path, method, builder, scheme, responses, schemas } in document.operations {
            let mut operation = builder;
            self.schemes.extend(scheme);
            self.schemas.extend(schemas);
            for (status, response) in responses {
                self.codes.extend(response.codes());
                self.headers.extend(response.headers().cloned());
                let shown = match response.shared_name() {
                    Some(name) => {
                        let place = Ref::from_response_name(&name);
                        self.responses.entry(name).or_default().merge(response);
                        RefOr::Ref(place)
                    }
                    None => RefOr::T(response.build()),
                };
                operation = operation.response(status.to_string(), shown);
            }
            let mut item = PathItem::new(method, operation);
            item.servers = server.map(|server| vec![server.clone()]);
            match self.paths.entry(path) {
                Entry::Occupied(known) => known.into_mut().merge_operations(item),
                Entry::Vacant(new) => drop(new.insert(item)),
            }
        }
    }

    fn build(mut self, title: &str, text: &str, servers: Vec<Server>) -> OpenApi {
        // What no route can return, and what any URL may.
        self.codes.extend([ApiError::no_route(), ApiError::no_method()].map(|error| error.code()));
        let codes = ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("What went wrong, for programs. A later version may add codes."))
            .enum_values(Some(self.codes));
        let mut components = shared(&self.headers, &self.schemes).schema(ERROR_CODE, codes);
        for (name, schema) in self.schemas {
            components = components.schema(name, schema);
        }
        for (name, response) in self.responses {
            components = components.response(name, response.build());
        }
        let mut paths = PathsBuilder::new();
        for (path, item) in self.paths {
            paths = paths.path(path, item);
        }
        let info = InfoBuilder::new()
            .title(title)
            .version(env!("CARGO_PKG_VERSION"))
            .description(Some(format!("{text}\n\n{}", include_str!("conventions.md"))))
            .contact(Some(ContactBuilder::new().name(Some("The operator of this service")).build()))
            .license(Some(LicenseBuilder::new().name("GPL-3.0-or-later").identifier(Some("GPL-3.0-or-later")).build()));
        OpenApiBuilder::new()
            .info(info.build())
            .servers(Some(servers))
            .tags(Some(self.tags))
            .paths(paths.build())
            .components(Some(components.build()))
            .build()
    }
}

/// The security schemes, each with what its tokens are.
const SCHEMES: [(&str, &str); 2] = [
    (BEARER, "An `accessToken`, as returned by the users role on registration and login."),
    (
        SERVICE,
        "A service token, as issued by `purse token`, for a back end that acts on behalf of users. Reading needs the scope \
         `wallet:read`, and writing `wallet:post`.",
    ),
];

/// The components that any endpoint may refer to, with those headers and security schemes that one does.
fn shared(headers: &BTreeSet<String>, schemes: &BTreeSet<&str>) -> ComponentsBuilder {
    let mut components = ComponentsBuilder::new().schema(ERROR, Body::schema()).schema(PROBLEM, Problem::schema());
    for (name, text) in SCHEMES.into_iter().filter(|(name, _)| schemes.contains(name)) {
        let token = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").description(Some(text));
        components = components.security_scheme(name, SecurityScheme::Http(token.build()));
    }
    let mut nested = Vec::new();
    Body::schemas(&mut nested);
    for (name, schema) in nested {
        components = components.schema(name, schema);
    }
    let is_used = |name: &str| ALWAYS.contains(&name) || headers.contains(name);
    for (name, is_integer, example, text) in HEADERS.into_iter().filter(|(name, ..)| is_used(name)) {
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
