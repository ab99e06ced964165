//! A refused transfer does not show by its cost why the recipient cannot be paid.

use std::collections::BTreeMap;

use purse::kernel::Role;
use serde_json::Value;

use crate::query_plans::{enable_auto_explain, plans_after};
use crate::support::{Client, User, World, assert_error, token_of, unknown_user_id};
use crate::transfers::{close, newcomer, owners, transfer};

fn user(id: String) -> User {
    User { token: token_of(&id), email: String::new(), id }
}

/// The response to a transfer to `to`, and how often each statement about wallets or the ledger ran for it.
async fn refused(world: &World, client: &Client, from: &User, to: &User) -> (Value, BTreeMap<String, usize>) {
    let before = std::fs::metadata(&world.addresses.postgres_log).expect("the server's log").len();
    let response = transfer(client, from, to, 5, None).await;
    assert_error(&response, 404, "RECIPIENT_NOT_FOUND", &to.id);
    let plans = plans_after(world, usize::try_from(before).expect("a length"));
    // The sweeper of holds runs beside.
    let of_request =
        plans.into_iter().filter(|(name, _)| name.starts_with("wallet.") && !name.starts_with("wallet.holds."));
    (response.body, of_request.map(|(name, plans)| (name, plans.len())).collect())
}

#[tokio::test]
async fn a_transfer_to_an_unknown_an_unprovisioned_and_a_closed_recipient_runs_the_same_statements() {
    let world = World::new().await;
    drop(world.both().await); // for the migrations
    let _turn = enable_auto_explain(&world).await;
    let (users, wallet, client) = world.both().await;
    let [sender, closed]: [User; 2] = owners(&world, &client, 2, 0).await.try_into().expect("two");
    assert_eq!(client.post(&sender, "credit", 100, None).await.status, 201);
    close(&world, &closed).await;
    let (_users, client, newcomer) = newcomer(&world, users, &wallet).await;
    // The wallet of the sender is known from now on, and every statement is prepared.
    refused(&world, &client, &sender, &user(unknown_user_id())).await;
    let unknown = refused(&world, &client, &sender, &user(unknown_user_id())).await;
    assert!(unknown.1.len() >= 3, "a lookup, the lock and the head at least: {unknown:?}");
    for recipient in [&newcomer, &closed] {
        assert_eq!(refused(&world, &client, &sender, recipient).await, unknown, "{}", recipient.id);
    }
    assert_eq!(world.sql(Role::Wallet, "SELECT count(*) FROM transactions WHERE type <> 'close'").await, "1");
}
