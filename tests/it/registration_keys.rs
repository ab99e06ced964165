//! `Idempotency-Key` on registrations: a retry returns the user whom the first request registered, and creates no other.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use purse::kernel::Role;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    Client, LossyProxy, PASSWORD, PATIENCE, Response, RoleProcess, World, assert_error, assert_invalid, eventually,
};

async fn users(world: &World, settings: &[(&str, &str)]) -> (RoleProcess, Client) {
    let users = world.start_with(Role::Users, settings).await;
    let client = Client::new(&users.url(), &users.url());
    (users, client)
}

fn registration(email: &str) -> Value {
    json!({"firstName": "Ada", "lastName": "Lovelace", "email": email, "password": PASSWORD})
}

async fn register(client: &Client, key: &str, body: &Value) -> Response {
    let request = client.request(Method::POST, &format!("{}/v1/auth/register", client.users));
    client.send(request.header("idempotency-key", key).json(body)).await
}

async fn counts(world: &World) -> String {
    world.sql(Role::Users, "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM outbox)").await
}

#[tokio::test]
async fn a_retry_with_the_same_key_and_body_returns_the_registered_user_and_a_valid_token() {
    let world = World::new().await;
    let (_users, client) = users(&world, &[]).await;
    let email = Client::fresh_email();
    let first = register(&client, "key-1", &registration(&email)).await;
    assert_eq!((first.status.as_u16(), first.header("idempotent-replayed")), (201, ""), "{first:?}");
    for body in [
        registration(&email),
        // The same values, spelled differently.
        json!({"password": PASSWORD, "email": email.to_uppercase(), "lastName": " Lovelace", "firstName": "Ada "}),
    ] {
        let again = register(&client, "key-1", &body).await;
        assert_eq!((again.status.as_u16(), again.header("idempotent-replayed")), (200, "true"), "{again:?}");
        assert_eq!((&again.body["user"], &again.body["tokenType"]), (&first.body["user"], &first.body["tokenType"]));
        let me = client.me(again.body["accessToken"].as_str().expect("token")).await;
        assert_eq!((me.status.as_u16(), &me.body), (200, &first.body["user"]));
    }
    assert_eq!(counts(&world).await, "1|1");
}

#[tokio::test]
async fn another_registration_with_a_used_key_is_a_422_whatever_differs() {
    let world = World::new().await;
    let (_users, client) = users(&world, &[]).await;
    let email = Client::fresh_email();
    assert_eq!(register(&client, "key-1", &registration(&email)).await.status, 201);
    for (field, value) in [
        ("firstName", "Grace"),
        ("lastName", "Hopper"),
        ("email", &Client::fresh_email()),
        ("password", "another password"),
    ] {
        let mut other = registration(&email);
        other[field] = json!(value);
        assert_error(&register(&client, "key-1", &other).await, 422, "IDEMPOTENCY_KEY_REUSED", field);
    }
    assert_eq!(counts(&world).await, "1|1");
    assert_eq!(
        register(&client, "key-1", &registration(&email)).await.status,
        200,
        "the key is still that of the first"
    );
}

#[tokio::test]
async fn a_taken_address_is_a_409_with_another_key_and_without_one() {
    let world = World::new().await;
    let (_users, client) = users(&world, &[]).await;
    let email = Client::fresh_email();
    assert_eq!(client.register(&email).await.status, 201);
    assert_error(&client.register(&email).await, 409, "EMAIL_EXISTS", "without a key");
    assert_error(&register(&client, "key-1", &registration(&email)).await, 409, "EMAIL_EXISTS", "with a new key");
    // The rejected request has not used its key, nor does another spelling of a key belong to it.
    assert_eq!(register(&client, "key-1", &registration(&Client::fresh_email())).await.status, 201);
    assert_eq!(register(&client, "KEY-1", &registration(&Client::fresh_email())).await.status, 201);
    assert_eq!(counts(&world).await, "3|3");
}

#[tokio::test]
async fn concurrent_registrations_with_one_key_create_one_user() {
    let world = World::new().await;
    let (_one, one) = users(&world, &[]).await;
    let (_two, two) = users(&world, &[]).await;
    for round in 0..5 {
        let (key, body) = (format!("round-{round}"), registration(&Client::fresh_email()));
        let responses = join_all((0..8).map(|n| register(if n % 2 == 0 { &one } else { &two }, &key, &body))).await;
        let mut seen = BTreeMap::new();
        for response in &responses {
            *seen.entry(response.status.as_u16()).or_insert(0) += 1;
            assert_eq!(response.body["user"], responses[0].body["user"], "{response:?}");
        }
        assert_eq!(seen, BTreeMap::from([(200, 7), (201, 1)]));
    }
    assert_eq!(counts(&world).await, "5|5");
}

