//! Wrong clocks (FP-27, FP-28). Needs libfaketime, which `just test-faults` installs.

use std::path::PathBuf;

use purse::kernel::Role;

use super::super::history::History;
use super::super::invariants::assert_invariants;
use crate::support::{Client, RoleProcess, World};

fn libfaketime() -> String {
    let places = ["/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime", "/usr/lib/faketime"];
    let found =
        places.map(|place| PathBuf::from(place).join("libfaketime.so.1")).into_iter().find(|path| path.exists());
    found.expect("libfaketime is missing; on Debian: apt-get install faketime").display().to_string()
}

/// A wallet role whose wall clock is off by `offset`; its timers are correct.
async fn wallet_at(world: &World, offset: &str) -> RoleProcess {
    let library = libfaketime();
    let faked = [("LD_PRELOAD", library.as_str()), ("FAKETIME", offset), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
    world.start_with(Role::Wallet, &faked).await
}

#[tokio::test]
async fn fp_27_a_wallet_clock_two_hours_off_shifts_token_expiry_and_breaks_nothing() {
    let (world, history) = (World::new().await, History::default());
    let users = world.start(Role::Users).await;

    let ahead = wallet_at(&world, "+2h").await;
    let client = Client::new(&users.url(), &ahead.url());
    let user = client.user().await;
    let rejected = client.get(&user, "/v1/balance").await;
    assert_eq!((rejected.status.as_u16(), rejected.code()), (401, "UNAUTHORIZED"), "a token of one hour has expired");
    let logged_at = ahead.log()[0]["ts"].clone();
    assert!(logged_at.as_str().is_some_and(|ts| ts > jiff::Timestamp::now().to_string().as_str()), "{logged_at}");
    drop(ahead);

    let behind = wallet_at(&world, "-2h").await;
    let client = Client::new(&users.url(), &behind.url());
    assert_eq!(client.get(&user, "/v1/wallet/status?wait=30").await.status, 200, "iat is not checked");
    assert_eq!(client.post(&user, "credit", 5, None).await.status, 201);
    assert_eq!(client.post(&user, "debit", 2, None).await.status, 201);
    // Entries have the database's time.
    let recent = "SELECT count(*) FROM transactions WHERE created_at > now() - interval '10 minutes'";
    assert_eq!(world.sql(Role::Wallet, recent).await, "2");
    assert_eq!(behind.logged("panicked").len(), 0);
    drop(behind);

    let (_users, _wallet, client) = world.both().await;
    assert_invariants(&world, &history, &client).await;
}

#[tokio::test]
async fn fp_28_the_outbox_follows_the_database_clock() {
    let (world, history) = (World::new().await, History::default());
    let wallet = world.start(Role::Wallet).await;
    let library = libfaketime();
    for offset in ["+2h", "-2h"] {
        let faked = [("LD_PRELOAD", library.as_str()), ("FAKETIME", offset), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
        let users = world.start_with(Role::Users, &faked).await;
        let client = Client::new(&users.url(), &wallet.url());
        history.register(&client).await;
        assert_invariants(&world, &history, &client).await;
    }
}
