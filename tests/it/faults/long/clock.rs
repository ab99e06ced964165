//! Clocks that are wrong (FP-27, FP-28). Needs libfaketime, which `just test-faults` installs where it is missing.

use std::path::PathBuf;

use purse::kernel::Role;

use super::super::history::History;
use super::super::invariants::hold;
use crate::support::{Client, PATIENCE, World};

fn libfaketime() -> String {
    let places = ["/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime", "/usr/lib/faketime"];
    let found =
        places.map(|place| PathBuf::from(place).join("libfaketime.so.1")).into_iter().find(|path| path.exists());
    found.expect("libfaketime is missing; on Debian: apt-get install faketime").display().to_string()
}

/// A wallet role whose clock of the day is off by this; its timers are right.
async fn wallet_at(world: &World, offset: &str) -> crate::support::RoleProcess {
    let library = libfaketime();
    let faked = [("LD_PRELOAD", library.as_str()), ("FAKETIME", offset), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
    world.start_with(Role::Wallet, &faked).await
}

#[tokio::test]
async fn fp_27_a_wallet_clock_two_hours_off_expires_tokens_early_or_late_and_breaks_nothing() {
    let (world, history) = (World::new().await, History::default());
    let users = world.start(Role::Users).await;

    let ahead = wallet_at(&world, "+2h").await;
    let client = Client::new(&users.url(), &ahead.url());
    let user = client.user().await;
    let refused = client.get(&user, "/v1/balance").await;
    assert_eq!((refused.status.as_u16(), refused.code()), (401, "UNAUTHORIZED"), "an hour's token is old there");
    let year = ahead.log()[0]["ts"].clone();
    assert!(year.as_str().is_some_and(|ts| ts > jiff::Timestamp::now().to_string().as_str()), "{year}");
    drop(ahead);

    let behind = wallet_at(&world, "-2h").await;
    let client = Client::new(&users.url(), &behind.url());
    assert_eq!(client.get(&user, "/v1/wallet/status?wait=30").await.status, 200, "iat is not looked at");
    assert_eq!(client.post(&user, "credit", 5, None).await.status, 201);
    assert_eq!(client.post(&user, "debit", 2, None).await.status, 201);
    // The ledger's time is the database's.
    let recent = "SELECT count(*) FROM transactions WHERE created_at > now() - interval '10 minutes'";
    assert_eq!(world.sql(Role::Wallet, recent).await, "2");
    assert_eq!(behind.logged("panicked").len(), 0);
    drop(behind);

    let (_users, _wallet, client) = world.both().await;
    hold(&world, &history, &client, PATIENCE).await;
}

#[tokio::test]
async fn fp_28_the_outbox_waits_by_the_database_s_clock() {
    let (world, history) = (World::new().await, History::default());
    let wallet = world.start(Role::Wallet).await;
    let library = libfaketime();
    for offset in ["+2h", "-2h"] {
        let faked = [("LD_PRELOAD", library.as_str()), ("FAKETIME", offset), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
        let users = world.start_with(Role::Users, &faked).await;
        let client = Client::new(&users.url(), &wallet.url());
        history.register(&client).await;
        hold(&world, &history, &client, PATIENCE).await;
    }
}
