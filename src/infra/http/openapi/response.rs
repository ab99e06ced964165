//! The responses of an endpoint under one status: schema, headers and examples.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::{ContentBuilder, ObjectBuilder, Ref, RefOr, Response, ResponseBuilder, Schema, Type};

use crate::infra::http::ApiError;
use crate::infra::http::api_error::{ERROR, PROBLEM, PROBLEM_JSON};

/// Headers of every response.
pub(super) const ALWAYS: [&str; 2] = ["x-request-id", "traceparent"];
/// Headers of every response to a request that a rate limit has counted.
pub(super) const COUNTED: [&str; 4] = ["ratelimit", "ratelimit-limit", "ratelimit-policy", "ratelimit-remaining"];

#[derive(Default)]
pub(super) struct ResponseDoc {
    /// The paragraphs of the description.
    lines: Vec<String>,
    schema: Option<(String, RefOr<Schema>)>,
    /// Media types that are not JSON, with an example of each.
    texts: BTreeMap<String, Value>,
    codes: BTreeSet<&'static str>,
    examples: BTreeMap<String, Value>,
    headers: BTreeSet<String>,
    /// An example shows fields of the endpoint, so it is of no use to others.
    has_own_example: bool,
}

impl ResponseDoc {
    /// Adds a response that is not an error.
    pub(super) fn body(&mut self, media_type: &str, schema: RefOr<Schema>, about: &str, example: Value) {
        self.lines.push(about.to_owned());
        self.schema = Some((media_type.to_owned(), schema));
        self.examples.insert("example".to_owned(), example);
    }

    /// Adds a response that is text, as one of several media types.
    pub(super) fn text(&mut self, media_type: &str, example: &str) {
        self.texts.insert(media_type.to_owned(), Value::from(example));
    }

    pub(super) fn error(&mut self, error: &ApiError) {
        self.line(format!("`{}`: {}", error.code(), error.message()));
        self.codes.insert(error.code());
        self.examples.insert(error.code().to_owned(), serde_json::from_slice(&error.body()).unwrap_or(Value::Null));
        self.headers.extend(error.header_names().chain(["link"]).map(str::to_owned));
    }

    /// An error whose example shows fields of the endpoint.
    pub(super) fn own_error(&mut self, error: &ApiError) {
        self.error(error);
        self.has_own_example = true;
    }

    pub(super) const fn has_own_example(&self) -> bool {
        self.has_own_example
    }

    pub(super) fn codes(&self) -> impl Iterator<Item = &'static str> {
        self.codes.iter().copied()
    }

    pub(super) fn headers(&self) -> impl Iterator<Item = &String> {
        self.headers.iter()
    }

    pub(super) fn header(&mut self, name: &str) {
        self.headers.insert(name.to_owned());
    }

    pub(super) fn line(&mut self, line: String) {
        if !self.lines.contains(&line) {
            self.lines.push(line);
        }
    }

    /// The name under which endpoints share this response: that of its only error code.
    pub(super) fn shared_name(&self) -> Option<String> {
        let mut codes = self.codes.iter();
        match (codes.next(), codes.next()) {
            (Some(code), None) if self.schema.is_none() && !self.has_own_example => Some(in_pascal_case(code)),
            _ => None,
        }
    }

    /// Adds what another endpoint says about the same response.
    pub(super) fn merge(&mut self, other: Self) {
        other.lines.into_iter().for_each(|line| self.line(line));
        self.codes.extend(other.codes);
        self.headers.extend(other.headers);
        self.examples.extend(other.examples);
    }

    pub(super) fn build(self) -> Response {
        let mut response = ResponseBuilder::new().description(self.lines.join("\n\n"));
        for name in ALWAYS.into_iter().map(str::to_owned).chain(self.headers) {
            response = response.header_ref(name.clone(), header_ref(&name));
        }
        for (media_type, example) in self.texts {
            let schema: Schema = ObjectBuilder::new().schema_type(Type::String).build().into();
            let content = ContentBuilder::new().schema(Some(schema)).example(Some(example));
            response = response.content(media_type, content.build());
        }
        if self.schema.is_none() && self.codes.is_empty() {
            return response.build();
        }
        let (media_type, schema) = self.schema.unwrap_or_else(|| {
            let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name(PROBLEM))).build();
            response = std::mem::take(&mut response).content(PROBLEM_JSON, problem);
            ("application/json".to_owned(), Ref::from_schema_name(ERROR).into())
        });
        let examples = self.examples.into_iter().map(|(name, value)| (name, ExampleBuilder::new().value(Some(value))));
        let content = ContentBuilder::new().schema(Some(schema)).examples_from_iter(examples);
        response.content(media_type, content.build()).build()
    }
}

fn header_ref(name: &str) -> Ref {
    Ref::new(format!("#/components/headers/{name}"))
}

/// `RATE_LIMITED` as `RateLimited`.
fn in_pascal_case(code: &str) -> String {
    let capital =
        |word: &str| word.chars().take(1).chain(word.chars().skip(1).map(|c| c.to_ascii_lowercase())).collect();
    code.split('_').map(capital).collect::<Vec<String>>().concat()
}
