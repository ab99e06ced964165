//! HTTP under pressure: long heads, many connections, upgrades, foreign hosts, ambiguous chunks.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use purse::kernel::Role;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::{Client, PASSWORD, PATIENCE, Raw, RoleProcess, World, assert_error, assert_json_response};

const HEAD_BYTES_MAX: usize = 8 * 1024;

async fn users() -> (World, RoleProcess, Client) {
    let world = World::new().await;
    let users = world.start(Role::Users).await;
    let client = Client::new(&users.url(), &users.url());
    (world, users, client)
}

#[tokio::test]
async fn a_head_of_8_kib_and_96_headers_is_accepted_and_a_larger_one_returns_431() {
    let (_world, _users, client) = users().await;
    let mut raw = Raw::connect(&client.users).await;
    // `GET`, the target, and `host: x` and `x-pad: …` with four separators each.
    let around = "GET".len() + "/health/live".len() + "host".len() + 1 + 4 + "x-pad".len() + 4;
    let request = |pad: usize| format!("GET /health/live HTTP/1.1\r\nhost: x\r\nx-pad: {}\r\n\r\n", "p".repeat(pad));
    raw.send(request(HEAD_BYTES_MAX - around)).await;
    assert_eq!(raw.response().await.expect("a response").status, 200, "the longest head");
    raw.send(request(HEAD_BYTES_MAX - around + 1)).await;
    assert_error(&raw.response().await.expect("a response"), 431, "HEADERS_TOO_LARGE", "one byte more");
    let target = format!("GET /health/live?{} HTTP/1.1\r\nhost: x\r\n\r\n", "q".repeat(HEAD_BYTES_MAX));
    raw.send(target).await;
    assert_error(&raw.response().await.expect("a response"), 431, "HEADERS_TOO_LARGE", "a long target");
    let many = (0..90).map(|n| format!("x-{n}: {}\r\n", "v".repeat(90))).collect::<Vec<_>>().concat();
    raw.send(format!("GET /health/live HTTP/1.1\r\nhost: x\r\n{many}\r\n")).await;
    assert_error(&raw.response().await.expect("a response"), 431, "HEADERS_TOO_LARGE", "many headers");
    for (headers, status) in [(96, 200), (97, 431)] {
        let mut raw = Raw::connect(&client.users).await;
        let short = (1..headers).map(|n| format!("x-{n}: v\r\n")).collect::<Vec<_>>().concat();
        raw.send(format!("GET /health/live HTTP/1.1\r\nhost: x\r\n{short}\r\n")).await;
        assert_eq!(raw.response().await.expect("a response").status, status, "{headers} headers");
    }
    // It is checked before everything else. The connection is closed or serves the next request.
    let body = "{}";
    raw.send(format!(
        "POST /nothing HTTP/1.1\r\nhost: x\r\nx-pad: {}\r\ncontent-length: {}\r\n\r\n{body}",
        "p".repeat(HEAD_BYTES_MAX),
        body.len()
    ))
    .await;
    assert_error(&raw.response().await.expect("a response"), 431, "HEADERS_TOO_LARGE", "before a 404");
    if let Some(next) = {
        raw.send("GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n").await;
        raw.response().await
    } {
        assert_eq!(next.status, 200, "{next:?}");
    }
}

/// Raises the limit of open files for this process and those that it starts, because the usual 1,024 is too low.
fn raise_the_limit_of_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let current = Some(limit.maximum.map_or(10_000, |maximum| maximum.min(10_000)));
    setrlimit(Resource::Nofile, Rlimit { current, ..limit }).expect("a limit up to the maximum");
}

#[tokio::test]
async fn hundreds_of_idle_slow_and_half_open_connections_do_not_block_other_clients() {
    raise_the_limit_of_open_files();
    let (_world, _users, client) = users().await;
    let user = client.user().await;
    let open = |first: &'static str, count: usize| {
        let url = client.users.clone();
        async move {
            join_all((0..count).map(|_| async {
                let mut raw = Raw::connect(&url).await;
                if !first.is_empty() {
                    raw.send(first).await;
                }
                raw
            }))
            .await
        }
    };
    let half_body =
        "POST /v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 90\r\n\r\n{";
    let (silent, half_heads, half_bodies, kept) = tokio::join!(
        open("", 300),
        open("GET /health/live HTTP/1.1\r\nx-slow: ", 300),
        open(half_body, 300),
        open("GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n", 300),
    );
    let began = Instant::now();
    for _ in 0..20 {
        let live = client.send(client.request(reqwest::Method::GET, &format!("{}/health/live", client.users))).await;
        assert_eq!(live.status, 200);
    }
    assert_eq!(client.log_in(&user.email, PASSWORD).await.status, 200);
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    // The server closes the slow ones: doing nothing keeps no connection open.
    for mut raw in silent.into_iter().chain(half_heads) {
        assert!(raw.response().await.is_none_or(|response| response.status == 408));
        assert!(raw.ends().await);
    }
    for mut raw in half_bodies {
        assert_error(&raw.response().await.expect("a response"), 408, "REQUEST_TIMEOUT", "half a body");
        assert!(raw.ends().await);
    }
    drop(kept);
}

