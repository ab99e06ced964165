//! RabbitMQ is killed, hangs, is short of memory, gives up on a consumer (FR-20 to FR-23, FP-02 to FP-04, FP-12, FP-24).

use std::time::{Duration, Instant};

use purse::kernel::Role;
use purse_dev::{Action, Server};
use rustix::process::Signal;
use serde_json::json;
use uuid::Uuid;

use super::super::FAST_LADDER;
use super::super::history::{History, Told};
use super::super::invariants::hold;
use super::measured;
use crate::support::{Client, Obstacle, Outages, PATIENCE, RoleProcess, World, eventually};

const HEALED: Duration = Duration::from_mins(1);

async fn ready(process: &RoleProcess) -> serde_json::Value {
    let answer = reqwest::get(format!("{}/health/ready", process.url())).await.expect("answer");
    let status = answer.status().as_u16();
    let mut body: serde_json::Value = answer.json().await.expect("JSON");
    body["http"] = json!(status);
    body
}

#[tokio::test]
async fn fr_20_to_22_messages_in_the_queue_and_in_a_tier_survive_a_kill_of_the_broker() {
    let outages = Outages::begin().await;
    let (world, history) = (World::on(outages.servers).await, History::default());
    let users = world.start(Role::Users).await;
    let slow = [("RETRY_TTL_1_MS", "9000"), ("RETRY_TTL_2_MS", "10000"), ("DB_LOCK_TIMEOUT_MS", "50")];
    let wallet = world.start_with(Role::Wallet, &slow).await;
    // One waits in the first tier, one lies in the queue because nobody consumes.
    let (in_tier, in_queue) = (Uuid::now_v7(), Uuid::now_v7());
    let obstacle = Obstacle::before(&world, in_tier).await;
    world.publish_event(in_tier, "in the tier").await;
    let tier = "wallet.provision.retry.9s";
    eventually(PATIENCE, "it waits in the tier", || async {
        (world.broker.depth(tier).await == Some(1)).then_some(())
    })
    .await;
    wallet.kill().await;
    obstacle.vanish().await;
    world.publish_event(in_queue, "in the queue").await;
    outages.act(Server::RabbitMq, Action::Kill).await;
    outages.act(Server::RabbitMq, Action::Start).await;
    let began = Instant::now();
    let wallet = world.start_with(Role::Wallet, &slow).await;
    for user in [in_queue, in_tier] {
        let count = format!("SELECT count(*) FROM wallets WHERE user_id = '{user}'");
        eventually(PATIENCE, "the wallet is there", || async {
            (world.sql(Role::Wallet, &count).await == "1").then_some(())
        })
        .await;
    }
    measured("FR-20 to FR-22 broker killed with messages in it", &history, began.elapsed());
    hold(&world, &history, &Client::new(&users.url(), &wallet.url()), HEALED).await;
}

