//! A role's OpenAPI document, and whether an answer is one that it promises.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use jsonschema::Validator;
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use super::{Answer, Client};

/// Headers of answers that a limiter has counted: documented where a limit may be on, sent where it is.
const COUNTED: [&str; 2] = ["ratelimit-limit", "ratelimit-remaining"];

#[derive(Clone)]
pub struct Document {
    pub value: Value,
    /// Every code that an answer has had, after it was checked.
    seen: Arc<Mutex<BTreeSet<String>>>,
}

impl Document {
    /// As the role serves it.
    pub async fn of(client: &Client, url: &str) -> Self {
        let answer = client.send(client.request(reqwest::Method::GET, &format!("{url}/openapi.json"))).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        Self::new(answer.body)
    }

    pub fn new(value: Value) -> Self {
        Self { value, seen: Arc::default() }
    }

    /// A reader of a schema of this document, which may name the others. `strict` refuses fields that it does not have.
    pub fn validator(&self, schema: &Value, strict: bool) -> Validator {
        let mut components = self.value["components"].clone();
        if strict {
            let merged = BTreeSet::from(["Error", "Token"]);
            for (name, schema) in components["schemas"].as_object_mut().expect("schemas") {
                if schema["properties"].is_object() && !merged.contains(name.as_str()) {
                    schema["unevaluatedProperties"] = json!(false);
                }
            }
        }
        let mut whole = json!({"allOf": [schema], "components": components});
        if strict && schema["type"] != "object" {
            whole["unevaluatedProperties"] = json!(false);
        }
        jsonschema::draft202012::options().should_validate_formats(true).build(&whole).expect("a schema")
    }

    /// What a reference leads to, or the value itself.
    pub fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(place) => self.value.pointer(place.trim_start_matches('#')).unwrap_or_else(|| panic!("{place}")),
            None => value,
        }
    }

    /// Every operation: method, path and what the document says of it.
    pub fn operations(&self) -> Vec<(String, String, &Value)> {
        let paths = self.value["paths"].as_object().expect("paths");
        let of = |(path, item): (&String, &'_ Value)| {
            let methods = item.as_object().expect("a path item").keys().cloned();
            methods.map(|method| (method.to_uppercase(), path.clone())).collect::<Vec<_>>()
        };
        let named = paths.iter().flat_map(of);
        named.map(|(m, p)| (m.clone(), p.clone(), &self.value["paths"][&p][m.to_lowercase()])).collect()
    }

    /// The operation that a request is for; templates match after what is spelt out.
    fn operation(&self, method: &str, path: &str) -> Option<&Value> {
        let fits = |template: &str| {
            let (these, those) = (template.split('/'), path.split('/'));
            template.matches('/').count() == path.matches('/').count()
                && these.zip(those).all(|(this, that)| this.starts_with('{') || this == that)
        };
        let all = self.operations();
        let mut found: Vec<_> = all.into_iter().filter(|(m, template, _)| m == method && fits(template)).collect();
        found.sort_by_key(|(_, template, _)| template.contains('{'));
        found.first().map(|(.., operation)| *operation)
    }

    /// Fails unless the document promises this answer: its status, its headers, its body.
    pub fn check(&self, method: &str, path: &str, answer: &Answer) {
        let about = format!("{method} {path}: {answer:?}");
        let status = answer.status.as_u16();
        let response = match (status, answer.code()) {
            (404, "NOT_FOUND") => &self.value["components"]["responses"]["NotFound"],
            (405, _) => &self.value["components"]["responses"]["MethodNotAllowed"],
            _ => {
                let operation = self.operation(method, path).unwrap_or_else(|| panic!("not documented: {about}"));
                &operation["responses"][status.to_string()]
            }
        };
        assert!(response.is_object(), "the document does not know this status: {about}");
        let promised: BTreeSet<_> =
            response["headers"].as_object().expect("headers").keys().map(String::as_str).collect();
        for name in self.value["components"]["headers"].as_object().expect("headers").keys() {
            let (sent, promised) = (answer.headers.contains_key(name), promised.contains(name.as_str()));
            let may_be_absent = COUNTED.contains(&name.as_str());
            assert!(
                sent == promised || (promised && may_be_absent),
                "{name}: sent {sent}, promised {promised}: {about}"
            );
            if let (true, Some("integer")) =
                (sent, self.value["components"]["headers"][name]["schema"]["type"].as_str())
            {
                assert!(answer.header(name).parse::<u64>().is_ok(), "{name}: {about}");
            }
        }
        let schema = &response["content"]["application/json"]["schema"];
        let broken: Vec<_> = self
            .validator(schema, true)
            .iter_errors(&answer.body)
            .map(|e| format!("{e} at {}", e.instance_path()))
            .collect();
        assert!(broken.is_empty(), "{about}\n{}", broken.join("\n"));
        self.seen.lock().expect("codes").insert(answer.code().to_owned());
    }

    /// Sends a request and checks the answer.
    pub async fn record(&self, client: &Client, request: RequestBuilder) -> Answer {
        let shown = request.try_clone().and_then(|request| request.build().ok()).expect("a request");
        let answer = client.send(request).await;
        self.check(shown.method().as_str(), shown.url().path(), &answer);
        answer
    }

    /// The codes of the answers that were checked; `""` stands for an answer that is no refusal.
    pub fn seen(&self) -> BTreeSet<String> {
        self.seen.lock().expect("codes").clone()
    }

    /// The codes that the document knows.
    pub fn codes(&self) -> BTreeSet<String> {
        self.codes_by_status().into_iter().map(|(_, code)| code).collect()
    }

    /// The same, with the status that each comes under.
    pub fn codes_by_status(&self) -> BTreeSet<(String, String)> {
        let shared = &self.value["components"]["responses"];
        let shared = [("404", &shared["NotFound"]), ("405", &shared["MethodNotAllowed"])];
        let all = self.operations().into_iter().map(|(.., operation)| operation);
        let own = all.flat_map(|operation| operation["responses"].as_object().expect("responses"));
        let of = |response: &Value| {
            let codes = response.pointer("/content/application~1json/schema/allOf/1/properties/code/enum").cloned();
            codes.and_then(|codes| codes.as_array().cloned()).unwrap_or_default()
        };
        let all = own.map(|(status, response)| (status.as_str(), response)).chain(shared);
        let codes = all.flat_map(|(status, response)| of(response).into_iter().map(move |code| (status, code)));
        codes.filter_map(|(status, code)| Some((status.to_owned(), code.as_str()?.to_owned()))).collect()
    }
}
