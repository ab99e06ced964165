//! Invalid input to the wallet role's POST routes, and the bounds of valid input.

use purse::kernel::Role;
use reqwest::Method;
use reqwest::header::HeaderValue;
use serde_json::{Value, json};

use crate::support::{Client, Response, User, World, assert_error, assert_invalid, assert_json_response};

const ROUTES: [&str; 3] = ["/v1/transactions/credit", "/v1/transactions/debit", "/v1/transactions"];
const ROWS: &str = "SELECT count(*), coalesce(sum(amount_minor), 0) FROM transactions";

/// A body with these fields, and with the type if the route requires it.
fn body_of(route: &str, fields: &str) -> String {
    if route == "/v1/transactions" { format!(r#"{{"type":"credit",{fields}}}"#) } else { format!("{{{fields}}}") }
}

async fn send(client: &Client, user: &User, route: &str, body: String) -> Response {
    let request = client.request(Method::POST, &format!("{}{route}", client.wallet)).bearer_auth(&user.token);
    client.send(request.header("content-type", "application/json").body(body)).await
}

#[tokio::test]
async fn only_an_amount_that_is_an_integer_literal_in_range_moves_money() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    client.post(&user, "credit", 1000, None).await;
    let before = world.sql(Role::Wallet, ROWS).await;
    let digits = "9".repeat(400);
    for route in ROUTES {
        for amount in [
            "5.0",
            "5.5",
            "0.1",
            "1e2",
            "1E2",
            "5e0",
            "1e-2",
            "\"5\"",
            "\"\"",
            "\"five\"",
            "true",
            "false",
            "[]",
            "[5]",
            "{}",
            "{\"value\":5}",
            "null",
            "0",
            "-0",
            "-1",
            "-9007199254740991",
            "-9223372036854775808",
            "9007199254740992",
            "9223372036854775807",
            "9223372036854775808",
            "18446744073709551615",
            "18446744073709551616",
            "100000000000000000000000",
        ] {
            let response = send(&client, &user, route, body_of(route, &format!("\"amountMinor\":{amount}"))).await;
            assert_invalid(&response, &["amountMinor"], &format!("{route} {amount}"));
        }
        // Not JSON, or not a number that the parser can represent.
        for amount in ["05", "+5", ".5", "5.", "0x5", "1_000", "NaN", "Infinity", "-", "1e400", "--5", "５", &digits] {
            let response = send(&client, &user, route, body_of(route, &format!("\"amountMinor\":{amount}"))).await;
            assert_error(&response, 400, "VALIDATION_ERROR", &format!("{route} {amount}"));
            assert!(matches!(response.fields()[..], ["amountMinor" | "body"]), "{route} {amount}: {response:?}");
        }
        assert_invalid(
            &send(&client, &user, route, body_of(route, "\"description\":\"x\"")).await,
            &["amountMinor"],
            route,
        );
    }
    assert_eq!(world.sql(Role::Wallet, ROWS).await, before);
    assert_eq!(client.balance(&user).await, 1000);
}

#[tokio::test]
async fn an_invalid_description_or_type_or_an_unknown_field_moves_no_money() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let (long, wide) = (format!("\"{}\"", "x".repeat(256)), format!("\"{}\"", "ü".repeat(256)));
    for route in ROUTES {
        for description in ["5", "true", "[]", "{}", "\"a\\u0000b\"", "\"\\u0000\"", &long, &wide] {
            let body = body_of(route, &format!("\"amountMinor\":5,\"description\":{description}"));
            assert_invalid(
                &send(&client, &user, route, body).await,
                &["description"],
                &format!("{route} {description}"),
            );
        }
        for unknown in ["amount", "currency", "userId", "createdAt", "AmountMinor", "idempotencyKey"] {
            let body = body_of(route, &format!("\"amountMinor\":5,\"{unknown}\":1"));
            assert_invalid(&send(&client, &user, route, body).await, &[unknown], &format!("{route} {unknown}"));
        }
    }
    for kind in ["null", "\"\"", "\"Credit\"", "\"CREDIT\"", "\"transfer\"", "\"credit \"", "5", "[\"credit\"]", "{}"] {
        let body = format!("{{\"type\":{kind},\"amountMinor\":5}}");
        assert_invalid(&send(&client, &user, "/v1/transactions", body).await, &["type"], kind);
    }
    let missing = send(&client, &user, "/v1/transactions", "{}".into()).await;
    assert_invalid(&missing, &["type", "amountMinor"], "both are missing");
    for route in &ROUTES[..2] {
        let body = "{\"type\":\"credit\",\"amountMinor\":5}".to_owned();
        assert_invalid(&send(&client, &user, route, body).await, &["type"], "the path determines the type");
    }
    assert_eq!(world.sql(Role::Wallet, ROWS).await, "0|0");
}

