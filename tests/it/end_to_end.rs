//! End to end: register, wallet, log in, credit, debit, balance, history.

use std::time::Duration;

use purse::kernel::Role;
use serde_json::{Value, json};

use crate::support::{Client, PATIENCE, World, eventually};

#[tokio::test]
async fn a_user_registers_and_gets_exactly_one_wallet() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.user().await;
    let status = client.get(&user, "/v1/wallet/status?wait=30").await;
    assert_eq!((status.status.as_u16(), &status.body["status"]), (200, &json!("ready")), "{status:?}");
    assert_eq!(world.sql(Role::Wallet, "SELECT user_id FROM wallets").await, user.id);
    let outbox = eventually(PATIENCE, "the outbox is marked", || async {
        let row = world.sql(Role::Users, "SELECT status, attempts, published_at IS NOT NULL FROM outbox").await;
        row.starts_with("published").then_some(row)
    });
    assert_eq!(outbox.await, "published|0|t");
}

#[tokio::test]
async fn a_user_registers_logs_in_credits_debits_and_reads_the_balance() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let mut user = client.ready_user().await;
    let login = client.log_in(&user.email.to_uppercase(), super::support::PASSWORD).await;
    assert_eq!(
        (login.status.as_u16(), &login.body["tokenType"], &login.body["expiresIn"]),
        (200, &json!("Bearer"), &json!(3600))
    );
    user.token = login.body["accessToken"].as_str().expect("token").to_owned();

    let me = client.me(&user.token).await;
    assert_eq!(me.body["email"], json!(user.email));
    assert_eq!(me.body["id"], json!(user.id));

    let credit = client.post(&user, "credit", 1500, None).await;
    assert_eq!((credit.status.as_u16(), &credit.body["balanceAfterMinor"]), (201, &json!(1500)), "{credit:?}");
    let debit = client.post(&user, "debit", 400, None).await;
    assert_eq!((debit.status.as_u16(), &debit.body["balanceAfterMinor"]), (201, &json!(1100)));
    let refused = client.post(&user, "debit", 1101, None).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (409, "INSUFFICIENT_FUNDS"));
    assert_eq!(
        client.get(&user, "/v1/balance").await.body,
        json!({"balanceMinor": 1100, "heldMinor": 0, "availableMinor": 1100, "currency": "USD"})
    );

    let id = debit.body["id"].as_str().expect("id");
    assert_eq!(client.get(&user, &format!("/v1/transactions/{id}")).await.body, debit.body);
    let other = client.ready_user().await;
    let not_theirs = client.get(&other, &format!("/v1/transactions/{id}")).await;
    assert_eq!((not_theirs.status.as_u16(), not_theirs.code()), (404, "TRANSACTION_NOT_FOUND"));
}

#[tokio::test]
async fn every_endpoint_returns_wallet_provisioning_until_the_wallet_exists_and_never_afterwards() {
    let world = World::new().await;
    // This users role has no broker: registrations succeed, and their events stay in the outbox.
    let without_broker = world.spawn(Role::Users, &[("RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:1/%2f")]).await;
    let wallet = world.start(Role::Wallet).await;
    let client = Client::new(&without_broker.url(), &wallet.url());
    let user = client.user().await;
    for path in
        ["/v1/balance", "/v1/transactions", "/v1/wallet/status", "/v1/transactions/x", "/v1/wallet/status?wait=1"]
    {
        let gate = client.get(&user, path).await;
        assert_eq!(gate.status, 503, "{path}");
        assert_eq!(gate.header("retry-after"), "2");
        let body = json!({"code": "WALLET_PROVISIONING", "message": "Wallet is being provisioned. Retry shortly."});
        assert_eq!(gate.body, body, "{path}");
    }
    // The gate is checked before the body.
    assert_eq!(client.post(&user, "credit", -5, None).await.code(), "WALLET_PROVISIONING");

    drop(without_broker);
    let _users = world.start(Role::Users).await;
    eventually(PATIENCE, "the wallet is provisioned", || async {
        (client.get(&user, "/v1/balance").await.status == 200).then_some(())
    })
    .await;
    for _ in 0..50 {
        assert_eq!(client.get(&user, "/v1/balance").await.status, 200);
    }
}

#[tokio::test]
async fn a_retry_with_the_same_key_returns_the_first_result() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let first = client.post(&user, "credit", 700, Some("key-1")).await;
    assert_eq!(first.status, 201);
    let again = client.post(&user, "credit", 700, Some("key-1")).await;
    assert_eq!((again.status.as_u16(), again.header("idempotent-replayed")), (200, "true"));
    assert_eq!(again.body, first.body);
    // The route with the type in the body is an equivalent request.
    let url = format!("{}/v1/transactions", client.wallet);
    let either = json!({"type": "credit", "amountMinor": 700});
    let equivalent = client.request(reqwest::Method::POST, &url).bearer_auth(&user.token).json(&either);
    let equivalent = client.send(equivalent.header("idempotency-key", "key-1")).await;
    assert_eq!((equivalent.status.as_u16(), &equivalent.body["id"]), (200, &first.body["id"]));

    for other in
        [client.post(&user, "credit", 701, Some("key-1")).await, client.post(&user, "debit", 700, Some("key-1")).await]
    {
        assert_eq!((other.status.as_u16(), other.code()), (422, "IDEMPOTENCY_KEY_REUSED"));
    }
    // A rejected request does not consume its key.
    assert_eq!(client.post(&user, "debit", 9000, Some("key-2")).await.code(), "INSUFFICIENT_FUNDS");
    assert_eq!(client.post(&user, "credit", 1, Some("key-2")).await.status, 201);
    // Keys are per user.
    let other = client.ready_user().await;
    assert_eq!(client.post(&other, "credit", 5, Some("key-1")).await.status, 201);
    assert_eq!((client.balance(&user).await, client.balance(&other).await), (701, 5));
}

