//! Holds: what they reserve, how captures, voids and expiries end them, for any number of processes and whatever the clock of the
//! database does.

use futures_util::future::join_all;
use purse::kernel::{Role, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    Client, PATIENCE, Response, RoleProcess, Scrape, User, World, assert_error, assert_invalid, eventually, purse,
    token_of, unknown_user_id,
};

/// Waits that a lost deadlock would end, but a busy machine does not.
const PATIENT: [(&str, &str); 3] =
    [("DB_LOCK_TIMEOUT_MS", "50000"), ("DB_STATEMENT_TIMEOUT_MS", "60000"), ("DB_ACQUIRE_TIMEOUT_MS", "30000")];
const DAY_S: i64 = 86_400;

/// A user with a wallet of `cents`, without a registration.
pub async fn owner(world: &World, client: &Client, cents: i64) -> User {
    let id = Uuid::now_v7().to_string();
    world.sql(Role::Wallet, &format!("INSERT INTO wallets (user_id, id) VALUES ('{id}', gen_random_uuid())")).await;
    let user = User { token: token_of(&id), email: String::new(), id };
    if cents > 0 {
        assert_eq!(client.post(&user, "credit", cents, None).await.status, 201);
    }
    user
}

/// A wallet role with a user who has `cents`.
async fn one_owner(world: &World, cents: i64) -> (RoleProcess, Client, User) {
    let wallet = world.start(Role::Wallet).await;
    let client = Client::new("", &wallet.url());
    let user = owner(world, &client, cents).await;
    (wallet, client, user)
}

async fn post(client: &Client, user: &User, path: &str, body: &Value, key: Option<&str>) -> Response {
    let request = client.request(Method::POST, &format!("{}{path}", client.wallet)).bearer_auth(&user.token);
    let request = key.into_iter().fold(request.json(body), |request, key| request.header("idempotency-key", key));
    client.send(request).await
}

async fn hold(client: &Client, user: &User, cents: i64, key: Option<&str>) -> Response {
    post(client, user, "/v1/holds", &json!({"amountMinor": cents}), key).await
}

/// The ID of a new hold, which lasts for `seconds`.
pub async fn held_for(client: &Client, user: &User, cents: i64, seconds: i64) -> String {
    let held = post(client, user, "/v1/holds", &json!({"amountMinor": cents, "expiresInS": seconds}), None).await;
    assert_eq!(held.status, 201, "{held:?}");
    held.body["id"].as_str().expect("an id").to_owned()
}

pub async fn held(client: &Client, user: &User, cents: i64) -> String {
    held_for(client, user, cents, DAY_S).await
}

pub async fn capture(client: &Client, user: &User, id: &str, body: &Value, key: Option<&str>) -> Response {
    post(client, user, &format!("/v1/holds/{id}/capture"), body, key).await
}

async fn void(client: &Client, user: &User, id: &str, key: Option<&str>) -> Response {
    post(client, user, &format!("/v1/holds/{id}/void"), &json!({}), key).await
}

/// Balance, held and available.
pub async fn funds(client: &Client, user: &User) -> [i64; 3] {
    let balance = client.get(user, "/v1/balance").await;
    ["balanceMinor", "heldMinor", "availableMinor"].map(|field| balance.body[field].as_i64().expect("an amount"))
}

/// The status of a hold, with what was captured and what remains.
pub async fn state(client: &Client, user: &User, id: &str) -> (String, i64, i64) {
    let hold = client.get(user, &format!("/v1/holds/{id}")).await;
    assert_eq!(hold.status, 200, "{hold:?}");
    state_in(&hold.body)
}

fn state_in(hold: &Value) -> (String, i64, i64) {
    let amount = |field: &str| hold[field].as_i64().expect("an amount");
    (hold["status"].as_str().expect("a status").to_owned(), amount("capturedMinor"), amount("remainingMinor"))
}

pub fn is(status: &str, captured: i64, remaining: i64) -> (String, i64, i64) {
    (status.to_owned(), captured, remaining)
}

/// The ids on a page of holds, and its cursor.
pub async fn page(client: &Client, user: &User, query: &str) -> (Vec<String>, Option<String>) {
    let page = client.get(user, &format!("/v1/holds?{query}")).await;
    assert_eq!(page.status, 200, "{page:?}");
    let ids =
        page.body["items"].as_array().expect("items").iter().map(|hold| hold["id"].as_str().expect("id").to_owned());
    (ids.collect(), page.body["nextCursor"].as_str().map(str::to_owned))
}

/// The types of a wallet's rows, in their order.
pub async fn kinds(world: &World, user: &User) -> String {
    let kinds = format!("SELECT string_agg(type, ' ' ORDER BY seq) FROM transactions WHERE user_id = '{}'", user.id);
    world.sql(Role::Wallet, &kinds).await
}