#[tokio::test]
async fn a_request_to_upgrade_the_protocol_is_ignored() {
    let (_world, _users, client) = users().await;
    for headers in [
        "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==",
        "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__",
        "connection: upgrade\r\nupgrade: TLS/1.2",
    ] {
        let mut raw = Raw::connect(&client.users).await;
        let next = "GET /nothing HTTP/1.1\r\nhost: x\r\nx-request-id: next\r\n\r\n";
        raw.send(format!("GET /health/live HTTP/1.1\r\nhost: x\r\n{headers}\r\n\r\n{next}")).await;
        let response = raw.response().await.expect("a response");
        assert_eq!(response.status, 200, "{headers}: {response:?}");
        assert!(!response.headers.contains_key("upgrade"), "{headers}: {response:?}");
        // The next bytes are read as an ordinary request, or the connection is closed.
        if let Some(next) = raw.response().await {
            assert_error(&next, 404, "NOT_FOUND", headers);
            assert_eq!(next.header("x-request-id"), "next");
        }
    }
}

#[tokio::test]
async fn the_host_header_is_never_echoed() {
    let (_world, _users, client) = users().await;
    for (target, host) in [
        ("/health/live", "evil.example"),
        ("http://evil.example/health/live", "evil.example"),
        ("/nothing", "evil.example:1"),
        ("//evil.example/health/live", "evil.example"),
        ("/v1/users/me", "evil.example"),
    ] {
        let mut raw = Raw::connect(&client.users).await;
        raw.send(format!(
            "GET {target} HTTP/1.1\r\nhost: {host}\r\nx-forwarded-host: evil.example\r\nx-original-url: /v1/users/me\r\n\r\n"
        ))
        .await;
        let response = raw.response().await.expect("a response");
        assert!([200, 401, 404].contains(&response.status.as_u16()), "{target}: {response:?}");
        assert_json_response(&response, target);
        assert!(!format!("{response:?}").contains("evil"), "{target}: {response:?}");
        assert!(!response.headers.contains_key("location"), "{target}: {response:?}");
    }
}

#[tokio::test]
async fn an_ambiguous_chunked_body_closes_the_connection() {
    let (_world, users, client) = users().await;
    let hidden = "GET /health/ready HTTP/1.1\r\nhost: x\r\nx-request-id: smuggled\r\n\r\n";
    let head = "POST /v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    for (encoding, chunks) in [
        ("transfer-encoding: chunked", "2\n{}\n0\n\n".to_owned()),
        ("transfer-encoding: chunked", "2\r\n{}0\r\n\r\n".to_owned()),
        ("transfer-encoding: chunked", "-2\r\n{}\r\n0\r\n\r\n".to_owned()),
        ("transfer-encoding: chunked", "+2\r\n{}\r\n0\r\n\r\n".to_owned()),
        ("transfer-encoding: chunked", "0x2\r\n{}\r\n0\r\n\r\n".to_owned()),
        ("transfer-encoding: chunked", "2_\r\n{}\r\n0\r\n\r\n".to_owned()),
        ("transfer-encoding: chunked", "10000000000000002\r\n{}\r\n0\r\n\r\n".to_owned()),
        ("transfer-encoding: \u{b}chunked", "0\r\n\r\n".to_owned()),
        ("transfer-encoding: chunked, identity", "0\r\n\r\n".to_owned()),
        ("transfer-encoding: \"chunked\"", "0\r\n\r\n".to_owned()),
        ("transfer-encoding:", "0\r\n\r\n".to_owned()),
        ("transfer-encoding : chunked", "0\r\n\r\n".to_owned()),
        ("x: y\r\n transfer-encoding: chunked", "0\r\n\r\n".to_owned()),
    ] {
        let mut raw = Raw::connect(&client.users).await;
        raw.send(format!("{head}{encoding}\r\n\r\n{chunks}{hidden}")).await;
        let about = format!("{encoding:?} {chunks:?}");
        if let Some(response) = raw.response().await {
            assert!((400..500).contains(&response.status.as_u16()), "{about}: {response:?}");
        }
        raw.finish().await;
        assert!(raw.ends().await, "{about}: more than one response");
    }
    let marked = client.request(reqwest::Method::GET, &format!("{}/nothing", client.users));
    client.send(marked.header("x-request-id", "after-all-of-them")).await;
    let reached = |id: &str| users.log().iter().any(|line| line["request_id"] == *id);
    crate::support::eventually(PATIENCE, "the log is written", || async { reached("after-all-of-them").then_some(()) })
        .await;
    assert!(!reached("smuggled"), "a handler received the smuggled request");
    let mut still = Raw::connect(&client.users).await;
    still.send("GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(still.response().await.expect("a response").status, 200);
    assert!(still.stays_open(Duration::from_millis(50)).await);
}
