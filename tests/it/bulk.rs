//! `POST /v1/transactions/bulk`: several credits and debits in one request, all or none, or each on its own.

use futures_util::future::join_all;
use purse::kernel::Role;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::support::{Client, PATIENCE, Response, User, WalletLock, World, assert_error, eventually, purse};

fn bulk_request(client: &Client, user: &User, body: &Value, key: Option<&str>) -> RequestBuilder {
    client.post_request(user, "bulk", body, key)
}

async fn bulk(client: &Client, user: &User, body: &Value, key: Option<&str>) -> Response {
    client.send(bulk_request(client, user, body, key)).await
}

/// A credit for each positive amount, a debit for each negative one.
fn items(cents: &[i64]) -> Value {
    let item = |cents: &i64| json!({"type": if *cents > 0 { "credit" } else { "debit" }, "amountMinor": cents.abs()});
    cents.iter().map(item).collect()
}

fn atomic(cents: &[i64]) -> Value {
    json!({"items": items(cents)})
}

fn independent(cents: &[i64]) -> Value {
    json!({"atomic": false, "items": items(cents)})
}

/// Status and code of each item.
fn results(response: &Response) -> Vec<(u64, String)> {
    let items = response.body["items"].as_array().unwrap_or_else(|| panic!("{response:?}"));
    let code = |item: &Value| item["code"].as_str().unwrap_or_default().to_owned();
    items.iter().map(|item| (item["status"].as_u64().expect("a status"), code(item))).collect()
}

fn balances(response: &Response) -> Vec<i64> {
    let items = response.body["items"].as_array().unwrap_or_else(|| panic!("{response:?}"));
    items.iter().filter_map(|item| item["balanceAfterMinor"].as_i64()).collect()
}

async fn count(world: &World) -> String {
    world.sql(Role::Wallet, "SELECT count(*) FROM transactions").await
}

async fn assert_verified(world: &World) {
    let verified = purse(&["ledger", "verify"], &world.settings(Role::Wallet)).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
}

#[tokio::test]
async fn an_atomic_bulk_records_all_items_in_order_as_consecutive_transactions() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let mut body = atomic(&[100, -30, 5]);
    body["items"][1]["description"] = json!("fee");
    body["items"][2]["reference"] = json!("order-17");
    body["items"][2]["metadata"] = json!({"b": "2", "a": "1"});
    let created = bulk(&client, &user, &body, Some("whole")).await;
    assert_eq!((created.status.as_u16(), balances(&created)), (201, vec![100, 70, 75]), "{created:?}");
    let history = client.get(&user, "/v1/transactions").await;
    let mut newest_first = created.body["items"].as_array().expect("a list").clone();
    newest_first.reverse();
    assert_eq!(history.body["items"], json!(newest_first));
    assert_eq!(newest_first[1]["description"], json!("fee"));
    assert_eq!(newest_first[0]["reference"], json!("order-17"));
    assert_eq!(newest_first[0]["metadata"], json!({"a": "1", "b": "2"}));
    let replay = bulk(&client, &user, &body, Some("whole")).await;
    assert_eq!((replay.status.as_u16(), &replay.body), (200, &created.body));
    let rows =
        "SELECT string_agg(concat_ws(' ', seq, group_size, idempotency_key), ', ' ORDER BY seq) FROM transactions";
    assert_eq!(world.sql(Role::Wallet, rows).await, "1 3 whole, 2, 3");
    assert_verified(&world).await;
}

#[tokio::test]
async fn an_item_that_is_refused_refuses_an_atomic_bulk_and_only_itself_in_another() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let cents = [10, 10, -21, 5, -1];
    let refused = bulk(&client, &user, &atomic(&cents), Some("a")).await;
    assert_error(&refused, 409, "BULK_REFUSED", "21 of 20");
    let expected = json!([{"field": "items[2]", "message": "INSUFFICIENT_FUNDS"}]);
    assert_eq!(refused.body["details"], expected);
    let fields: Vec<_> = refused.body.as_object().expect("an object").keys().collect();
    assert_eq!(fields, ["code", "details", "message"], "nothing looks as if it had been recorded");
    assert_eq!((client.balance(&user).await, count(&world).await.as_str()), (0, "0"));

    let each = bulk(&client, &user, &independent(&cents), None).await;
    assert_eq!(each.status, 200, "{each:?}");
    let ok = || (201, String::new());
    assert_eq!(results(&each), [ok(), ok(), (409, "INSUFFICIENT_FUNDS".to_owned()), ok(), ok()]);
    let refused = &each.body["items"][2];
    assert!(refused.get("transaction").is_none() && refused["message"].is_string(), "{refused}");
    let after: Vec<_> = [0, 1, 3, 4].map(|n| each.body["items"][n]["transaction"]["balanceAfterMinor"].clone()).into();
    assert_eq!(after, [json!(10), json!(20), json!(25), json!(24)]);
    // A refused bulk does not use up its key.
    assert_eq!(bulk(&client, &user, &atomic(&[1]), Some("a")).await.status, 201);
    assert_verified(&world).await;
}

