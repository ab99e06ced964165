//! Rate limits: which requests share a count, the fields of a 429, and the checks that follow it.

use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::join_all;
use purse::kernel::Role;
use reqwest::{Method, RequestBuilder};
use serde_json::json;

use crate::support::{Client, PASSWORD, Raw, Response, RoleProcess, World, assert_error, token_of, unknown_user_id};

/// Starts the users role with these limits enabled.
async fn users(world: &World, limits: &[(&str, &str)]) -> (RoleProcess, Client) {
    let settings = [&[("RATE_LIMIT_ENABLED", "true")], limits].concat();
    let users = world.start_with(Role::Users, &settings).await;
    let client = Client::new(&users.url(), &users.url());
    (users, client)
}

/// A cheap request, which is rejected before its body is read: 415 unless it is limited.
fn cheap(client: &Client, path: &str) -> RequestBuilder {
    client.request(Method::POST, &format!("{}{path}", client.users))
}

/// The statuses of `count` requests, sent one after the other.
async fn statuses(count: usize, request: impl Fn() -> RequestBuilder, client: &Client) -> Vec<u16> {
    let mut seen = Vec::new();
    for _ in 0..count {
        seen.push(client.send(request()).await.status.as_u16());
    }
    seen
}

/// A complete 429; returns its `Retry-After` in seconds.
fn assert_limited(response: &Response, max: u32, window_s: u32, about: &str) -> u64 {
    assert_error(response, 429, "RATE_LIMITED", about);
    let wait_s: u64 = response.header("retry-after").parse().unwrap_or_else(|_| panic!("{about}: {response:?}"));
    assert!((1..=u64::from(window_s)).contains(&wait_s), "{about}: {response:?}");
    assert_eq!(response.header("ratelimit-limit"), max.to_string(), "{about}");
    assert_eq!(response.header("ratelimit-remaining"), "0", "{about}");
    assert_eq!(response.header("ratelimit-reset"), wait_s.to_string(), "{about}");
    let name = response.header("ratelimit-policy").split(';').next().expect("a name");
    assert_eq!(response.header("ratelimit-policy"), format!("{name};q={max};w={window_s}"), "{about}");
    assert_eq!(response.header("ratelimit"), format!("{name};r=0;t={wait_s}"), "{about}");
    wait_s
}

#[tokio::test]
async fn registrations_and_logins_are_limited_by_separate_counts() {
    let world = World::new().await;
    let limits =
        [("RL_REGISTER_MAX", "3"), ("RL_REGISTER_WINDOW", "1h"), ("RL_LOGIN_MAX", "2"), ("RL_LOGIN_WINDOW", "1h")];
    let (_users, client) = users(&world, &limits).await;
    let email = Client::fresh_email();
    let first = client.register(&email).await;
    assert_eq!(
        (first.status.as_u16(), first.header("ratelimit-limit"), first.header("ratelimit-remaining")),
        (201, "3", "2")
    );
    // Requests count whatever their response is.
    assert_error(&client.register(&email).await, 409, "EMAIL_EXISTS", "the second");
    assert_eq!(client.send(cheap(&client, "/v1/auth/register")).await.header("ratelimit-remaining"), "0");
    assert_limited(&client.register(&Client::fresh_email()).await, 3, 3600, "the fourth registration");

    assert_eq!(client.log_in(&email, PASSWORD).await.status, 200);
    assert_eq!(client.log_in(&email, "wrong password").await.status, 401);
    assert_limited(&client.log_in(&email, PASSWORD).await, 2, 3600, "the third login");
    // The limit includes other accounts; the profile is not limited.
    assert_limited(&client.log_in("other@example.com", PASSWORD).await, 2, 3600, "another address");
    let token = first.body["accessToken"].as_str().expect("token");
    for _ in 0..10 {
        assert_eq!(client.me(token).await.status, 200);
    }
    assert_eq!(world.sql(Role::Users, "SELECT count(*) FROM users").await, "1");
}

#[tokio::test]
async fn a_limited_login_is_rejected_before_its_body_is_read_or_hashed() {
    let world = World::new().await;
    let limits = [("RL_LOGIN_MAX", "1"), ("RL_LOGIN_WINDOW", "1h"), ("HASH_QUEUE_MAX", "1")];
    let (_users, client) = users(&world, &limits).await;
    assert_eq!(client.send(cheap(&client, "/v1/auth/login")).await.status, 415);
    // The hash queue has one place, so logins that reached it would get a 401 or a 503.
    let responses = join_all((0..60).map(|_| client.log_in("unknown@example.com", PASSWORD))).await;
    for response in responses {
        assert_limited(&response, 1, 3600, "in a flood");
    }
    for body in ["", "[", &"x".repeat(20_000)] {
        let response = client.send(cheap(&client, "/v1/auth/login").body(body.to_owned())).await;
        assert_limited(&response, 1, 3600, "with any body");
    }
}