pub async fn assert_valid_ledger(world: &World) {
    let database = world.databases.wallet.runtime_url.clone();
    let output = purse(&["ledger", "verify"], &[("WALLET_DATABASE_URL".to_owned(), database)].into()).await;
    assert_eq!(output.code, Some(0), "{output:?}");
}

/// The clock of the wallet database, as far as statements see it. It has to be set up before a role connects.
pub struct DatabaseClock<'a>(&'a World);

impl<'a> DatabaseClock<'a> {
    pub async fn set_up(world: &'a World) -> Self {
        let output = purse(&["migrate", "--role", "wallet"], &world.settings(Role::Wallet)).await;
        assert_eq!(output.code, Some(0), "{output:?}");
        let url: reqwest::Url = world.databases.wallet.runtime_url.parse().expect("a URL");
        let user = url.username();
        let script = format!(
            "CREATE SCHEMA pretended;
             CREATE TABLE pretended.clock (ahead interval NOT NULL);
             INSERT INTO pretended.clock VALUES ('0');
             CREATE FUNCTION pretended.statement_timestamp() RETURNS timestamptz LANGUAGE plpgsql STABLE AS
                 'BEGIN RETURN pg_catalog.statement_timestamp() + (SELECT ahead FROM pretended.clock); END';
             GRANT USAGE ON SCHEMA pretended TO {user};
             GRANT SELECT ON pretended.clock TO {user};
             ALTER ROLE {user} SET search_path = pretended, pg_catalog, public"
        );
        world.sql(Role::Wallet, &script).await;
        Self(world)
    }

    /// Compared with the real time.
    pub async fn set(&self, seconds: i64) {
        self.0.sql(Role::Wallet, &format!("UPDATE pretended.clock SET ahead = make_interval(secs => {seconds})")).await;
    }
}

#[tokio::test]
async fn five_of_six_holds_of_a_fifth_of_the_balance_succeed() {
    let world = World::new().await;
    let (_wallet, client, user) = one_owner(&world, 5000).await;
    for n in 1..=5 {
        let response = hold(&client, &user, 1000, None).await;
        assert_eq!((response.status.as_u16(), response.code()), (201, ""));
        assert_eq!(response.header("location"), format!("/v1/holds/{}", response.body["id"].as_str().expect("id")));
        assert_eq!(funds(&client, &user).await, [5000, n * 1000, 5000 - n * 1000]);
    }
    assert_error(&hold(&client, &user, 1000, None).await, 409, "INSUFFICIENT_FUNDS", "a sixth hold");
    assert_error(&client.post(&user, "debit", 1, None).await, 409, "INSUFFICIENT_FUNDS", "a debit of what is held");
    assert_eq!(client.post(&user, "credit", 1, None).await.status, 201);
    assert_eq!(client.post(&user, "debit", 1, None).await.status, 201, "what is not held");
    assert_eq!(funds(&client, &user).await, [5000, 5000, 0]);
    assert_valid_ledger(&world).await;
}

#[tokio::test]
async fn of_64_holds_of_a_fifth_of_the_balance_over_two_processes_exactly_five_succeed() {
    let world = World::new().await;
    let first = world.start_with(Role::Wallet, &PATIENT).await;
    let second = world.start_with(Role::Wallet, &PATIENT).await;
    let clients = [Client::new("", &first.url()), Client::new("", &second.url())];
    let user = owner(&world, &clients[0], 5000).await;
    let sent = (0..64).map(|n| hold(&clients[n % 2], &user, 1000, None));
    let responses = join_all(sent).await;
    let count = |status: u16, code: &str| responses.iter().filter(|r| r.status == status && r.code() == code).count();
    assert_eq!((count(201, ""), count(409, "INSUFFICIENT_FUNDS")), (5, 59), "{responses:?}");
    assert_eq!(funds(&clients[0], &user).await, [5000, 5000, 0]);
    assert_valid_ledger(&world).await;
}

#[tokio::test]
async fn an_id_that_is_no_hold_of_the_user_is_404() {
    let world = World::new().await;
    let (_wallet, client, user) = one_owner(&world, 100).await;
    let other = owner(&world, &client, 100).await;
    let of_other = held(&client, &other, 50).await;
    assert_error(&hold(&client, &user, 101, None).await, 409, "INSUFFICIENT_FUNDS", "it reserves nothing");
    let credit = client.post(&user, "credit", 1, None).await.body["id"].as_str().expect("an id").to_owned();
    let unknown = unknown_user_id();
    for id in [unknown.as_str(), "7", "%20", &of_other, &credit] {
        assert_error(&client.get(&user, &format!("/v1/holds/{id}")).await, 404, "HOLD_NOT_FOUND", id);
        assert_error(&capture(&client, &user, id, &json!({}), None).await, 404, "HOLD_NOT_FOUND", id);
        assert_error(&void(&client, &user, id, None).await, 404, "HOLD_NOT_FOUND", id);
    }
    assert_eq!(funds(&client, &user).await, [101, 0, 101]);
    assert_eq!(state(&client, &other, &of_other).await, is("open", 0, 50));
}

