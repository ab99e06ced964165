//! `purse ledger verify` counts who posted how many entries.

use purse::kernel::Role;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::shards::without_moments;
use crate::support::{Client, CommandOutput, PATIENCE, User, World, eventually, purse, service_token};

async fn verify(world: &World, arguments: &[&str]) -> CommandOutput {
    let database = world.databases.wallet.runtime_url.clone();
    let all = [&["ledger", "verify"], arguments].concat();
    purse(&all, &[("WALLET_DATABASE_URL".to_owned(), database)].into()).await
}

async fn credit(client: &Client, user: &User, service: &str, times: usize) {
    let url = format!("{}/v1/wallets/{}/transactions/credit", client.wallet, user.id);
    let token = service_token(service, "wallet:post");
    for _ in 0..times {
        let request = client.request(Method::POST, &url).bearer_auth(&token).json(&json!({"amountMinor": 5}));
        assert_eq!(client.send(request).await.status, 201);
    }
}

#[tokio::test]
async fn verify_counts_the_entries_of_users_and_of_the_20_services_with_the_most() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let (user, other) = (client.ready_user().await, client.ready_user().await);
    for _ in 0..4 {
        assert_eq!(client.post(&user, "credit", 5, None).await.status, 201);
    }
    credit(&client, &user, "shop", 2).await;
    credit(&client, &other, "shop", 1).await;
    credit(&client, &other, "a-payments", 2).await;
    let few = verify(&world, &[]).await;
    let expected = "2 wallets with 9 entries (9 chained, 0 sealed, 0 unchained; 4 posted by users, 3 by service shop, 2 by \
                    service a-payments): all consistent.\n";
    assert_eq!((few.code, without_moments(&few.out).as_str()), (Some(0), expected));
    let of_other = verify(&world, &["--user", &other.id, "--json"]).await.done();
    let services = json!({"shop": 1, "a-payments": 2});
    let none: Value = json!({"count": 0, "entries": 0});
    assert_eq!(of_other["postedBy"], json!({"users": 0, "services": services, "otherServices": none}));

    // Equal numbers are ordered by name, so that these are the last.
    for number in 10..30 {
        credit(&client, &other, &format!("s{number}"), 1).await;
    }
    // An entry that nobody posted.
    let hold = format!("{}/v1/holds", client.wallet);
    let hold = client.request(Method::POST, &hold).bearer_auth(&user.token).json(&json!({"amountMinor": 5}));
    assert_eq!(client.send(hold).await.status, 201);
    world.sql(Role::Wallet, "UPDATE open_holds SET expires_at = now()").await;
    eventually(PATIENCE, "the hold expires", || async {
        let expiries = world.sql(Role::Wallet, "SELECT count(*) FROM transactions WHERE type = 'expire'").await;
        (expiries == "1").then_some(())
    })
    .await;
    let report = verify(&world, &["--json"]).await.json();
    let services = report["postedBy"]["services"].as_object().expect("services").clone();
    assert_eq!((&report["postedBy"]["users"], services.len()), (&json!(5), 20));
    assert!(services.contains_key("s27") && !services.contains_key("s28"), "{services:?}");
    assert_eq!(report["postedBy"]["otherServices"], json!({"count": 2, "entries": 2}));
    let many = verify(&world, &[]).await;
    assert!(many.out.contains(", 1 by service s27, 2 by 2 other services): "), "{many:?}");
}
