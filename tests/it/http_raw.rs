//! Malformed HTTP, byte by byte: slow, truncated, ambiguous and smuggled requests.

use std::time::{Duration, Instant};

use purse::kernel::Role;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{Client, PASSWORD, Raw, RoleProcess, World, assert_error, assert_invalid, assert_json_response};

async fn users() -> (World, RoleProcess, Client) {
    let world = World::new().await;
    let users = world.start(Role::Users).await;
    let client = Client::new(&users.url(), &users.url());
    (world, users, client)
}

fn login_head(length: usize) -> String {
    format!(
        "POST /v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    )
}

#[tokio::test]
async fn a_request_that_arrives_too_slowly_times_out() {
    let (_world, _users, client) = users().await;
    // Concurrently, because each takes seconds.
    tokio::join!(
        assert_stalled_body_times_out(&client),
        assert_dripping_body_times_out(&client),
        assert_stalled_head_times_out(&client)
    );
}

/// A 408 after ten seconds, and the connection is closed.
async fn assert_stalled_body_times_out(client: &Client) {
    let mut raw = Raw::connect(&client.users).await;
    let began = Instant::now();
    raw.send(login_head(100)).await;
    raw.send(b"{\"email\":").await;
    let response = raw.response().await.expect("a response");
    assert_error(&response, 408, "REQUEST_TIMEOUT", "a slow body");
    assert!(began.elapsed() >= Duration::from_secs(9), "{:?}", began.elapsed());
    // Later bytes are not read as another request.
    raw.send("x".repeat(92)).await;
    assert!(raw.ends().await);
}

/// The deadline is for the whole body, so occasional bytes do not keep the connection open.
async fn assert_dripping_body_times_out(client: &Client) {
    let mut raw = Raw::connect(&client.users).await;
    raw.send(login_head(10_000)).await;
    let (mut sent, began) = (0, Instant::now());
    while raw.stays_open(Duration::from_millis(200)).await {
        assert!(began.elapsed() < Duration::from_secs(40), "still open after {sent} bytes");
        raw.send(b" ").await;
        sent += 1;
    }
    assert!(began.elapsed() >= Duration::from_secs(9), "{sent} bytes");
}

/// The connection is closed after five seconds, with or without a 408.
async fn assert_stalled_head_times_out(client: &Client) {
    let mut raw = Raw::connect(&client.users).await;
    let began = Instant::now();
    raw.send("GET /health/live HTTP/1.1\r\nhost: x\r\nx-slow: ").await;
    let response = raw.response().await;
    assert!(response.is_none_or(|response| response.status == 408));
    assert!(raw.ends().await);
    assert!(began.elapsed() >= Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test]
async fn pipelined_requests_get_their_responses_in_order() {
    let (_world, _users, client) = users().await;
    let user = client.user().await;
    let mut raw = Raw::connect(&client.users).await;
    let me = format!("GET /v1/users/me HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n", user.token);
    let body = format!("{{\"email\":\"{}\",\"password\":\"{PASSWORD}\"}}", user.email);
    let mut sent = Vec::new();
    for n in 0..5 {
        // The slowest request first: a login computes a hash.
        let login = login_head(body.len()).replacen("host: x", &format!("host: x\r\nx-request-id: l{n}"), 1);
        let nothing = format!("GET /nothing HTTP/1.1\r\nhost: x\r\nx-request-id: n{n}\r\n\r\n");
        sent.extend([login, body.clone(), format!("{me}x-request-id: m{n}\r\n\r\n"), nothing]);
    }
    raw.send(sent.concat()).await;
    for n in 0..5 {
        for (name, status) in [("l", 200), ("m", 200), ("n", 404)] {
            let response = raw.response().await.expect("a response");
            assert_eq!((response.header("x-request-id"), response.status.as_u16()), (&*format!("{name}{n}"), status));
            assert_json_response(&response, name);
        }
    }
    assert!(raw.stays_open(Duration::from_millis(50)).await);
}

#[tokio::test]
async fn a_pipelined_head_request_gets_no_body_that_could_be_read_as_the_next_response() {
    let (_world, _users, client) = users().await;
    let user = client.user().await;
    let bearer = format!("host: x\r\nauthorization: Bearer {}\r\n\r\n", user.token);
    // The slower request first: it queries the database while the next one is read.
    let sent = format!("HEAD /v1/users/me HTTP/1.1\r\n{bearer}GET /health/live HTTP/1.1\r\n{bearer}");
    let mut stream = TcpStream::connect(client.users.trim_start_matches("http://")).await.expect("connected");
    stream.write_all(sent.as_bytes()).await.expect("sent");
    let (mut received, mut chunk) = (String::new(), [0; 4096]);
    while let Ok(Ok(bytes)) = timeout(Duration::from_secs(2), stream.read(&mut chunk)).await {
        if bytes == 0 {
            break;
        }
        received.push_str(&String::from_utf8_lossy(&chunk[..bytes]));
    }
    // Either two heads follow each other or the connection is closed; the profile is never sent.
    assert!(!received.contains("Lovelace"), "{received}");
    let next = received.split_once("\r\n\r\n").map_or("", |(_, rest)| rest);
    assert!(next.is_empty() || next.starts_with("HTTP/1.1 "), "{received}");
}

#[tokio::test]
async fn an_unread_body_of_a_rejected_request_is_never_read_as_the_next_request() {
    let (_world, _users, client) = users().await;
    let hidden = "GET /health/live HTTP/1.1\r\nhost: x\r\nx-request-id: hidden\r\n\r\n";
    for (head, status) in [
        // Rejected before any byte of the body is read.
        (format!("POST /nothing HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", hidden.len()), 404),
        (format!("PUT /v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", hidden.len()), 405),
        (format!("POST /v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", hidden.len()), 415),
        (format!("GET /v1/users/me HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", hidden.len()), 401),
        (login_head(hidden.len()), 400),
    ] {
        let mut raw = Raw::connect(&client.users).await;
        raw.send(format!("{head}{hidden}GET /nothing HTTP/1.1\r\nhost: x\r\nx-request-id: next\r\n\r\n")).await;
        let first = raw.response().await.expect("a response");
        assert_eq!(first.status.as_u16(), status, "{head}");
        // Either the connection is closed or the bytes after the body are the next request.
        if let Some(second) = raw.response().await {
            assert_eq!(second.header("x-request-id"), "next", "{head}");
        }
    }
}

#[tokio::test]
async fn an_ambiguous_request_returns_400_and_closes_the_connection() {
    let (_world, users, client) = users().await;
    let hidden = "GET /health/ready HTTP/1.1\r\nhost: x\r\nx-request-id: smuggled\r\n\r\n";
    let heads = [
        "content-length: 5\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 5",
        "content-length: 5\r\ncontent-length: 6",
        "content-length: 5\r\ncontent-length: 5",
        "content-length: 5, 5",
        "content-length: +5",
        "content-length: -5",
        "content-length: 0x5",
        "content-length: 5 5",
        "content-length: 99999999999999999999",
        "content-length : 5",
        " content-length: 5",
        "transfer-encoding: identity, chunked, identity",
        "transfer-encoding: xchunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "x-folded: a\r\n b",
        "x-control: a\u{1}b",
        "x-nul: a\0b",
        "no colon here",
        ": no name",
        "host: y",
    ];
    for head in heads {
        for request_line in ["POST /v1/auth/login HTTP/1.1\r\nhost: x", "GET /health/live HTTP/1.1\r\nhost: x"] {
            let mut raw = Raw::connect(&client.users).await;
            raw.send(format!("{request_line}\r\nx-request-id: outer\r\n{head}\r\n\r\n0\r\n\r\n{hidden}")).await;
            assert_rejected_by_the_parser(raw, &format!("{request_line} {head}")).await;
        }
    }
    let reached = |id: &str| users.log().iter().any(|line| line["request_id"] == *id);
    let marked = client.request(reqwest::Method::GET, &format!("{}/nothing", client.users));
    client.send(marked.header("x-request-id", "after-all-of-them")).await;
    crate::support::eventually(crate::support::PATIENCE, "the log is written", || async {
        reached("after-all-of-them").then_some(())
    })
    .await;
    assert!(!reached("smuggled") && !reached("outer"), "a handler received one of them");
}

#[tokio::test]
async fn a_malformed_request_line_returns_400_and_closes_the_connection() {
    let (_world, _users, client) = users().await;
    for line in [
        "GET",
        "GET /health/live",
        "GET  /health/live HTTP/1.1",
        "GET /health/live HTTP/9.9",
        "GET /health/live HTTP/1.1 x",
        "GET /health live HTTP/1.1",
        "GET \u{1}/ HTTP/1.1",
        "G\u{0}T /health/live HTTP/1.1",
        "(GET) /health/live HTTP/1.1",
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}", // the start of a TLS handshake
        "PRI * HTTP/2.0",
        "hello",
    ] {
        let mut raw = Raw::connect(&client.users).await;
        raw.send(format!("{line}\r\nhost: x\r\n\r\n")).await;
        assert_rejected_by_the_parser(raw, line).await;
    }
    // No `Host` at all.
    let mut raw = Raw::connect(&client.users).await;
    raw.send("GET /health/live HTTP/1.1\r\n\r\n").await;
    assert_rejected_by_the_parser(raw, "no host").await;
    let live = client.send(client.request(reqwest::Method::GET, &format!("{}/health/live", client.users))).await;
    assert_eq!(live.status, 200, "the process no longer serves");
}

#[tokio::test]
async fn an_endless_head_is_rejected_and_closes_the_connection() {
    let (_world, _users, client) = users().await;
    let long = "x".repeat(300_000);
    let many = (0..2000).map(|n| format!("x-{n}: y\r\n")).collect::<Vec<_>>().concat();
    for (head, about) in [
        (format!("GET /health/live HTTP/1.1\r\nhost: x\r\nx-long: {long}"), "an endless header"),
        (format!("GET /health/live HTTP/1.1\r\nhost: x\r\n{many}\r\n"), "2,000 headers"),
        (format!("GET /{long}"), "an endless path"),
    ] {
        let mut raw = Raw::connect(&client.users).await;
        raw.send(head).await;
        if let Some(response) = raw.response().await {
            assert!([400, 413, 414, 431].contains(&response.status.as_u16()), "{about}: {response:?}");
        }
        assert!(raw.ends().await, "{about}");
    }
}

/// A 400 or nothing, and then the end: an unparsable request reaches no handler.
async fn assert_rejected_by_the_parser(mut raw: Raw, about: &str) {
    if let Some(response) = raw.response().await {
        assert_invalid(&response, &["request"], about);
    }
    assert!(raw.ends().await, "{about}: the connection is open after one response");
}

#[tokio::test]
async fn a_truncated_or_badly_chunked_body_writes_nothing() {
    let (world, _users, client) = users().await;
    let body = r#"{"firstName":"A","lastName":"L","email":"cut@example.com","password":"12345678"}"#;
    let head = "POST /v1/auth/register HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    let more = body.len() + 1;
    for request in [
        format!("{head}content-length: {more}\r\n\r\n{body}"),
        format!("{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n", body.len()),
        format!("{head}transfer-encoding: chunked\r\n\r\nzz\r\n{body}\r\n0\r\n\r\n"),
        format!("{head}transfer-encoding: chunked\r\n\r\n{more:x}\r\n{body}\r\n0\r\n\r\n"),
        format!("{head}transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n{body}\r\n0\r\n\r\n"),
    ] {
        let mut raw = Raw::connect(&client.users).await;
        raw.send(&request).await;
        raw.finish().await;
        if let Some(response) = raw.response().await.filter(|response| !response.body.is_null()) {
            assert_invalid(&response, &["body"], &request);
        }
        assert!(raw.ends().await, "{request}");
    }
    assert_eq!(world.sql(Role::Users, "SELECT count(*) FROM users").await, "0");
}

#[tokio::test]
async fn an_expect_header_gets_100_continue() {
    let (_world, _users, client) = users().await;
    let user = client.user().await;
    let body = format!("{{\"email\":\"{}\",\"password\":\"{PASSWORD}\"}}", user.email);
    let mut raw = Raw::connect(&client.users).await;
    raw.send(login_head(body.len()).replacen("host: x", "host: x\r\nexpect: 100-continue", 1)).await;
    assert_eq!(raw.response().await.expect("100 Continue").status, 100);
    raw.send(&body).await;
    assert_eq!(raw.response().await.expect("a response").status, 200);
}