#[tokio::test]
async fn a_hold_that_was_voided_is_not_voided_or_captured_again() {
    let world = World::new().await;
    let (_wallet, client, user) = one_owner(&world, 500).await;
    let id = held(&client, &user, 300).await;
    let voided = void(&client, &user, &id, Some("once")).await;
    assert_eq!((voided.status.as_u16(), state_in(&voided.body)), (200, is("voided", 0, 0)), "{voided:?}");
    assert_eq!(voided.header("idempotent-replayed"), "");
    assert_eq!(funds(&client, &user).await, [500, 0, 500], "all is available again");
    for _ in 0..2 {
        let again = void(&client, &user, &id, Some("once")).await;
        assert_eq!((again.status.as_u16(), again.header("idempotent-replayed")), (200, "true"));
        assert_eq!(again.body, voided.body);
    }
    assert_error(&void(&client, &user, &id, None).await, 409, "HOLD_CLOSED", "without the key");
    assert_error(&capture(&client, &user, &id, &json!({}), None).await, 409, "HOLD_CLOSED", "a capture");
    assert_eq!(client.get(&user, &format!("/v1/holds/{id}")).await.body, voided.body);
    assert_eq!(kinds(&world, &user).await, "credit hold void");
    assert_valid_ledger(&world).await;
}

#[tokio::test]
async fn of_64_captures_of_one_hold_over_two_processes_exactly_one_succeeds() {
    let world = World::new().await;
    let first = world.start_with(Role::Wallet, &PATIENT).await;
    let second = world.start_with(Role::Wallet, &PATIENT).await;
    let clients = [Client::new("", &first.url()), Client::new("", &second.url())];
    let user = owner(&world, &clients[0], 1000).await;
    let id = held(&clients[0], &user, 700).await;
    let empty = json!({});
    let sent = (0..64).map(|n| capture(&clients[n % 2], &user, &id, &empty, None));
    let responses = join_all(sent).await;
    let count = |status: u16, code: &str| responses.iter().filter(|r| r.status == status && r.code() == code).count();
    assert_eq!((count(201, ""), count(409, "HOLD_CLOSED")), (1, 63), "{responses:?}");
    assert_eq!(funds(&clients[1], &user).await, [300, 0, 300]);
    assert_eq!(kinds(&world, &user).await, "credit hold debit");
    assert_valid_ledger(&world).await;
}

#[tokio::test]
async fn of_a_capture_and_a_void_at_once_exactly_one_wins() {
    const HOLDS: usize = 500;
    let world = World::new().await;
    let first = world.start_with(Role::Wallet, &PATIENT).await;
    let second = world.start_with(Role::Wallet, &PATIENT).await;
    let clients = [Client::new("", &first.url()), Client::new("", &second.url())];
    let user = owner(&world, &clients[0], 5000).await;
    let ids = join_all((0..HOLDS).map(|_| held(&clients[0], &user, 10))).await;
    let empty = json!({});
    let race = |(n, id): (usize, &String)| {
        let (client, other, user, id, empty) = (&clients[n % 2], &clients[(n + 1) % 2], &user, id.clone(), &empty);
        async move {
            let (captured, voided) =
                tokio::join!(capture(client, user, &id, empty, None), void(other, user, &id, None));
            match (captured.status.as_u16(), voided.status.as_u16()) {
                (201, 409) => assert_eq!(voided.code(), "HOLD_CLOSED"),
                (409, 200) => assert_eq!(captured.code(), "HOLD_CLOSED"),
                _ => panic!("{captured:?} {voided:?}"),
            }
            i64::from(captured.status == 201)
        }
    };
    let mut captured = 0;
    let races: Vec<_> = ids.iter().enumerate().collect();
    for some in races.chunks(50) {
        captured += join_all(some.iter().copied().map(race)).await.into_iter().sum::<i64>();
    }
    let left = 5000 - 10 * captured;
    assert_eq!(funds(&clients[0], &user).await, [left, 0, left]);
    assert_valid_ledger(&world).await;
}