#[tokio::test]
async fn neither_another_spelling_of_the_path_nor_pipelining_bypasses_a_limit() {
    let world = World::new().await;
    let (_users, client) = users(&world, &[("RL_LOGIN_MAX", "3"), ("RL_LOGIN_WINDOW", "1h")]).await;
    // Other requests do not count.
    for path in ["/v1/auth/login/", "//v1/auth/login", "/v1/auth/LOGIN"] {
        assert_eq!(client.send(cheap(&client, path)).await.status, 404, "{path}");
    }
    for method in [Method::GET, Method::PUT, Method::OPTIONS] {
        let other = client.request(method, &format!("{}/v1/auth/login", client.users));
        assert_eq!(client.send(other).await.status, 405);
    }
    let mut raw = Raw::connect(&client.users).await;
    let login = |path: &str| format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
    raw.send(login("/v1/auth/login").repeat(5)).await;
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(raw.response().await.expect("a response").status.as_u16());
    }
    assert_eq!(seen, [415, 415, 415, 429, 429]);
    for path in ["/v1/auth/%6cogin", "/v1/%61uth/login", "/v1/auth/login?x=1", "/v1/auth/login?", "/v1/auth/login#x"] {
        let mut raw = Raw::connect(&client.users).await;
        raw.send(login(path)).await;
        let response = raw.response().await.expect("a response");
        assert!([404, 429].contains(&response.status.as_u16()), "{path}: {response:?}");
    }
}

#[tokio::test]
async fn a_client_that_waits_as_long_as_retry_after_says_is_accepted() {
    let world = World::new().await;
    let (_users, client) = users(&world, &[("RL_LOGIN_MAX", "2"), ("RL_LOGIN_WINDOW", "2s")]).await;
    for round in 0..3 {
        let limited = crate::support::eventually(crate::support::PATIENCE, "a limit", || async {
            Some(client.send(cheap(&client, "/v1/auth/login")).await).filter(|response| response.status == 429)
        });
        let wait_s = assert_limited(&limited.await, 2, 2, "too soon");
        tokio::time::sleep(Duration::from_secs(wait_s)).await;
        assert_eq!(client.send(cheap(&client, "/v1/auth/login")).await.status, 415, "round {round}");
    }
}

#[tokio::test]
async fn clients_are_distinguished_by_their_address_and_not_by_headers_that_they_send() {
    let world = World::new().await;
    let (_users, client) = users(&world, &[("RL_REGISTER_MAX", "2"), ("RL_REGISTER_WINDOW", "1h")]).await;
    let path = "/v1/auth/register";
    assert_eq!(statuses(3, || cheap(&client, path), &client).await, [415, 415, 429]);
    for n in 0..5 {
        let address = format!("203.0.113.{n}");
        for (name, value) in [
            ("x-forwarded-for", address.clone()),
            ("forwarded", format!("for={address}")),
            ("x-real-ip", address.clone()),
            ("true-client-ip", address.clone()),
            ("cf-connecting-ip", address),
        ] {
            let response = client.send(cheap(&client, path).header(name, value)).await;
            assert_limited(&response, 2, 3600, name);
        }
    }
    let other_client = reqwest::Client::builder().local_address(IpAddr::from([127, 0, 0, 2])).build().expect("client");
    let other = || other_client.post(format!("{}{path}", client.users));
    assert_eq!(statuses(3, other, &client).await, [415, 415, 429], "another address has its own count");
}

#[tokio::test]
async fn a_trusted_proxy_is_trusted_for_the_address_that_it_saw_itself_only() {
    let world = World::new().await;
    let limits =
        [("RL_REGISTER_MAX", "2"), ("RL_REGISTER_WINDOW", "1h"), ("TRUSTED_PROXIES", "127.0.0.1/32,10.0.0.0/8")];
    let (_users, client) = users(&world, &limits).await;
    let path = "/v1/auth/register";
    let forwarded = |list: &str| cheap(&client, path).header("x-forwarded-for", list);
    assert_eq!(statuses(3, || forwarded("203.0.113.1"), &client).await, [415, 415, 429]);
    // Addresses that the client wrote before the proxy did are not trusted, and proxies are not counted as clients.
    for list in ["6.6.6.6, 203.0.113.1", "6.6.6.6,203.0.113.1,10.1.2.3", "::ffff:203.0.113.1", "x, 203.0.113.1"] {
        assert_limited(&client.send(forwarded(list)).await, 2, 3600, list);
    }
    let two_lines = forwarded("6.6.6.6").header("x-forwarded-for", "203.0.113.1");
    assert_limited(&client.send(two_lines).await, 2, 3600, "two header lines are one list");
    assert_eq!(statuses(3, || forwarded("203.0.113.2"), &client).await, [415, 415, 429], "another client");
    // All addresses of a /64 are one client.
    assert_eq!(client.send(forwarded("2001:db8::1")).await.status, 415);
    assert_eq!(client.send(forwarded("2001:db8::2")).await.status, 415);
    assert_limited(&client.send(forwarded("2001:db8::3")).await, 2, 3600, "the same /64");
    // The header is ignored unless it comes from a trusted proxy.
    let other_client = reqwest::Client::builder().local_address(IpAddr::from([127, 0, 0, 2])).build().expect("client");
    let mut seen = Vec::new();
    for n in 0..4 {
        let request =
            other_client.post(format!("{}{path}", client.users)).header("x-forwarded-for", format!("198.51.100.{n}"));
        seen.push(client.send(request).await.status.as_u16());
    }
    assert_eq!(seen, [415, 415, 429, 429]);
}

