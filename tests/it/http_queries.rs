//! Invalid parameters in queries and paths return a 400 that names them; no filter is silently ignored.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{World, assert_error, assert_invalid, assert_json_response};

const WHEN: &str = "2026-01-31T12:00:00Z";

/// Not RFC 3339 times.
const INVALID_TIMES: [&str; 23] = [
    "",
    "now",
    "0",
    "1767225600",
    "2026-01-31",
    "12:00:00Z",
    "2026-01-31T12:00:00",
    "2026-01-31%2012:00:00Z",
    "2026-01-31T12:00Z",
    "2026-01-31T12Z",
    "20260131T120000Z",
    "2026-01-31T120000Z",
    "2026-01-31T12:00:00,5Z",
    "2026-01-31T12:00:00.Z",
    "2026-01-31T12:00:00%2B02",
    "2026-01-31T12:00:00%2B0200",
    "2026-01-31T12:00:00Z[UTC]",
    "2026-01-31T25:00:00Z",
    "2026-13-01T12:00:00Z",
    "2026-02-30T12:00:00Z",
    "%2B12026-01-31T12:00:00Z",
    "-000001-01-31T12:00:00Z",
    "2026-01-31T12:00:00Z%00",
];

#[tokio::test]
async fn an_invalid_parameter_of_the_history_returns_400_naming_it() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let mut cases: Vec<(String, &str)> = Vec::new();
    for limit in
        ["", "0", "-1", "101", "1.5", "1e1", "ten", "%20", "5%20", "65536", "99999999999999999999", "0x10", "5,6"]
    {
        cases.push((format!("limit={limit}"), "limit"));
    }
    for kind in ["", "CREDIT", "Debit", "all", "credit%20", "credit,debit", "%00", "%ff"] {
        cases.push((format!("type={kind}"), "type"));
    }
    for time in INVALID_TIMES {
        cases.push((format!("from={time}"), "from"));
        cases.push((format!("to={time}"), "to"));
    }
    // Among them v1.0, v1.-1, v1.+4, v1.04, v2.4, more than 64 bits, and text that is not base64.
    for cursor in [
        "",
        "x",
        "!!",
        "%00",
        "%ff%fe",
        "djEuMA",
        "djEuLTE",
        "djEuKzQ",
        "djEuMDQ",
        "djIuNA",
        "djEuOTk5OTk5OTk5OTk5OTk5OTk5OTk",
        "djEuNA==",
        "djEuNA%3D%3D",
        "null",
        "../../etc/passwd",
        "1",
        "'%20OR%201=1--",
    ] {
        cases.push((format!("cursor={cursor}"), "cursor"));
    }
    cases.push((format!("cursor={}", "A".repeat(6000)), "cursor"));
    for unknown in ["offset=5", "Limit=5", "limit%20=5", "sort=asc", "page", "limit[]=5"] {
        let name = unknown.split('=').next().expect("name").trim_end_matches("%20");
        cases.push((unknown.to_owned(), if unknown.contains("%20") { "limit " } else { name }));
    }
    cases.push(("limit=5&limit=5".into(), "limit"));
    cases.push(("type=credit&type=debit".into(), "type"));
    cases.push((format!("from={WHEN}&to=2026-01-31T11:59:59Z"), "to"));
    for (query, field) in cases {
        let response = client.get(&user, &format!("/v1/transactions?{query}")).await;
        assert_invalid(&response, &[field], &query);
    }
    let all = client.get(&user, "/v1/transactions?limit=0&cursor=x&type=x&from=x&to=x&more=x").await;
    assert_invalid(&all, &["limit", "cursor", "type", "from", "to", "more"], "all at once");
}

