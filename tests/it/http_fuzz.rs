//! Random requests to both roles, most of them almost valid, some of them not HTTP: no response is a 500 or above, and
//! each has the API's format. `just fuzz-http` sends a hundred thousand; `PURSE_FUZZ_REQUESTS` sets the number and
//! `PURSE_FUZZ_SEED` the seed.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use purse::kernel::Role;
use reqwest::Method;
use serde_json::{Value, json};

use crate::fuzz_requests::{Framing, Request, requests};
use crate::support::{Client, Raw, Response, World, assert_common_headers, assert_error, assert_json_response};

/// Requests by default.
const REQUESTS: usize = 4_000;
/// Concurrent connections: fewer than the hash queue holds, because a full queue is a 503.
const CONNECTIONS: usize = 16;
/// Timeouts that no machine is slow enough to reach, because they also cause a 503.
const PATIENT: [(&str, &str); 3] =
    [("DB_ACQUIRE_TIMEOUT_MS", "60000"), ("DB_STATEMENT_TIMEOUT_MS", "60000"), ("DB_LOCK_TIMEOUT_MS", "50000")];

fn check(response: &Response, request: &Request) {
    let about = format!("{request:?}");
    let status = response.status.as_u16();
    assert!(status < 500, "{about}\n{response:?}");
    if response.body.is_null() {
        // The redirect to the page, or an error of the HTTP parser, which no handler sees.
        let is_redirect = status == 302 && response.header("location") == "/docs";
        assert!(is_redirect || [400, 408, 413, 414, 431].contains(&status), "{about}\n{response:?}");
    } else if status >= 400 {
        assert_error(response, status, response.code(), &about);
        assert!(!response.code().is_empty(), "{about}\n{response:?}");
    } else {
        assert!([200, 201].contains(&status), "{about}\n{response:?}");
        // The page /docs and the metrics are not JSON.
        if response.header("content-type").starts_with("text/") {
            assert_common_headers(response, &about);
        } else {
            assert_json_response(response, &about);
        }
    }
}

/// Number of responses by status.
type Statuses = BTreeMap<u16, usize>;

/// Sends `count` requests one after the other.
async fn send(url: &str, strategy: impl Strategy<Value = Request>, seed: [u8; 32], count: usize) -> Statuses {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let (mut raw, mut statuses) = (Raw::connect(url).await, Statuses::new());
    for _ in 0..count {
        let request = strategy.new_tree(&mut runner).expect("a request").current();
        raw.send(request.bytes()).await;
        // After any other body both sides may disagree on where the next request begins, so the connection is closed.
        let plain = matches!(request.framing, Framing::Length | Framing::Chunked);
        if plain {
            if let Some(response) = raw.response().await {
                check(&response, &request);
                *statuses.entry(response.status.as_u16()).or_default() += 1;
                if response.header("connection") != "close" {
                    continue;
                }
            }
        } else {
            raw.finish().await;
            while let Some(response) = raw.response().await {
                check(&response, &request);
                *statuses.entry(response.status.as_u16()).or_default() += 1;
            }
        }
        raw = Raw::connect(url).await;
    }
    statuses
}

#[tokio::test]
async fn no_request_causes_a_response_of_500_or_above() {
    let number_in = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let requests_max = number_in("PURSE_FUZZ_REQUESTS").and_then(|n| usize::try_from(n).ok()).unwrap_or(REQUESTS);
    let seed = number_in("PURSE_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("{requests_max} requests of PURSE_FUZZ_SEED={seed}");
    let world = World::new().await;
    let (users, wallet) =
        tokio::join!(world.start_with(Role::Users, &PATIENT), world.start_with(Role::Wallet, &PATIENT));
    let client = Client::new(&users.url(), &wallet.url());
    let user = client.ready_user().await;
    let entry = client.post(&user, "credit", 100_000, None).await.body["id"].as_str().expect("id").to_owned();
    let each = requests_max.div_ceil(CONNECTIONS);
    let responses = join_all((0..CONNECTIONS).map(|connection| {
        let role = if connection % 2 == 0 { Role::Users } else { Role::Wallet };
        let url = if role == Role::Users { users.url() } else { wallet.url() };
        let (user, entry) = (user.clone(), entry.clone());
        let mut own = [0_u8; 32];
        own[..8].copy_from_slice(&seed.to_le_bytes());
        own[8..16].copy_from_slice(&connection.to_le_bytes());
        async move { send(&url, requests(role, &user, &entry), own, each).await }
    }))
    .await;
    let mut statuses = Statuses::new();
    for (status, count) in responses.into_iter().flatten() {
        *statuses.entry(status).or_default() += count;
    }
    let responses: usize = statuses.values().sum();
    eprintln!("{responses} responses, none of 500 or above: {statuses:?}");
    // Requests fail at every check, and some succeed.
    for status in [200, 201, 400, 401, 404, 405, 409, 415, 422] {
        assert!(statuses.contains_key(&status), "no response of {status}: {statuses:?}");
    }
    assert!(responses * 10 >= requests_max * 8, "{responses} responses to {requests_max} requests");
    for (process, url) in [(&users, &client.users), (&wallet, &client.wallet)] {
        let ready = client.send(client.request(Method::GET, &format!("{url}/health/ready"))).await;
        assert_eq!((ready.status.as_u16(), &ready.body["status"]), (200, &json!("ok")), "PURSE_FUZZ_SEED={seed}");
        assert!(!process.output().contains("\"panicked\""), "PURSE_FUZZ_SEED={seed}: a panic was caught");
    }
    assert_eq!(client.me(&user.token).await.status, 200);
    let balance = client.balance(&user).await;
    let sum = "SELECT sum(CASE type WHEN 'credit' THEN amount_minor ELSE -amount_minor END) FROM transactions";
    assert_eq!(world.sql(Role::Wallet, sum).await, Value::from(balance).to_string(), "PURSE_FUZZ_SEED={seed}");
}
