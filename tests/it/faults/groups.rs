//! A reversal and bulk requests, interrupted between any two steps: all entries of a reversal or an atomic bulk request are
//! written, or none (FM-13, FM-14); of a bulk request that is not atomic, each item is written once, however often it is sent.

use purse::kernel::Role;
use serde_json::{Value, json};

use crate::support::{Client, Response, User, World};
use crate::transfers::{assert_verified, owners, transfer};

/// Each point of the commit at which the wallet role ends, and the status of a retry.
const POINTS: [(&str, u16); 4] =
    [("ledger.begun", 201), ("ledger.locked", 201), ("ledger.decided", 201), ("ledger.committed", 200)];

async fn count(world: &World) -> String {
    world.sql(Role::Wallet, "SELECT count(*) FROM transactions").await
}

/// Sends the request to a process that ends at `point`, when it `reaches` it, and then to `client`. Returns the response.
async fn crash_and_retry(
    world: &World,
    client: &Client,
    (point, again): (&str, u16),
    reaches: &str,
    user: &User,
    (path, body): (&str, &Value),
    rows: u64,
) -> Value {
    let before: u64 = count(world).await.parse().expect("a number");
    let crashing = world.spawn_with_failpoints(Role::Wallet, &format!("{point}={reaches}"), &[]).await;
    crashing.ready().await;
    let dying = Client::new("", &crashing.url());
    assert!(dying.try_send(dying.post_request(user, path, body, Some("k"))).await.is_none(), "{point}");
    crashing.aborted().await;
    let written = if again == 200 { rows } else { 0 };
    assert_eq!(count(world).await, (before + written).to_string(), "{point}");
    let retried = client.send(client.post_request(user, path, body, Some("k"))).await;
    assert_eq!(retried.status, again, "{point}: {retried:?}");
    let replayed = client.send(client.post_request(user, path, body, Some("k"))).await;
    assert_eq!((replayed.status.as_u16(), &replayed.body), (200, &retried.body), "{point}");
    assert_eq!(count(world).await, (before + rows).to_string(), "{point}");
    assert_verified(world).await;
    retried.body
}

#[tokio::test]
async fn fm_13_a_crash_during_a_reversal_reverses_once_or_not_at_all_and_the_key_tells_which() {
    let world = World::new().await;
    let wallet = world.start(Role::Wallet).await;
    let client = Client::new("", &wallet.url());
    for point in POINTS {
        let users = owners(&world, &client, 2, 100).await;
        let sent = transfer(&client, &users[0], &users[1], 60, None).await;
        assert_eq!(sent.status, 201, "{sent:?}");
        let transfer = format!("/v1/transfers/{}", sent.body["id"].as_str().expect("an id"));
        let received = client.get(&users[1], &transfer).await.body["id"].clone();
        let path = format!("{}/reverse", received.as_str().expect("an id"));
        // In the second batch, which writes both legs of the transfer back: the first one only finds that it is a transfer.
        let reaches = "1*off->return";
        let reversal = crash_and_retry(&world, &client, point, reaches, &users[1], (&path, &json!({})), 2).await;
        assert_eq!(reversal["reverses"], received);
        assert_eq!((client.balance(&users[0]).await, client.balance(&users[1]).await), (100, 100), "{point:?}");
    }
}

#[tokio::test]
async fn fm_14_a_crash_during_an_atomic_bulk_request_records_all_of_its_items_or_none() {
    let world = World::new().await;
    let wallet = world.start(Role::Wallet).await;
    let client = Client::new("", &wallet.url());
    let items: Vec<_> = (1..=20).map(|n| json!({"type": "credit", "amountMinor": n, "reference": "bulk"})).collect();
    for point in POINTS {
        let users = owners(&world, &client, 1, 100).await;
        let body = json!({"items": items});
        let bulk = crash_and_retry(&world, &client, point, "return", &users[0], ("bulk", &body), 20).await;
        assert_eq!(bulk["items"].as_array().map(Vec::len), Some(20), "{point:?}");
        assert_eq!(client.balance(&users[0]).await, 310, "{point:?}");
    }
}

#[tokio::test]
async fn a_crash_during_a_bulk_request_that_is_not_atomic_leaves_whole_batches_and_a_retry_records_the_rest_in_order() {
    let world = World::new().await;
    let wallet = world.start(Role::Wallet).await;
    let client = Client::new("", &wallet.url());
    let items: Vec<_> =
        (1..=5).map(|n| json!({"type": "credit", "amountMinor": n, "idempotencyKey": format!("k{n}")})).collect();
    let body = json!({"atomic": false, "items": items});
    // Five items are three batches. The process ends in one of the first two.
    let two_at_a_time = [("LEDGER_BATCH_MAX", "2")];
    for (crashed, reaches) in ["return", "1*off->return"].into_iter().enumerate() {
        for (point, again) in POINTS {
            let about = format!("{point}={reaches}");
            let user = owners(&world, &client, 1, 100).await.remove(0);
            let recorded = async || {
                let keys = "SELECT string_agg(idempotency_key || ' ' || balance_after_minor, ', ' ORDER BY seq)
                            FROM transactions WHERE seq > 1 AND user_id";
                world.sql(Role::Wallet, &format!("{keys} = '{}'", user.id)).await
            };
            let crashing = world.spawn_with_failpoints(Role::Wallet, &about, &two_at_a_time).await;
            crashing.ready().await;
            let dying = Client::new("", &crashing.url());
            assert!(dying.try_send(dying.post_request(&user, "bulk", &body, None)).await.is_none(), "{about}");
            crashing.aborted().await;
            let written = 2 * (crashed + usize::from(again == 200));
            let all = ["k1 101", "k2 103", "k3 106", "k4 110", "k5 115"];
            assert_eq!(recorded().await, all[..written].join(", "), "{about}");

            let send = async || client.send(client.post_request(&user, "bulk", &body, None)).await;
            let of_items = |response: &Response, field: &str| -> Vec<Value> {
                assert_eq!(response.status, 200, "{about}: {response:?}");
                response.body["items"].as_array().expect("a list").iter().map(|item| item[field].clone()).collect()
            };
            let (retried, replayed) = (send().await, send().await);
            let expected: Vec<_> = (0..5).map(|n| json!(if n < written { 200 } else { 201 })).collect();
            assert_eq!(of_items(&retried, "status"), expected, "{about}");
            assert_eq!(of_items(&replayed, "status"), vec![json!(200); 5], "{about}");
            assert_eq!(of_items(&replayed, "transaction"), of_items(&retried, "transaction"), "{about}");
            assert_eq!(recorded().await, all.join(", "), "{about}");
        }
    }
    assert_verified(&world).await;
}