#[tokio::test]
async fn each_item_sees_the_balance_that_the_ones_before_it_leave() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let refused = bulk(&client, &user, &atomic(&[-5, 5]), None).await;
    assert_error(&refused, 409, "BULK_REFUSED", "a debit before its credit");
    assert_eq!(refused.body["details"][0]["field"], json!("items[0]"));
    assert_eq!(balances(&bulk(&client, &user, &atomic(&[5, -5]), None).await), [5, 0]);
    let over = bulk(&client, &user, &atomic(&[5, 9_007_199_254_740_991]), None).await;
    assert_eq!(over.body["details"], json!([{"field": "items[1]", "message": "BALANCE_LIMIT"}]));
    assert_eq!(client.balance(&user).await, 0);
}

#[tokio::test]
async fn a_replayed_atomic_bulk_returns_every_item_as_it_was_and_another_one_is_422() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let cents: Vec<i64> = (1..=100).collect();
    let first = bulk(&client, &user, &atomic(&cents), Some("k")).await;
    assert_eq!(first.status, 201, "{first:?}");
    assert_eq!(client.post(&user, "debit", 5_000, None).await.status, 201);
    let again = bulk(&client, &user, &atomic(&cents), Some("k")).await;
    assert_eq!((again.status.as_u16(), again.header("idempotent-replayed")), (200, "true"));
    assert_eq!(again.body, first.body);

    let mut reordered = cents.clone();
    reordered.swap(3, 4);
    let mut described = atomic(&cents);
    described["items"][99]["description"] = json!("new");
    for body in [atomic(&reordered), atomic(&cents[..99]), atomic(&cents[..1]), described] {
        let response = bulk(&client, &user, &body, Some("k")).await;
        assert_error(&response, 422, "IDEMPOTENCY_KEY_REUSED", "other items");
    }
    assert_error(&client.post(&user, "credit", 1, Some("k")).await, 422, "IDEMPOTENCY_KEY_REUSED", "one post");
    assert_eq!(client.post(&user, "credit", 7, Some("single")).await.status, 201);
    let group = bulk(&client, &user, &atomic(&[7, 7]), Some("single")).await;
    assert_error(&group, 422, "IDEMPOTENCY_KEY_REUSED", "a group under the key of one post");
    assert_eq!(client.balance(&user).await, 5050 - 5_000 + 7);
    assert_verified(&world).await;
}

#[tokio::test]
async fn each_item_of_a_bulk_that_is_not_atomic_has_its_own_key() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    assert_eq!(client.post(&user, "credit", 5, Some("a")).await.status, 201);
    let mut body = independent(&[5, 6, 7, 5]);
    for (n, key) in [(0, "a"), (1, "b"), (2, "c")] {
        body["items"][n]["idempotencyKey"] = json!(key);
    }
    let first = bulk(&client, &user, &body, None).await;
    let statuses = |response: &Response| results(response).into_iter().map(|(status, _)| status).collect::<Vec<_>>();
    assert_eq!(statuses(&first), [200, 201, 201, 201], "the first key belongs to the same credit");
    body["items"][1]["amountMinor"] = json!(60);
    let again = bulk(&client, &user, &body, None).await;
    assert_eq!(statuses(&again), [200, 422, 200, 201]);
    assert_eq!(again.body["items"][1]["code"], json!("IDEMPOTENCY_KEY_REUSED"));
    assert_eq!(again.body["items"][2]["transaction"], first.body["items"][2]["transaction"]);
    assert_eq!(client.balance(&user).await, 5 + 6 + 7 + 5 + 5);
    assert_eq!(client.post(&user, "credit", 6, Some("b")).await.status, 200, "a single request replays an item");
    assert_verified(&world).await;
}