#[tokio::test]
async fn a_final_capture_releases_the_rest_and_another_one_keeps_it_held() {
    let world = World::new().await;
    let (_wallet, client, user) = one_owner(&world, 1000).await;
    let id = held(&client, &user, 300).await;
    let taken =
        capture(&client, &user, &id, &json!({"amountMinor": 250, "description": "one night"}), Some("night")).await;
    assert_eq!(taken.status, 201, "{taken:?}");
    let (transaction, hold) = (&taken.body["transaction"], &taken.body["hold"]);
    assert_eq!(state_in(hold), is("captured", 250, 0));
    assert_eq!((&transaction["type"], &transaction["amountMinor"]), (&json!("debit"), &json!(250)));
    assert_eq!(transaction["hold"], json!({"id": id, "remainingMinor": 0, "final": true}));
    assert_eq!(transaction["description"], "one night");
    let transaction_id = transaction["id"].as_str().expect("an id");
    assert_eq!(taken.header("location"), format!("/v1/transactions/{transaction_id}"));
    assert_eq!(client.get(&user, &format!("/v1/transactions/{transaction_id}")).await.body, *transaction);
    assert_eq!(client.get(&user, "/v1/transactions").await.body["items"][0], *transaction, "and in the history");
    assert_eq!(funds(&client, &user).await, [750, 0, 750]);
    assert_eq!(client.get(&user, &format!("/v1/holds/{id}")).await.body, *hold);
    assert_eq!(page(&client, &user, "status=open").await.0, Vec::<String>::new());
    assert_eq!(page(&client, &user, "status=all").await.0, std::slice::from_ref(&id));

    let id = held(&client, &user, 300).await;
    let part = capture(&client, &user, &id, &json!({"amountMinor": 250, "final": false}), None).await;
    assert_eq!(part.body["transaction"]["hold"], json!({"id": id, "remainingMinor": 50, "final": false}));
    assert_eq!(state_in(&part.body["hold"]), is("open", 250, 50));
    assert_eq!(funds(&client, &user).await, [500, 50, 450]);
    let more = capture(&client, &user, &id, &json!({"amountMinor": 51}), None).await;
    assert_error(&more, 409, "HOLD_AMOUNT_EXCEEDED", "51 of 50");
    let rest = capture(&client, &user, &id, &json!({"final": false}), None).await;
    assert_eq!(state_in(&rest.body["hold"]), is("captured", 300, 0), "nothing is left, so it is closed");
    assert_eq!(rest.body["transaction"]["hold"], json!({"id": id, "remainingMinor": 0, "final": true}));
    assert_eq!(funds(&client, &user).await, [450, 0, 450]);

    let replayed =
        capture(&client, &user, &id, &json!({"amountMinor": 250, "description": "one night"}), Some("night")).await;
    assert_error(&replayed, 422, "IDEMPOTENCY_KEY_REUSED", "the key was for another hold");
    assert_valid_ledger(&world).await;
}

#[tokio::test]
async fn a_void_after_captures_releases_what_they_left() {
    let world = World::new().await;
    let (_wallet, client, user) = one_owner(&world, 100).await;
    let id = held(&client, &user, 60).await;
    for cents in [10, 5] {
        let part = capture(&client, &user, &id, &json!({"amountMinor": cents, "final": false}), None).await;
        assert_eq!(part.status, 201, "{part:?}");
    }
    assert_eq!(state(&client, &user, &id).await, is("open", 15, 45));
    assert_eq!(state_in(&void(&client, &user, &id, None).await.body), is("voided", 15, 0));
    assert_eq!(funds(&client, &user).await, [85, 0, 85]);
    assert_eq!(state(&client, &user, &id).await, is("voided", 15, 0));
    assert_valid_ledger(&world).await;
}

#[tokio::test]
async fn the_50th_capture_of_a_hold_must_be_final() {
    let world = World::new().await;
    let (_wallet, client, user) = one_owner(&world, 100).await;
    let id = held(&client, &user, 100).await;
    let part = json!({"amountMinor": 1, "final": false});
    for n in 1..=49 {
        assert_eq!(capture(&client, &user, &id, &part, None).await.status, 201, "{n}");
    }
    assert_error(&capture(&client, &user, &id, &part, None).await, 409, "CAPTURE_LIMIT", "the 50th");
    assert_eq!(state(&client, &user, &id).await, is("open", 49, 51));
    let last = capture(&client, &user, &id, &json!({"amountMinor": 1}), None).await;
    assert_eq!(state_in(&last.body["hold"]), is("captured", 50, 0));
    assert_eq!(funds(&client, &user).await, [50, 0, 50]);
    assert_valid_ledger(&world).await;
}

