//! Rules of every endpoint of both roles, whatever the handler does.

use purse::kernel::Role;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    Client, Document, PASSWORD, Response, World, assert_error, assert_invalid, assert_json_response, path_and_token,
    purse, token_of, unknown_user_id,
};

/// Endpoints for probes, scrapers and browsers, which add parameters of their own.
const IGNORES_QUERIES: [&str; 5] = ["/health/live", "/health/ready", "/metrics", "/docs", "/openapi.json"];

/// A valid body for an endpoint that takes one.
fn body(path: &str) -> Value {
    match path {
        "/v1/auth/register" => {
            json!({"firstName": "Ada", "lastName": "L", "email": Client::fresh_email(), "password": PASSWORD})
        }
        "/v1/auth/login" => json!({"email": "ada@example.com", "password": PASSWORD}),
        "/v1/transactions" | "/v1/wallets/{userId}/transactions" => json!({"type": "credit", "amountMinor": 5}),
        _ => json!({"amountMinor": 5}),
    }
}

/// What an endpoint needs in its query.
fn required_query(path: &str) -> &'static str {
    if path.ends_with("/statements") { "from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z&" } else { "" }
}

#[tokio::test]
async fn an_unknown_query_parameter_is_a_400_on_every_endpoint_and_nothing_is_done() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let own = client.post(&user, "credit", 5, None).await.body["id"].as_str().expect("id").to_owned();
    let mut tried = 0;
    for url in [&client.users, &client.wallet] {
        let document = Document::of(&client, url).await;
        for (method, path, _) in document.operations() {
            let (real, token) = path_and_token(&path, &user, &own);
            let required = required_query(&path);
            for (query, field) in [
                ("dryRun=true", "dryRun"),
                ("x", "x"),
                ("x=", "x"),
                ("=1", ""),
                ("%64ryRun=1", "dryRun"),
                ("amountMinor=1", "amountMinor"),
                ("token=x", "token"),
            ] {
                let request = |method: Method| {
                    let request = client.request(method.clone(), &format!("{url}{real}?{required}{query}"));
                    let request = request.bearer_auth(&token);
                    if method == Method::POST { request.json(&body(&path)) } else { request }
                };
                let about = format!("{method} {path}?{query}");
                let response = client.send(request(method.parse().expect("method"))).await;
                assert_invalid(&response, &[field], &about);
                if method == "GET" {
                    let head = request(Method::HEAD).send().await.expect("a response");
                    assert_eq!(head.status(), 400, "HEAD of {about}");
                }
                tried += 1;
            }
            let undecodable =
                client.request(method.parse().expect("method"), &format!("{url}{real}?{required}x=1&x=2&y"));
            let response = client.send(undecodable.bearer_auth(&token).json(&body(&path))).await;
            assert_invalid(&response, &["x", "x", "y"], &format!("{method} {path}: every problem"));
        }
    }
    assert!(tried >= 9 * 7, "{tried}");
    assert_eq!(client.balance(&user).await, 5);
    assert_eq!(world.sql(Role::Wallet, "SELECT count(*) FROM transactions").await, "1");
    assert_eq!(world.sql(Role::Users, "SELECT count(*) FROM users").await, "1");
}

#[tokio::test]
async fn an_empty_query_is_no_parameter() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    for query in ["?", "?&", "?&&"] {
        let url = format!("{}/v1/transactions/credit{query}", client.wallet);
        let request = client.request(Method::POST, &url).bearer_auth(&user.token).json(&json!({"amountMinor": 5}));
        let response = client.send(request).await;
        assert_eq!(response.status, 201, "{query}: {response:?}");
        let me = client.request(Method::GET, &format!("{}/v1/users/me{query}", client.users));
        assert_eq!(client.send(me.bearer_auth(&user.token)).await.status, 200, "{query}");
    }
}

#[tokio::test]
async fn an_unknown_query_parameter_comes_after_path_method_token_limit_and_gate_and_before_the_body() {
    let world = World::new().await;
    let limited = [("RATE_LIMIT_ENABLED", "true"), ("RL_TX_MAX", "1"), ("RL_REGISTER_MAX", "1")];
    let (users, wallet) =
        tokio::join!(world.start_with(Role::Users, &limited), world.start_with(Role::Wallet, &limited));
    let client = Client::new(&users.url(), &wallet.url());
    let user = client.ready_user().await;
    let without_wallet = token_of(&unknown_user_id());
    let (users, wallet) = (client.users.clone(), client.wallet.clone());
    let send = async |method: Method, url: String, token: &str| {
        let request = client.request(method, &format!("{url}?x=1")).bearer_auth(token).body("not JSON");
        client.send(request).await
    };
    assert_error(&send(Method::GET, format!("{wallet}/v1/nothing"), &user.token).await, 404, "NOT_FOUND", "path");
    let method = send(Method::PUT, format!("{wallet}/v1/balance"), &user.token).await;
    assert_error(&method, 405, "METHOD_NOT_ALLOWED", "method");
    let credit = format!("{wallet}/v1/transactions/credit");
    assert_error(&send(Method::POST, credit.clone(), "nonsense").await, 401, "UNAUTHORIZED", "token");
    let register = format!("{users}/v1/auth/register");
    assert_error(&send(Method::POST, register, "").await, 429, "RATE_LIMITED", "limit");
    for path in ["/v1/balance", "/v1/transactions", "/v1/transactions/x", "/v1/wallet/status"] {
        let gate = send(Method::GET, format!("{wallet}{path}"), &without_wallet).await;
        assert_error(&gate, 503, "WALLET_PROVISIONING", path);
    }
    let gate = send(Method::POST, credit.clone(), &without_wallet).await;
    assert_error(&gate, 503, "WALLET_PROVISIONING", "gate");
    assert_invalid(&send(Method::POST, credit.clone(), &user.token).await, &["x"], "before the body is read");
    assert_error(&send(Method::POST, credit, &user.token).await, 429, "RATE_LIMITED", "it is counted");
}