#[tokio::test]
async fn keys_are_sent_where_they_have_a_meaning_and_only_once() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let mut repeated = independent(&[1, 2, 3, 4, 5, 6]);
    repeated["items"][2]["idempotencyKey"] = json!("twice");
    repeated["items"][5]["idempotencyKey"] = json!("twice");
    let mut equal = independent(&[3, 3]);
    equal["items"][0]["idempotencyKey"] = json!("twice");
    equal["items"][1]["idempotencyKey"] = json!("twice");
    let mut inside = atomic(&[1, 2]);
    inside["items"][1]["idempotencyKey"] = json!("k");
    let mut invalid = independent(&[1]);
    invalid["items"][0]["idempotencyKey"] = json!("with a blank");
    for (body, key, field) in [
        (&repeated, None, "items[5].idempotencyKey"),
        (&equal, None, "items[1].idempotencyKey"),
        (&inside, None, "items[1].idempotencyKey"),
        (&invalid, None, "items[0].idempotencyKey"),
        (&independent(&[1]), Some("k"), "Idempotency-Key"),
    ] {
        let response = bulk(&client, &user, body, key).await;
        assert_error(&response, 400, "VALIDATION_ERROR", field);
        assert_eq!(response.fields(), [field]);
    }
    assert_eq!(count(&world).await, "0");
}

#[tokio::test]
async fn a_malformed_item_rejects_the_whole_in_both_modes_before_anything_is_recorded() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let with = |place: usize, item: Value| {
        let mut items = items(&[1, 2, 3, 4, 5]);
        items[place] = item;
        items
    };
    let metadata = json!({"type": "credit", "amountMinor": 1, "metadata": {"a": 1}});
    let transfer = json!({"type": "debit", "amountMinor": 1, "toUserId": user.id});
    let reversal = json!({"type": "debit", "amountMinor": 1, "reverses": user.id});
    for (items, fields) in [
        (with(3, json!({"type": "credit", "amountMinor": 0})), vec!["items[3].amountMinor"]),
        (with(3, json!({"type": "credit"})), vec!["items[3].amountMinor"]),
        (
            with(0, json!({"type": "x", "amountMinor": "1", "description": 5, "colour": "red"})),
            vec!["items[0].type", "items[0].amountMinor", "items[0].description", "items[0].colour"],
        ),
        (with(2, metadata), vec!["items[2].metadata.a"]),
        (with(4, transfer), vec!["items[4].toUserId"]),
        (with(4, reversal), vec!["items[4].reverses"]),
        (with(1, json!([])), vec!["items[1]"]),
        (with(1, Value::Null), vec!["items[1]"]),
        (json!([]), vec!["items"]),
        (json!({}), vec!["items"]),
        (Value::Null, vec!["items"]),
        (self::items(&[1; 101]), vec!["items"]),
    ] {
        for atomic in [json!(true), json!(false), Value::Null] {
            let body = json!({"atomic": atomic, "items": items});
            let response = bulk(&client, &user, &body, None).await;
            assert_error(&response, 400, "VALIDATION_ERROR", &body.to_string());
            assert_eq!(response.fields(), fields, "{body}");
        }
    }
    let response = bulk(&client, &user, &json!({"atomic": "yes", "items": items(&[1]), "more": 1}), None).await;
    assert_eq!(response.fields(), ["atomic", "more"]);
    assert_eq!(count(&world).await, "0");
}

#[tokio::test]
async fn a_field_that_occurs_twice_in_an_item_is_rejected() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let body = r#"{"items":[{"type":"credit","amountMinor":1},{"type":"credit","amountMinor":1,"amountMinor":1000}]}"#;
    let request = client.request(Method::POST, &format!("{}/v1/transactions/bulk", client.wallet));
    let request = request.bearer_auth(&user.token).header("content-type", "application/json").body(body);
    let response = client.send(request).await;
    assert_error(&response, 400, "VALIDATION_ERROR", body);
    assert_eq!(response.fields(), ["items[1].amountMinor"]);
}

