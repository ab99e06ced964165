//! The requests of `docs/purse.http`, against real roles; and the Bruno collection `docs/bruno`, which has the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use purse::kernel::Role;
use reqwest::Method;
use serde_json::Value;

use crate::support::repository::{files, root, text};
use crate::support::{Document, PATIENCE, World, service_token};

/// Entries of the ledger that the requests create.
const ENTRIES: &str = "22";

/// One request of an `.http` file.
#[derive(Default)]
struct FileRequest {
    /// What follows `###`.
    title: String,
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
        let title = part.lines().next().unwrap_or_default().trim().to_owned();
        let mut request = FileRequest { title, ..FileRequest::default() };
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
    variables.insert("serviceToken".to_owned(), service_token("payments", "wallet:read wallet:post"));
    let mut responses = BTreeMap::new();
    for FileRequest { name, expected, text, .. } in requests {
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
    assert_eq!(world.sql(Role::Wallet, "SELECT count(*) FROM transactions").await, ENTRIES);
}

#[tokio::test]
async fn the_http_file_contains_every_documented_route() {
    let text = text("docs/purse.http");
    // `{{credit.id}}` is an `{id}`, and so is the ID of a user.
    let text = references(&text)
        .filter(|reference| reference.rsplit_once('.').is_some_and(|(_, last)| last == "id"))
        .fold(text.clone(), |text, reference| text.replace(&format!("/{{{{{reference}}}}}"), "/{id}"));
    let world = World::new().await;
    let (users, wallet, client) = world.both().await;
    for (role, process) in [(Role::Users, users), (Role::Wallet, wallet)] {
        let document = Document::of(&client, &process.url()).await;
        for (method, path, _) in document.operations() {
            let line = format!("\n{method} {{{{{role}}}}}{}", path.replace("{userId}", "{id}"));
            let ends = |rest: &str| rest.starts_with(['\n', '?']);
            assert!(text.split(&line).skip(1).any(ends), "docs/purse.http has no {method} {path} of the {role} role");
        }
    }
}

/// The references in double braces that a text has.
fn references(text: &str) -> impl Iterator<Item = &str> {
    text.split("{{").skip(1).filter_map(|rest| rest.split_once("}}")).map(|(reference, _)| reference)
}

/// A block of Bruno's format: each line is indented.
fn block(name: &str, lines: impl IntoIterator<Item = String>) -> String {
    let lines: Vec<_> = lines.into_iter().map(|line| format!("  {line}\n")).collect();
    if lines.is_empty() { String::new() } else { format!("{name} {{\n{}}}\n\n", lines.concat()) }
}

/// The files of the Bruno collection that has the requests of `docs/purse.http`, by name.
fn bruno_collection() -> BTreeMap<String, String> {
    let http = text("docs/purse.http");
    let (variables, requests) = parse(&http);
    let mut collection = BTreeMap::from([
        (
            "bruno.json".to_owned(),
            "{\n  \"version\": \"1\",\n  \"name\": \"purse\",\n  \"type\": \"collection\"\n}\n".to_owned(),
        ),
        (
            "environments/local.bru".to_owned(),
            block("vars", variables.iter().map(|(name, value)| format!("{name}: {value}"))).trim_end().to_owned()
                + "\n",
        ),
    ]);
    for (place, request) in requests.iter().enumerate() {
        let number = place + 1;
        // A field of an earlier response is a variable there: `login.accessToken` is `login_accessToken`.
        let variable = |reference: &str| reference.replace('.', "_");
        let text = references(&request.text)
            .fold(request.text.clone(), |text, reference| text.replace(reference, &variable(reference)));
        let (head, body) = text.trim().split_once("\n\n").unwrap_or((text.trim(), ""));
        let (method, url) = head.lines().next().and_then(|line| line.split_once(' ')).expect("a request line");
        let unnamed = format!("{method} {url}");
        let title = if request.title.is_empty() { unnamed.as_str() } else { request.title.as_str() };
        let ends = [". ", ": ", "; "].into_iter().filter_map(|mark| title.find(mark)).min();
        let (title, rest) = title.split_at(ends.filter(|_| title != unnamed).unwrap_or(title.len()));
        let query = url.split_once('?').map(|(_, query)| query).unwrap_or_default();
        let query = query.split('&').filter_map(|pair| pair.split_once('='));
        let needed = requests.iter().flat_map(|later| references(&later.text)).filter_map(|reference| {
            let (name, field) = reference.split_once('.')?;
            (Some(name) == request.name.as_deref()).then(|| format!("{}: res.body.{field}", variable(reference)))
        });
        let needed: BTreeSet<_> = needed.collect();
        let body_kind = if body.is_empty() { "none" } else { "json" };
        let blocks = [
            block("meta", [format!("name: {title}"), "type: http".to_owned(), format!("seq: {number}")]),
            block(
                &method.to_lowercase(),
                [format!("url: {url}"), format!("body: {body_kind}"), "auth: none".to_owned()],
            ),
            block("params:query", query.map(|(name, value)| format!("{name}: {value}"))),
            block("headers", head.lines().skip(1).map(str::to_owned)),
            block("body:json", body.lines().map(str::to_owned)),
            block("vars:post-response", needed),
            block("assert", request.expected.map(|status| format!("res.status: eq {status}"))),
            block(
                "docs",
                Some(rest.trim_start_matches([' ', '.', ':', ';']).to_owned()).filter(|rest| !rest.is_empty()),
            ),
        ];
        let words = title.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), " ");
        let slug = words.split_whitespace().collect::<Vec<_>>().join("-");
        // Without its number, so that a new request does not rename the files of those after it.
        let earlier = collection.insert(format!("{slug}.bru"), blocks.concat().trim_end().to_owned() + "\n");
        assert_eq!(earlier, None, "two requests are named {slug}");
    }
    collection
}

