//! "Back up and restore" of docs/operations.md, and what a running role does when its database is restored under it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use purse::kernel::Role;

use crate::operate_handbook::follow_in;
use crate::support::{Client, PATIENCE, Response, Scrape, User, World, assert_error, eventually};
use crate::transfers::transfer;

/// A folder for the dumps of one test.
struct Workplace {
    folder: PathBuf,
    settings: BTreeMap<String, String>,
}

impl Workplace {
    fn of(world: &World) -> Self {
        let folder = std::env::temp_dir().join(format!("purse-restore-{}", world.databases.wallet.database));
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut settings = world.settings(Role::Wallet);
        settings.extend(world.settings(Role::Users));
        settings.insert("PATH".into(), world.addresses.postgres_bin_dir.display().to_string());
        Self { folder, settings }
    }

    /// Runs a section of the handbook.
    async fn follow(&self, mark: &str) {
        follow_in(&self.folder, mark, &self.settings, &[]).await;
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

async fn published(world: &World, events: &str) {
    eventually(PATIENCE, "every event is published", || async {
        let published = world.sql(Role::Users, "SELECT count(*) FROM outbox WHERE status = 'published'").await;
        (published == events).then_some(())
    })
    .await;
}

fn assert_gate(response: &Response, about: &str) {
    assert_error(response, 503, "WALLET_PROVISIONING", about);
}

/// The gauge of the users whose gate stays closed.
async fn gate_closed_s(client: &Client) -> f64 {
    Scrape::of(&client.wallet).await.number("purse_gate_closed_seconds").expect("the gauge")
}

async fn assert_ready(client: &Client, user: &User, cents: i64) {
    let status = client.get(user, "/v1/wallet/status?wait=30").await;
    assert_eq!((status.status.as_u16(), &status.body["status"]), (200, &"ready".into()), "{status:?}");
    let credited = client.post(user, "credit", cents, None).await;
    assert_eq!((credited.status.as_u16(), &credited.body["balanceAfterMinor"]), (201, &cents.into()), "{credited:?}");
}

#[tokio::test]
async fn a_wallet_that_a_restore_removed_is_reported_by_every_endpoint_and_returns_with_its_event() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let workplace = Workplace::of(&world);
    let old = client.ready_user().await;
    client.post(&old, "credit", 70, None).await;
    workplace.follow("backup").await;
    // The running role knows that these users have a wallet.
    let users: Vec<User> = futures_util::future::join_all((0..6).map(|_| client.ready_user())).await;
    let entry = client.post(&users[0], "credit", 5, None).await.body["id"].as_str().expect("id").to_owned();
    for user in &users {
        assert_eq!(client.get(user, "/v1/balance").await.status, 200);
    }

    workplace.follow("restore-wallet").await;
    // Each is the first request of its user since then.
    for (user, path) in users.iter().zip([
        "/v1/wallet/status",
        "/v1/balance",
        "/v1/balance?at=2999-01-01T00:00:00Z",
        "/v1/transactions?type=debit",
        &format!("/v1/transactions/{entry}"),
    ]) {
        let gate = || async {
            let response = client.get(user, path).await;
            (response.code() != "DEPENDENCY_UNAVAILABLE").then_some(response)
        };
        assert_gate(&eventually(PATIENCE, "the role has reconnected", gate).await, path);
    }
    let posted = || async {
        let response = client.post(&users[5], "credit", 5, None).await;
        (response.code() != "DEPENDENCY_UNAVAILABLE").then_some(response)
    };
    assert_gate(&eventually(PATIENCE, "the role has reconnected", posted).await, "credit");
    for user in &users {
        for path in ["/v1/wallet/status", "/v1/balance", "/v1/transactions"] {
            assert_gate(&client.get(user, path).await, path);
        }
        assert_gate(&client.post(user, "debit", 1, None).await, "debit");
    }
    assert_eq!(client.balance(&old).await, 70, "what was in the backup is as it was");
    eventually(PATIENCE, "the gauge shows how long the gate has been closed", || async {
        assert_gate(&client.get(&users[0], "/v1/balance").await, "balance");
        (gate_closed_s(&client).await >= 1.0).then_some(())
    })
    .await;

    published(&world, "7").await;
    workplace.follow("republish").await;
    for user in &users {
        assert_ready(&client, user, 5).await;
    }
    assert_eq!(client.balance(&old).await, 70);
    assert!(gate_closed_s(&client).await < 1.0, "no gate is closed any more");
}

#[tokio::test]
async fn both_databases_are_restored_and_a_user_between_the_two_backups_gets_a_wallet() {
    let world = World::new().await;
    let (users, wallet, client) = world.both().await;
    let workplace = Workplace::of(&world);
    let (old, between) = (client.ready_user().await, client.ready_user().await);
    client.post(&old, "credit", 70, None).await;
    published(&world, "2").await;
    // As if this user had registered after the wallet database was dumped, and before the users database was.
    world.sql(Role::Wallet, &format!("DELETE FROM wallets WHERE user_id = '{}'", between.id)).await;
    workplace.follow("backup").await;
    let late = client.ready_user().await;
    client.post(&old, "debit", 30, None).await;
    drop((users, wallet));

    workplace.follow("restore-wallet").await;
    workplace.follow("restore-users").await;
    let (_users, _wallet, client) = world.both().await;
    assert_gate(&client.get(&between, "/v1/balance").await, "between the dumps");
    workplace.follow("republish").await;
    assert_ready(&client, &between, 5).await;
    assert_eq!(client.balance(&old).await, 70, "as in the backup");
    assert_eq!(client.log_in(&old.email, crate::support::PASSWORD).await.status, 200);
    assert_eq!(client.log_in(&late.email, crate::support::PASSWORD).await.code(), "INVALID_CREDENTIALS");
    assert_eq!(client.register(&late.email).await.status, 201, "a user who is gone may register again");
    for path in ["/v1/balance", "/v1/wallet/status"] {
        assert_gate(&client.get(&late, path).await, "the token of a user who is gone");
    }
}

#[tokio::test]
async fn a_ledger_of_four_shards_is_restored_as_a_whole() {
    const FOUR: [(&str, &str); 1] = [("WALLET_SHARDS", "4")];
    let world = World::new().await;
    let (users, wallet) = tokio::join!(world.start(Role::Users), world.start_with(Role::Wallet, &FOUR));
    let client = Client::new(&users.url(), &wallet.url());
    let mut workplace = Workplace::of(&world);
    workplace.settings.extend(FOUR.map(|(name, value)| (name.to_owned(), value.to_owned())));
    // Each pays the next one, and so into other shards, whose number is in the last byte of the ID.
    let mut payers: Vec<User> = Vec::new();
    for _ in 0..12 {
        let user = client.ready_user().await;
        assert_eq!(client.post(&user, "credit", 70, None).await.status, 201);
        payers.push(user);
    }
    for (from, to) in payers.iter().zip(payers.iter().cycle().skip(1)) {
        assert_eq!(transfer(&client, from, to, 5, None).await.status, 201);
    }
    workplace.follow("backup").await;
    for user in &payers {
        assert_eq!(client.post(user, "debit", 70, None).await.status, 201);
    }
    drop(wallet);

    let of_shards = [("consistent.", "consistent. Each of the 4 shards was read at a moment of its own.")];
    follow_in(&workplace.folder, "restore-wallet", &workplace.settings, &of_shards).await;
    let wallet = world.start_with(Role::Wallet, &FOUR).await;
    let client = Client::new(&users.url(), &wallet.url());
    for user in &payers {
        assert_eq!(client.balance(user).await, 70, "as in the backup");
    }
    assert_eq!(transfer(&client, &payers[0], &payers[1], 5, None).await.status, 201);
    assert_eq!(client.balance(&payers[1]).await, 75);
}
