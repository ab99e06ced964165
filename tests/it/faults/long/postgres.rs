//! PostgreSQL is killed, hangs, is down (FR-16 to FR-18, FM-04, FP-01).

use std::time::{Duration, Instant};

use purse::kernel::Role;
use purse_dev::{Action, Server};

use super::super::history::{History, Outcome};
use super::super::invariants::assert_invariants;
use super::print_measurement;
use crate::support::{Client, Outages, PATIENCE, World, eventually};

#[tokio::test]
async fn fr_16_a_registration_during_a_database_crash_is_all_or_nothing() {
    let outages = Outages::begin().await;
    let (world, history) = (World::on(outages.servers).await, History::default());
    let wallet = world.start(Role::Wallet).await;
    for point in ["users.S1", "users.S2"] {
        // The registration waits at this point until the kill is over.
        let users = world.spawn_with_failpoints(Role::Users, &format!("{point}=1*sleep(1500)->off"), &[]).await;
        users.ready().await;
        let client = Client::new(&users.url(), &wallet.url());
        let pending = tokio::spawn({
            let (history, client) = (history.clone(), client.clone());
            async move { history.register(&client).await }
        });
        tokio::time::sleep(Duration::from_millis(500)).await;
        outages.act(Server::Postgres, Action::Kill).await;
        let registration = pending.await.expect("task");
        // Whether the transaction was committed cannot be looked up while the database is down.
        assert!(!matches!(registration.outcome, Outcome::Done(_)), "{point}: {registration:?}");
        outages.act(Server::Postgres, Action::Start).await;
        let began = Instant::now();
        eventually(PATIENCE, "the same process registers again", || async {
            history.register_as(&client, registration.email.clone()).await.user.map(drop)
        })
        .await;
        println!("measured: FR-16 {point}: served {:.1} s after PostgreSQL was back", began.elapsed().as_secs_f64());
        assert_invariants(&world, &history, &client).await;
    }
}

#[tokio::test]
async fn fm_04_a_database_crash_before_the_commit_is_a_503_and_writes_nothing() {
    let outages = Outages::begin().await;
    let (world, history) = (World::on(outages.servers).await, History::default());
    let users = world.start(Role::Users).await;
    let wallet = world.spawn_with_failpoints(Role::Wallet, "ledger.decided=1*sleep(1500)->off", &[]).await;
    let client = Client::new(&users.url(), &wallet.url());
    let user = client.ready_user().await;
    let pending = tokio::spawn({
        let (history, client, user) = (history.clone(), client.clone(), user.clone());
        async move { history.post(&client, &user, "credit", 5, "k").await }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    outages.act(Server::Postgres, Action::Kill).await;
    // Whether the transaction was committed cannot be looked up while the database is down.
    let outcome = pending.await.expect("task");
    assert!(
        matches!(&outcome, Outcome::NotDone(code) if code == "DEPENDENCY_UNAVAILABLE") || outcome == Outcome::Unknown,
        "{outcome:?}"
    );
    outages.act(Server::Postgres, Action::Start).await;
    assert_eq!(world.sql(Role::Wallet, "SELECT count(*) FROM transactions").await, "0");
    let began = Instant::now();
    history.post_until_known(&client, &user, "credit", 5, "k").await;
    println!("measured: FM-04: served {:.1} s after PostgreSQL was back", began.elapsed().as_secs_f64());
    assert_invariants(&world, &history, &client).await;
}

#[tokio::test]
async fn fr_17_and_18_a_database_outage_of_twice_the_ladder_uses_no_attempt() {
    // Seven seconds of ladder, fifteen of outage.
    let ladder = [("RETRY_TTL_1_MS", "1000"), ("RETRY_TTL_2_MS", "2000"), ("RETRY_TTL_3_MS", "4000")];
    let outages = Outages::begin().await;
    let (world, history) = (World::on(outages.servers).await, History::default());
    let (users, wallet) = (world.start(Role::Users).await, world.start_with(Role::Wallet, &ladder).await);
    let client = Client::new(&users.url(), &wallet.url());
    let user = client.ready_user().await;
    let newcomers: Vec<uuid::Uuid> = (0..100).map(|_| uuid::Uuid::now_v7()).collect();
    outages.act(Server::Postgres, Action::Kill).await;
    for newcomer in &newcomers {
        world.publish_event(*newcomer, &newcomer.to_string()).await;
    }
    assert_eq!(client.get(&user, "/v1/balance").await.code(), "DEPENDENCY_UNAVAILABLE", "not the gate");
    tokio::time::sleep(Duration::from_secs(15)).await;
    outages.act(Server::Postgres, Action::Start).await;
    let began = Instant::now();
    eventually(Duration::from_secs(15), "every newcomer has a wallet", || async {
        (world.sql(Role::Wallet, "SELECT count(*) FROM wallets").await == "101").then_some(())
    })
    .await;
    print_measurement("FR-18 database down for twice the ladder, 100 events", &history, began.elapsed());
    assert_eq!(world.broker.depth("wallet.provision.dlq").await, Some(0));
    assert!(wallet.log().iter().all(|line| line["tier"].is_null()), "no attempt is used");
    assert_invariants(&world, &history, &client).await;
}

#[tokio::test]
async fn fp_01_a_hanging_database_is_a_503_in_time_and_late_statements_have_no_second_effect() {
    let outages = Outages::begin().await;
    let (world, history) = (World::on(outages.servers).await, History::default());
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    outages.act(Server::Postgres, Action::Pause).await;
    let (began, mut slowest, mut number) = (Instant::now(), Duration::ZERO, 0);
    while began.elapsed() < Duration::from_secs(30) {
        let requested = Instant::now();
        let outcome = history.post(&client, &user, "credit", 1, &format!("k{number}")).await;
        assert!(!matches!(outcome, Outcome::Done(_)), "{outcome:?}");
        slowest = slowest.max(requested.elapsed());
        number += 1;
    }
    outages.act(Server::Postgres, Action::Resume).await;
    for n in 0..number {
        history.post_until_known(&client, &user, "credit", 1, &format!("k{n}")).await;
    }
    let quiet = assert_invariants(&world, &history, &client).await;
    assert_eq!(client.balance(&user).await, number, "each post is written once");
    println!(
        "measured: FP-01: slowest rejection {:.1} s, quiet {:.1} s after it resumed",
        slowest.as_secs_f64(),
        quiet.as_secs_f64()
    );
}