#[tokio::test]
async fn a_registration_whose_response_was_lost_is_found_by_its_retry() {
    let world = World::new().await;
    let (users, client) = users(&world, &[]).await;
    let proxy = LossyProxy::to(&users.url(), "POST /v1/auth/register").await;
    let body = registration(&Client::fresh_email());
    let through = Client::new(&proxy.url, &proxy.url);
    let request = || {
        through
            .request(Method::POST, &format!("{}/v1/auth/register", proxy.url))
            .header("idempotency-key", "key-1")
            .json(&body)
    };
    request().send().await.expect_err("the response is lost");
    assert_eq!(proxy.lost(), 1);
    let again = through.send(request()).await;
    assert_eq!((again.status.as_u16(), again.header("idempotent-replayed")), (200, "true"), "{again:?}");
    assert_eq!(client.me(again.body["accessToken"].as_str().expect("token")).await.status, 200);
    assert_eq!(counts(&world).await, "1|1");
}

#[tokio::test]
async fn a_key_is_1_to_128_visible_ascii_characters_and_not_repeated() {
    let world = World::new().await;
    let (_users, client) = users(&world, &[]).await;
    for key in ["", "a b", &"k".repeat(129)] {
        let response = register(&client, key, &registration(&Client::fresh_email())).await;
        assert_invalid(&response, &["Idempotency-Key"], key);
    }
    let twice =
        client.request(Method::POST, &format!("{}/v1/auth/register", client.users)).header("idempotency-key", "a");
    let twice = client.send(twice.header("idempotency-key", "a").json(&registration(&Client::fresh_email()))).await;
    assert_invalid(&twice, &["Idempotency-Key"], "repeated");
    assert_eq!(register(&client, &"k".repeat(128), &registration(&Client::fresh_email())).await.status, 201);
    assert_eq!(counts(&world).await, "1|1");
}

#[tokio::test]
async fn replays_count_towards_the_limit_of_the_account_so_that_they_do_not_help_to_guess_a_password() {
    let world = World::new().await;
    let limits = [
        ("RATE_LIMIT_ENABLED", "true"),
        ("RL_REGISTER_MAX", "100"),
        ("RL_LOGIN_MAX", "100"),
        ("RL_LOGIN_ACCOUNT_MAX", "3"),
        ("RL_LOGIN_WINDOW", "1h"),
    ];
    let (_users, client) = users(&world, &limits).await;
    let email = Client::fresh_email();
    assert_eq!(register(&client, "key-1", &registration(&email)).await.status, 201);
    let mut guess = registration(&email);
    guess["password"] = json!("a wrong password");
    assert_error(&register(&client, "key-1", &guess).await, 422, "IDEMPOTENCY_KEY_REUSED", "the first guess");
    assert_eq!(client.log_in(&email, "a wrong password").await.status, 401);
    let limited = register(&client, "key-1", &registration(&email)).await;
    assert_error(&limited, 429, "RATE_LIMITED", "whatever the password is");
    assert!(limited.header("ratelimit-policy").starts_with("\"account\";"), "{limited:?}");
    assert_error(&client.log_in(&email, PASSWORD).await, 429, "RATE_LIMITED", "the same count");
    assert_eq!(register(&client, "key-2", &registration(&Client::fresh_email())).await.status, 201, "another account");
}

#[tokio::test]
async fn a_retry_of_a_registration_in_doubt_returns_the_user_as_soon_as_the_database_has_it() {
    let world = World::new().await;
    let (_users, client) = users(&world, &[("DB_STATEMENT_TIMEOUT_MS", "500")]).await;
    // Commits of this database wait for a standby that does not exist.
    world.wait_for_standby(Role::Users).await;
    let body = registration(&Client::fresh_email());
    // The sessions of before have been terminated, and a request may meet one.
    let first = eventually(PATIENCE, "a new session", || async {
        let first = register(&client, "key-1", &body).await;
        (first.code() != "DEPENDENCY_UNAVAILABLE").then_some(first)
    });
    assert_error(&first.await, 503, "OUTCOME_UNKNOWN", "without its standby");
    world.wait_for_no_standby(Role::Users).await;
    let again = eventually(PATIENCE, "the registration is visible", || async {
        let again = register(&client, "key-1", &body).await;
        (again.status != 503).then_some(again)
    });
    let again = again.await;
    assert_eq!((again.status.as_u16(), again.header("idempotent-replayed")), (200, "true"), "{again:?}");
    assert_eq!(client.me(again.body["accessToken"].as_str().expect("token")).await.body, again.body["user"]);
    assert_eq!(counts(&world).await, "1|1");
}