#[tokio::test]
async fn a_history_is_paginated_newest_first_and_filtered() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let mut created = Vec::new();
    for n in 1..=7 {
        let kind = if n % 3 == 0 { "debit" } else { "credit" };
        created.push(client.post(&user, kind, n, None).await.body);
    }
    let newest_first: Vec<Value> = created.iter().rev().cloned().collect();

    let (mut pages, mut path) = (Vec::new(), "/v1/transactions?limit=3".to_owned());
    loop {
        let page = client.get(&user, &path).await.body;
        pages.push(page["items"].as_array().expect("items").clone());
        let Some(cursor) = page["nextCursor"].as_str() else { break };
        path = format!("/v1/transactions?limit=3&cursor={cursor}");
    }
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 1]);
    assert_eq!(pages.concat(), newest_first);

    let debits = client.get(&user, "/v1/transactions?type=debit").await.body;
    assert_eq!(debits["items"], json!([created[5], created[2]]));
    assert_eq!(debits["nextCursor"], Value::Null);

    let (from, to) = (created[2]["createdAt"].as_str().expect("time"), created[5]["createdAt"].as_str().expect("time"));
    let between = client.get(&user, &format!("/v1/transactions?from={from}&to={to}")).await.body;
    assert_eq!(between["items"], json!([created[4], created[3], created[2]]), "from is included, to is excluded");
    let nothing = client.get(&user, "/v1/transactions?to=2020-01-01T00:00:00Z").await.body;
    assert_eq!(nothing, json!({"items": [], "nextCursor": null}));
    assert_eq!(client.get(&user, "/v1/transactions?from=2100-01-01T00:00:00Z").await.body["items"], json!([]));
}

#[tokio::test]
async fn a_balance_can_be_read_as_of_a_point_in_time() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let first = client.post(&user, "credit", 10, None).await.body;
    let second = client.post(&user, "credit", 5, None).await.body;
    for (at, cents) in [
        (first["createdAt"].as_str().expect("time"), 10),
        (second["createdAt"].as_str().expect("time"), 15),
        ("2020-01-01T00:00:00Z", 0),
        ("2100-01-01T00:00:00Z", 15),
    ] {
        let then = client.get(&user, &format!("/v1/balance?at={at}")).await.body;
        assert_eq!(
            then,
            json!({"balanceMinor": cents, "heldMinor": 0, "availableMinor": cents, "currency": "USD"}),
            "{at}"
        );
    }
}

#[tokio::test]
async fn one_request_id_appears_in_the_logs_of_both_roles() {
    let world = World::new().await;
    let (users, wallet, client) = world.both().await;
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let body = json!({"firstName": "Ada", "lastName": "L", "email": Client::fresh_email(), "password": "12345678"});
    let request = client
        .request(reqwest::Method::POST, &format!("{}/v1/auth/register", client.users))
        .header("x-request-id", "walk-1")
        .header("traceparent", traceparent)
        .json(&body);
    let registered = client.send(request).await;
    assert_eq!((registered.status.as_u16(), registered.header("x-request-id")), (201, "walk-1"));
    let find = |log: Vec<Value>, msg: &str| {
        log.into_iter().find(|l| l["msg"] == msg && l["request_id"] == "walk-1" && l["trace_id"] == traceparent[3..35])
    };
    let line =
        eventually(PATIENCE, "the wallet logs the request", || async { find(wallet.log(), "wallet provisioned") })
            .await;
    assert_eq!(line["user_id"], registered.body["user"]["id"]);
    let line = eventually(PATIENCE, "the users role logs it", || async { find(users.log(), "request") }).await;
    assert_eq!((&line["status"], &line["route"]), (&json!(201), &json!("/v1/auth/register")));
    // An invalid id is replaced, not echoed.
    let forged =
        client.request(reqwest::Method::GET, &format!("{}/health/live", client.users)).header("x-request-id", "a b");
    assert_ne!(client.send(forged).await.header("x-request-id"), "a b");
}

#[tokio::test]
async fn a_waiting_status_request_returns_as_soon_as_the_wallet_exists() {
    let world = World::new().await;
    let wallet = world.start(Role::Wallet).await;
    let without_broker = world.spawn(Role::Users, &[("RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:1/%2f")]).await;
    let client = Client::new(&without_broker.url(), &wallet.url());
    let user = client.user().await;
    let (waiting_client, waiting_user) = (client.clone(), user.clone());
    let waiting = tokio::spawn(async move { waiting_client.get(&waiting_user, "/v1/wallet/status?wait=30").await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished());
    drop(without_broker);
    let _users = world.start(Role::Users).await;
    let response = tokio::time::timeout(Duration::from_secs(25), waiting)
        .await
        .expect("a response before the wait is over")
        .expect("sent");
    assert_eq!(response.status, 200, "{response:?}");
}