#[tokio::test]
async fn probes_metrics_and_documents_ignore_queries() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    for url in [&client.users, &client.wallet] {
        for path in IGNORES_QUERIES.iter().chain(&["/docs/page.css"]) {
            for method in [Method::GET, Method::HEAD] {
                let sent = client.request(method.clone(), &format!("{url}{path}?format=prometheus&_=1")).send().await;
                assert_eq!(sent.expect("a response").status(), 200, "{method} {url}{path}");
            }
        }
    }
    let live = client.send(client.request(Method::GET, &format!("{}/health/live?x", client.users))).await;
    assert_json_response(&live, "live");
}

#[tokio::test]
async fn a_second_of_60_is_a_400_everywhere() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    client.post(&user, "credit", 5, None).await;
    // Also where a leap second was inserted: 2016-12-31 ended with one.
    for time in [
        "2026-01-31T12:00:60Z",
        "2026-01-31T12:00:60.999999Z",
        "2016-12-31T23:59:60Z",
        "2017-01-01T08:59:60%2B09:00",
        "9999-12-31T23:59:60Z",
        "2026-01-31T12:00:61Z",
        "2026-01-31T12:60:00Z",
    ] {
        for (path, field) in
            [("/v1/balance?at", "at"), ("/v1/transactions?from", "from"), ("/v1/transactions?to", "to")]
        {
            assert_invalid(&client.get(&user, &format!("{path}={time}")).await, &[field], time);
        }
        let time = time.replace("%2B", "+");
        let republish = purse(&["outbox", "republish", "--since", &time], &world.settings(Role::Users)).await;
        assert_eq!(republish.code, Some(64), "{time}: {republish:?}");
    }
}

/// A registration with these names and address.
async fn register_as(client: &Client, first_name: &str, last_name: &str, email: &str) -> Response {
    let body = json!({"firstName": first_name, "lastName": last_name, "email": email, "password": PASSWORD});
    client.send(client.request(Method::POST, &format!("{}/v1/auth/register", client.users)).json(&body)).await
}

#[tokio::test]
async fn a_name_without_a_visible_character_is_blank() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    for blank in [
        "\u{200b}",
        "\u{2060}",
        "\u{feff}",
        "\u{ad}",
        "\u{301}",
        " \u{200b} \u{301} ",
        "\u{200d}\u{200d}",
        "\u{202e}",
        "\u{3164}",
        "\u{115f}\u{1160}",
        "\u{ffa0}",
        "\u{fe0f}",
        "\u{e0041}",
        "\u{2800}",
        "\u{180e}",
        "\u{34f}",
        "\u{20dd}",
        "\u{93f}",
        "\u{fff9}",
    ] {
        let response = register_as(&client, blank, "L", &Client::fresh_email()).await;
        assert_invalid(&response, &["firstName"], &format!("{blank:?}"));
        assert_eq!(response.body["details"][0]["message"], "must not be blank", "{blank:?}");
        let response = register_as(&client, "A", blank, &Client::fresh_email()).await;
        assert_invalid(&response, &["lastName"], &format!("{blank:?}"));
    }
    for (name, stored) in
        [("संपर्क", "संपर्क"), ("e\u{301}", "e\u{301}"), ("می\u{200c}خواهم", "می\u{200c}خواهم"), ("李", "李"), (" -", "-")]
    {
        let response = register_as(&client, name, name, &Client::fresh_email()).await;
        assert_eq!(response.status, 201, "{name}: {response:?}");
        assert_eq!(response.body["user"]["firstName"], stored);
    }
}

#[tokio::test]
async fn an_address_may_have_combining_marks_and_has_one_normal_form() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    for (sent, stored) in [
        ("संपर्क@डाटामेल.भारत", "संपर्क@डाटामेल.भारत"),
        ("Jose\u{301}@exa\u{301}mple.com", "jos\u{e9}@ex\u{e1}mple.com"),
        ("ผู้ใช้@ตัวอย่าง.ไทย", "ผู้ใช้@ตัวอย่าง.ไทย"),
        ("\u{10d}a\u{301}\u{328}@example.com", "\u{10d}\u{105}\u{301}@example.com"),
    ] {
        let response = register_as(&client, "A", "B", sent).await;
        assert_eq!((response.status.as_u16(), &response.body["user"]["email"]), (201, &json!(stored)), "{response:?}");
        for spelling in [sent, stored, &stored.to_uppercase()] {
            assert_eq!(register_as(&client, "A", "B", spelling).await.code(), "EMAIL_EXISTS", "{spelling}");
            assert_eq!(client.log_in(spelling, PASSWORD).await.status, 200, "{spelling}");
        }
    }
    for refused in
        ["\u{301}a@example.com", "a@\u{301}b.com", "a.\u{301}b@example.com", "a@b.\u{301}com", "a@exa\u{200b}mple.com"]
    {
        assert_invalid(&register_as(&client, "A", "B", refused).await, &["email"], &format!("{refused:?}"));
    }
}