#[tokio::test]
async fn the_bounds_of_every_parameter_are_accepted() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    client.post(&user, "credit", 5, None).await;
    for query in [
        "",
        "limit=1",
        "limit=100",
        "type=credit",
        "%6Cimit=5",
        "limit=%35",
        "from=0001-01-01T00:00:00Z",
        "to=9999-12-31T23:59:59.999999Z",
        "from=2026-01-31t12:00:00z",
        "from=2026-01-31T12:00:00.123456789-08:00",
        &format!("from={WHEN}&to=2026-01-31T14:00:00%2B02:00"),
    ] {
        let response = client.get(&user, &format!("/v1/transactions?{query}")).await;
        assert_eq!(response.status, 200, "{query}: {response:?}");
        assert_json_response(&response, query);
        let keys: Vec<_> = response.body.as_object().expect("object").keys().cloned().collect();
        assert_eq!(keys, ["items", "nextCursor"], "{query}");
        assert_eq!(response.body["nextCursor"], Value::Null, "{query}");
    }
    let balance = client.get(&user, "/v1/balance?at=9999-12-31T23:59:59Z").await;
    assert_eq!(
        (balance.status.as_u16(), balance.body),
        (200, json!({"balanceMinor": 5, "heldMinor": 0, "availableMinor": 5, "currency": "USD"}))
    );
    for wait in ["wait=0", "wait=30", ""] {
        let ready = client.get(&user, &format!("/v1/wallet/status?{wait}")).await;
        assert_eq!((ready.status.as_u16(), &ready.body["status"]), (200, &json!("ready")), "{wait}");
        assert!(ready.body["createdAt"].as_str().is_some_and(|time| time.ends_with('Z')), "{ready:?}");
    }
}

#[tokio::test]
async fn an_invalid_parameter_of_the_balance_or_the_status_returns_400_naming_it() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    for time in INVALID_TIMES {
        assert_invalid(&client.get(&user, &format!("/v1/balance?at={time}")).await, &["at"], time);
    }
    for (query, field) in
        [("at=2026-01-31T12:00:00Z&at=2026-01-31T12:00:00Z", "at"), ("when=now", "when"), ("At=x", "At")]
    {
        assert_invalid(&client.get(&user, &format!("/v1/balance?{query}")).await, &[field], query);
    }
    for wait in ["", "31", "-1", "1.5", "30s", "abc", "%00", "18446744073709551616", "1%20"] {
        assert_invalid(&client.get(&user, &format!("/v1/wallet/status?wait={wait}")).await, &["wait"], wait);
    }
    for (query, field) in [("wait=1&wait=1", "wait"), ("Wait=1", "Wait"), ("timeout=1", "timeout")] {
        assert_invalid(&client.get(&user, &format!("/v1/wallet/status?{query}")).await, &[field], query);
    }
}

#[tokio::test]
async fn another_users_or_an_invalid_transaction_id_is_not_found() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let (user, other) = (client.ready_user().await, client.ready_user().await);
    let theirs = client.post(&other, "credit", 5, None).await.body["id"].as_str().expect("id").to_owned();
    let own = client.post(&user, "credit", 5, None).await.body["id"].as_str().expect("id").to_owned();
    let (bare, braced) = (own.replace('-', ""), format!("%7B{own}%7D"));
    for id in [
        theirs.as_str(),
        "0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e",
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        &user.id,
        &bare,
        &braced,
        "x",
        "1",
        "-1",
        "null",
        "%00",
        "%ff",
        "%20",
        "'%20OR%201=1--",
        "%2e%2e%2fbalance",
        &"a".repeat(4000),
    ] {
        let response = client.get(&user, &format!("/v1/transactions/{id}")).await;
        assert_error(&response, 404, "TRANSACTION_NOT_FOUND", id);
    }
    assert_eq!(client.get(&user, &format!("/v1/transactions/{own}")).await.status, 200);
    let request = client.request(Method::GET, &format!("{}/v1/transactions/{theirs}", client.wallet));
    assert_eq!(client.send(request.bearer_auth(&other.token)).await.status, 200, "its owner reads it");
}
