//! The OpenAPI documents are valid, and describe the routes and checks of the servers.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Output};

use purse::kernel::Role;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::repository::{sources, text, without_tests};
use crate::support::{Client, Document, World, path_and_token};

/// Runs the binary with an empty environment.
pub fn purse(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_purse"));
    // A coverage run sets this variable to where profiles are written.
    command.args(arguments).env_clear().envs(std::env::vars().filter(|(name, _)| name == "LLVM_PROFILE_FILE"));
    command.output().expect("purse")
}

/// The document that `purse openapi` prints for a role, or for both.
pub fn printed(role: &str) -> Document {
    let ran = purse(&["openapi", "--role", role]);
    assert!(ran.status.success(), "{ran:?}");
    Document::new(serde_json::from_slice(&ran.stdout).unwrap_or_else(|e| panic!("{role}: {e}")))
}

fn errors(validator: &jsonschema::Validator, value: &Value) -> Vec<String> {
    validator.iter_errors(value).map(|e| format!("{e} at {}", e.instance_path())).collect()
}

/// Every object under a value.
pub fn objects<'a>(value: &'a Value, found: &mut Vec<&'a serde_json::Map<String, Value>>) {
    match value {
        Value::Object(object) => {
            found.push(object);
            object.values().for_each(|value| objects(value, found));
        }
        Value::Array(array) => array.iter().for_each(|value| objects(value, found)),
        _ => {}
    }
}

pub const DOCUMENTS: [&str; 3] = ["users", "wallet", "all"];

#[test]
fn the_documents_are_openapi_3_1() {
    // Published by the OpenAPI Initiative (https://spec.openapis.org/oas/3.1/schema/2022-10-07), under Apache-2.0.
    let schema = serde_json::from_str(include_str!("openapi-3.1.schema.json")).expect("the schema of OpenAPI 3.1");
    let openapi = jsonschema::draft202012::options().build(&schema).expect("a schema");
    for role in DOCUMENTS {
        let document = printed(role);
        assert_eq!(errors(&openapi, &document.value), Vec::<String>::new(), "{role}");
        let mut broken = document.value.clone();
        let path = broken["paths"].as_object_mut().and_then(|paths| paths.values_mut().next()).expect("a path");
        *path = json!({"get": {"responses": "none"}});
        assert!(!openapi.is_valid(&broken), "the schema of OpenAPI accepts an invalid document");

        for (name, schema) in document.value["components"]["schemas"].as_object().expect("schemas") {
            assert!(jsonschema::draft202012::meta::is_valid(schema), "{role}: {name} is not a JSON schema");
        }
        let mut all = Vec::new();
        objects(&document.value, &mut all);
        let places: BTreeSet<_> = all.iter().filter_map(|object| object.get("$ref")?.as_str()).collect();
        assert!(places.len() > 10, "{places:?}");
        let dangling: Vec<_> =
            places.iter().filter(|place| document.value.pointer(place.trim_start_matches('#')).is_none()).collect();
        assert_eq!(dangling, Vec::<&&str>::new(), "{role}: references without a target");
        let operations = document.operations();
        let ids: BTreeSet<_> = operations.iter().map(|(.., operation)| operation["operationId"].as_str()).collect();
        assert_eq!(ids.len(), operations.len(), "{role}: a duplicate operationId");
    }
}

#[test]
fn every_example_in_the_documents_matches_its_schema() {
    for role in DOCUMENTS {
        let document = printed(role);
        let mut checked = 0;
        for (method, path, operation) in document.operations() {
            let responses = operation["responses"].as_object().expect("responses");
            let contents = responses.values().map(|response| &document.resolved(response)["content"]);
            for content in contents.chain([&operation["requestBody"]["content"]]) {
                let Some(content) = content["application/json"].as_object() else { continue };
                let named = content.get("examples").and_then(Value::as_object).cloned().unwrap_or_default();
                let examples = named.values().map(|example| &example["value"]).chain(content.get("example"));
                for example in examples {
                    let broken = errors(&document.validator(&content["schema"], true), example);
                    assert_eq!(broken, Vec::<String>::new(), "{method} {path}: {example}");
                    checked += 1;
                }
            }
        }
        assert!(checked > 15, "{role}: only {checked} examples");
    }
}

