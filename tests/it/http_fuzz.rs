//! Random requests at both roles, most of them almost right, some of them no HTTP: no answer is a 500 or above, and each
//! has our form. `just fuzz-http` sends a hundred thousand; `PURSE_FUZZ_REQUESTS` says how many, `PURSE_FUZZ_SEED` which.

use std::fmt::Write as _;

use futures_util::future::join_all;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use purse::kernel::Role;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Client, Raw, User, World, assert_dressed, assert_refused};

/// Requests, where nobody says how many.
const REQUESTS: usize = 4_000;
/// Connections that send at once: fewer than may wait for a hash, because a full queue is an honest 503.
const CONNECTIONS: usize = 16;
/// Waits that no machine is slow enough to reach: what they end in is an honest 503 as well.
const PATIENT: [(&str, &str); 3] =
    [("DB_ACQUIRE_TIMEOUT_MS", "60000"), ("DB_STATEMENT_TIMEOUT_MS", "60000"), ("DB_LOCK_TIMEOUT_MS", "50000")];

/// How the body is announced.
#[derive(Clone, Copy, Debug)]
enum Framing {
    Length,
    Chunked,
    TooShort,
    TooLong,
    Nothing,
    Both,
}

/// A request, not yet bytes.
#[derive(Clone, Debug)]
struct Request {
    method: String,
    target: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    framing: Framing,
}

impl Request {
    fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nhost: fuzz\r\n", self.method, self.target).into_bytes();
        for (name, value) in &self.headers {
            head.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        let length = self.body.len();
        let announced = match self.framing {
            Framing::Length => format!("content-length: {length}\r\n"),
            Framing::Chunked => "transfer-encoding: chunked\r\n".to_owned(),
            Framing::TooShort => format!("content-length: {}\r\n", length / 2),
            Framing::TooLong => format!("content-length: {}\r\n", length + 7),
            Framing::Nothing => String::new(),
            Framing::Both => format!("content-length: {length}\r\ntransfer-encoding: chunked\r\n"),
        };
        let body = match self.framing {
            Framing::Chunked if length > 0 => {
                [format!("{length:x}\r\n").as_bytes(), &self.body, b"\r\n0\r\n\r\n"].concat()
            }
            Framing::Chunked => b"0\r\n\r\n".to_vec(),
            _ => self.body.clone(),
        };
        [&head, announced.as_bytes(), b"\r\n", &body].concat()
    }
}

/// A text for a query or a path, as a client would write it.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

/// Texts that readers stumble over, and any others.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-zA-Z0-9 .@_-]{0,40}",
        2 => any::<String>(),
        1 => Just("\0".to_owned()),
        1 => Just("\u{202e}\u{feff}\u{10ffff}".to_owned()),
        1 => Just("' OR 1=1; DROP TABLE users --".to_owned()),
        1 => Just("../../etc/passwd".to_owned()),
        1 => Just("{{7*7}}${jndi:ldap://x}".to_owned()),
        1 => "[ -~]{200,300}",
        1 => Just("x".repeat(1100)),
        1 => "[a-z]{1,10}@[a-z]{1,10}\\.(com|org)",
    ]
}

/// Numbers at the edges, as a client could write them: not all of them are JSON.
fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => (-5..200_i64).prop_map(|n| n.to_string()),
        1 => any::<i64>().prop_map(|n| n.to_string()),
        1 => any::<f64>().prop_map(|n| n.to_string()),
        4 => prop::sample::select(vec![
            "9007199254740991", "9007199254740992", "9223372036854775807", "9223372036854775808", "-9223372036854775808",
            "18446744073709551616", "1e308", "1e999", "-0", "0.5", "5.0", "1e2", "01", "+1", "NaN", "0x10", "1_000",
        ])
        .prop_map(str::to_owned),
    ]
}

/// A JSON value as text, sometimes a broken one.
fn json_text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        4 => text().prop_map(|text| json!(text).to_string()),
        3 => number(),
        1 => prop::sample::select(vec!["null", "true", "false", "{}", "[]", "\"\\ud800\"", "\"", "nul"]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec((text(), inner), 0..4).prop_map(|fields| object(&fields)),
        ]
    })
}

fn object(fields: &[(String, String)]) -> String {
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{}:{value}", json!(name))).collect();
    format!("{{{}}}", fields.join(","))
}