/// With `PURSE_WRITE` set, writes the collection instead of comparing it.
#[test]
fn the_bruno_collection_has_the_requests_of_the_http_file() {
    let collection = bruno_collection();
    if std::env::var_os("PURSE_WRITE").is_some() {
        let _ = fs::remove_dir_all(root().join("docs/bruno"));
        for (name, content) in &collection {
            let path = root().join("docs/bruno").join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("the folder");
            fs::write(path, content).expect("written");
        }
    }
    let written = files("docs/bruno").into_iter();
    let written: BTreeMap<_, _> =
        written.map(|path| (path.trim_start_matches("docs/bruno/").to_owned(), text(&path))).collect();
    let differ = |name: &&String| written.get(*name) != collection.get(*name);
    let differing: Vec<_> = collection.keys().chain(written.keys()).filter(differ).collect();
    assert!(differing.is_empty(), "run `just bruno`: docs/bruno differs from docs/purse.http in {differing:?}");
    assert!(collection.len() > 20, "{} files", collection.len());
}

/// Sends the whole collection with Bruno's own command.
#[tokio::test]
#[ignore = "needs bru; run `just test-bruno`"]
async fn bruno_gets_the_status_that_each_request_of_its_collection_expects() {
    let world = World::new().await;
    let (users, wallet, _client) = world.both().await;
    let mut bru = Command::new("bru");
    bru.args(["run", "--env", "local", "--env-var", &format!("users={}", users.url())]);
    let token = service_token("payments", "wallet:read wallet:post");
    bru.args(["--env-var", &format!("serviceToken={token}")]);
    bru.args(["--env-var", &format!("wallet={}", wallet.url())]).current_dir(root().join("docs/bruno"));
    let ran = tokio::task::spawn_blocking(move || bru.env("no_proxy", "*").output()).await.expect("thread");
    let ran = ran.unwrap_or_else(|e| panic!("bru: {e}. Run `just test-bruno`, which installs it."));
    let printed = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{printed}");
    // All but `bruno.json` and the environment are requests.
    assert_eq!(printed.matches("✓ res.status").count(), bruno_collection().len() - 2, "{printed}");
    assert_eq!(world.sql(Role::Wallet, "SELECT count(*) FROM transactions").await, ENTRIES);
}
