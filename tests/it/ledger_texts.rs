//! References and metadata of transactions: what is accepted, what a replay compares, and how the history is filtered by them.

use purse::kernel::Role;
use reqwest::Method;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::ledger_statements::until_tomorrow;
use crate::support::{Client, Response, RoleProcess, User, World, assert_error, assert_invalid, purse, token_of};

const ROUTES: [&str; 3] = ["/v1/transactions/credit", "/v1/transactions/debit", "/v1/transactions"];

/// Both roles, and a user with some money.
async fn wallet_with_money() -> (World, [RoleProcess; 2], Client, User) {
    let world = World::new().await;
    let (users, wallet, client) = world.both().await;
    let user = client.ready_user().await;
    assert_eq!(client.post(&user, "credit", 100_000, None).await.status, 201);
    (world, [users, wallet], client, user)
}

/// A post with these fields beside those that its route needs.
async fn post(client: &Client, user: &User, route: &str, fields: &str, key: Option<&str>) -> Response {
    let kind = if route.ends_with("transactions") { "\"type\":\"debit\"," } else { "" };
    let body = format!("{{{kind}\"amountMinor\":5,{fields}}}");
    let request = client.request(Method::POST, &format!("{}{route}", client.wallet)).bearer_auth(&user.token);
    let request = match key {
        Some(key) => request.header("idempotency-key", key),
        None => request,
    };
    client.send(request.header("content-type", "application/json").body(body)).await
}

async fn credit(client: &Client, user: &User, fields: Value) -> String {
    let fields = fields.to_string();
    let fields = fields.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).expect("an object");
    let response = post(client, user, ROUTES[0], fields, None).await;
    assert_eq!(response.status, 201, "{response:?}");
    response.body["id"].as_str().expect("an id").to_owned()
}

fn ids(response: &Response) -> Vec<&str> {
    assert_eq!(response.status, 200, "{response:?}");
    let items = response.body["items"].as_array().expect("items");
    items.iter().map(|item| item["id"].as_str().expect("an id")).collect()
}

/// Every page of a filtered history: ids, newest first, and the number of pages.
async fn all(client: &Client, user: &User, filter: &str) -> (Vec<String>, usize) {
    all_after(client, user, filter, String::new()).await
}

/// The same after a page; `cursor` is the parameter that leads to the next one.
async fn all_after(client: &Client, user: &User, filter: &str, mut cursor: String) -> (Vec<String>, usize) {
    let (mut found, mut pages) = (Vec::new(), 0);
    loop {
        let page = client.get(user, &format!("/v1/transactions?{filter}{cursor}")).await;
        found.extend(ids(&page).into_iter().map(str::to_owned));
        pages += 1;
        match page.body["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return (found, pages),
        }
    }
}

