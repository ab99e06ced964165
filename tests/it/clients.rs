//! The example clients of `docs/clients` and the requests of `docs/purse.http`, against real roles.

use std::collections::BTreeMap;
use std::process::Command;

use purse::kernel::Role;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::repository::{root, text};
use crate::support::{Document, LossyProxy, PATIENCE, World, eventually};

/// Runs a client; what it printed.
async fn run(program: &'static str, file: &'static str, users: String, wallet: String) -> (Value, String) {
    let run = move || Command::new(program).arg(root().join(file)).args([users, wallet]).env("no_proxy", "*").output();
    let ran = tokio::task::spawn_blocking(run).await.expect("thread").unwrap_or_else(|e| {
        panic!("{file} needs {program}, and it could not be started ({e}). Type `just test-tools`, which installs it.")
    });
    let (printed, told) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{file}:\n{printed}\n{told}");
    (serde_json::from_str(&printed).unwrap_or_else(|e| panic!("{file}: {e}: {printed}\n{told}")), told.into_owned())
}

/// A client meets all that can come in its way: a wallet that is not there yet, an answer that is lost, a rate limit.
async fn a_client_does_it_right(program: &'static str, file: &'static str) {
    let world = World::new().await;
    // A users role whose broker is away: who registers here has no wallet until another process relays the event.
    let cut_off = world.spawn(Role::Users, &[("RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:9/%2f")]).await;
    let limits = [("RATE_LIMIT_ENABLED", "true"), ("RL_TX_MAX", "2"), ("RL_TX_WINDOW", "2s")];
    let wallet = world.start_with(Role::Wallet, &limits).await;
    let line = LossyProxy::to(&wallet.url(), "POST /v1/transactions/credit ").await;

    let ran = tokio::spawn(run(program, file, cut_off.url(), line.url.clone()));
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

    let (printed, told) = ran.await.expect("ran");
    assert_eq!(printed, json!({"balanceMinor": 1100, "amounts": [400, 500, 400, 300, 200, 100]}), "{file}");
    assert!(told.contains("409 INSUFFICIENT_FUNDS"), "{told}");
    assert_eq!(line.lost(), 1, "{file}: no answer was lost, so nothing was tried again");
    let posts = |status: u16| {
        let log = wallet.log();
        let of = |line: &&Value| line["method"] == "POST" && line["status"] == status;
        log.iter().filter(of).count()
    };
    assert_eq!((posts(201), posts(200), posts(409)), (6, 1, 1), "{file}: made, made before, refused");
    assert!(posts(429) >= 1, "{file}: the limit was never met");
    assert_eq!(world.sql(Role::Wallet, "SELECT count(*) FROM transactions").await, "6");
}

#[tokio::test]
async fn the_python_client_waits_retries_and_paginates() {
    a_client_does_it_right("python3", "docs/clients/purse_client.py").await;
}

#[tokio::test]
async fn the_javascript_client_waits_retries_and_paginates() {
    a_client_does_it_right("node", "docs/clients/purse-client.mjs").await;
}

/// One request of an `.http` file.
#[derive(Default)]
struct FileRequest {
    name: Option<String>,
    expected: Option<u16>,
    /// Request line, headers, an empty line, body: with references still in it.
    text: String,
}

/// Reads the form that httpYac has: variables, and requests between lines that begin with `###`.
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

/// Puts in what stands between braces: a variable, something fresh, or a part of an earlier answer.
fn filled(text: &str, variables: &BTreeMap<String, String>, answers: &BTreeMap<String, Value>) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, reference, after)) = rest
        .split_once("{{")
        .and_then(|(before, rest)| rest.split_once("}}").map(|(name, after)| (before, name, after)))
    {
        let value = match reference.split_once('.') {
            Some((name, place)) => {
                let answer = answers.get(name).unwrap_or_else(|| panic!("{reference}: no answer of that name"));
                let value = answer.pointer(&format!("/{}", place.replace('.', "/")));
                value.and_then(Value::as_str).unwrap_or_else(|| panic!("{reference}: {answer}")).to_owned()
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
    let mut answers = BTreeMap::new();
    for FileRequest { name, expected, text } in requests {
        let text = filled(text.trim(), &variables, &answers);
        let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
        let mut lines = head.lines();
        let (method, url) = lines.next().and_then(|line| line.split_once(' ')).expect("a request line");
        let mut request = client.request(method.parse::<Method>().expect("a method"), url);
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            request = request.header(name, value);
        }
        let request = if body.is_empty() { request } else { request.body(body.to_owned()) };
        let answer = client.send(request.timeout(PATIENCE)).await;
        assert_eq!(Some(answer.status.as_u16()), expected, "{text}\n{answer:?}");
        answers.extend(name.map(|name| (name, answer.body)));
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
            // The health of both roles is the same, and the page is for a browser.
            if path.starts_with("/health") || path == "/docs" {
                continue;
            }
            let line = format!("\n{method} {{{{{role}}}}}{}", path.replace("/{id}", "/{{credit.id}}"));
            let ends = |rest: &str| rest.starts_with(['\n', '?']);
            assert!(text.split(&line).skip(1).any(ends), "docs/purse.http has no {method} {path} of the {role} role");
        }
    }
}