#[tokio::test]
async fn stored_values_that_a_later_rule_refuses_are_returned_as_they_are() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let (name, email) = ("\u{200b}", "not an address");
    let change = format!("UPDATE users SET first_name = '{name}', last_name = E'A\\x07', email = '{email}'");
    world.sql(Role::Users, &change).await;
    let me = client.me(&user.token).await;
    assert_eq!(me.status, 200, "{me:?}");
    assert_eq!(
        (&me.body["firstName"], &me.body["lastName"], &me.body["email"]),
        (&json!(name), &json!("A\u{7}"), &json!(email))
    );
    let insert = format!(
        "INSERT INTO transactions (user_id, seq, id, type, amount_minor, balance_after_minor, held_after_minor, idempotency_key,
                                   request_digest, created_at, hash)
         VALUES ('{}', 1, gen_random_uuid(), 'credit', 5, 5, 0, 'an old key', '\\x00112233445566778899aabbccddeeff',
                 '2026-01-31T12:00:00Z', sha256(''))",
        user.id
    );
    world.sql(Role::Wallet, &insert).await;
    assert_eq!(client.get(&user, "/v1/transactions").await.body["items"][0]["amountMinor"], 5);
    assert_eq!(client.post(&user, "credit", 5, Some("k")).await.status, 201);
}

/// Every timestamp of a JSON value, by the name of its field.
fn times(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| times(item, found)),
        Value::Object(fields) => {
            for (name, value) in fields {
                let is_time = name == "at" || name == "ts" || name.ends_with("At");
                found.extend(value.as_str().filter(|_| is_time).map(str::to_owned));
                times(value, found);
            }
        }
        _ => {}
    }
}

fn assert_six_digits(value: &Value, count: usize) {
    let mut found = Vec::new();
    times(value, &mut found);
    assert_eq!(found.len(), count, "{value}");
    for time in found {
        let is_whole = time.len() == "2026-01-31T12:00:00.000000Z".len();
        assert!(is_whole && time.as_bytes()[19] == b'.' && time.ends_with('Z'), "{time}");
    }
}

#[tokio::test]
async fn every_time_in_a_response_or_log_has_six_digits_and_sorts_as_text() {
    let world = World::new().await;
    let (users, wallet, client) = world.both().await;
    let user = client.ready_user().await;
    for (seq, time) in [(1, "2026-01-31T12:00:00Z"), (2, "2026-01-31T12:00:00.5Z"), (3, "2026-01-31T12:00:00.51Z")] {
        let insert = format!(
            "INSERT INTO transactions (user_id, seq, id, type, amount_minor, balance_after_minor, held_after_minor, created_at, hash)
             VALUES ('{}', {seq}, gen_random_uuid(), 'credit', 1, {seq}, 0, '{time}', sha256(''))",
            user.id
        );
        world.sql(Role::Wallet, &insert).await;
    }
    world.sql(Role::Wallet, "UPDATE wallets SET created_at = '2026-01-31T12:00:00Z'").await;
    world.sql(Role::Users, "UPDATE users SET created_at = '2026-01-31T12:00:00.1Z'").await;
    world
        .sql(
            Role::Users,
            "UPDATE outbox SET created_at = '2026-01-31T12:00:00Z', status = 'pending', published_at = NULL,
               attempts = 1, last_error = 'x', next_attempt_at = '2999-01-01T00:00:00Z'",
        )
        .await;
    let page = client.get(&user, "/v1/transactions").await.body;
    assert_six_digits(&page, 3);
    assert_eq!(page["items"][0]["createdAt"], "2026-01-31T12:00:00.510000Z");
    let id = page["items"][2]["id"].as_str().expect("id");
    assert_six_digits(&client.get(&user, &format!("/v1/transactions/{id}")).await.body, 1);
    assert_six_digits(&client.get(&user, "/v1/wallet/status").await.body, 1);
    assert_six_digits(&client.me(&user.token).await.body, 1);
    assert_six_digits(&register_as(&client, "A", "B", &Client::fresh_email()).await.body, 1);
    assert_six_digits(&client.post(&user, "credit", 5, None).await.body, 1);
    let status = purse(&["outbox", "status", "--format", "json"], &world.settings(Role::Users)).await;
    assert_six_digits(&status.done(), 2);
    for line in users.log().iter().chain(&wallet.log()) {
        assert_six_digits(&json!({"ts": line["ts"]}), 1);
    }
}