#[tokio::test]
async fn a_retry_returns_what_the_first_request_did_whatever_has_happened_to_the_hold_since() {
    let world = World::new().await;
    let (_wallet, client, user) = one_owner(&world, 100).await;
    let first = hold(&client, &user, 60, Some("hold")).await;
    let id = first.body["id"].as_str().expect("an id").to_owned();
    let part = json!({"amountMinor": 20, "final": false});
    let captured = capture(&client, &user, &id, &part, Some("part")).await;
    assert_eq!(state_in(&captured.body["hold"]), is("open", 20, 40));
    assert_eq!(void(&client, &user, &id, Some("void")).await.status, 200);
    let again = hold(&client, &user, 60, Some("hold")).await;
    assert_eq!((again.status.as_u16(), again.header("idempotent-replayed")), (200, "true"));
    assert_eq!(again.body, first.body);
    let again = capture(&client, &user, &id, &part, Some("part")).await;
    assert_eq!((again.status.as_u16(), again.header("idempotent-replayed")), (200, "true"));
    assert_eq!(again.body, captured.body);
    for (path, body, key) in [
        ("/v1/holds", json!({"amountMinor": 61}), "hold"),
        ("/v1/holds", json!({"amountMinor": 60, "expiresInS": 61}), "hold"),
        ("/v1/holds", json!({"amountMinor": 60, "description": "x"}), "hold"),
        ("/v1/holds", json!({"amountMinor": 60}), "part"),
        (&format!("/v1/holds/{id}/capture"), json!({"amountMinor": 20}), "part"),
        (&format!("/v1/holds/{id}/capture"), json!({}), "void"),
        (&format!("/v1/holds/{id}/void"), json!({}), "part"),
        ("/v1/transactions/credit", json!({"amountMinor": 60}), "hold"),
    ] {
        let response = post(&client, &user, path, &body, Some(key)).await;
        assert_error(&response, 422, "IDEMPOTENCY_KEY_REUSED", &format!("{path} {body} {key}"));
    }
    assert_eq!(kinds(&world, &user).await, "credit hold debit void");
}

#[tokio::test]
async fn an_invalid_body_or_query_is_refused_with_every_problem_and_holds_nothing() {
    let world = World::new().await;
    let (_wallet, client, user) = one_owner(&world, 100).await;
    let id = held(&client, &user, 10).await;
    let long = "x".repeat(256);
    for (body, fields) in [
        (json!({}), &["amountMinor"][..]),
        (
            json!({"amountMinor": 0, "expiresInS": 59, "description": long}),
            &["amountMinor", "expiresInS", "description"],
        ),
        (json!({"amountMinor": 1, "expiresInS": 2_678_401}), &["expiresInS"]),
        (json!({"amountMinor": 1, "expiresInS": "60"}), &["expiresInS"]),
        (json!({"amountMinor": 1, "expiresInS": 60.5}), &["expiresInS"]),
        (json!({"amountMinor": 1, "expiresAt": "2026-01-31T12:00:00Z"}), &["expiresAt"]),
    ] {
        assert_invalid(&post(&client, &user, "/v1/holds", &body, None).await, fields, &body.to_string());
    }
    for (body, fields) in [
        (json!({"amountMinor": 0, "final": "yes"}), &["amountMinor", "final"][..]),
        (json!({"amountMinor": 1.5}), &["amountMinor"]),
        (json!({"final": 1}), &["final"]),
        (json!({"capture": true}), &["capture"]),
    ] {
        assert_invalid(&capture(&client, &user, &id, &body, None).await, fields, &body.to_string());
    }
    let path = format!("/v1/holds/{id}/void");
    assert_invalid(&post(&client, &user, &path, &json!({"amountMinor": 1}), None).await, &["amountMinor"], "void");
    for (query, fields) in [
        ("status=closed", &["status"][..]),
        ("limit=0&cursor=x", &["limit", "cursor"]),
        ("limit=101", &["limit"]),
        ("type=hold", &["type"]),
    ] {
        assert_invalid(&client.get(&user, &format!("/v1/holds?{query}")).await, fields, query);
    }
    // The body is read before the hold is looked for.
    let unknown = unknown_user_id();
    assert_invalid(&capture(&client, &user, &unknown, &json!({"final": 1}), None).await, &["final"], "unknown hold");
    assert_eq!(kinds(&world, &user).await, "credit hold");
    for (seconds, key) in [(60, "shortest"), (2_678_400, "longest")] {
        let body = json!({"amountMinor": 1, "expiresInS": seconds});
        let response = post(&client, &user, "/v1/holds", &body, Some(key)).await;
        assert_eq!(response.status, 201, "{response:?}");
    }
}

#[tokio::test]
pub async fn pages_of_holds_neither_repeat_nor_skip_one_while_holds_come_and_go() {
    let world = World::new().await;
    let (_wallet, client, user) = one_owner(&world, 100).await;
    assert_eq!(page(&client, &user, "").await, (Vec::new(), None));
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(held(&client, &user, 1).await);
        client.post(&user, "credit", 1, None).await;
    }
    void(&client, &user, &ids[1], None).await;
    let (first, cursor) = page(&client, &user, "limit=2").await;
    assert_eq!(first, [ids[4].clone(), ids[3].clone()]);
    let cursor = cursor.expect("another page");
    held(&client, &user, 1).await;
    capture(&client, &user, &ids[4], &json!({}), None).await;
    let (second, end) = page(&client, &user, &format!("limit=2&cursor={cursor}")).await;
    assert_eq!((second, end), (vec![ids[2].clone(), ids[0].clone()], None));
    let (all, _) = page(&client, &user, &format!("status=all&cursor={cursor}")).await;
    assert_eq!(all, [ids[2].clone(), ids[1].clone(), ids[0].clone()]);
    let items = client.get(&user, "/v1/holds?status=all").await.body["items"].as_array().expect("items").clone();
    for item in items {
        let id = item["id"].as_str().expect("an id");
        assert_eq!(client.get(&user, &format!("/v1/holds/{id}")).await.body, item, "the same on a page and alone");
    }
}

