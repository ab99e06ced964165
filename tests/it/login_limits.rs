//! Logins are also limited by account, across all client addresses.

use std::net::IpAddr;

use futures_util::future::join_all;
use purse::kernel::Role;
use serde_json::json;

use crate::support::{Client, PASSWORD, Response, RoleProcess, World, assert_error};

/// Starts the users role with a limit of three logins per hour and account, and practically none per address.
async fn users(world: &World, more: &[(&str, &str)]) -> (RoleProcess, Client) {
    let limits = [
        ("RATE_LIMIT_ENABLED", "true"),
        ("RL_LOGIN_ACCOUNT_MAX", "3"),
        ("RL_LOGIN_MAX", "100000"),
        ("RL_LOGIN_WINDOW", "1h"),
    ];
    let users = world.start_with(Role::Users, &[&limits, more].concat()).await;
    let client = Client::new(&users.url(), &users.url());
    (users, client)
}

/// A login from the client address 127.0.0.`last`.
async fn log_in_from(client: &Client, last: u8, email: &str, password: &str) -> Response {
    let http = reqwest::Client::builder().local_address(IpAddr::from([127, 0, 0, last])).build().expect("client");
    let body = json!({"email": email, "password": password});
    client.send(http.post(format!("{}/v1/auth/login", client.users)).json(&body)).await
}

fn assert_limited(response: &Response, about: &str) {
    assert_error(response, 429, "RATE_LIMITED", about);
    let wait_s: u64 = response.header("retry-after").parse().unwrap_or_else(|_| panic!("{about}: {response:?}"));
    assert!((1..=3600).contains(&wait_s), "{about}: {response:?}");
    let headers = ["ratelimit-limit", "ratelimit-remaining", "ratelimit-policy"].map(|name| response.header(name));
    assert_eq!(headers, ["3", "0", "\"account\";q=3;w=3600"], "{about}: the headers of another limit");
    assert_eq!(response.header("ratelimit-reset"), wait_s.to_string(), "{about}");
}

#[tokio::test]
async fn the_account_limit_applies_across_addresses_and_spellings() {
    let world = World::new().await;
    let (_users, client) = users(&world, &[]).await;
    let (attacked, other) = (client.user().await, client.user().await);
    for (last, email) in [(2, attacked.email.clone()), (3, attacked.email.to_uppercase()), (4, attacked.email.clone())]
    {
        let response = log_in_from(&client, last, &email, "a first guess").await;
        assert_error(&response, 401, "INVALID_CREDENTIALS", &email);
    }
    assert_limited(&log_in_from(&client, 5, &attacked.email, "another guess").await, "a fourth address");
    let mixed = attacked.email.replace("example", "EXAMPLE");
    assert_limited(&log_in_from(&client, 6, &mixed, "another guess").await, "another spelling");
    assert_limited(&log_in_from(&client, 7, &attacked.email, PASSWORD).await, "the correct password");
    assert_eq!(log_in_from(&client, 5, &other.email, PASSWORD).await.status, 200, "another account");
    assert_eq!(client.me(&attacked.token).await.status, 200, "existing tokens stay valid");
}

#[tokio::test]
async fn the_account_limit_is_the_same_for_accounts_that_do_not_exist() {
    let world = World::new().await;
    let (_users, client) = users(&world, &[]).await;
    let known = client.user().await.email;
    let unknown = Client::fresh_email();
    for n in 0..5 {
        let responses =
            [log_in_from(&client, 2, &known, "a guess").await, log_in_from(&client, 3, &unknown, "a guess").await];
        let [first, second] = responses.map(|response| (response.status, response.body["code"].clone()));
        assert_eq!(first, second, "login {n}");
        assert_eq!(first.0, if n < 3 { 401 } else { 429 }, "login {n}");
    }
}

#[tokio::test]
async fn limited_logins_to_an_account_compute_no_hash_and_malformed_ones_are_not_counted() {
    let world = World::new().await;
    let (_users, client) = users(&world, &[("HASH_QUEUE_MAX", "1")]).await;
    let email = Client::fresh_email();
    for body in [json!({"email": email}), json!({"email": email, "password": 7}), json!([email])] {
        let request = client.request(reqwest::Method::POST, &format!("{}/v1/auth/login", client.users)).json(&body);
        assert_error(&client.send(request).await, 400, "VALIDATION_ERROR", &body.to_string());
    }
    for _ in 0..3 {
        assert_eq!(client.log_in(&email, "a guess").await.status, 401);
    }
    // The hash queue has one place, so logins that reached it would get a 503.
    for response in join_all((0..60).map(|_| client.log_in(&email, "a guess"))).await {
        assert_limited(&response, "in a flood");
    }
}