#[tokio::test]
async fn all_threads_and_connections_share_one_count() {
    let world = World::new().await;
    let limits = [("RL_LOGIN_MAX", "10"), ("RL_LOGIN_WINDOW", "1h"), ("HTTP_WORKERS", "4")];
    let (_users, client) = users(&world, &limits).await;
    let responses = join_all((0..80).map(|_| async {
        let mut raw = Raw::connect(&client.users).await;
        raw.send("POST /v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").await;
        raw.response().await.expect("a response").status.as_u16()
    }));
    let responses = responses.await;
    let count = |status: u16| responses.iter().filter(|seen| **seen == status).count();
    assert_eq!((count(415), count(429)), (10, 70));
}

#[tokio::test]
async fn posts_are_counted_per_user_across_all_routes_and_reads_are_not_counted() {
    let world = World::new().await;
    let limits = [("RATE_LIMIT_ENABLED", "true"), ("RL_TX_MAX", "3"), ("RL_TX_WINDOW", "1h")];
    let users = world.start(Role::Users).await;
    let wallet = world.start_with(Role::Wallet, &limits).await;
    let client = Client::new(&users.url(), &wallet.url());
    let (user, other) = (client.ready_user().await, client.ready_user().await);
    assert_eq!(client.post(&user, "credit", 100, None).await.header("ratelimit-remaining"), "2");
    assert_eq!(client.post(&user, "debit", 1, None).await.status, 201);
    let either = client.request(Method::POST, &format!("{}/v1/transactions", client.wallet)).bearer_auth(&user.token);
    assert_eq!(client.send(either.json(&json!({"type": "debit", "amountMinor": 1}))).await.status, 201);
    for kind in ["credit", "debit", ""] {
        let about = format!("/v1/transactions/{kind}");
        let path = about.trim_end_matches('/');
        let request = client.request(Method::POST, &format!("{}{path}", client.wallet));
        let again = request.bearer_auth(token_of(&user.id)).header("x-forwarded-for", "203.0.113.9");
        assert_limited(&client.send(again).await, 3, 3600, path);
    }
    for _ in 0..10 {
        for path in ["/v1/balance", "/v1/transactions", "/v1/wallet/status"] {
            let response = client.get(&user, path).await;
            assert_eq!((response.status.as_u16(), response.header("ratelimit-limit")), (200, ""), "{path}");
        }
    }
    assert_eq!(client.balance(&user).await, 98);
    assert_eq!(client.post(&other, "credit", 5, None).await.status, 201, "from the same address, another user");
    let request = client.request(Method::POST, &format!("{}/v1/transactions/credit", client.wallet));
    assert_eq!(client.send(request.bearer_auth(token_of(&unknown_user_id()))).await.code(), "WALLET_PROVISIONING");
    assert_eq!(world.sql(Role::Wallet, "SELECT count(*) FROM transactions").await, "4");
}

#[tokio::test]
async fn disabled_limits_limit_no_request() {
    let world = World::new().await;
    let off = [
        ("RATE_LIMIT_ENABLED", "false"),
        ("RL_REGISTER_MAX", "1"),
        ("RL_LOGIN_MAX", "1"),
        ("RL_TX_MAX", "1"),
        ("RL_TX_WINDOW", "1h"),
    ];
    let (_users, client) = users(&world, &off).await;
    let wallet = world.start_with(Role::Wallet, &off[..]).await;
    let post = format!("{}/v1/transactions/credit", wallet.url());
    let token = token_of(&unknown_user_id());
    for n in 0..20 {
        for path in ["/v1/auth/register", "/v1/auth/login"] {
            let response = client.send(cheap(&client, path)).await;
            assert_eq!(response.status, 415, "{path}, request {n}");
            assert!(response.headers.keys().all(|name| !name.as_str().contains("ratelimit")), "{response:?}");
        }
        let response = client.send(client.request(Method::POST, &post).bearer_auth(&token)).await;
        assert_eq!(response.code(), "WALLET_PROVISIONING", "request {n}");
    }
}
