//! The responses of an endpoint under one status: schema, headers and examples.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::{
    AllOfBuilder, ContentBuilder, ObjectBuilder, Ref, RefOr, Response, ResponseBuilder, Schema, Type,
};

use crate::infra::http::ApiError;

/// Name of the schema of every error response.
pub(super) const ERROR: &str = "Error";
/// Headers of every response.
pub(super) const ALWAYS: [&str; 2] = ["x-request-id", "traceparent"];
/// Headers of every response to a request that a rate limit has counted.
pub(super) const COUNTED: [&str; 2] = ["ratelimit-limit", "ratelimit-remaining"];

#[derive(Default)]
pub(super) struct ResponseDoc {
    lines: Vec<String>,
    schema: Option<(String, RefOr<Schema>)>,
    codes: BTreeSet<&'static str>,
    examples: BTreeMap<String, Value>,
    headers: BTreeSet<String>,
}

impl ResponseDoc {
    /// Adds a response that is not an error.
    pub(super) fn body(
        &mut self,
        media_type: &str,
        schema: RefOr<Schema>,
        about: &str,
        example: Option<(&str, Value)>,
    ) {
        self.lines.push(about.to_owned());
        self.schema = Some((media_type.to_owned(), schema));
        self.examples.extend(example.map(|(name, value)| (name.to_owned(), value)));
    }

    pub(super) fn error(&mut self, error: &ApiError) {
        self.lines.push(format!("`{}`: {}", error.code(), error.message()));
        self.codes.insert(error.code());
        self.examples.insert(error.code().to_owned(), serde_json::from_slice(&error.body()).unwrap_or(Value::Null));
        self.headers.extend(error.header_names().map(str::to_owned));
    }

    pub(super) fn header(&mut self, name: &str) {
        self.headers.insert(name.to_owned());
    }

    pub(super) fn build(self) -> Response {
        let mut response = ResponseBuilder::new().description(self.lines.join("\n\n"));
        for name in ALWAYS.into_iter().map(str::to_owned).chain(self.headers) {
            response = response.header_ref(name.clone(), header_ref(&name));
        }
        let refused = (!self.codes.is_empty()).then(|| ("application/json".to_owned(), one_of_these(&self.codes)));
        if let Some((media_type, schema)) = self.schema.or(refused) {
            let examples =
                self.examples.into_iter().map(|(name, value)| (name, ExampleBuilder::new().value(Some(value))));
            let content = ContentBuilder::new().schema(Some(schema)).examples_from_iter(examples);
            response = response.content(media_type, content.build());
        }
        response.build()
    }
}

fn header_ref(name: &str) -> Ref {
    Ref::new(format!("#/components/headers/{name}"))
}

/// The schema of an error with one of these codes; a validation error has details.
fn one_of_these(codes: &BTreeSet<&'static str>) -> RefOr<Schema> {
    let code = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(codes.iter().map(|code| json!(code))));
    let narrowed = ObjectBuilder::new().schema_type(Type::Object).property("code", code);
    let narrowed = if codes.contains("VALIDATION_ERROR") { narrowed.required("details") } else { narrowed };
    AllOfBuilder::new().item(Ref::from_schema_name(ERROR)).item(narrowed).into()
}