const ID: &str = "0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e";

/// Paths that are served and not documented: those for operators and browsers, a redirect and static files.
const UNDOCUMENTED: [&str; 7] =
    ["/", "/docs", "/docs/{file}", "/health/live", "/health/ready", "/metrics", "/openapi.json"];

#[test]
fn every_route_is_documented_unless_it_is_for_operators_or_browsers() {
    let code: String = sources("src").iter().map(|path| without_tests(&text(path)).to_owned()).collect();
    for function in ["web::resource(\"", "web::redirect(\"", "Endpoint::undocumented(\""] {
        let paths = code.split(function).skip(1).filter_map(|rest| rest.split('"').next());
        for path in paths {
            assert!(UNDOCUMENTED.contains(&path), "{path} is served by {function}…) and is not documented");
        }
    }
    for other in [".route(\"", "web::scope("] {
        assert!(!code.contains(other), "routes are added by {other}");
    }
    assert_eq!(code.matches("web::resource(path)").count(), 1, "endpoints are served in one place");
}

#[tokio::test]
async fn the_documented_routes_are_exactly_those_of_the_servers() {
    let world = World::new().await;
    let (users, wallet, client) = world.both().await;
    for (role, process) in [(Role::Users, users), (Role::Wallet, wallet)] {
        let document = Document::of(&client, &process.url()).await;
        assert_eq!(document.value, printed(role.as_str()).value, "{role}: printed and served");
        let mut documented: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (method, path, _) in document.operations() {
            let methods = documented.entry(path).or_default();
            methods.extend((method == "GET").then(|| "HEAD".to_owned()));
            methods.insert(method);
        }
        assert!(documented.len() > 2, "{role}: {documented:?}");
        for (path, methods) in documented {
            let url = format!("{}{}", process.url(), path.replace("{id}", ID).replace("{userId}", ID));
            let response = document.send_and_check(&client, client.request(Method::PATCH, &url)).await;
            assert_eq!(response.status, 405, "{path}: {response:?}");
            let allowed: BTreeSet<String> = response.header("allow").split(", ").map(str::to_owned).collect();
            assert_eq!(allowed, methods, "{role} {path}");
        }
    }
}

#[test]
fn the_document_is_printed_for_a_role_and_needs_no_settings() {
    for (arguments, hint) in [(vec!["openapi"], "--role"), (vec!["openapi", "--role", "cashier"], "users, wallet")] {
        let ran = purse(&arguments);
        let errors = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(64), "{arguments:?}");
        assert!(ran.stdout.is_empty() && errors.contains(hint), "{arguments:?}: {errors}");
    }
    let users = printed("users");
    assert_eq!(users.value["openapi"], "3.1.0");
    assert!(users.value["paths"]["/v1/auth/register"].is_object() && users.value["paths"]["/v1/balance"].is_null());
}

#[tokio::test]
async fn a_body_returns_400_exactly_when_its_schema_rejects_it() {
    let world = World::new().await;
    let (users, wallet, client) = world.both().await;
    let user = client.ready_user().await;
    for process in [&users, &wallet] {
        let document = Document::of(&client, &process.url()).await;
        let (mut accepted, mut rejected) = (0, 0);
        for (method, path, operation) in document.operations() {
            let content = &operation["requestBody"]["content"]["application/json"];
            if content.is_null() {
                continue;
            }
            assert_eq!(method, "POST");
            let reader = document.validator(&content["schema"], false);
            for mut body in variants(document.resolved(&content["schema"]), &content["example"]) {
                // A valid registration needs an address that is not taken.
                if body["email"] == content["example"]["email"] && path.ends_with("register") {
                    body["email"] = json!(Client::fresh_email());
                }
                let valid = reader.is_valid(&body);
                let (filled, token) = path_and_token(&path, &user, ID);
                let request = client.request(Method::POST, &format!("{}{filled}", process.url())).bearer_auth(token);
                let response = document.send_and_check(&client, request.json(&body)).await;
                assert_eq!(response.status != 400, valid, "{path} {body}: {response:?}");
                *(if valid { &mut accepted } else { &mut rejected }) += 1;
            }
        }
        assert!(accepted >= 10 && rejected >= 50, "{accepted} accepted, {rejected} rejected");
    }
}

