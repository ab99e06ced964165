//! Logins to one account are limited too, from however many addresses they come.

use std::net::IpAddr;

use futures_util::future::join_all;
use purse::kernel::Role;
use serde_json::json;

use crate::support::{Client, PASSWORD, Response, RoleProcess, World, assert_error};

/// The users role with three logins an hour to one account, and any number from one address.
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

/// A login from one of the many addresses of this machine.
async fn log_in_from(client: &Client, last: u8, email: &str, password: &str) -> Response {
    let elsewhere = reqwest::Client::builder().local_address(IpAddr::from([127, 0, 0, last])).build().expect("client");
    let body = json!({"email": email, "password": password});
    client.send(elsewhere.post(format!("{}/v1/auth/login", client.users)).json(&body)).await
}

fn assert_limited(answer: &Response, about: &str) {
    assert_error(answer, 429, "RATE_LIMITED", about);
    let wait_s: u64 = answer.header("retry-after").parse().unwrap_or_else(|_| panic!("{about}: {answer:?}"));
    assert!((1..=3600).contains(&wait_s), "{about}: {answer:?}");
    let told = ["ratelimit-limit", "ratelimit-remaining", "ratelimit-policy"].map(|name| answer.header(name));
    assert_eq!(told, ["3", "0", "3;w=3600"], "{about}: the limit that refused is the one that is told");
    assert_eq!(answer.header("ratelimit-reset"), wait_s.to_string(), "{about}");
}

#[tokio::test]
async fn the_account_limit_applies_across_addresses_and_spellings() {
    let world = World::new().await;
    let (_users, client) = users(&world, &[]).await;
    let (tried, free) = (client.user().await, client.user().await);
    for (last, email) in [(2, tried.email.clone()), (3, tried.email.to_uppercase()), (4, tried.email.clone())] {
        let answer = log_in_from(&client, last, &email, "a guess of somebody").await;
        assert_error(&answer, 401, "INVALID_CREDENTIALS", &email);
    }
    assert_limited(&log_in_from(&client, 5, &tried.email, "another guess").await, "a fourth address");
    let mixed = tried.email.replace("example", "EXAMPLE");
    assert_limited(&log_in_from(&client, 6, &mixed, "another guess").await, "another spelling");
    assert_limited(&log_in_from(&client, 7, &tried.email, PASSWORD).await, "a right guess is not told either");
    assert_eq!(log_in_from(&client, 5, &free.email, PASSWORD).await.status, 200, "another account");
    assert_eq!(client.me(&tried.token).await.status, 200, "who is logged in already stays so");
}

#[tokio::test]
async fn the_account_limit_is_the_same_for_accounts_that_do_not_exist() {
    let world = World::new().await;
    let (_users, client) = users(&world, &[]).await;
    let known = client.user().await.email;
    let unknown = Client::fresh_email();
    for n in 0..5 {
        let answers =
            [log_in_from(&client, 2, &known, "a guess").await, log_in_from(&client, 3, &unknown, "a guess").await];
        let [first, second] = answers.map(|answer| (answer.status, answer.body["code"].clone()));
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
    // With one place to hash in, a login that came so far would find the place taken: 503.
    for answer in join_all((0..60).map(|_| client.log_in(&email, "a guess"))).await {
        assert_limited(&answer, "in a flood");
    }
}