#[tokio::test]
async fn a_hold_ends_at_its_time_for_everyone_and_once() {
    let world = World::new().await;
    let clock = DatabaseClock::set_up(&world).await;
    let (_wallet, client, user) = one_owner(&world, 100).await;
    let quiet = owner(&world, &client, 100).await;
    let id = held_for(&client, &user, 100, 60).await;
    let of_quiet = held_for(&client, &quiet, 30, 60).await;
    let part = capture(&client, &quiet, &of_quiet, &json!({"amountMinor": 10, "final": false}), None).await;
    assert_eq!(part.status, 201, "{part:?}");
    clock.set(30).await;
    assert_eq!(state(&client, &user, &id).await, is("open", 0, 100));
    assert_error(&client.post(&user, "debit", 1, None).await, 409, "INSUFFICIENT_FUNDS", "it is still held");
    clock.set(61).await;
    assert_eq!(state(&client, &user, &id).await, is("expired", 0, 0));
    assert_eq!(funds(&client, &user).await, [100, 0, 100]);
    assert_eq!(client.post(&user, "debit", 100, None).await.status, 201, "nobody is refused for an expired hold");
    assert_error(&capture(&client, &user, &id, &json!({}), None).await, 409, "HOLD_EXPIRED", "a capture");
    assert_error(&void(&client, &user, &id, None).await, 409, "HOLD_EXPIRED", "a void");
    assert_eq!(kinds(&world, &user).await, "credit hold expire debit");
    // Nothing else happens to this wallet.
    eventually(PATIENCE, "the sweeper ends the hold", || async {
        (kinds(&world, &quiet).await == "credit hold debit expire").then_some(())
    })
    .await;
    assert_eq!(state(&client, &quiet, &of_quiet).await, is("expired", 10, 0));
    assert_eq!(funds(&client, &quiet).await, [90, 0, 90]);
    assert_eq!(page(&client, &quiet, "").await.0, Vec::<String>::new());
    assert_eq!(world.sql(Role::Wallet, "SELECT count(*) FROM open_holds").await, "0");
    assert_valid_ledger(&world).await;
}

#[tokio::test]
async fn after_the_clock_of_the_database_is_set_back_a_hold_expires_later_and_nothing_else_changes() {
    let world = World::new().await;
    let clock = DatabaseClock::set_up(&world).await;
    let (_wallet, client, user) = one_owner(&world, 100).await;
    clock.set(3600).await;
    let id = held_for(&client, &user, 40, 60).await;
    clock.set(0).await;
    let credit = client.post(&user, "credit", 1, None).await;
    assert_eq!(credit.status, 201);
    assert_eq!(state(&client, &user, &id).await, is("open", 0, 40));
    clock.set(3000).await;
    assert_eq!(funds(&client, &user).await, [101, 40, 61]);
    let part = capture(&client, &user, &id, &json!({"amountMinor": 1, "final": false}), None).await;
    assert_eq!(part.status, 201, "{part:?}");
    clock.set(3661).await;
    assert_eq!(funds(&client, &user).await, [100, 0, 100]);
    assert_error(&capture(&client, &user, &id, &json!({}), None).await, 409, "HOLD_EXPIRED", "an hour late");
    let older = "SELECT count(*) FROM (SELECT created_at, lag(created_at) OVER (ORDER BY seq) AS before FROM transactions) AS row
                 WHERE created_at < before";
    assert_eq!(world.sql(Role::Wallet, older).await, "0");
    assert_valid_ledger(&world).await;
}

#[tokio::test]
async fn a_hold_that_is_placed_after_the_clock_of_the_database_was_set_back_lasts_as_long_as_requested() {
    let world = World::new().await;
    let clock = DatabaseClock::set_up(&world).await;
    let (_wallet, client, user) = one_owner(&world, 100).await;
    clock.set(3600).await;
    let in_the_future = client.post(&user, "credit", 1, None).await;
    clock.set(0).await;
    let placed = post(&client, &user, "/v1/holds", &json!({"amountMinor": 40, "expiresInS": 60}), None).await;
    assert_eq!(placed.status, 201, "{placed:?}");
    let time = |value: &Value| value.as_str().and_then(|time| time.parse::<Timestamp>().ok()).expect("a time");
    let (created_at, expires_at) = (time(&placed.body["createdAt"]), time(&placed.body["expiresAt"]));
    assert_eq!(created_at, time(&in_the_future.body["createdAt"]), "no entry is older than the one before it");
    assert_eq!(expires_at.duration_since(created_at).as_secs(), 60);
    let id = placed.body["id"].as_str().expect("an ID");
    for (ahead, expected) in [(0, is("open", 0, 40)), (3630, is("open", 0, 40)), (3661, is("expired", 0, 0))] {
        clock.set(ahead).await;
        assert_eq!(state(&client, &user, id).await, expected, "{ahead} seconds ahead");
    }
    assert_eq!(funds(&client, &user).await, [101, 0, 101]);
    assert_valid_ledger(&world).await;
}

