//! The logs of all tests contain no secret, and no input can forge log lines.
//!
//! [`RoleProcess`] scans the output of its process when it is dropped; these tests check that the scan finds secrets.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use purse::kernel::Role;
use reqwest::Method;
use serde_json::json;

use crate::support::{Client, PASSWORD, PATIENCE, Raw, RoleProcess, World, assert_error, eventually, leaks};

fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn the_scan_finds_every_kind_of_secret_and_nothing_in_an_ordinary_line() {
    let own = settings(&[
        ("USERS_DATABASE_URL", "postgres://app:purse@127.0.0.1:5432/users"),
        ("INTERNAL_JWT_PRIVATE_KEY", "a key that is not used elsewhere"),
        ("LOG_LEVEL", "trace"),
    ]);
    leaks::note_password("a very own password");
    for (line, what) in [
        (r#"{"msg":"got eyJhbGciOiJIUzI1NiJ9"}"#, "a token or a signature"),
        (r#"{"msg":"$1 = $argon2id$v=19$m=19456"}"#, "the hash of a password"),
        (r#"{"error":"correct horse battery is wrong"}"#, "the password of the test users"),
        (r#"{"msg":"a very own password"}"#, "a password: a very own password"),
        (r#"{"msg":"hello Lovelace"}"#, "the name of a person"),
        (r#"{"msg":"key a key that is not used elsewhere"}"#, "the value of INTERNAL_JWT_PRIVATE_KEY"),
        (r#"{"msg":"app:purse@db"}"#, "the value of USERS_DATABASE_URL"),
        (r#"{"msg":"ada@example.com"}"#, "an address: ada@example.com"),
        (r#"{"msg":"an uns+1@sub.beispiel.de,"}"#, "an address: uns+1@sub.beispiel.de"),
    ] {
        assert_eq!(leaks::leaks(line, &own), [what], "{line}");
    }
    for line in [
        r#"{"ts":"2026-11-25T01:00:00Z","level":"info","msg":"listening","role":"users","address":"127.0.0.1:3002"}"#,
        "must be a RabbitMQ URL like amqp://user:password@host:5672/%2f",
        "@ 1.5 @x",
    ] {
        assert_eq!(leaks::leaks(line, &own), Vec::<String>::new(), "{line}");
    }
}

#[tokio::test]
async fn a_test_whose_process_prints_a_secret_fails() {
    // A missing folder is named on stderr, and the name of this one looks like a token.
    let mut process =
        RoleProcess::spawn(&["--role", "users", "--config-dir", "/nowhere/eyJhbGciOiJIUzI1NiJ9"], &settings(&[]));
    assert_eq!(process.exited().await.code(), Some(64));
    let panic = catch_unwind(AssertUnwindSafe(|| drop(process))).expect_err("the scan finds the token");
    let message = panic.downcast_ref::<String>().expect("text");
    assert!(message.contains("a token or a signature"), "{message}");
}

#[tokio::test]
async fn the_logs_at_level_trace_contain_no_secret_and_no_body() {
    let world = World::new().await;
    let (users, wallet, client) = world.both().await;
    let user = client.ready_user().await;
    client.register(&user.email).await;
    client.log_in(&user.email, "a wrong password of a user").await;
    client.log_in("unknown.user@example.com", PASSWORD).await;
    client.me(&user.token).await;
    client.me("eyJhbGciOiJIUzI1NiJ9.e30.forged").await;
    let body = json!({"amountMinor": 5, "description": "rent for the attic"});
    for key in ["secret-of-mine", "secret-of-mine", "another"] {
        client.send(client.post_request(&user, "credit", &body, Some(key))).await;
    }
    let (credentials, query) = ("Basic YWRhOnNlc2FtZQ==", "access_token=eyJhbGciOiJIUzI1NiJ9&email=ada@example.com");
    let request = client.request(Method::GET, &format!("{}/v1/balance?{query}", client.wallet));
    client.send(request.header("authorization", credentials).header("cookie", "session=eyJ")).await;
    let request = client.request(Method::GET, &format!("{}/v1/users/{}?{query}", client.users, user.email));
    client.send(request).await;
    world.broker.publish("domain.events", "user.registered", br#"{"userId":"ada@example.com"}"#, None, &[]).await;
    eventually(PATIENCE, "a dead letter", || async { world.broker.take("wallet.provision.dlq").await }).await;
    let logs = format!("{}{}", users.output(), wallet.output());
    assert!(logs.contains(r#""level":"debug""#), "the log level is not trace");
    for text in
        ["rent for the attic", "secret-of-mine", "YWRhOnNlc2FtZQ", "amountMinor", "access_token", "forged", "Ada"]
    {
        assert!(!logs.contains(text), "{text:?} is in the logs");
    }
    // Dropping the processes scans their logs for everything else.
}

#[tokio::test]
async fn no_input_from_a_client_or_a_publisher_becomes_a_line_or_a_field_of_the_log() {
    let world = World::new().await;
    let (users, wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let forged = r#"x"},"level":"error","forged":"yes","#;
    let lines = [
        "evil\nevil",
        "evil\r\n{\"level\":\"error\",\"forged\":\"yes\"}",
        "\u{1b}[31mevil",
        "evil\u{2028}evil",
        forged,
    ];
    for text in lines {
        let body = json!({"amountMinor": 1, "description": text, "forged": text});
        client.send(client.post_request(&user, "credit", &body, None)).await;
        client.log_in(text, text).await;
        client.register(text).await;
        let query: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect::<Vec<_>>().concat();
        for url in [
            format!("{}/v1/transactions?{query}={query}", client.wallet),
            format!("{}/v1/transactions/{query}", client.wallet),
            format!("{}/{query}", client.users),
        ] {
            client.send(client.request(Method::GET, &url).bearer_auth(&user.token)).await;
        }
        // A publisher can set any message id and headers.
        let headers = [("x-request-id", text), ("traceparent", text), ("x-error", text), ("forged", text)];
        world.broker.publish("domain.events", "user.registered", b"evil", Some(text), &headers).await;
        let signed = [("x-signature", text)];
        world.broker.publish("domain.events", "user.registered", text.as_bytes(), Some(text), &signed).await;
    }
    // Written by hand, because a client library would reject these.
    for header in [
        "x-request-id: a\u{1b}[31mevil",
        "x-request-id: \"forged\":\"yes\"",
        "user-agent: {\"forged\":1}",
        "traceparent: evil",
    ] {
        for method in ["GET", "BREW"] {
            let mut raw = Raw::connect(&client.users).await;
            raw.send(format!("{method} /evil HTTP/1.1\r\nhost: x\r\n{header}\r\n\r\n")).await;
            raw.response().await;
        }
    }
    for _ in 0..2 * lines.len() {
        eventually(PATIENCE, "a dead letter", || async { world.broker.take("wallet.provision.dlq").await }).await;
    }
    for process in [&users, &wallet] {
        // `log` fails unless each line is JSON.
        for line in process.log() {
            let line = line.as_object().expect("an object");
            // Field names never come from input.
            let plain = |name: &String| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            assert!(line.keys().all(|name| plain(name) && name != "forged"), "{line:?}");
            // A message id is logged unchanged, as one string; request ids only in their own format.
            for (name, value) in line.iter().filter(|(name, _)| *name != "event_id") {
                let text = value.as_str().unwrap_or_default();
                assert!(!text.contains("forged") && !text.contains("evil"), "{name}: {line:?}");
            }
        }
        for raw in process.output().lines() {
            assert!(!raw.contains('\u{1b}'), "an escape sequence: {raw:?}");
        }
    }
}

#[tokio::test]
async fn a_row_that_the_database_rejects_is_logged_without_its_values() {
    let world = World::new().await;
    let (users, wallet, client) = world.both().await;
    let user = client.ready_user().await;
    // The domain does not know these constraints, and PostgreSQL's error quotes the whole row.
    world.sql(Role::Users, "ALTER TABLE users ADD CONSTRAINT a_constraint CHECK (false) NOT VALID").await;
    world.sql(Role::Wallet, "ALTER TABLE transactions ADD CONSTRAINT a_constraint CHECK (false) NOT VALID").await;
    assert_error(&client.register(&Client::fresh_email()).await, 500, "INTERNAL_ERROR", "a registration");
    let body = json!({"amountMinor": 77_001, "description": "rent for the attic"});
    let response = client.send(client.post_request(&user, "credit", &body, None)).await;
    assert_error(&response, 500, "INTERNAL_ERROR", "an entry");
    for process in [&users, &wallet] {
        let logged =
            || async { process.output().contains("violates check constraint \\\"a_constraint\\\"").then_some(()) };
        eventually(PATIENCE, "the violated constraint is logged", logged).await;
        for text in ["Failing row", "rent for the attic", "77001", "DETAIL", "Ada"] {
            assert!(!process.output().contains(text), "{text}: {}", process.output());
        }
    }
}