#[tokio::test]
async fn the_longest_description_and_the_largest_amount_are_accepted_and_a_larger_balance_is_not() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let longest = "ü".repeat(255);
    for (sent, stored) in [
        (json!({"amountMinor": 1, "description": longest}), json!(longest)),
        (
            json!({"amountMinor": 1, "description": "  '; DROP TABLE transactions;-- \n\t<b>"}),
            json!("  '; DROP TABLE transactions;-- \n\t<b>"),
        ),
        (json!({"amountMinor": 1, "description": ""}), json!("")),
        (json!({"amountMinor": 1, "description": null}), Value::Null),
        (json!({"amountMinor": 1}), Value::Null),
    ] {
        let response = client.send(client.post_request(&user, "credit", &sent, None)).await;
        assert_eq!((response.status.as_u16(), &response.body["description"]), (201, &stored), "{response:?}");
        assert_json_response(&response, "a credit");
        let keys: Vec<_> = response.body.as_object().expect("object").keys().cloned().collect();
        assert_eq!(keys, ["amountMinor", "balanceAfterMinor", "createdAt", "description", "id", "type"]);
        let id = response.body["id"].as_str().expect("id");
        assert_eq!(client.get(&user, &format!("/v1/transactions/{id}")).await.body, response.body);
    }
    let richest = client.ready_user().await;
    let most = 9_007_199_254_740_991;
    assert_eq!(client.post(&richest, "credit", most, None).await.body["balanceAfterMinor"], json!(most));
    assert_error(&client.post(&richest, "credit", 1, Some("k")).await, 409, "BALANCE_LIMIT", "one cent too many");
    assert_error(&client.post(&richest, "credit", most, None).await, 409, "BALANCE_LIMIT", "twice the largest");
    assert_eq!(client.post(&richest, "debit", most, Some("k")).await.body["balanceAfterMinor"], json!(0));
    assert_error(&client.post(&richest, "debit", 1, None).await, 409, "INSUFFICIENT_FUNDS", "nothing left");
}

#[tokio::test]
async fn an_idempotency_key_is_one_header_of_1_to_128_visible_ascii_characters() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let request = |value: &[u8]| {
        let value = HeaderValue::from_bytes(value).expect("a header value");
        client.post_request(&user, "credit", &json!({"amountMinor": 5}), None).header("idempotency-key", value)
    };
    let (longest, too_long) = ("k".repeat(128), "k".repeat(129));
    for invalid in ["", "a b", "a\tb", "ü", "key-\u{20ac}", too_long.as_str()] {
        assert_invalid(&client.send(request(invalid.as_bytes())).await, &["Idempotency-Key"], invalid);
    }
    assert_invalid(&client.send(request(b"\xff\xfe")).await, &["Idempotency-Key"], "not UTF-8");
    for (first, second) in [("one", "two"), ("same", "same")] {
        let twice = request(first.as_bytes()).header("idempotency-key", second);
        assert_invalid(&client.send(twice).await, &["Idempotency-Key"], "twice");
    }
    assert_eq!(world.sql(Role::Wallet, ROWS).await, "0|0");
    // Rejected requests have consumed no key, and the bounds are accepted.
    for valid in ["one", "same", "!", "~", "\"quoted\"", "a,b;c", longest.as_str()] {
        let first = client.send(request(valid.as_bytes())).await;
        assert_eq!(first.status, 201, "{valid}: {first:?}");
        assert!(!first.headers.contains_key("idempotent-replayed"));
        let again = client.send(request(valid.as_bytes())).await;
        assert_eq!((again.status.as_u16(), again.header("idempotent-replayed")), (200, "true"), "{valid}");
        assert_eq!(again.body, first.body);
    }
    assert_eq!(client.balance(&user).await, 35);
}