/// The example, other JSON values, and the example with one field changed in every way that its schema restricts.
fn variants(schema: &Value, example: &Value) -> Vec<Value> {
    let mut variants = vec![example.clone(), json!({}), json!([]), json!("text"), json!(null)];
    let mut with = |field: &str, value: Option<Value>| {
        let mut body = example.clone();
        let fields = body.as_object_mut().expect("an object");
        match value {
            Some(value) => fields.insert(field.to_owned(), value),
            None => fields.remove(field),
        };
        variants.push(body);
    };
    with("unknown", Some(json!(1)));
    for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
        with(field, None);
        for value in [
            json!(null),
            json!(true),
            json!([]),
            json!({}),
            json!(5),
            json!(5.5),
            json!(""),
            json!(" "),
            json!("A\u{0}Lovelace"),
            json!("text"),
        ] {
            with(field, Some(value));
        }
        for bound in ["minimum", "maximum"].iter().filter_map(|bound| schema[bound].as_i64()) {
            (bound - 1..=bound + 1).for_each(|number| with(field, Some(json!(number))));
        }
        for bound in ["minLength", "maxLength"].iter().filter_map(|bound| schema[bound].as_u64()) {
            let bound = usize::try_from(bound).expect("small");
            (bound - 1..=bound + 1).for_each(|length| with(field, Some(json!("x".repeat(length)))));
        }
    }
    variants
}

#[tokio::test]
async fn a_parameter_returns_400_exactly_when_its_schema_rejects_it() {
    let world = World::new().await;
    let (_users, wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let document = Document::of(&client, &wallet.url()).await;
    let (mut accepted, mut rejected) = (0, 0);
    for (_, path, operation) in document.operations() {
        let parameters = operation["parameters"].as_array().expect("parameters");
        let parameters: Vec<&Value> = parameters.iter().map(|parameter| document.resolved(parameter)).collect();
        for parameter in &parameters {
            // The format of a cursor is not documented.
            if parameter["in"] != "query" || parameter["name"] == "cursor" {
                continue;
            }
            let (name, reader) =
                (parameter["name"].as_str().expect("name"), document.validator(&parameter["schema"], false));
            // The other parameters that a request needs: the ends of a period.
            let others: String = parameters
                .iter()
                .filter(|other| other["in"] == "query" && other["required"] == true && other["name"] != name)
                .map(|other| match other["name"].as_str() {
                    Some("from") => "&from=2026-01-01T00:00:00Z",
                    Some("to") => "&to=2026-03-01T00:00:00Z",
                    other => panic!("{other:?} is required"),
                })
                .collect();
            for text in [
                "",
                "0",
                "1",
                "30",
                "31",
                "100",
                "101",
                "-1",
                "1.5",
                "x",
                "credit",
                "debit",
                "CREDIT",
                "csv",
                "ndjson",
                "true",
                "false",
                "2026-01-31T12:00:00Z",
                "2026-01-31T12:00:00+02:00",
                "2026-01-31",
            ] {
                let number = text.parse::<i64>().map(|number| json!(number)).ok();
                let flag = text.parse::<bool>().map(|flag| json!(flag)).ok();
                let value = match parameter["schema"]["type"].as_str() {
                    Some("integer") => number,
                    Some("boolean") => flag,
                    _ => None,
                };
                let value = value.unwrap_or(json!(text));
                let valid = reader.is_valid(&value);
                let (filled, token) = path_and_token(&path, &user, ID);
                let url = format!("{}{filled}?{name}={}{others}", wallet.url(), text.replace('+', "%2B"));
                let response =
                    document.send_and_check(&client, client.request(Method::GET, &url).bearer_auth(token)).await;
                assert_eq!(response.status != 400, valid, "{path}?{name}={text}: {response:?}");
                *(if valid { &mut accepted } else { &mut rejected }) += 1;
            }
        }
    }
    assert!(accepted >= 10 && rejected >= 20, "{accepted} accepted, {rejected} rejected");
}
