//! The requests of `docs/purse.http`, against real roles.

use std::collections::BTreeMap;

use purse::kernel::Role;
use reqwest::Method;
use serde_json::Value;

use crate::support::repository::text;
use crate::support::{Document, PATIENCE, World};

/// One request of an `.http` file.
#[derive(Default)]
struct FileRequest {
    name: Option<String>,
    expected: Option<u16>,
    /// Request line, headers, an empty line and body, with unresolved references.
    text: String,
}

/// Parses the format of httpYac: variables, and requests separated by lines that begin with `###`.
fn parse(text: &str) -> (BTreeMap<String, String>, Vec<FileRequest>) {
    let mut parts = text.split("\n###");
    let variables =
        parts.next().unwrap_or_default().lines().filter_map(|line| line.strip_prefix('@')?.split_once(" = "));
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let request = |part: &str| {
        let mut request = FileRequest::default();
        // The rest of the `###` line is a title.
        for line in part.lines().skip(1) {
            if let Some(name) = line.strip_prefix("# @name ") {
                request.name = Some(name.to_owned());
            } else if let Some(status) = line.strip_prefix("?? status == ") {
                request.expected = status.parse().ok();
            } else {
                request.text.extend([line, "\n"]);
            }
        }
        request
    };
    (variables, parts.map(request).collect())
}

/// Resolves references in double braces: a variable, a new UUID, or a field of an earlier response.
fn filled(text: &str, variables: &BTreeMap<String, String>, responses: &BTreeMap<String, Value>) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, reference, after)) = rest
        .split_once("{{")
        .and_then(|(before, rest)| rest.split_once("}}").map(|(name, after)| (before, name, after)))
    {
        let value = match reference.split_once('.') {
            Some((name, place)) => {
                let response = responses.get(name).unwrap_or_else(|| panic!("{reference}: no response has that name"));
                let value = response.pointer(&format!("/{}", place.replace('.', "/")));
                value.and_then(Value::as_str).unwrap_or_else(|| panic!("{reference}: {response}")).to_owned()
            }
            None if reference == "$guid" => uuid::Uuid::now_v7().to_string(),
            None => variables.get(reference).unwrap_or_else(|| panic!("no variable {reference}")).clone(),
        };
        filled.extend([before, &value]);
        rest = after;
    }
    filled + rest
}

#[tokio::test]
async fn every_request_in_the_http_file_gets_the_status_written_there() {
    let text = text("docs/purse.http");
    let (mut variables, requests) = parse(&text);
    assert_eq!(variables["users"], "http://localhost:3002");
    assert_eq!(variables["wallet"], "http://localhost:3001");
    assert!(requests.len() >= 20, "only {} requests", requests.len());
    let world = World::new().await;
    let (users, wallet, client) = world.both().await;
    variables.extend([("users".to_owned(), users.url()), ("wallet".to_owned(), wallet.url())]);
    let mut responses = BTreeMap::new();
    for FileRequest { name, expected, text } in requests {
        let text = filled(text.trim(), &variables, &responses);
        let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
        let mut lines = head.lines();
        let (method, url) = lines.next().and_then(|line| line.split_once(' ')).expect("a request line");
        let mut request = client.request(method.parse::<Method>().expect("a method"), url);
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            request = request.header(name, value);
        }
        let request = if body.is_empty() { request } else { request.body(body.to_owned()) };
        let response = client.send(request.timeout(PATIENCE)).await;
        assert_eq!(Some(response.status.as_u16()), expected, "{text}\n{response:?}");
        responses.extend(name.map(|name| (name, response.body)));
    }
}

#[tokio::test]
async fn the_http_file_contains_every_documented_route() {
    let text = text("docs/purse.http");
    let world = World::new().await;
    let (users, wallet, client) = world.both().await;
    for (role, process) in [(Role::Users, users), (Role::Wallet, wallet)] {
        let document = Document::of(&client, &process.url()).await;
        for (method, path, _) in document.operations() {
            let line = format!("\n{method} {{{{{role}}}}}{}", path.replace("/{id}", "/{{credit.id}}"));
            let ends = |rest: &str| rest.starts_with(['\n', '?']);
            assert!(text.split(&line).skip(1).any(ends), "docs/purse.http has no {method} {path} of the {role} role");
        }
    }
}
