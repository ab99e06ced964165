//! A reversal and an atomic bulk request, interrupted between any two steps: all of their entries are written, or none
//! (FM-13, FM-14).

use purse::kernel::Role;
use serde_json::{Value, json};

use crate::support::{Client, User, World};
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