#[tokio::test]
async fn the_balance_at_a_time_has_what_was_held_then() {
    let world = World::new().await;
    let (_wallet, client, user) = one_owner(&world, 100).await;
    let placed = hold(&client, &user, 40, None).await;
    let id = placed.body["id"].as_str().expect("an id").to_owned();
    void(&client, &user, &id, None).await;
    let then = placed.body["createdAt"].as_str().expect("a time");
    let balance = client.get(&user, &format!("/v1/balance?at={then}")).await;
    let expected = json!({"balanceMinor": 100, "heldMinor": 40, "availableMinor": 60, "currency": "USD"});
    assert_eq!(balance.body, expected);
    assert_eq!(funds(&client, &user).await, [100, 0, 100]);
    let before = client.get(&user, "/v1/balance?at=2020-01-31T12:00:00Z").await;
    assert_eq!(before.body, json!({"balanceMinor": 0, "heldMinor": 0, "availableMinor": 0, "currency": "USD"}));
}

#[tokio::test]
async fn of_250_due_holds_of_one_wallet_a_batch_ends_at_most_100_and_all_end_soon() {
    let world = World::new().await;
    let clock = DatabaseClock::set_up(&world).await;
    let (_wallet, client, user) = one_owner(&world, 250).await;
    join_all((0..250).map(|_| held_for(&client, &user, 1, 60))).await;
    clock.set(61).await;
    assert_eq!(client.post(&user, "credit", 5, None).await.status, 201);
    eventually(PATIENCE, "all are expired", || async {
        let open = world.sql(Role::Wallet, "SELECT count(*) FROM open_holds").await;
        (open == "0").then_some(())
    })
    .await;
    // Rows of one batch share their time.
    let most = "SELECT max(rows) FROM (SELECT count(*) AS rows FROM transactions WHERE type = 'expire' GROUP BY created_at) AS batch";
    assert_eq!(world.sql(Role::Wallet, most).await, "100");
    assert_eq!(world.sql(Role::Wallet, "SELECT count(*) FROM transactions WHERE type = 'expire'").await, "250");
    assert_eq!(funds(&client, &user).await, [255, 0, 255]);
    assert_valid_ledger(&world).await;
}

#[tokio::test]
async fn the_database_itself_refuses_a_second_capture_of_the_same_rest_and_more_held_than_there_is() {
    let world = World::new().await;
    let (_wallet, client, user) = one_owner(&world, 100).await;
    let id = held(&client, &user, 60).await;
    let part = capture(&client, &user, &id, &json!({"amountMinor": 10, "final": false}), None).await;
    assert_eq!(part.status, 201, "{part:?}");
    // Prints the violated constraint, if any, and the number of rows.
    let insert = |seq: i64, kind: &str, held: i64, origin: &str, expires: &str| {
        format!(
            "DO $$ DECLARE violated text; BEGIN
                 INSERT INTO transactions (user_id, seq, id, type, amount_minor, balance_after_minor, held_after_minor, origin_seq,
                                           origin_nth, origin_left_minor, expires_at, created_at, hash)
                 VALUES ('{}', {seq}, gen_random_uuid(), '{kind}', 10, 80, {held}, {origin}, {expires}, now(), sha256(''));
             EXCEPTION WHEN unique_violation OR check_violation THEN
                 GET STACKED DIAGNOSTICS violated = CONSTRAINT_NAME;
                 PERFORM set_config('test.violated', violated, false);
             END $$;
             SELECT concat(current_setting('test.violated', true), '|', count(*)) FROM transactions",
            user.id
        )
    };
    for (statement, expected, about) in [
        (insert(4, "debit", 40, "2, 1, 40", "null"), "transactions_origin_key|3", "the first capture again"),
        (insert(4, "debit", 40, "2, 2, 40", "null"), "|4", "the second capture"),
        (insert(5, "hold", 81, "null, null, null", "now()"), "transactions_held_in_range|4", "81 of 80"),
        (insert(5, "hold", 80, "null, null, null", "now()"), "|5", "80 of 80"),
    ] {
        assert_eq!(world.sql(Role::Wallet, &statement).await, expected, "{about}");
    }
}

