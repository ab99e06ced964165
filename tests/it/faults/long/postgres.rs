//! PostgreSQL is killed, hangs, stays away (FR-16 to FR-18, FM-04, FP-01).

use std::time::{Duration, Instant};

use purse::kernel::Role;
use purse_dev::{Action, Server};

use super::super::history::{History, Told};
use super::super::invariants::hold;
use super::measured;
use crate::support::{Client, Outages, PATIENCE, World, eventually};

const HEALED: Duration = Duration::from_mins(1);

#[tokio::test]
async fn fr_16_a_database_that_dies_in_a_registration_leaves_all_of_it_or_nothing() {
    let outages = Outages::begin().await;
    let (world, history) = (World::on(outages.servers).await, History::default());
    let wallet = world.start(Role::Wallet).await;
    for point in ["users.S1", "users.S2"] {
        // The registration waits at the point for as long as the kill takes.
        let users = world.spawn_fragile(Role::Users, &format!("{point}=1*sleep(1500)->off"), &[]).await;
        users.ready().await;
        let client = Client::new(&users.url(), &wallet.url());
        let asked = tokio::spawn({
            let (history, client) = (history.clone(), client.clone());
            async move { history.register(&client).await }
        });
        tokio::time::sleep(Duration::from_millis(500)).await;
        outages.act(Server::Postgres, Action::Kill).await;
        let registration = asked.await.expect("asked");
        assert_eq!(registration.told, Told::Unknown, "{point}");
        outages.act(Server::Postgres, Action::Start).await;
        let began = Instant::now();
        eventually(PATIENCE, "it is served again, by the same process", || async {
            (client.register(&registration.email).await.status == 201).then_some(())
        })
        .await;
        println!("measured: FR-16 {point}: served {:.1} s after PostgreSQL was back", began.elapsed().as_secs_f64());
        hold(&world, &history, &client, HEALED).await;
    }
}

#[tokio::test]
async fn fm_04_a_database_that_dies_before_a_commit_is_an_honest_503() {
    let outages = Outages::begin().await;
    let (world, history) = (World::on(outages.servers).await, History::default());
    let users = world.start(Role::Users).await;
    let wallet = world.spawn_fragile(Role::Wallet, "ledger.decided=1*sleep(1500)->off", &[]).await;
    let client = Client::new(&users.url(), &wallet.url());
    let user = client.ready_user().await;
    let asked = tokio::spawn({
        let (history, client, user) = (history.clone(), client.clone(), user.clone());
        async move { history.post(&client, &user, "credit", 5, "k").await }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    outages.act(Server::Postgres, Action::Kill).await;
    // It cannot be known yet whether the commit went through: nobody can be asked.
    let told = asked.await.expect("asked");
    assert!(
        matches!(&told, Told::NotDone(code) if code == "DEPENDENCY_UNAVAILABLE") || told == Told::Unknown,
        "{told:?}"
    );
    outages.act(Server::Postgres, Action::Start).await;
    assert_eq!(world.sql(Role::Wallet, "SELECT count(*) FROM transactions").await, "0");
    let began = Instant::now();
    history.post_until_known(&client, &user, "credit", 5, "k").await;
    println!("measured: FM-04: served {:.1} s after PostgreSQL was back", began.elapsed().as_secs_f64());
    hold(&world, &history, &client, HEALED).await;
}

#[tokio::test]
async fn fr_17_and_18_a_database_that_is_away_for_twice_the_ladder_spends_no_attempt() {
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
    assert_eq!(client.get(&user, "/v1/balance").await.code(), "DEPENDENCY_UNAVAILABLE", "never the gate");
    tokio::time::sleep(Duration::from_secs(15)).await;
    outages.act(Server::Postgres, Action::Start).await;
    let began = Instant::now();
    eventually(Duration::from_secs(15), "every newcomer has a wallet", || async {
        (world.sql(Role::Wallet, "SELECT count(*) FROM wallets").await == "101").then_some(())
    })
    .await;
    measured("FR-18 database away for twice the ladder, 100 events", &history, began.elapsed());
    assert_eq!(world.broker.depth("wallet.provision.dlq").await, Some(0));
    assert!(wallet.log().iter().all(|line| line["tier"].is_null()), "no attempt was spent");
    hold(&world, &history, &client, HEALED).await;
}

#[tokio::test]
async fn fp_01_a_database_that_hangs_for_half_a_minute_is_a_503_in_time_and_poisons_nothing() {
    let outages = Outages::begin().await;
    let (world, history) = (World::on(outages.servers).await, History::default());
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    outages.act(Server::Postgres, Action::Pause).await;
    let (began, mut slowest, mut number) = (Instant::now(), Duration::ZERO, 0);
    while began.elapsed() < Duration::from_secs(30) {
        let asked = Instant::now();
        let told = history.post(&client, &user, "credit", 1, &format!("k{number}")).await;
        assert!(!matches!(told, Told::Done(_)), "{told:?}");
        slowest = slowest.max(asked.elapsed());
        number += 1;
    }
    outages.act(Server::Postgres, Action::Resume).await;
    for n in 0..number {
        history.post_until_known(&client, &user, "credit", 1, &format!("k{n}")).await;
    }
    let healed = hold(&world, &history, &client, HEALED).await;
    assert_eq!(client.balance(&user).await, number, "each once");
    println!(
        "measured: FP-01: slowest refusal {:.1} s, quiet {:.1} s after it went on",
        slowest.as_secs_f64(),
        healed.as_secs_f64()
    );
}
