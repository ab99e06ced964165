//! Two processes of a role at once (CC-09, CC-10, FP-05), interrupted migrations and older binaries (FP-35, FP-36).

use std::time::Duration;

use purse::kernel::Role;

use super::history::History;
use super::invariants::assert_invariants;
use crate::support::{Client, PATIENCE, World, eventually};

/// Inserts this many users, each with a pending event, directly into the database.
async fn insert_pending_users(world: &World, count: usize) {
    let script = format!(
        "WITH registered AS (
             INSERT INTO users (id, first_name, last_name, email, password_hash, created_at)
             SELECT gen_random_uuid(), 'A', 'B', 'p' || n || '@example.com', '$argon2id$v=19$m=8,t=1,p=1$x$y', now()
             FROM generate_series(1, {count}) AS n RETURNING id
         )
         INSERT INTO outbox (id, type, payload_json)
         SELECT gen_random_uuid(), 'UserRegistered', json_build_object('userId', id) FROM registered"
    );
    world.sql(Role::Users, &script).await;
}

#[tokio::test]
async fn cc_09_and_10_two_pollers_and_two_consumers_relay_ten_thousand_events_once_each() {
    const EVENTS: usize = 10_000;
    let (world, history) = (World::new().await, History::default());
    // Migrates and declares everything; then no process runs.
    let (users, wallet, _) = world.both().await;
    drop((users, wallet));
    world.broker.tap("spy", "domain.events", "user.registered").await;
    insert_pending_users(&world, EVENTS).await;
    let (first, second, third, fourth) = tokio::join!(
        world.start(Role::Users),
        world.start(Role::Users),
        world.start(Role::Wallet),
        world.start(Role::Wallet)
    );
    let client = Client::new(&first.url(), &third.url());
    assert_invariants(&world, &history, &client).await;
    assert_eq!(
        world.broker.depth("spy").await,
        Some(u32::try_from(EVENTS).expect("count")),
        "no event is published twice"
    );
    assert_eq!(world.sql(Role::Wallet, "SELECT count(*) FROM wallets").await, EVENTS.to_string());
    for process in [&first, &second, &third, &fourth] {
        let mut problems = process.log();
        problems.retain(|line| line["level"] == "error" || line["level"] == "warn");
        problems.retain(|line| line["msg"].as_str().is_none_or(|msg| !msg.contains("unsafe setting")));
        assert!(problems.is_empty(), "{problems:?}");
    }
}

#[tokio::test]
async fn fp_05_a_poller_that_wakes_after_its_lease_leaves_the_rows_to_their_new_owner() {
    let (world, history) = (World::new().await, History::default());
    let wallet = world.start(Role::Wallet).await;
    let lease = [("OUTBOX_LEASE_MS", "6000")];
    let sleeper = world.spawn_with_failpoints(Role::Users, "amqp.written=1*off->1*sleep(9000)->off", &lease).await;
    let client = Client::new(&sleeper.url(), &wallet.url());
    history.register(&client).await;
    assert_invariants(&world, &history, &client).await;
    history.register(&client).await;
    let claimed = "SELECT count(*) FROM outbox WHERE claim_token IS NOT NULL";
    eventually(PATIENCE, "the event is claimed", || async {
        (world.sql(Role::Users, claimed).await == "1").then_some(())
    })
    .await;
    let _other = world.start_with(Role::Users, &lease).await;
    let pending = "SELECT count(*) FROM outbox WHERE status = 'pending'";
    eventually(PATIENCE, "the other process publishes it", || async {
        (world.sql(Role::Users, pending).await == "0").then_some(())
    })
    .await;
    let marked = world.sql(Role::Users, "SELECT max(published_at) FROM outbox").await;
    let lost = "events were taken over by another process after their lease expired";
    eventually(PATIENCE, "the sleeper notices", || async { (!sleeper.logged(lost).is_empty()).then_some(()) }).await;
    assert_eq!(
        world.sql(Role::Users, "SELECT max(published_at) FROM outbox").await,
        marked,
        "the sleeper changed the row"
    );
    assert_invariants(&world, &history, &client).await;
}

#[tokio::test]
async fn fp_35_a_killed_migration_is_completed_by_the_next_boot() {
    let world = World::new().await;
    // Kills it at different moments, from the first statement to the last.
    for after_ms in [5, 15, 25, 35, 45, 60, 80] {
        let process =
            crate::support::RoleProcess::spawn(&["migrate", "--role", "wallet"], &world.settings(Role::Wallet));
        tokio::time::sleep(Duration::from_millis(after_ms)).await;
        process.kill().await;
    }
    let _wallet = world.start(Role::Wallet).await;
    let scripts =
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/wallet")).expect("scripts").count();
    let applied =
        world.sql(Role::Wallet, "SELECT count(*), count(DISTINCT version) FROM refinery_schema_history").await;
    assert_eq!(applied, format!("{scripts}|{scripts}"));
}

#[tokio::test]
async fn fp_36_a_binary_older_than_its_schema_serves() {
    let world = World::new().await;
    drop(world.start(Role::Wallet).await);
    world
        .sql(
            Role::Wallet,
            "INSERT INTO refinery_schema_history (version, name, applied_on, checksum)
             VALUES (99, 'from_the_future', '2026-01-01T00:00:00Z', '1')",
        )
        .await;
    let _wallet = world.start(Role::Wallet).await;
}