/// People register one after the other for so long; how long each waited, shortest first.
async fn registrations(history: &History, client: &Client, span: Duration) -> Vec<Duration> {
    let (began, mut times) = (Instant::now(), Vec::new());
    while began.elapsed() < span {
        let asked = Instant::now();
        assert!(matches!(history.register(client).await.told, Told::Done(_)));
        times.push(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    times.sort_unstable();
    times
}

/// The broker is away for a minute, or for `AWAY_S` seconds; before that it is there for half as long.
#[tokio::test]
async fn fr_23_people_register_while_the_broker_is_away_and_get_their_wallets_after() {
    let away = std::env::var("AWAY_S").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(60);
    let away = Duration::from_secs(away);
    let outages = Outages::begin().await;
    let (world, history) = (World::on(outages.servers).await, History::default());
    let (users, _wallet, client) = world.both().await;
    client.ready_user().await;
    let before = registrations(&history, &client, away / 2).await;
    let relayed = "SELECT count(*) FROM outbox WHERE status = 'pending'";
    eventually(PATIENCE, "all is relayed", || async { (world.sql(Role::Users, relayed).await == "0").then_some(()) })
        .await;
    let memory = users.memory_kib();
    outages.act(Server::RabbitMq, Action::Kill).await;
    let during = registrations(&history, &client, away).await;
    let waiting = world.sql(Role::Users, "SELECT count(*), max(attempts) FROM outbox WHERE status = 'pending'").await;
    assert_eq!(waiting, format!("{}|0", during.len()));
    assert_eq!(
        (ready(&users).await["http"].clone(), ready(&users).await["status"].clone()),
        (json!(200), json!("degraded"))
    );
    let grown = users.memory_kib().saturating_sub(memory) / 1024;
    outages.act(Server::RabbitMq, Action::Start).await;
    let healed = hold(&world, &history, &client, HEALED).await;
    let p99 = |times: &[Duration]| times[times.len() * 99 / 100].as_secs_f64() * 1000.0;
    println!(
        "measured: FR-23: {} registrations in {away:?} without the broker, p50 {:.2} times and p99 {:.2} times ({:.0} to {:.0} ms) those of the {} before, memory grew by {grown} MiB, quiet {:.1} s after it was back",
        during.len(),
        during[during.len() / 2].as_secs_f64() / before[before.len() / 2].as_secs_f64(),
        p99(&during) / p99(&before),
        p99(&before),
        p99(&during),
        before.len(),
        healed.as_secs_f64()
    );
    assert!(grown < 50, "{grown} MiB");
}

#[tokio::test]
async fn fp_02_and_03_a_broker_that_hangs_is_given_up_and_taken_up_again_without_a_leak() {
    let outages = Outages::begin().await;
    let (world, history) = (World::on(outages.servers).await, History::default());
    let (users, wallet, client) = world.both().await;
    client.ready_user().await;
    let before = [&users, &wallet].map(|role| (role.descriptors(), role.threads()));
    for pause in [15, 60] {
        outages.act(Server::RabbitMq, Action::Pause).await;
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(pause) {
            assert!(matches!(history.register(&client).await.told, Told::Done(_)));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(ready(&users).await["status"], "degraded");
        outages.act(Server::RabbitMq, Action::Resume).await;
        let healed = hold(&world, &history, &client, HEALED).await;
        measured(&format!("FP-02, FP-03 broker hangs {pause} s"), &history, healed);
    }
    for (role, (descriptors, threads)) in [&users, &wallet].into_iter().zip(before) {
        eventually(PATIENCE, "descriptors and threads are as before", || async {
            (role.descriptors() <= descriptors + 4 && role.threads() <= threads + 2).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn fp_04_a_wallet_process_that_was_frozen_for_a_minute_consumes_again() {
    let outages = Outages::begin().await;
    let (world, history) = (World::on(outages.servers).await, History::default());
    let (_users, wallet, client) = world.both().await;
    client.ready_user().await;
    wallet.signal(Signal::STOP);
    for _ in 0..10 {
        history.register(&client).await;
    }
    tokio::time::sleep(Duration::from_mins(1)).await;
    wallet.signal(Signal::CONT);
    let healed = hold(&world, &history, &client, HEALED).await;
    measured("FP-04 wallet frozen 60 s", &history, healed);
    assert!(wallet.said("actor ended too often and is given up").is_empty());
}

#[tokio::test]
async fn fp_12_an_alarm_blocks_publishing_alone_and_neither_acks_nor_a_stop() {
    let outages = Outages::begin().await;
    let (world, history) = (World::on(outages.servers).await, History::default());
    let (users, wallet) = (world.start(Role::Users).await, world.start_with(Role::Wallet, FAST_LADDER).await);
    let client = Client::new(&users.url(), &wallet.url());
    client.ready_user().await;
    // Something lies in the queue whose wallet cannot be made for now: it has to be copied while publishing is blocked.
    let stuck = Uuid::now_v7();
    outages.rabbitmqctl(&["set_vm_memory_high_watermark", "absolute", "1000000"]).await;
    for _ in 0..10 {
        assert!(matches!(history.register(&client).await.told, Told::Done(_)));
    }
    eventually(PATIENCE, "it is told", || async {
        (!users.said("the broker takes no messages; they wait in the outbox until it does").is_empty()).then_some(())
    })
    .await;
    let body = ready(&users).await;
    assert_eq!((body["http"].clone(), body["status"].clone()), (json!(200), json!("degraded")), "{body}");
    // Neither a reconnect nor an attempt, however long it lasts.
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(users.said("connected to the broker").len(), 1, "{}", users.everything());
    assert_eq!(world.sql(Role::Users, "SELECT max(attempts) FROM outbox").await, "0");
    // A stop of either role is not held up.
    for role in [users, wallet] {
        let mut role = role;
        role.signal(Signal::TERM);
        let began = Instant::now();
        assert_eq!(role.ended().await.code(), Some(0), "{}", role.everything());
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    }
    outages.rabbitmqctl(&["set_vm_memory_high_watermark", "absolute", "512MB"]).await;
    let (_users, _wallet, client) = world.both().await;
    let healed = hold(&world, &history, &client, HEALED).await;
    measured("FP-12 memory alarm", &history, healed);
    assert_eq!(world.sql(Role::Wallet, &format!("SELECT count(*) FROM wallets WHERE user_id = '{stuck}'")).await, "0");
}

#[tokio::test]
async fn fp_12_deliveries_are_acked_while_publishing_is_blocked() {
    let outages = Outages::begin().await;
    let (world, history) = (World::on(outages.servers).await, History::default());
    let (users, wallet) = (world.start(Role::Users).await, world.start_with(Role::Wallet, FAST_LADDER).await);
    let client = Client::new(&users.url(), &wallet.url());
    client.ready_user().await;
    // A backlog that nobody consumes yet, and then the alarm.
    wallet.kill().await;
    for _ in 0..20 {
        history.register(&client).await;
    }
    eventually(PATIENCE, "they lie in the queue", || async {
        // The one before them may have died with the process before its ack was out.
        (world.broker.depth("wallet.provision").await >= Some(20)).then_some(())
    })
    .await;
    outages.rabbitmqctl(&["set_disk_free_limit", "1000000000000000"]).await;
    let wallet = world.start(Role::Wallet).await;
    eventually(PATIENCE, "all of them are acked", || async {
        (world.sql(Role::Wallet, "SELECT count(*) FROM wallets").await == "21"
            && world.broker.depth("wallet.provision").await == Some(0)
            && world.broker.in_hand().await == 0)
            .then_some(())
    })
    .await;
    outages.rabbitmqctl(&["set_disk_free_limit", "50MB"]).await;
    hold(&world, &history, &Client::new(&users.url(), &wallet.url()), HEALED).await;
}

#[tokio::test]
async fn fp_24_a_delivery_that_the_broker_takes_back_is_handled_once_by_a_new_subscription() {
    let outages = Outages::begin().await;
    let (world, history) = (World::on(outages.servers).await, History::default());
    let users = world.start(Role::Users).await;
    // The broker looks once a minute, so the handler sleeps for longer than two.
    outages.rabbitmqctl(&["eval", "application:set_env(rabbit,consumer_timeout,30000)."]).await;
    let wallet = world.spawn_fragile(Role::Wallet, "wallet.S10=1*sleep(130000)->off", &[]).await;
    let client = Client::new(&users.url(), &wallet.url());
    history.register(&client).await;
    let healed = hold(&world, &history, &client, Duration::from_mins(4)).await;
    outages.rabbitmqctl(&["eval", "application:set_env(rabbit,consumer_timeout,1800000)."]).await;
    measured("FP-24 consumer timeout of 30 s", &history, healed);
    assert!(wallet.said("connected to the broker and consuming").len() >= 2, "{}", wallet.everything());
    let made = || async { (wallet.said("wallet provisioned").len() == 1).then_some(()) };
    eventually(PATIENCE, "it was made once", made).await;
}