#[tokio::test]
async fn a_bulk_counts_as_many_times_as_it_has_items_or_not_at_all() {
    let world = World::new().await;
    for store in ["local", "postgres"] {
        let limits = [
            ("RATE_LIMIT_ENABLED", "true"),
            ("RATE_LIMIT_STORE", store),
            ("RL_TX_MAX", "1"),
            ("RL_BULK_MAX", "100"),
            ("RL_TX_WINDOW", "24h"),
        ];
        let (users, wallet) = tokio::join!(world.start(Role::Users), world.start_with(Role::Wallet, &limits));
        let client = Client::new(&users.url(), &wallet.url());
        let user = client.ready_user().await;
        let half = atomic(&[1; 50]);
        let first = bulk(&client, &user, &half, None).await;
        assert_eq!((first.status.as_u16(), first.header("ratelimit-remaining")), (201, "50"), "{store}");
        assert!(first.header("ratelimit-policy").starts_with("\"bulk\";q=100;w=86400"), "{first:?}");
        for body in [atomic(&[1; 100]), independent(&[1; 51])] {
            let limited = bulk(&client, &user, &body, None).await;
            assert_error(&limited, 429, "RATE_LIMITED", store);
            assert_eq!(limited.header("ratelimit-remaining"), "50", "{store}: what is left is not lost");
        }
        let malformed = bulk(&client, &user, &json!({"items": 5}), None).await;
        assert_eq!((malformed.status.as_u16(), malformed.header("ratelimit-remaining")), (400, "49"), "{store}");
        let refused = bulk(&client, &user, &atomic(&[-1_000, 1]), None).await;
        assert_eq!((refused.status.as_u16(), refused.header("ratelimit-remaining")), (409, "47"), "{store}");
        let rest = bulk(&client, &user, &independent(&[1; 47]), None).await;
        assert_eq!((rest.status.as_u16(), rest.header("ratelimit-remaining")), (200, "0"), "{store}");
        for body in [atomic(&[1]), json!({})] {
            assert_error(&bulk(&client, &user, &body, None).await, 429, "RATE_LIMITED", "whatever the body");
        }
        assert_eq!(client.balance(&user).await, 97, "{store}");
        // The limit of single requests is another one.
        assert_eq!(client.post(&user, "credit", 1, None).await.status, 201, "{store}");
        assert_eq!(client.post(&user, "credit", 1, None).await.status, 429, "{store}");
    }
}

#[tokio::test]
async fn two_processes_with_shared_counts_count_the_items_together() {
    let world = World::new().await;
    let limits = [
        ("RATE_LIMIT_ENABLED", "true"),
        ("RATE_LIMIT_STORE", "postgres"),
        ("RL_BULK_MAX", "100"),
        ("RL_TX_WINDOW", "24h"),
    ];
    let users = world.start(Role::Users).await;
    let (first, second) =
        tokio::join!(world.start_with(Role::Wallet, &limits), world.start_with(Role::Wallet, &limits));
    let clients = [&first, &second].map(|wallet| Client::new(&users.url(), &wallet.url()));
    let user = clients[0].ready_user().await;
    let responses = join_all((0..20).map(|n| {
        let (client, user) = (&clients[n % 2], &user);
        async move { bulk(client, user, &atomic(&[1; 10]), None).await }
    }))
    .await;
    assert_eq!(responses.iter().filter(|response| response.status == 201).count(), 10);
    assert_eq!(responses.iter().filter(|response| response.status == 429).count(), 10);
    assert_eq!(clients[1].balance(&user).await, 100);
}

#[tokio::test]
async fn a_bulk_that_the_limit_would_never_admit_is_rejected_with_400() {
    let world = World::new().await;
    let limits = [("RATE_LIMIT_ENABLED", "true"), ("RL_BULK_MAX", "20")];
    let (users, wallet) = tokio::join!(world.start(Role::Users), world.start_with(Role::Wallet, &limits));
    let client = Client::new(&users.url(), &wallet.url());
    let user = client.ready_user().await;
    let response = bulk(&client, &user, &atomic(&[1; 21]), None).await;
    assert_error(&response, 400, "VALIDATION_ERROR", "21 items");
    let expected = json!([{"field": "items", "message": "must be a list of 1 to 20 objects"}]);
    assert_eq!((&response.body["details"], response.header("ratelimit-remaining")), (&expected, "19"));
}

#[tokio::test]
async fn a_bulk_body_of_128_kib_is_accepted_and_one_byte_more_is_rejected() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let item = json!({"type": "credit", "amountMinor": 9_007_199_254_740_i64, "description": "\u{1f980}".repeat(255)});
    let body = json!({"items": vec![item; 100]}).to_string();
    let limit = 128 * 1024;
    assert!(body.len() < limit, "{} bytes: 100 items with the longest descriptions fit", body.len());
    for (length, status) in [(body.len(), 201), (limit, 201), (limit + 1, 413)] {
        let padded = format!("{body}{}", " ".repeat(length - body.len()));
        let request = client.request(Method::POST, &format!("{}/v1/transactions/bulk", client.wallet));
        let request = request.bearer_auth(&user.token).header("content-type", "application/json").body(padded);
        let response = client.send(request).await;
        assert_eq!(response.status, status, "{length} bytes: {:?}", response.body["message"]);
        if status == 413 {
            assert_eq!(response.body["message"], json!("The request body must not exceed 128 KiB."));
        }
    }
}