#[tokio::test]
async fn a_transaction_shows_its_reference_and_metadata_wherever_it_is_returned() {
    let (world, _roles, client, user) = wallet_with_money().await;
    for route in ROUTES {
        let fields = r#""reference":"order-17 ü","metadata":{"orderId":"17","b.c_d-E":"","a":"\"x\\ ü"}"#;
        let posted = post(&client, &user, route, fields, None).await;
        assert_eq!(posted.status, 201, "{posted:?}");
        assert_eq!(posted.body["reference"], "order-17 ü");
        assert_eq!(posted.body["metadata"], json!({"a": "\"x\\ ü", "b.c_d-E": "", "orderId": "17"}));
        assert_eq!(posted.body["description"], Value::Null);
        let id = posted.body["id"].as_str().expect("an id");
        assert_eq!(client.get(&user, &format!("/v1/transactions/{id}")).await.body, posted.body);
        assert_eq!(client.get(&user, "/v1/transactions?limit=1").await.body["items"][0], posted.body);
    }
    let stored = "SELECT DISTINCT metadata FROM entry_texts";
    assert_eq!(world.sql(Role::Wallet, stored).await.trim(), r#"{"a":"\"x\\ ü","b.c_d-E":"","orderId":"17"}"#);
    let only = post(&client, &user, ROUTES[0], r#""reference":"r","metadata":null"#, None).await;
    assert_eq!((&only.body["reference"], only.body.get("metadata")), (&json!("r"), None));

    let statement = format!("/v1/statements?{}&format=ndjson", until_tomorrow());
    let lines = client.get(&user, &statement).await.body;
    let last: Value =
        serde_json::from_str(lines.as_str().expect("a text").lines().last().expect("a line")).expect("JSON");
    assert_eq!(last, only.body);
    let csv = client.get(&user, statement.trim_end_matches("&format=ndjson")).await.body;
    assert!(csv.as_str().expect("a text").contains(",\"order-17 ü\",,"), "{csv}");

    let verified = purse(&["ledger", "verify"], &world.settings(Role::Wallet)).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
}

#[tokio::test]
async fn a_transaction_without_new_texts_has_no_new_fields() {
    let (_world, _roles, client, user) = wallet_with_money().await;
    for fields in [r#""description":"x""#, r#""description":null"#, r#""reference":null,"metadata":null"#] {
        let response = post(&client, &user, ROUTES[0], fields, None).await;
        let keys: Vec<&String> = response.body.as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["amountMinor", "balanceAfterMinor", "createdAt", "description", "id", "type"], "{fields}");
    }
}

#[tokio::test]
async fn a_replay_has_the_same_reference_and_the_same_metadata_in_any_order() {
    let (_world, _roles, client, user) = wallet_with_money().await;
    for route in ROUTES {
        let first = r#""reference":"r","metadata":{"a":"1","b":"2"}"#;
        let posted = post(&client, &user, route, first, Some(route)).await;
        assert_eq!(posted.status, 201, "{posted:?}");
        for same in [first, r#""metadata" : { "b":"2", "\u0061":"1" }, "reference":"\u0072", "description":null"#] {
            let replay = post(&client, &user, route, same, Some(route)).await;
            assert_eq!((replay.status.as_u16(), replay.header("idempotent-replayed")), (200, "true"), "{same}");
            assert_eq!(replay.body, posted.body);
        }
        for other in [
            r#""reference":"r","metadata":{"a":"1","b":"3"}"#,
            r#""reference":"r","metadata":{"a":"1"}"#,
            r#""reference":"r","metadata":{"a":"1","b":"2","c":""}"#,
            r#""reference":"R","metadata":{"a":"1","b":"2"}"#,
            r#""reference":"r""#,
            r#""metadata":{"a":"1","b":"2"}"#,
            r#""description":"r","metadata":{"a":"1","b":"2"}"#,
            r#""description":null"#,
        ] {
            let refused = post(&client, &user, route, other, Some(route)).await;
            assert_error(&refused, 422, "IDEMPOTENCY_KEY_REUSED", other);
        }
    }
}

/// Metadata whose canonical form has this many bytes.
fn metadata_of(bytes: usize) -> Value {
    let mut pairs: Map<String, Value> = (0..15).map(|n| (format!("k{n:02}"), json!("x".repeat(255)))).collect();
    pairs.insert("rest".to_owned(), json!(""));
    let rest = bytes - Value::Object(pairs.clone()).to_string().len();
    pairs.insert("rest".to_owned(), json!("x".repeat(rest)));
    Value::Object(pairs)
}

#[tokio::test]
async fn an_invalid_reference_or_metadata_returns_400_naming_it_and_moves_no_money() {
    let (world, _roles, client, user) = wallet_with_money().await;
    let keys =
        |count: usize| json!((0..count).map(|n| (format!("k{n}"), "v")).collect::<std::collections::BTreeMap<_, _>>());
    let mut cases: Vec<(String, Vec<&str>)> = Vec::new();
    for reference in [
        "\"\"",
        "5",
        "true",
        "[]",
        "{}",
        "\"a\\nb\"",
        "\"a\\u0000\"",
        "\"\\u0085\"",
        &format!("\"{}\"", "ü".repeat(65)),
    ] {
        cases.push((format!("\"reference\":{reference}"), vec!["reference"]));
    }
    let long = format!("{{\"a\":\"{}\"}}", "ü".repeat(256));
    let (many, large) = (keys(21).to_string(), metadata_of(4_097).to_string());
    for metadata in [
        "{}",
        "5",
        "\"a\"",
        "true",
        "[]",
        "[{\"a\":\"1\"}]",
        "{\"\":\"1\"}",
        "{\"a b\":\"1\"}",
        "{\"ä\":\"1\"}",
        "{\"a\":\"\\u0000\"}",
        "{\"a\":\"x\\ty\"}",
        &format!("{{\"{}\":\"1\"}}", "k".repeat(41)),
        &long,
        &many,
        &large,
    ] {
        cases.push((format!("\"metadata\":{metadata}"), vec!["metadata"]));
    }
    for value in ["1", "1.5", "true", "null", "{}", "{\"b\":\"c\"}", "[\"x\"]"] {
        cases.push((format!("\"metadata\":{{\"a\":{value},\"b\":\"c\"}}"), vec!["metadata.a"]));
    }
    cases.push((r#""metadata":{"a":"1","a":"1"}"#.to_owned(), vec!["metadata.a"]));
    cases.push((r#""metadata":{"a":"1"},"metadata":{"a":"1"}"#.to_owned(), vec!["metadata"]));
    cases.push((r#""metadata":{"a":"\ud800"}"#.to_owned(), vec!["body"]));
    cases.push((r#""reference":"\udc00x""#.to_owned(), vec!["body"]));
    cases.push((r#""reference":"","metadata":{}"#.to_owned(), vec!["reference", "metadata"]));
    for route in ROUTES {
        for (fields, names) in &cases {
            assert_invalid(&post(&client, &user, route, fields, None).await, names, &format!("{route} {fields}"));
        }
    }
    assert_eq!(client.balance(&user).await, 100_000);
    for fields in [
        json!({"reference": "ü".repeat(64)}),
        json!({"metadata": keys(20)}),
        json!({"metadata": {"k".repeat(40): "ü".repeat(255)}}),
        json!({"metadata": metadata_of(4_096)}),
        json!({"metadata": {"a": "=1 '; DROP TABLE entry_texts;--"}}),
    ] {
        credit(&client, &user, fields).await;
    }
    assert_eq!(world.sql(Role::Wallet, "SELECT max(octet_length(metadata)) FROM entry_texts").await.trim(), "4096");
}

#[tokio::test]
async fn the_history_is_filtered_by_reference_which_several_transactions_may_share() {
    let (_world, _roles, client, user) = wallet_with_money().await;
    let other = client.ready_user().await;
    credit(&client, &other, json!({"reference": "shared"})).await;
    let first = credit(&client, &user, json!({"reference": "shared", "metadata": {"n": "1"}})).await;
    credit(&client, &user, json!({"reference": "shared2"})).await;
    credit(&client, &user, json!({"reference": "Shared"})).await;
    credit(&client, &user, json!({"description": "shared"})).await;
    let debit = post(&client, &user, ROUTES[1], r#""reference":"shared""#, None).await;
    let (debit, time) = (debit.body["id"].as_str().expect("an id").to_owned(), debit.body["createdAt"].clone());
    let time = time.as_str().expect("a time");
    let last = credit(&client, &user, json!({"reference": "shared", "metadata": {"n": "2"}})).await;
    let odd = credit(&client, &user, json!({"reference": "50% & more: +/ü'\"\\"})).await;
    for (filter, expected) in [
        ("reference=shared", vec![&last, &debit, &first]),
        ("reference=shared&type=debit", vec![&debit]),
        (&format!("reference=shared&from={time}"), vec![&last, &debit]),
        (&format!("reference=shared&to={time}"), vec![&first]),
        (&format!("reference=shared&from={time}&to={time}"), vec![]),
        ("reference=shared&metadata.n=2", vec![&last]),
        ("reference=shared&limit=1", vec![&last, &debit, &first]),
        ("reference=nothing", vec![]),
        ("reference=%25", vec![]),
        ("reference=50%25%20%26%20more:%20%2B/%C3%BC'%22%5C", vec![&odd]),
    ] {
        let (found, pages) = all(&client, &user, filter).await;
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{filter}");
        assert_eq!(pages, if filter.ends_with("limit=1") { 3 } else { 1 }, "{filter}");
    }
}

#[tokio::test]
async fn every_filter_by_metadata_has_to_match_exactly() {
    let (_world, _roles, client, user) = wallet_with_money().await;
    let other = client.ready_user().await;
    credit(&client, &other, json!({"metadata": {"orderId": "17"}})).await;
    let plain = credit(&client, &user, json!({"metadata": {"orderId": "17"}})).await;
    let more =
        credit(&client, &user, json!({"metadata": {"orderId": "17", "shop": "a", "z": "\"orderId\":\"18\""}})).await;
    credit(&client, &user, json!({"metadata": {"orderId": "170"}})).await;
    let without_value = credit(&client, &user, json!({"metadata": {"gift": "", "orderId": "19"}})).await;
    credit(&client, &user, json!({"metadata": {"xorderId": "17", "orderid": "17"}})).await;
    credit(&client, &user, json!({"metadata": {"note": "orderId\":\"17"}})).await;
    credit(&client, &user, json!({"description": "\"orderId\":\"17\"", "reference": "17"})).await;
    for (filter, expected) in [
        ("metadata.orderId=17", vec![&more, &plain]),
        ("metadata.orderId=17&metadata.shop=a", vec![&more]),
        ("metadata.shop=a&metadata.orderId=17&metadata.z=%22orderId%22:%2218%22", vec![&more]),
        ("metadata.orderId=17&metadata.shop=b", vec![]),
        ("metadata.orderId=18", vec![]),
        ("metadata.orderId=17&type=debit", vec![]),
        ("metadata.orderId=17&limit=1", vec![&more, &plain]),
        ("metadata.%6FrderId=%31%37&reference=17", vec![]),
        ("metadata.none=1", vec![]),
        ("metadata.orderId.not=17", vec![]),
        ("metadata.gift=", vec![&without_value]),
        ("metadata.gift", vec![&without_value]),
        ("metadata.gift=&metadata.orderId=19", vec![&without_value]),
        ("metadata.orderId=", vec![]),
    ] {
        let (found, _) = all(&client, &user, filter).await;
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{filter}");
    }
}

#[tokio::test]
async fn an_invalid_filter_by_texts_returns_400_naming_it() {
    let (_world, _roles, client, user) = wallet_with_money().await;
    let long = format!("metadata.a={}", "x".repeat(256));
    let reference = format!("reference={}", "x".repeat(65));
    for (query, fields) in [
        ("metadata.=x", vec!["metadata."]),
        ("metadata.a=%ff", vec!["metadata.a"]),
        ("metadata.%ff=a", vec!["metadata.\u{fffd}"]),
        ("reference=%ff", vec!["reference"]),
        ("reference=order-%C3%BC%C3", vec!["reference"]),
        ("metadata.a%20b=x", vec!["metadata.a b"]),
        ("metadata.a!=1", vec!["metadata.a!"]),
        ("metadata.!a=1", vec!["metadata.!a"]),
        ("metadata.a=x%00", vec!["metadata.a"]),
        (&long, vec!["metadata.a"]),
        ("metadata.a=1&metadata.a=2", vec!["metadata.a"]),
        ("metadata.a=1&metadata.b=1&metadata.c=1&metadata.d=1", vec!["metadata"]),
        ("metadata=x", vec!["metadata"]),
        ("metadata%5Ba%5D=x", vec!["metadata[a]"]),
        ("Metadata.a=x", vec!["Metadata.a"]),
        ("reference=", vec!["reference"]),
        ("reference=%0A", vec!["reference"]),
        (&reference, vec!["reference"]),
        ("reference=a&reference=b", vec!["reference"]),
        ("reference=&metadata.=x&limit=0", vec!["limit", "reference", "metadata."]),
    ] {
        assert_invalid(&client.get(&user, &format!("/v1/transactions?{query}")).await, &fields, query);
    }
}

/// Writes a wallet with `count` credits: metadata `n` counts the entries, `every` is 1 on each thousandth, and all have one
/// reference.
async fn wallet_with_metadata(world: &World, count: usize) -> User {
    let id = Uuid::now_v7().to_string();
    world
        .sql(
            Role::Wallet,
            &format!(
                "INSERT INTO wallets (user_id, id) VALUES ('{id}', gen_random_uuid());
                 INSERT INTO transactions (user_id, seq, id, type, amount_minor, balance_after_minor, held_after_minor, texts_digest,
                                           created_at, hash)
                 SELECT '{id}', n, gen_random_uuid(), 'credit', 1, n, 0, sha256(''), now() - interval '1 day' + n * interval '1 second',
                        sha256('')
                 FROM generate_series(1, {count}) AS n;
                 INSERT INTO entry_texts (user_id, seq, salt, reference, metadata)
                 SELECT '{id}', n, uuid_send(gen_random_uuid()), 'all',
                        format('{{\"every\":\"%s\",\"n\":\"%s\"}}', CASE WHEN n % 1000 = 0 THEN 1 ELSE 0 END, n)
                 FROM generate_series(1, {count}) AS n;
                 ANALYZE transactions, entry_texts"
            ),
        )
        .await;
    User { token: token_of(&id), email: String::new(), id }
}

#[tokio::test]
async fn a_filter_by_metadata_looks_at_5000_entries_per_page_and_the_cursor_leads_to_all_of_them() {
    let world = World::new().await;
    drop(world.both().await); // for the migrations
    let user = wallet_with_metadata(&world, 12_000).await;
    let wallet = world.start(Role::Wallet).await;
    let client = Client::new("", &wallet.url());
    for filter in ["metadata.n=1", "reference=all&metadata.n=1"] {
        let first = client.get(&user, &format!("/v1/transactions?{filter}")).await;
        assert_eq!(ids(&first), Vec::<&str>::new(), "{filter}");
        assert!(first.body["nextCursor"].is_string(), "{filter}: there are more entries");
        let (found, pages) = all(&client, &user, filter).await;
        assert_eq!((found.len(), pages), (1, 3), "{filter}");
    }
    // Newer entries are not part of a history that is being followed.
    let first = client.get(&user, "/v1/transactions?metadata.every=1&limit=3").await;
    credit(&client, &user, json!({"metadata": {"every": "1"}})).await;
    let mut found: Vec<String> = ids(&first).into_iter().map(str::to_owned).collect();
    let cursor = format!("&cursor={}", first.body["nextCursor"].as_str().expect("a cursor"));
    let (rest, pages) = all_after(&client, &user, "metadata.every=1&limit=3", cursor).await;
    assert!(pages <= 6, "{pages}");
    found.extend(rest);
    let distinct: std::collections::BTreeSet<_> = found.iter().collect();
    assert_eq!((found.len(), distinct.len()), (12, 12));
    // Exactly as many entries as one page looks at: only the next page can say that there are no more.
    let exact = wallet_with_metadata(&world, 5_000).await;
    assert_eq!(all(&client, &exact, "metadata.n=5001").await, (Vec::new(), 2));
    let fewer = wallet_with_metadata(&world, 4_999).await;
    assert_eq!(all(&client, &fewer, "metadata.n=5001").await, (Vec::new(), 1));
}
