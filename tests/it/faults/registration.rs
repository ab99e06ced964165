//! From a registration to its wallet, broken off between any two steps (FR-01 to FR-15). The steps are those of
//! docs/reliability.md: S1 person, S2 event, S3 commit, S4 answer, S5 claim, S6 publish, S7 confirm, S8 mark,
//! S10 delivery, S11 and S12 wallet, S13 ack, R1 copy, R2 copy confirmed.

use std::time::Duration;

use purse::kernel::Role;
use uuid::Uuid;

use super::history::{History, Told};
use super::invariants::{hold, hold_but_for};
use super::proxy::{Commit, Proxy};
use super::{FAST_LADDER, start_with_failpoints};
use crate::support::{Client, PASSWORD, PATIENCE, RoleProcess, UncommittedWallet, World, eventually};

/// The shortest lease that there is: what a dead process has claimed is free after it.
const SHORT_LEASE: &[(&str, &str)] = &[("OUTBOX_LEASE_MS", "6000")];
const HEALED: Duration = Duration::from_mins(1);

/// Lets a users process register somebody and end at `point`, and starts another in its place.
async fn users_broken_off_at(point: &str) -> (World, History, RoleProcess, RoleProcess, Client) {
    let (world, history) = (World::new().await, History::default());
    let (broken, wallet, client) =
        start_with_failpoints(&world, Role::Users, &format!("{point}=return"), SHORT_LEASE).await;
    history.register(&client).await;
    broken.aborted().await;
    let users = world.start_with(Role::Users, SHORT_LEASE).await;
    let client = Client::new(&users.url(), &wallet.url());
    (world, history, users, wallet, client)
}

#[tokio::test]
async fn fr_01_and_02_a_registration_that_was_not_committed_leaves_its_address_free() {
    for point in ["users.S1", "users.S2"] {
        let (world, history, _users, _wallet, client) = users_broken_off_at(point).await;
        let lost = &history.registrations()[0];
        assert_eq!(lost.told, Told::Unknown, "{point}");
        let rows = world.sql(Role::Users, "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM outbox)").await;
        assert_eq!(rows, "0|0", "{point}");
        assert_eq!(client.register(&lost.email).await.status, 201, "{point}");
        hold(&world, &history, &client, HEALED).await;
    }
}

#[tokio::test]
async fn fr_03_a_commit_without_an_answer_is_whole_or_nothing() {
    for (commit, there) in [(Commit::IsNotAnswered, true), (Commit::IsLost, false)] {
        let (world, history) = (World::new().await, History::default());
        let network = Proxy::before(world.addresses.postgres_port).await;
        let wallet = world.start(Role::Wallet).await;
        let slow = network.url(&world.databases.users.runtime_url);
        let users = world.spawn(Role::Users, &[("USERS_DATABASE_URL", &slow)]).await;
        let client = Client::new(&users.url(), &wallet.url());
        network.next_commit(commit);
        let (asking, asker) = (history.clone(), client.clone());
        let asked = tokio::spawn(async move { asking.register(&asker).await });
        eventually(PATIENCE, "the commit is under way", || async { (network.commits_hit() == 1).then_some(()) }).await;
        users.kill().await;
        assert_eq!(asked.await.expect("asked").told, Told::Unknown);
        let users = world.start(Role::Users).await;
        let client = Client::new(&users.url(), &wallet.url());
        let email = &history.registrations()[0].email;
        let again = client.register(email).await;
        assert_eq!(again.status.as_u16(), if there { 409 } else { 201 }, "{commit:?}");
        assert_eq!(client.log_in(email, PASSWORD).await.status, 200, "{commit:?}");
        hold(&world, &history, &client, HEALED).await;
        assert_eq!(world.sql(Role::Wallet, "SELECT count(*) FROM wallets").await, "1");
    }
}

#[tokio::test]
async fn fr_04_a_registration_whose_answer_was_lost_is_there_with_its_wallet() {
    let (world, history, _users, _wallet, client) = users_broken_off_at("users.S4").await;
    let lost = &history.registrations()[0];
    assert_eq!(lost.told, Told::Unknown);
    assert_eq!(client.register(&lost.email).await.code(), "EMAIL_EXISTS");
    assert_eq!(client.log_in(&lost.email, PASSWORD).await.status, 200);
    hold(&world, &history, &client, HEALED).await;
    assert_eq!(world.sql(Role::Wallet, "SELECT count(*) FROM wallets").await, "1");
}

#[tokio::test]
async fn fr_05_a_claim_whose_owner_died_is_free_after_its_lease() {
    let (world, history, _users, _wallet, client) = users_broken_off_at("users.S5").await;
    hold(&world, &history, &client, HEALED).await;
}

#[tokio::test]
async fn fr_06_an_event_that_was_written_and_not_confirmed_is_published_again() {
    let (world, history, _users, _wallet, client) = users_broken_off_at("amqp.written").await;
    hold(&world, &history, &client, HEALED).await;
}