#[tokio::test]
async fn a_bulk_takes_a_place_in_the_queue_per_item_or_none() {
    let world = World::new().await;
    let settings = [("LEDGER_QUEUE_MAX", "10"), ("DB_LOCK_TIMEOUT_MS", "60000"), ("DB_STATEMENT_TIMEOUT_MS", "60000")];
    let (users, wallet) = tokio::join!(world.start(Role::Users), world.start_with(Role::Wallet, &settings));
    let client = Client::new(&users.url(), &wallet.url());
    let (locked, user) = (client.ready_user().await, client.ready_user().await);
    let holder = WalletLock::acquire(&world, &locked).await;
    let waiting = tokio::spawn({
        let (client, locked) = (client.clone(), locked.clone());
        async move { client.post(&locked, "credit", 1, None).await }
    });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually(PATIENCE, "the post waits", || async { (world.sql(Role::Wallet, waits).await == "1").then_some(()) })
        .await;
    for body in [atomic(&[1; 10]), independent(&[1; 10])] {
        let response = bulk(&client, &user, &body, None).await;
        assert_error(&response, 503, "OVERLOADED", "9 places are free");
    }
    assert_eq!(client.balance(&user).await, 0);
    assert_eq!(bulk(&client, &user, &independent(&[1; 9]), None).await.status, 200);
    assert_eq!(bulk(&client, &user, &atomic(&[1; 9]), None).await.status, 201);
    holder.release().await;
    assert_eq!(waiting.await.expect("posted").status, 201);
    // One that is larger than the queue is taken when the queue is empty.
    assert_eq!(bulk(&client, &user, &atomic(&[1; 20]), None).await.status, 201);
    let each = bulk(&client, &user, &independent(&[1; 20]), None).await;
    assert!(results(&each).iter().all(|(status, _)| *status == 201), "{each:?}");
    assert_eq!(client.balance(&user).await, 58);
    assert_verified(&world).await;
}

#[tokio::test]
async fn an_atomic_bulk_is_never_split_over_batches_and_nothing_comes_between_its_items() {
    let world = World::new().await;
    let (users, wallet) =
        tokio::join!(world.start(Role::Users), world.start_with(Role::Wallet, &[("LEDGER_BATCH_MAX", "7")]));
    let client = Client::new(&users.url(), &wallet.url());
    let user = client.ready_user().await;
    let (bulks, singles) = tokio::join!(
        join_all((0..8).map(|_| async { bulk(&client, &user, &atomic(&[1; 100]), None).await })),
        join_all((0..40).map(|_| client.post(&user, "credit", 1, None))),
    );
    assert!(singles.iter().all(|response| response.status == 201), "{singles:?}");
    for response in &bulks {
        let balances = balances(response);
        let consecutive: Vec<i64> = (balances[0]..balances[0] + 100).collect();
        assert_eq!(balances, consecutive);
    }
    let transactions =
        "SELECT count(*) FROM (SELECT xmin FROM transactions WHERE group_size = 100 GROUP BY xmin) AS groups,
         LATERAL (SELECT count(*) FROM transactions t WHERE t.xmin = groups.xmin) AS written (rows)
         WHERE written.rows >= 100";
    assert_ne!(world.sql(Role::Wallet, transactions).await, "0");
    assert_eq!(client.balance(&user).await, 840);
    assert_verified(&world).await;
}

#[tokio::test]
async fn of_64_bulks_of_the_whole_balance_through_two_processes_one_succeeds() {
    let world = World::new().await;
    let (_users, _first, client) = world.both().await;
    let second = world.start(Role::Wallet).await;
    let other_client = Client::new(&client.users, &second.url());
    let user = client.ready_user().await;
    client.post(&user, "credit", 100, None).await;
    let send = async |n: usize, body: &Value, key: &str| loop {
        let client = if n.is_multiple_of(2) { &client } else { &other_client };
        let response = bulk(client, &user, body, Some(key)).await;
        if response.status != 503 {
            break response;
        }
    };
    let spend = atomic(&[-60, -40]);
    let keys: Vec<_> = (0..64).map(|n| format!("k{n}")).collect();
    let responses = join_all(keys.iter().enumerate().map(|(n, key)| send(n, &spend, key))).await;
    assert_eq!(responses.iter().filter(|response| response.status == 201).count(), 1);
    assert_eq!(responses.iter().filter(|response| response.code() == "BULK_REFUSED").count(), 63);
    assert_eq!(client.balance(&user).await, 0);

    let fill = atomic(&[3, 4]);
    let responses = join_all((0..64).map(|n| send(n, &fill, "once"))).await;
    assert_eq!(responses.iter().filter(|response| response.status == 201).count(), 1);
    assert_eq!(responses.iter().filter(|response| response.status == 200).count(), 63);
    assert!(responses.iter().all(|response| response.body == responses[0].body));
    assert_eq!(client.balance(&user).await, 7);
    assert_verified(&world).await;
}
