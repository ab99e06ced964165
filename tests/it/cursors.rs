//! A cursor continues the list that it comes from, and is refused by every other one.

use purse::kernel::Role;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Client, Response, User, World, assert_invalid, service_token};

/// A user with three credits and two holds.
async fn user_with_pages(client: &Client) -> User {
    let user = client.ready_user().await;
    for cents in [100, 200, 300] {
        assert_eq!(client.post(&user, "credit", cents, None).await.status, 201);
    }
    for cents in [10, 20] {
        let url = format!("{}/v1/holds", client.wallet);
        let request = client.request(Method::POST, &url).bearer_auth(&user.token).json(&json!({"amountMinor": cents}));
        assert_eq!(client.send(request).await.status, 201);
    }
    user
}

/// A GET from the wallet of a user by a service.
async fn by_service(client: &Client, user: &User, path: &str) -> Response {
    let url = format!("{}/v1/wallets/{}{path}", client.wallet, user.id);
    let token = service_token("reports", "wallet:read");
    client.send(client.request(Method::GET, &url).bearer_auth(token)).await
}

fn amounts(page: &Response) -> Vec<i64> {
    let items = page.body["items"].as_array().unwrap_or_else(|| panic!("{page:?}"));
    items.iter().filter_map(|item| item["amountMinor"].as_i64()).collect()
}

fn next(page: &Response) -> String {
    page.body["nextCursor"].as_str().unwrap_or_else(|| panic!("{page:?}")).to_owned()
}

#[tokio::test]
async fn a_cursor_of_another_list_or_wallet_is_400_for_users_and_services() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let (ada, bob) = (user_with_pages(&client).await, user_with_pages(&client).await);
    let transactions = next(&client.get(&ada, "/v1/transactions?limit=1").await);
    let holds = next(&client.get(&ada, "/v1/holds?limit=1").await);
    let continued = client.get(&ada, &format!("/v1/transactions?limit=1&cursor={transactions}")).await;
    assert_eq!(amounts(&continued), [200]);
    assert_eq!(amounts(&client.get(&ada, &format!("/v1/holds?cursor={holds}")).await), [10]);
    let of_service = by_service(&client, &ada, &format!("/transactions?limit=1&cursor={transactions}")).await;
    assert_eq!(of_service.body, continued.body, "the same list, whoever reads it");

    let chain = client.get(&ada, "/v1/ledger/chain?limit=1").await.body["nextAfter"].as_i64().expect("a place");
    for (user, list, parameter, of_another) in [
        (&ada, "/holds", "cursor", &transactions),
        (&ada, "/transactions", "cursor", &holds),
        (&bob, "/transactions", "cursor", &transactions),
        (&bob, "/holds", "cursor", &holds),
        (&ada, "/transactions", "cursor", &chain.to_string()),
        (&ada, "/holds", "cursor", &chain.to_string()),
        (&ada, "/ledger/chain", "after", &transactions),
        (&ada, "/ledger/chain", "after", &holds),
    ] {
        let query = format!("{list}?{parameter}={of_another}");
        assert_invalid(&client.get(user, &format!("/v1{query}")).await, &[parameter], &query);
        if list != "/ledger/chain" {
            assert_invalid(&by_service(&client, user, &query).await, &[parameter], &format!("service: {query}"));
        }
    }
}

#[tokio::test]
async fn a_cursor_that_release_0_1_0_has_issued_still_continues_the_history() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = user_with_pages(&client).await;
    // "v1.3", as 0.1.0 encoded the third entry.
    assert_eq!(amounts(&client.get(&user, "/v1/transactions?cursor=djEuMw").await), [200, 100]);
    assert_invalid(&client.get(&user, "/v1/holds?cursor=djEuMw").await, &["cursor"], "0.1.0 had no holds");
    let entries = world.sql(Role::Wallet, "SELECT count(*) FROM transactions").await;
    assert_eq!(entries, "5");
    let last = client.get(&user, "/v1/transactions?cursor=djEuMQ").await;
    assert_eq!(last.body, json!({"items": [], "nextCursor": Value::Null}));
}
