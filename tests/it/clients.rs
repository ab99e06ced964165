//! The example clients of `docs/clients` and the requests of `docs/purse.http`, against real roles.

use std::collections::BTreeMap;
use std::process::Command;

use purse::kernel::Role;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::repository::{root, text};
use crate::support::{Document, LossyProxy, PATIENCE, World, eventually};

/// Runs a client; returns its standard output and standard error.
async fn run(program: &'static str, file: &'static str, users: String, wallet: String) -> (Value, String) {
    let run = move || Command::new(program).arg(root().join(file)).args([users, wallet]).env("no_proxy", "*").output();
    let ran = tokio::task::spawn_blocking(run).await.expect("thread").unwrap_or_else(|e| {
        panic!("{file} needs {program}, and it could not be started ({e}). Run `just test-tools`, which installs it.")
    });
    let (printed, errors) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{file}:\n{printed}\n{errors}");
    (serde_json::from_str(&printed).unwrap_or_else(|e| panic!("{file}: {e}: {printed}\n{errors}")), errors.into_owned())
}

/// Runs a client through a wallet that does not exist yet, a lost response and a rate limit.
async fn assert_client_handles_failures(program: &'static str, file: &'static str) {
    let world = World::new().await;
    // This users role cannot reach its broker, so the wallet is created only after another process relays the event.
    let without_broker = world.spawn(Role::Users, &[("RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:9/%2f")]).await;
    let limits = [("RATE_LIMIT_ENABLED", "true"), ("RL_TX_MAX", "2"), ("RL_TX_WINDOW", "2s")];
    let wallet = world.start_with(Role::Wallet, &limits).await;
    let proxy = LossyProxy::to(&wallet.url(), "POST /v1/transactions/credit ").await;

    let ran = tokio::spawn(run(program, file, without_broker.url(), proxy.url.clone()));
    let registered = "SELECT count(*) FROM users";
    eventually(PATIENCE, "the client registers", || async {
        (world.sql(Role::Users, registered).await == "1").then_some(())
    })
    .await;
    eventually(PATIENCE, "the client waits at the gate", || async {
        let waits = wallet.log().iter().any(|line| line["route"] == "/v1/wallet/status" && line["status"] == 503);
        (waits || ran.is_finished()).then_some(())
    })
    .await;
    assert!(!ran.is_finished(), "the client did not wait for its wallet");
    let _relay = world.start(Role::Users).await;

    let (printed, errors) = ran.await.expect("ran");
    assert_eq!(printed, json!({"balanceMinor": 1100, "amounts": [400, 500, 400, 300, 200, 100]}), "{file}");
    assert!(errors.contains("409 INSUFFICIENT_FUNDS"), "{errors}");
    assert_eq!(proxy.lost(), 1, "{file}: no response was lost, so nothing was retried");
    let posts = |status: u16| {
        let log = wallet.log();
        let of = |line: &&Value| line["method"] == "POST" && line["status"] == status;
        log.iter().filter(of).count()
    };
    assert_eq!((posts(201), posts(200), posts(409)), (6, 1, 1), "{file}: created, replayed, rejected");
    assert!(posts(429) >= 1, "{file}: the limit was never reached");
    assert_eq!(world.sql(Role::Wallet, "SELECT count(*) FROM transactions").await, "6");
}

#[tokio::test]
async fn the_python_client_waits_retries_and_paginates() {
    assert_client_handles_failures("python3", "docs/clients/purse_client.py").await;
}

#[tokio::test]
async fn the_javascript_client_waits_retries_and_paginates() {
    assert_client_handles_failures("node", "docs/clients/purse-client.mjs").await;
}

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