/// A body that is nearly what a route wants.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let names = vec![
        "firstName",
        "lastName",
        "email",
        "password",
        "amountMinor",
        "description",
        "type",
        "userId",
        "AmountMinor",
        "",
    ];
    let field = (prop::sample::select(names).prop_map(str::to_owned), json_text());
    let nearly = prop::collection::vec(field, 0..6).prop_map(|fields| object(&fields));
    let sound = prop_oneof![
        (1..1000_i64, text()).prop_map(|(cents, text)| json!({"amountMinor": cents, "description": text})),
        (1..1000_i64, any::<bool>()).prop_map(|(cents, credit)| {
            json!({"amountMinor": cents, "type": if credit { "credit" } else { "debit" }})
        }),
        (text(), text()).prop_map(|(email, password)| json!({"email": email, "password": password})),
        (text(), text(), text()).prop_map(|(name, email, password)| {
            json!({"firstName": name, "lastName": "L", "email": email, "password": password})
        }),
        Just(json!({"email": "fuzz@example.com", "password": "12345678"})),
    ];
    prop_oneof![
        6 => nearly.prop_map(String::into_bytes),
        8 => sound.prop_map(|value| value.to_string().into_bytes()),
        2 => json_text().prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..200),
        1 => Just(Vec::new()),
        1 => Just("[".repeat(5000).into_bytes()),
        1 => Just(vec![b' '; 16_385]),
        2 => (body_text(), any::<prop::sample::Index>()).prop_map(|(text, at)| text[..at.index(text.len())].to_vec()),
    ]
}

fn body_text() -> impl Strategy<Value = Vec<u8>> {
    (1..1000_i64, text())
        .prop_map(|(cents, text)| json!({"amountMinor": cents, "description": text}).to_string().into_bytes())
}

fn query() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["limit", "cursor", "type", "from", "to", "at", "wait", "Limit", "x", ""]);
    let value = prop_oneof![
        2 => number(),
        2 => text(),
        3 => prop::sample::select(vec![
            "20", "100", "101", "0", "credit", "debit", "djEuMg", "djEuMA", "2026-01-01T00:00:00Z", "2026-01-01", "30",
            "9999-12-31T23:59:60Z", "-009999-01-01T00:00:00Z", "2026-01-01T00:00:00+25:00", "now",
        ])
        .prop_map(str::to_owned),
    ];
    let pair = (name, value).prop_map(|(name, value)| format!("{}={}", escaped(name), escaped(&value)));
    prop_oneof![
        5 => Just(String::new()),
        4 => prop::collection::vec(pair, 1..4).prop_map(|pairs| format!("?{}", pairs.join("&"))),
        1 => "[!-~]{0,30}".prop_map(|raw| format!("?{raw}")),
    ]
}

fn target(role: Role, entry: &str) -> impl Strategy<Value = String> + use<> {
    let mut paths = vec!["/health/live", "/health/ready", "/metrics", "/openapi.json", "/docs", "/", "//", "/v1"];
    let own: &[&str] = match role {
        Role::Users => &["/v1/auth/register", "/v1/auth/login", "/v1/users/me"],
        Role::Wallet => &[
            "/v1/transactions",
            "/v1/transactions/credit",
            "/v1/transactions/debit",
            "/v1/balance",
            "/v1/wallet/status",
        ],
    };
    // Its own routes most of the time.
    paths.extend(own.iter().cycle().take(40));
    let path = prop_oneof![
        12 => prop::sample::select(paths).prop_map(str::to_owned),
        2 => Just(format!("/v1/transactions/{entry}")),
        1 => text().prop_map(|text| format!("/v1/transactions/{}", escaped(&text))),
        1 => "/[!-~]{0,40}",
        1 => "[ -~]{1,20}",
    ];
    (path, query()).prop_map(|(path, query)| path + &query)
}

fn headers(token: &str) -> impl Strategy<Value = Vec<(String, Vec<u8>)>> + use<> {
    let genuine = format!("Bearer {token}");
    let forged = format!("Bearer {}x", &token[..token.len() - 1]);
    let bearer = prop_oneof![
        10 => Just(Some(genuine)),
        1 => Just(Some(forged)),
        1 => text().prop_map(|text| Some(format!("Bearer {}", escaped(&text)))),
        2 => Just(None),
    ];
    let kind = prop_oneof![
        10 => Just(Some("application/json")),
        1 => prop::sample::select(vec![
            "application/json; charset=utf-8", "application/json;charset=latin1", "text/json", "multipart/form-data", "*/*", "",
        ])
        .prop_map(Some),
        1 => Just(None),
    ];
    let key = prop_oneof![4 => Just(None), 2 => "[a-c]{1,2}".prop_map(Some), 1 => "[ -~]{0,140}".prop_map(Some)];
    let names = vec![
        "x-request-id",
        "traceparent",
        "x-forwarded-for",
        "forwarded",
        "accept",
        "accept-encoding",
        "origin",
        "cookie",
        "range",
        "if-none-match",
        "x-http-method-override",
        "content-encoding",
        "te",
        "via",
        "x-fuzz",
        "authorization",
    ];
    let other = (
        prop::sample::select(names),
        prop_oneof!["[ -~]{0,60}".prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..40)],
    );
    (bearer, kind, key, prop::collection::vec(other, 0..3)).prop_map(|(bearer, kind, key, others)| {
        let mut headers: Vec<(String, Vec<u8>)> = Vec::new();
        headers.extend(bearer.map(|bearer| ("authorization".to_owned(), bearer.into_bytes())));
        headers.extend(kind.map(|kind| ("content-type".to_owned(), kind.as_bytes().to_vec())));
        headers.extend(key.map(|key| ("idempotency-key".to_owned(), key.into_bytes())));
        headers.extend(others.into_iter().map(|(name, value)| (name.to_owned(), value)));
        headers
    })
}