#[tokio::test]
async fn a_captured_debit_can_be_reversed_and_its_hold_stays_captured() {
    let world = World::new().await;
    let (_wallet, client, user) = one_owner(&world, 100).await;
    let id = held(&client, &user, 60).await;
    let captured = capture(&client, &user, &id, &json!({"amountMinor": 50}), None).await;
    let debit = captured.body["transaction"]["id"].as_str().expect("an id").to_owned();
    let reversed = post(&client, &user, &format!("/v1/transactions/{debit}/reverse"), &json!({}), None).await;
    assert_eq!((reversed.status.as_u16(), &reversed.body["type"]), (201, &json!("credit")), "{reversed:?}");
    assert_eq!(state(&client, &user, &id).await, is("captured", 50, 0));
    assert_eq!(funds(&client, &user).await, [100, 0, 100]);
    assert_valid_ledger(&world).await;
}

#[tokio::test]
async fn a_hold_and_a_capture_have_texts_of_their_own() {
    let world = World::new().await;
    let (_wallet, client, user) = one_owner(&world, 100).await;
    let body = json!({"amountMinor": 60, "description": "room", "reference": "r-1", "metadata": {"room": "12"}});
    let placed = post(&client, &user, "/v1/holds", &body, None).await;
    assert_eq!(placed.status, 201, "{placed:?}");
    let shown = |body: &Value| ["description", "reference", "metadata"].map(|field| body[field].clone());
    assert_eq!(shown(&placed.body), [json!("room"), json!("r-1"), json!({"room": "12"})]);
    let id = placed.body["id"].as_str().expect("an id");
    let captured = capture(&client, &user, id, &json!({"reference": "c-1"}), None).await;
    assert_eq!(shown(&captured.body["transaction"]), [Value::Null, json!("c-1"), Value::Null], "nothing is inherited");
    assert_eq!(shown(&captured.body["hold"]), shown(&placed.body));
    assert_eq!(shown(&client.get(&user, &format!("/v1/holds/{id}")).await.body), shown(&placed.body));
    let by_reference = client.get(&user, "/v1/transactions?reference=r-1").await;
    assert_eq!(by_reference.body["items"], json!([]), "holds are not in the history");
}

#[tokio::test]
async fn operators_see_the_open_holds_of_all_users_or_of_one() {
    let world = World::new().await;
    let (_wallet, client, user) = one_owner(&world, 100).await;
    let other = owner(&world, &client, 100).await;
    let later = held_for(&client, &user, 60, 120).await;
    let sooner = held_for(&client, &other, 30, 60).await;
    let part = capture(&client, &user, &later, &json!({"amountMinor": 20, "final": false}), None).await;
    assert_eq!(part.status, 201, "{part:?}");
    let database = [("WALLET_DATABASE_URL".to_owned(), world.databases.wallet.runtime_url.clone())];
    let list = async |arguments: &[&str]| {
        let output = purse(&[&["ledger", "holds", "--json"], arguments].concat(), &database.clone().into()).await;
        assert_eq!(output.code, Some(0), "{output:?}");
        output.json()
    };
    let all = list(&[]).await;
    let ids: Vec<_> = all["holds"].as_array().expect("a list").iter().map(|hold| hold["id"].clone()).collect();
    assert_eq!(ids, [json!(sooner), json!(later)], "those that expire first come first");
    assert_eq!([&all["open"], &all["overdue"], &all["remainingMinor"]], [&json!(2), &json!(0), &json!(70)]);
    let own = list(&["--user", &user.id]).await;
    let hold = &own["holds"][0];
    assert_eq!((&own["open"], &hold["userId"], &hold["id"]), (&json!(1), &json!(user.id), &json!(later)));
    assert_eq!([&hold["amountMinor"], &hold["remainingMinor"], &hold["captures"]], [&json!(60), &json!(40), &json!(1)]);
    assert_eq!((&hold["overdueSeconds"], &hold["postedBy"]), (&json!(0), &Value::Null));
    assert_eq!(list(&["--overdue"]).await["open"], json!(0));
    let table = purse(&["ledger", "holds"], &database.into()).await;
    assert!(table.out.ends_with("2 open holds with 70 cents, 0 overdue.\n"), "{table:?}");
}

#[tokio::test]
async fn metrics_count_the_open_holds_of_all_wallets() {
    let world = World::new().await;
    let (wallet, client, user) = one_owner(&world, 100).await;
    for _ in 0..3 {
        held(&client, &user, 1).await;
    }
    let second = world.start(Role::Wallet).await;
    for process in [&second, &wallet] {
        eventually(PATIENCE, "three open holds", || async {
            let scrape = Scrape::of(&process.url()).await;
            (scrape.number("purse_holds_open") == Some(3.0)).then_some(())
        })
        .await;
        assert_eq!(Scrape::of(&process.url()).await.number("purse_holds_overdue_seconds"), Some(0.0));
    }
}
