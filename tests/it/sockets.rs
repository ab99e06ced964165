//! The edges of a connection: clients that do not read, idle floods, heads that never end, headers that ask for another
//! framing, and what is rejected before routing.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use purse::kernel::Role;
use reqwest::Method;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::support::{
    Client, Document, Outages, PASSWORD, PATIENCE, Raw, RoleProcess, World, assert_error, assert_invalid, eventually,
    free_port,
};

/// Memory that 200 hostile connections may cost a debug build: 160 KiB each.
const GROWTH_KIB_MAX: u64 = 32 * 1024;

async fn users(settings: &[(&str, &str)]) -> (World, RoleProcess, Client) {
    let world = World::new().await;
    let users = world.start_with(Role::Users, settings).await;
    let client = Client::new(&users.url(), &users.url());
    (world, users, client)
}

fn raise_the_limit_of_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let current = Some(limit.maximum.map_or(10_000, |maximum| maximum.min(10_000)));
    setrlimit(Resource::Nofile, Rlimit { current, ..limit }).expect("raised");
}

/// A connection whose kernel accepts 4 KiB at a time.
pub async fn narrow(url: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("set");
    socket.connect(url.trim_start_matches("http://").parse().expect("an address")).await.expect("connected")
}

async fn is_live(client: &Client) -> bool {
    let live = client.request(Method::GET, &format!("{}/health/live", client.users)).timeout(Duration::from_secs(5));
    live.send().await.is_ok_and(|response| response.status() == 200)
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn clients_that_pipeline_and_never_read_cost_little_memory_and_are_disconnected() {
    let (_world, users, client) = users(&[("LOG_LEVEL", "info")]).await;
    assert!(is_live(&client).await);
    let (before, descriptors) = (users.memory_kib(), users.descriptors());
    let requests = "GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(400);
    let open = join_all((0..200).map(|_| async {
        let mut stream = narrow(&client.users).await;
        // The server may stop reading before it has all of them.
        drop(timeout(Duration::from_secs(2), stream.write_all(requests.as_bytes())).await);
        stream
    }))
    .await;
    eventually(PATIENCE, "the connections are closed", || async {
        assert!(is_live(&client).await, "all other clients are served");
        let peak = users.peak_memory_kib();
        assert!(peak < before + GROWTH_KIB_MAX, "{before} KiB before, {peak} KiB with 200 clients that do not read");
        (users.descriptors() < descriptors + 20).then_some(())
    })
    .await;
    let served = users.logged("request").iter().filter(|line| line["route"] == "/openapi.json").count();
    assert!(served <= 200 * 20, "{served} responses were prepared for clients that take none");
    drop(open);
}

#[tokio::test]
async fn a_client_that_reads_slowly_but_steadily_gets_every_response() {
    let (_world, _users, client) = users(&[]).await;
    let document = client.request(Method::GET, &format!("{}/openapi.json", client.users)).send().await;
    let document = document.expect("a response").bytes().await.expect("a body");
    let mut stream = narrow(&client.users).await;
    let request = "GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n";
    let last = "GET /openapi.json HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(format!("{}{last}", request.repeat(9)).as_bytes()).await.expect("sent");
    let (mut received, mut chunk, began) = (Vec::new(), [0; 2048], Instant::now());
    loop {
        let count = timeout(PATIENCE, stream.read(&mut chunk)).await.expect("data").expect("the connection stays open");
        if count == 0 {
            break;
        }
        received.extend_from_slice(&chunk[..count]);
        // Slower than a stalled connection may be, as a whole.
        if began.elapsed() < Duration::from_secs(15) {
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
    }
    let bodies = received.windows(document.len()).filter(|part| *part == document).count();
    assert_eq!(bodies, 10, "{} bytes of {} each", received.len(), document.len());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn idle_connections_beyond_the_limit_keep_neither_probes_nor_users_out() {
    raise_the_limit_of_open_files();
    let (_world, users, client) = users(&[("HTTP_WORKERS", "1"), ("LOG_LEVEL", "info")]).await;
    let user = client.user().await;
    let before = users.memory_kib();
    let mut open = Vec::new();
    for _ in 0..43 {
        open.extend(
            join_all((0..100).map(|_| async {
                let mut raw = Raw::connect(&client.users).await;
                // An idle connection that was used is kept for longer than one that never was.
                raw.send("GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n").await;
                raw
            }))
            .await,
        );
    }
    for _ in 0..5 {
        // Each on a new connection.
        let fresh = Client::new(&client.users, &client.users);
        assert!(is_live(&fresh).await, "a probe is answered with {} idle connections open", open.len());
        assert_eq!(fresh.me(&user.token).await.status, 200, "a user is served with {} idle connections", open.len());
    }
    let grown = users.memory_kib().saturating_sub(before);
    assert!(grown < 200 * 1024, "{} connections cost {grown} KiB", open.len());
    drop(open);
    assert_eq!(client.log_in(&user.email, PASSWORD).await.status, 200);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_low_limit_of_open_files_keeps_neither_probes_nor_users_out() {
    let (_world, users, client) = users(&[("LOG_LEVEL", "info")]).await;
    let user = client.user().await;
    let limit = Rlimit { current: Some(400), ..getrlimit(Resource::Nofile) };
    rustix::process::prlimit(Some(users.pid()), Resource::Nofile, limit).expect("limited");
    let mut open = Vec::new();
    for _ in 0..30 {
        open.extend(
            join_all((0..20).map(|_| async {
                let mut raw = Raw::connect(&client.users).await;
                raw.send("GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n").await;
                assert_eq!(raw.response().await.expect("a response").status, 200);
                raw
            }))
            .await,
        );
    }
    for _ in 0..5 {
        let fresh = Client::new(&client.users, &client.users);
        assert!(is_live(&fresh).await, "a probe is answered with {} idle connections open", open.len());
        assert_eq!(fresh.me(&user.token).await.status, 200, "a user is served");
    }
}

#[tokio::test]
async fn connections_that_all_have_a_request_in_progress_keep_no_probe_out() {
    raise_the_limit_of_open_files();
    let (_world, _users, client) = users(&[("HTTP_WORKERS", "1"), ("LOG_LEVEL", "info")]).await;
    let half =
        "POST /v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 90\r\n\r\n{";
    let mut open = Vec::new();
    for _ in 0..41 {
        open.extend(
            join_all((0..100).map(|_| async {
                let mut raw = Raw::connect(&client.users).await;
                raw.send(half).await;
                raw
            }))
            .await,
        );
    }
    let fresh = Client::new(&client.users, &client.users);
    assert!(is_live(&fresh).await, "a probe is answered with {} requests in progress", open.len());
    drop(open);
    eventually(PATIENCE, "logins are served again", || async {
        let login = client.log_in("nobody@example.com", PASSWORD).await;
        (login.status == 401).then_some(())
    })
    .await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn heads_that_never_end_cost_little_memory_and_are_ended_on_any_request_of_a_connection() {
    let (_world, users, client) = users(&[("LOG_LEVEL", "info")]).await;
    assert!(is_live(&client).await);
    let before = users.memory_kib();
    let long = format!("GET /health/live HTTP/1.1\r\nhost: x\r\nx-long: {}", "x".repeat(126 * 1024));
    let open = join_all((0..200).map(|_| async {
        let mut raw = Raw::connect(&client.users).await;
        // The connection may have ended before all of it is sent.
        raw.send(&long).await;
        raw
    }))
    .await;
    let grown = users.memory_kib().saturating_sub(before);
    assert!(grown < GROWTH_KIB_MAX / 2, "200 heads without an end cost {grown} KiB");
    drop(open);
    // The second head of a connection has the same time limit as the first one.
    let mut raw = Raw::connect(&client.users).await;
    raw.send("GET /health/live HTTP/1.1\r\nhost: x\r\n\r\nGET /health/live HTTP/1.1\r\nx-slow: ").await;
    assert_eq!(raw.response().await.expect("a response").status, 200);
    let began = Instant::now();
    let mut drips = 0;
    while raw.stays_open(Duration::from_millis(200)).await {
        assert!(began.elapsed() < Duration::from_secs(30), "the second head is still awaited after {drips} bytes");
        raw.send("x").await;
        drips += 1;
    }
    assert!(began.elapsed() >= Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test]
async fn asking_for_another_protocol_does_not_change_where_a_request_ends() {
    let (_world, _users, client) = users(&[]).await;
    let user = client.user().await;
    let body = json!({"email": user.email, "password": PASSWORD}).to_string();
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let next = "GET /nothing HTTP/1.1\r\nhost: x\r\nx-request-id: next\r\n\r\n";
    let length = format!("content-length: {}", body.len());
    for (headers, body) in [
        (format!("upgrade: websocket\r\n{length}"), &body),
        (format!("{length}\r\nUPGRADE:WebSocket"), &body),
        (format!("connection: upgrade\r\nupgrade: websocket\r\n{length}"), &body),
        (format!("connection: keep-alive, Upgrade\r\nupgrade: h2c, websocket\r\n{length}"), &body),
        (format!("connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n{length}"), &body),
        (format!("connection: upgrade\r\nupgrade: unheard-of/7\r\n{length}"), &body),
        (format!("connection: upgrade\r\n{length}"), &body),
        (format!("upgrade: websocket\r\nupgrade: websocket\r\n{length}"), &body),
        ("upgrade: websocket\r\ntransfer-encoding: chunked".to_owned(), &chunked),
        (format!("upgrade: websocket\r\nexpect: 100-continue\r\n{length}"), &body),
    ] {
        let mut raw = Raw::connect(&client.users).await;
        let head =
            format!("POST /v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{headers}\r\n\r\n");
        let began = Instant::now();
        raw.send(format!("{head}{body}{next}")).await;
        let mut login = raw.response().await.expect("a response");
        if headers.contains("expect") {
            assert_eq!(login.status, 100, "{headers}");
            login = raw.response().await.expect("a response after the interim one");
        }
        assert_eq!(login.status, 200, "{headers}: {login:?}");
        assert!(began.elapsed() < Duration::from_secs(8), "{headers}: {:?}", began.elapsed());
        assert!(!login.headers.contains_key("upgrade"), "{headers}: {login:?}");
        let connection = login.headers.get("connection").map_or("", |value| value.to_str().expect("text"));
        assert!(!connection.contains("upgrade"), "{headers}: {login:?}");
        let next = raw.response().await.unwrap_or_else(|| panic!("{headers}: the next request was swallowed"));
        assert_error(&next, 404, "NOT_FOUND", &headers);
        assert_eq!(next.header("x-request-id"), "next", "{headers}");
    }
    // Without a body, and on HTTP/1.0 with and without keep-alive.
    for (request, survives) in [
        ("GET /health/live HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\n\r\n", true),
        ("GET http://x/health/live HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\n\r\n", true),
        ("GET /health/live HTTP/1.0\r\nconnection: keep-alive\r\nupgrade: websocket\r\n\r\n", true),
        ("GET /health/live HTTP/1.0\r\nupgrade: websocket\r\n\r\n", false),
        ("GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n\r\n", false),
    ] {
        let mut raw = Raw::connect(&client.users).await;
        raw.send(format!("{request}{next}")).await;
        assert_eq!(raw.response().await.expect("a response").status, 200, "{request}");
        assert_eq!(raw.response().await.is_some(), survives, "{request}");
    }
}

#[tokio::test]
async fn what_is_rejected_before_routing_has_the_error_format_and_is_readable_by_allowed_pages() {
    let origin = "https://app.example.com";
    let (_world, users, client) = users(&[("CORS_ORIGINS", "http://localhost:8080,https://app.example.com")]).await;
    let from = format!("host: x\r\nOrigin: {origin}\r\n");
    let pad = |bytes: usize| "p".repeat(bytes);
    for (request, status, code) in [
        (format!("GET /health/live HTTP/1.1\r\n{from}x-pad: {}\r\n\r\n", pad(9_000)), 431, "HEADERS_TOO_LARGE"),
        (format!("GET /health/live HTTP/1.1\r\n{from}x-pad: {}\r\n\r\n", pad(100_000)), 431, "HEADERS_TOO_LARGE"),
        (format!("GET /health/live HTTP/1.1\r\n{from}x-pad: {}", pad(200_000)), 431, "HEADERS_TOO_LARGE"),
        (format!("GET /health/live HTTP/1.1\r\n{from}x-slow: "), 408, "REQUEST_TIMEOUT"),
        (format!("GET /health/live HTTP/1.1\r\n{from}no colon\r\n\r\n"), 400, "VALIDATION_ERROR"),
        (format!("POST /v1/auth/login HTTP/1.1\r\n{from}content-length: +5\r\n\r\n"), 400, "VALIDATION_ERROR"),
        (format!("GET /health/live HTTP/9.9\r\n{from}\r\n"), 400, "VALIDATION_ERROR"),
        (
            format!("POST /v1/auth/login HTTP/1.1\r\n{from}content-type: text/plain\r\ncontent-length: 0\r\n\r\n"),
            415,
            "UNSUPPORTED_MEDIA_TYPE",
        ),
    ] {
        let about = &request[..request.len().min(200)];
        let mut raw = Raw::connect(&client.users).await;
        raw.send(&request).await;
        let response = raw.response().await.unwrap_or_else(|| panic!("{about}: no response"));
        assert_error(&response, status, code, about);
        assert_eq!(response.header("access-control-allow-origin"), origin, "{about}: {response:?}");
        let exposed = response.header("access-control-expose-headers").to_ascii_lowercase();
        assert!(exposed.contains("x-request-id"), "{about}: {response:?}");
        let id = response.header("x-request-id").to_owned();
        eventually(PATIENCE, &format!("{about}: the request is in the log"), || async {
            users.log().iter().any(|line| line["request_id"] == *id && line["status"] == status).then_some(())
        })
        .await;
    }
    // A page of another origin cannot read it.
    let mut raw = Raw::connect(&client.users).await;
    raw.send("GET /health/live HTTP/1.1\r\nhost: x\r\norigin: https://evil.example\r\nno colon\r\n\r\n").await;
    let response = raw.response().await.expect("a response");
    assert_invalid(&response, &["request"], "a malformed request");
    assert!(!response.headers.contains_key("access-control-allow-origin"), "{response:?}");
    assert!(raw.ends().await);
}

#[tokio::test]
async fn what_is_rejected_before_routing_is_in_the_document_of_every_operation() {
    let (_world, _users, client) = users(&[]).await;
    let document = Document::of(&client, &client.users).await;
    for (method, path, operation) in document.operations() {
        for (status, code) in [("400", "VALIDATION_ERROR"), ("408", "REQUEST_TIMEOUT"), ("431", "HEADERS_TOO_LARGE")] {
            let response = document.resolved(&operation["responses"][status]);
            assert!(response.to_string().contains(code), "{method} {path} does not list {status} {code}");
        }
    }
}

#[tokio::test]
async fn utf8_is_accepted_by_any_of_its_names_and_no_other_charset_is() {
    let (_world, _users, client) = users(&[]).await;
    let login = |kind: &'static str| {
        let client = client.clone();
        async move {
            let request = client.request(Method::POST, &format!("{}/v1/auth/login", client.users));
            let body = json!({"email": "nobody@example.com", "password": PASSWORD}).to_string();
            client.send(request.header("content-type", kind).body(body)).await
        }
    };
    for kind in [
        "application/json; charset=utf8",
        "application/json; charset=UTF8",
        "application/json;charset=\"utf8\"",
        "application/json; charset=utf-8",
        "application/json; Charset=\"UTF-8\"",
    ] {
        assert_error(&login(kind).await, 401, "INVALID_CREDENTIALS", kind);
    }
    for kind in [
        "application/json; charset=utf-16",
        "application/json; charset=latin1",
        "application/json; charset=utf",
        "application/json; charset=\"utf8",
        "application/json; charset=",
        "application/json; encoding=utf8",
    ] {
        assert_error(&login(kind).await, 415, "UNSUPPORTED_MEDIA_TYPE", kind);
    }
}

#[tokio::test]
async fn an_encoded_body_is_a_415_that_names_the_coding() {
    let (_world, _users, client) = users(&[]).await;
    let register = |codings: &'static [&'static str]| {
        let client = client.clone();
        async move {
            let request = client.request(Method::POST, &format!("{}/v1/auth/register", client.users));
            let request = codings.iter().fold(request, |request, coding| request.header("content-encoding", *coding));
            let email = Client::fresh_email();
            let body = json!({"firstName": "A", "lastName": "L", "email": email, "password": PASSWORD}).to_string();
            client.send(request.header("content-type", "application/json").body(body)).await
        }
    };
    for (codings, named) in [
        (&["gzip"][..], "gzip"),
        (&["br"], "br"),
        (&["deflate"], "deflate"),
        (&["zstd"], "zstd"),
        (&["GZIP"], "GZIP"),
        (&["identity, gzip"], "gzip"),
        (&["identity", "br"], "br"),
        (&["x<script>"], "coding"),
    ] {
        let response = register(codings).await;
        assert_error(&response, 415, "UNSUPPORTED_MEDIA_TYPE", named);
        let message = response.body["message"].as_str().expect("a message");
        assert!(message.contains(named) && !message.contains('<'), "{codings:?}: {message}");
    }
    for codings in [&[][..], &["identity"], &["Identity"]] {
        assert_eq!(register(codings).await.status, 201, "{codings:?}");
    }
}

#[tokio::test]
async fn a_role_whose_database_is_away_answers_its_probes_from_the_first_second() {
    let outages = Outages::begin().await;
    let world = World::on(outages.servers).await;
    outages.act(purse_dev::Server::Postgres, purse_dev::Action::Kill).await;
    let mut started = Vec::new();
    for role in Role::ALL {
        let port = free_port();
        let mut settings = world.settings(role);
        settings.insert(format!("{}_PORT", role.as_str().to_uppercase()), port.to_string());
        let process = RoleProcess::spawn(&["--role", role.as_str()], &settings);
        let url = format!("http://127.0.0.1:{port}");
        eventually(Duration::from_secs(5), "the probe is answered", || async {
            let client = Client::new(&url, &url);
            is_live(&client).await.then_some(())
        })
        .await;
        let client = Client::new(&url, &url);
        let get = |path: &str| client.request(Method::GET, &format!("{url}{path}"));
        let ready = client.send(get("/health/ready")).await;
        assert_eq!((ready.status.as_u16(), &ready.body["status"]), (503, &json!("unavailable")), "{ready:?}");
        let database = format!("{role}-db");
        let checks = ready.body["checks"].as_array().expect("checks");
        assert!(checks.iter().any(|check| check["name"] == *database && check["ok"] == false), "{ready:?}");
        assert_eq!(get("/metrics").send().await.expect("a response").status(), 200);
        assert_eq!(get("/openapi.json").send().await.expect("a response").status(), 200);
        let post = |path: &str| client.request(Method::POST, &format!("{url}{path}")).json(&json!({}));
        let requests = match role {
            Role::Users => [post("/v1/auth/register"), post("/v1/auth/login"), get("/v1/users/me")],
            Role::Wallet => [post("/v1/transactions/credit"), get("/v1/balance"), get("/v1/transactions")],
        };
        for request in requests {
            let response = client.send(request).await;
            assert_error(&response, 503, "DEPENDENCY_UNAVAILABLE", role.as_str());
            assert!(response.headers.contains_key("retry-after"), "{response:?}");
        }
        started.push((process, client));
    }
    outages.act(purse_dev::Server::Postgres, purse_dev::Action::Start).await;
    for (process, client) in &mut started {
        process.listening().await;
        process.ready().await;
        let me = client.send(client.request(Method::GET, &format!("{}/v1/users/me", process.url()))).await;
        assert!([401, 404].contains(&me.status.as_u16()), "{me:?}");
        let restarts: Vec<Value> = process.logged("actor ended; restarting it");
        assert!(restarts.is_empty(), "{restarts:?}");
    }
}
