//! A role's OpenAPI document, and checks of responses against it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use jsonschema::Validator;
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use super::{Client, Response};

/// Rate-limit headers: documented wherever a limit can be enabled, sent only where one is.
const COUNTED: [&str; 4] = ["ratelimit", "ratelimit-limit", "ratelimit-policy", "ratelimit-remaining"];

#[derive(Clone)]
pub struct Document {
    pub value: Value,
    /// The error codes of all checked responses; `""` for a success.
    checked_codes: Arc<Mutex<BTreeSet<String>>>,
}

impl Document {
    pub async fn of(client: &Client, url: &str) -> Self {
        let response = client.send(client.request(reqwest::Method::GET, &format!("{url}/openapi.json"))).await;
        assert_eq!(response.status, 200, "{response:?}");
        Self::new(response.body)
    }

    pub fn new(value: Value) -> Self {
        Self { value, checked_codes: Arc::default() }
    }

    /// A validator for a schema that may reference others of this document. `strict` rejects undocumented fields.
    pub fn validator(&self, schema: &Value, strict: bool) -> Validator {
        let mut components = self.value["components"].clone();
        if strict {
            let merged = BTreeSet::from(["Token"]);
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

    /// The target of a `$ref`, or the value itself.
    pub fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(place) => self.value.pointer(place.trim_start_matches('#')).unwrap_or_else(|| panic!("{place}")),
            None => value,
        }
    }

    /// Every operation: method, path and operation object.
    pub fn operations(&self) -> Vec<(String, String, &Value)> {
        let paths = self.value["paths"].as_object().expect("paths");
        let of = |(path, item): (&String, &'_ Value)| {
            let methods = item.as_object().expect("a path item").keys().filter(|key| *key != "servers").cloned();
            methods.map(|method| (method.to_uppercase(), path.clone())).collect::<Vec<_>>()
        };
        let named = paths.iter().flat_map(of);
        named.map(|(m, p)| (m.clone(), p.clone(), &self.value["paths"][&p][m.to_lowercase()])).collect()
    }

    /// The operation that handles a request; literal paths take precedence over templates.
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

    /// Fails unless status, headers and body of this response are documented.
    pub fn check(&self, method: &str, path: &str, response: &Response) {
        let about = format!("{method} {path}: {response:?}");
        let (status, code) = (response.status.as_u16(), response.code());
        let of_no_operation = json!({
            "headers": {"x-request-id": {}, "traceparent": {}, "link": {}},
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}, "examples": {code: {}}}}
        });
        let documented = match (status, code) {
            _ if OF_NO_OPERATION.contains(&(status.to_string().as_str(), code)) => &of_no_operation,
            _ => {
                let operation = self.operation(method, path).unwrap_or_else(|| panic!("not documented: {about}"));
                self.resolved(&operation["responses"][status.to_string()])
            }
        };
        assert!(documented.is_object(), "undocumented status: {about}");
        assert!(code.is_empty() || codes_of(documented).any(|listed| listed == code), "undocumented code: {about}");
        let has_details = matches!(code, "VALIDATION_ERROR" | "BULK_REFUSED");
        assert_eq!(has_details, response.body["details"].is_array(), "{about}");
        let headers: BTreeSet<_> =
            documented["headers"].as_object().expect("headers").keys().map(String::as_str).collect();
        for name in self.value["components"]["headers"].as_object().expect("headers").keys() {
            let (sent, listed) = (response.headers.contains_key(name), headers.contains(name.as_str()));
            // A bulk request that is not atomic has a result per item; what creates nothing is 200 the first time too.
            let has_results = response.body["items"][0]["status"].is_number();
            let creates =
                self.operation(method, path).is_none_or(|operation| operation["responses"]["201"].is_object());
            let is_first = name == "idempotent-replayed" && (has_results || !creates);
            let may_be_absent = COUNTED.contains(&name.as_str()) || is_first;
            assert!(sent == listed || (listed && may_be_absent), "{name}: sent {sent}, documented {listed}: {about}");
            if let (true, Some("integer")) =
                (sent, self.value["components"]["headers"][name]["schema"]["type"].as_str())
            {
                assert!(response.header(name).parse::<u64>().is_ok(), "{name}: {about}");
            }
        }
        let kind = response.header("content-type").split(';').next().unwrap_or_default();
        let schema = &documented["content"][kind]["schema"];
        assert!(schema.is_object(), "undocumented media type: {about}");
        let violations: Vec<_> = self
            .validator(schema, true)
            .iter_errors(&response.body)
            .map(|e| format!("{e} at {}", e.instance_path()))
            .collect();
        assert!(violations.is_empty(), "{about}\n{}", violations.join("\n"));
        self.checked_codes.lock().expect("codes").insert(response.code().to_owned());
    }

    pub async fn send_and_check(&self, client: &Client, request: RequestBuilder) -> Response {
        let sent = request.try_clone().and_then(|request| request.build().ok()).expect("a request");
        let response = client.send(request).await;
        self.check(sent.method().as_str(), sent.url().path(), &response);
        response
    }

    pub fn checked_codes(&self) -> BTreeSet<String> {
        self.checked_codes.lock().expect("codes").clone()
    }

    /// Every error code in the document.
    pub fn codes(&self) -> BTreeSet<String> {
        self.codes_by_status().into_iter().map(|(_, code)| code).collect()
    }

    /// The same, each with its status.
    pub fn codes_by_status(&self) -> BTreeSet<(String, String)> {
        let all = self.operations().into_iter().map(|(.., operation)| operation);
        let own = all.flat_map(|operation| operation["responses"].as_object().expect("responses"));
        let own = own.flat_map(|(status, response)| {
            codes_of(self.resolved(response)).map(move |code| (status.clone(), code.to_owned()))
        });
        own.chain(OF_NO_OPERATION.map(|(status, code)| (status.to_owned(), code.to_owned()))).collect()
    }
}

/// What the servers return for a path or a method that they do not have.
const OF_NO_OPERATION: [(&str, &str); 2] = [("404", "NOT_FOUND"), ("405", "METHOD_NOT_ALLOWED")];

/// The error codes of a documented response: each has an example of its name.
fn codes_of(response: &Value) -> impl Iterator<Item = &str> {
    let content = &response["content"]["application/json"];
    let is_error = content["schema"]["$ref"] == "#/components/schemas/Error";
    content["examples"]
        .as_object()
        .filter(|_| is_error)
        .into_iter()
        .flat_map(|examples| examples.keys().map(String::as_str))
}