#[tokio::test]
async fn fr_07_an_event_that_was_confirmed_and_not_marked_comes_twice_under_one_id() {
    let (world, history) = (World::new().await, History::default());
    let (broken, wallet, client) =
        start_with_failpoints(&world, Role::Users, "amqp.confirmed=1*off->return", SHORT_LEASE).await;
    history.register(&client).await;
    hold(&world, &history, &client, HEALED).await;
    world.broker.tap("spy", "domain.events", "user.registered").await;
    history.register(&client).await;
    broken.aborted().await;
    let users = world.start_with(Role::Users, SHORT_LEASE).await;
    let client = Client::new(&users.url(), &wallet.url());
    hold(&world, &history, &client, HEALED).await;
    assert_eq!((world.broker.depth("spy").await, world.broker.ids_in("spy").await.len()), (Some(2), 1));
}

#[tokio::test]
async fn fr_08_an_event_that_was_marked_is_not_published_again() {
    let (world, history) = (World::new().await, History::default());
    let (broken, wallet, client) =
        start_with_failpoints(&world, Role::Users, "users.S8=1*off->return", SHORT_LEASE).await;
    history.register(&client).await;
    hold(&world, &history, &client, HEALED).await;
    world.broker.tap("spy", "domain.events", "user.registered").await;
    history.register(&client).await;
    broken.aborted().await;
    let users = world.start_with(Role::Users, SHORT_LEASE).await;
    let client = Client::new(&users.url(), &wallet.url());
    hold(&world, &history, &client, HEALED).await;
    assert_eq!(world.broker.depth("spy").await, Some(1));
}

#[tokio::test]
async fn fr_09_11_and_12_a_delivery_that_a_process_died_over_comes_again_and_climbs_no_ladder() {
    for point in ["wallet.S10", "wallet.S12", "wallet.S13"] {
        let (world, history) = (World::new().await, History::default());
        let (broken, users, client) =
            start_with_failpoints(&world, Role::Wallet, &format!("{point}=return"), &[]).await;
        history.register(&client).await;
        broken.aborted().await;
        let wallet = world.start(Role::Wallet).await;
        let client = Client::new(&users.url(), &wallet.url());
        hold(&world, &history, &client, HEALED).await;
        let log = wallet.log();
        assert!(log.iter().all(|line| line["tier"].is_null() && line["level"] != "error"), "{point}: {log:?}");
    }
}

#[tokio::test]
async fn fr_10_a_wallet_that_was_not_committed_is_made_by_the_next_delivery() {
    let (world, history) = (World::new().await, History::default());
    let (users, wallet, client) = world.both().await;
    history.register(&client).await;
    hold(&world, &history, &client, HEALED).await;
    // The insert of a second wallet waits in the database, uncommitted, when the process is killed.
    let user = Uuid::now_v7();
    let obstacle = UncommittedWallet::insert(&world, user).await;
    world.publish_event(user, "held").await;
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    eventually(PATIENCE, "the insert waits", || async { (world.sql(Role::Wallet, waits).await == "1").then_some(()) })
        .await;
    wallet.kill().await;
    obstacle.roll_back().await;
    let wallet = world.start(Role::Wallet).await;
    let client = Client::new(&users.url(), &wallet.url());
    wallet_of(&world, user).await;
    hold(&world, &history, &client, HEALED).await;
}

#[tokio::test]
async fn fr_13_and_14_a_copy_that_is_under_way_when_the_process_dies_loses_nothing() {
    for point in ["amqp.written", "amqp.confirmed"] {
        let (world, history) = (World::new().await, History::default());
        let (broken, users, _) =
            start_with_failpoints(&world, Role::Wallet, &format!("{point}=return"), FAST_LADDER).await;
        let user = Uuid::now_v7();
        let obstacle = UncommittedWallet::insert(&world, user).await;
        world.publish_event(user, "copied").await;
        broken.aborted().await;
        obstacle.roll_back().await;
        let wallet = world.start_with(Role::Wallet, FAST_LADDER).await;
        wallet_of(&world, user).await;
        let client = Client::new(&users.url(), &wallet.url());
        hold(&world, &history, &client, HEALED).await;
    }
}

#[tokio::test]
async fn fr_15_a_dead_letter_whose_original_was_not_acked_may_lie_there_twice_and_is_not_lost() {
    let (world, history) = (World::new().await, History::default());
    let (broken, users, _client) =
        start_with_failpoints(&world, Role::Wallet, "amqp.confirmed=return", FAST_LADDER).await;
    world.broker.publish("domain.events", "user.registered", b"poison", Some("poison"), &[]).await;
    broken.aborted().await;
    let wallet = world.start_with(Role::Wallet, FAST_LADDER).await;
    let client = Client::new(&users.url(), &wallet.url());
    eventually(PATIENCE, "the main queue is empty", || async {
        (world.broker.depth("wallet.provision").await == Some(0)).then_some(())
    })
    .await;
    hold_but_for(&world, &history, &client, HEALED, &["poison"]).await;
    assert!(matches!(world.broker.depth("wallet.provision.dlq").await, Some(1 | 2)));
}

async fn wallet_of(world: &World, user: Uuid) {
    let count = format!("SELECT count(*) FROM wallets WHERE user_id = '{user}'");
    eventually(PATIENCE, "the wallet is there", || async {
        (world.sql(Role::Wallet, &count).await == "1").then_some(())
    })
    .await;
}