fn requests(role: Role, user: &User, entry: &str) -> impl Strategy<Value = Request> + use<> {
    // No HEAD: its answer has a length without a body, and has tests of its own.
    let method = prop_oneof![
        6 => Just("POST".to_owned()),
        5 => Just("GET".to_owned()),
        1 => prop::sample::select(vec!["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"]).prop_map(str::to_owned),
    ];
    let framing = prop_oneof![
        12 => Just(Framing::Length),
        3 => Just(Framing::Chunked),
        1 => prop::sample::select(vec![Framing::TooShort, Framing::TooLong, Framing::Nothing, Framing::Both]),
    ];
    (method, target(role, entry), headers(&user.token), body(), framing)
        .prop_map(|(method, target, headers, body, framing)| Request { method, target, headers, body, framing })
}

/// What holds of every answer.
fn check(answer: &Answer, request: &Request) {
    let about = format!("{request:?}");
    let status = answer.status.as_u16();
    assert!(status < 500, "{about}\n{answer:?}");
    if answer.body.is_null() {
        // The parser's own: what cannot be read as HTTP reaches nothing of ours.
        assert!([400, 408, 413, 414, 431].contains(&status), "{about}\n{answer:?}");
    } else if status >= 400 {
        assert_refused(answer, status, answer.code(), &about);
        assert!(!answer.code().is_empty(), "{about}\n{answer:?}");
    } else {
        assert!([200, 201].contains(&status), "{about}\n{answer:?}");
        assert_dressed(answer, &about);
    }
}

/// Sends that many requests, one after the other; returns how many answers there were.
async fn send(url: &str, strategy: impl Strategy<Value = Request>, seed: [u8; 32], count: usize) -> usize {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let (mut raw, mut answers) = (Raw::connect(url).await, 0);
    for _ in 0..count {
        let request = strategy.new_tree(&mut runner).expect("a request").current();
        raw.send(request.bytes()).await;
        // After anything but a plain body the two sides may disagree on what comes next, and so the connection ends.
        let plain = matches!(request.framing, Framing::Length | Framing::Chunked);
        if plain {
            if let Some(answer) = raw.answer().await {
                check(&answer, &request);
                answers += 1;
                if answer.header("connection") != "close" {
                    continue;
                }
            }
        } else {
            raw.finish().await;
            while let Some(answer) = raw.answer().await {
                check(&answer, &request);
                answers += 1;
            }
        }
        raw = Raw::connect(url).await;
    }
    answers
}

#[tokio::test]
async fn no_request_whatever_it_is_makes_an_answer_of_500_or_above() {
    let asked = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let requests_max = asked("PURSE_FUZZ_REQUESTS").and_then(|n| usize::try_from(n).ok()).unwrap_or(REQUESTS);
    let seed = asked("PURSE_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("{requests_max} requests of PURSE_FUZZ_SEED={seed}");
    let world = World::new().await;
    let (users, wallet) =
        tokio::join!(world.start_with(Role::Users, &PATIENT), world.start_with(Role::Wallet, &PATIENT));
    let client = Client::new(&users.url(), &wallet.url());
    let user = client.ready_user().await;
    let entry = client.post(&user, "credit", 100_000, None).await.body["id"].as_str().expect("id").to_owned();
    let each = requests_max.div_ceil(CONNECTIONS);
    let answers = join_all((0..CONNECTIONS).map(|connection| {
        let role = if connection % 2 == 0 { Role::Users } else { Role::Wallet };
        let url = if role == Role::Users { users.url() } else { wallet.url() };
        let (user, entry) = (user.clone(), entry.clone());
        let mut own = [0_u8; 32];
        own[..8].copy_from_slice(&seed.to_le_bytes());
        own[8..16].copy_from_slice(&connection.to_le_bytes());
        async move { send(&url, requests(role, &user, &entry), own, each).await }
    }))
    .await;
    let answers: usize = answers.into_iter().sum();
    eprintln!("{answers} answers, none of 500 or above");
    assert!(answers * 10 >= requests_max * 8, "{answers} answers to {requests_max} requests");
    for (process, url) in [(&users, &client.users), (&wallet, &client.wallet)] {
        let ready = client.send(client.request(Method::GET, &format!("{url}/health/ready"))).await;
        assert_eq!((ready.status.as_u16(), &ready.body["status"]), (200, &json!("ok")), "PURSE_FUZZ_SEED={seed}");
        assert!(!process.everything().contains("\"panicked\""), "PURSE_FUZZ_SEED={seed}: a panic was caught");
    }
    assert_eq!(client.me(&user.token).await.status, 200);
    let balance = client.balance(&user).await;
    let sum = "SELECT sum(CASE type WHEN 'credit' THEN amount_minor ELSE -amount_minor END) FROM transactions";
    assert_eq!(world.sql(Role::Wallet, sum).await, Value::from(balance).to_string(), "PURSE_FUZZ_SEED={seed}");
}
