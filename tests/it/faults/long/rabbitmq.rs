//! RabbitMQ is killed, hangs, runs out of memory or disk, times out a consumer (FR-20 to FR-23, FP-02 to FP-04, FP-12,
//! FP-24).

use std::time::{Duration, Instant};

use purse::kernel::Role;
use purse_dev::{Action, Server};
use rustix::process::Signal;
use serde_json::json;
use uuid::Uuid;

use super::super::FAST_LADDER;
use super::super::history::{History, Outcome};
use super::super::invariants::{assert_invariants, assert_invariants_within};
use super::print_measurement;
use crate::support::{Client, Outages, PATIENCE, UncommittedWallet, World, eventually};

#[tokio::test]
async fn fr_20_to_22_messages_in_the_queue_and_in_a_tier_survive_a_broker_kill() {
    let outages = Outages::begin().await;
    let (world, history) = (World::on(outages.servers).await, History::default());
    let users = world.start(Role::Users).await;
    let slow = [("RETRY_TTL_1_MS", "9000"), ("RETRY_TTL_2_MS", "10000"), ("DB_LOCK_TIMEOUT_MS", "50")];
    let wallet = world.start_with(Role::Wallet, &slow).await;
    // One event waits in the first tier, the other in the queue because nothing consumes it.
    let (in_tier, in_queue) = (Uuid::now_v7(), Uuid::now_v7());
    let uncommitted = UncommittedWallet::insert(&world, in_tier).await;
    world.publish_event(in_tier, "in the tier").await;
    let tier = "wallet.provision.retry.9s";
    eventually(PATIENCE, "the event is in the tier", || async {
        (world.broker.depth(tier).await == Some(1)).then_some(())
    })
    .await;
    wallet.kill().await;
    uncommitted.roll_back().await;
    world.publish_event(in_queue, "in the queue").await;
    outages.act(Server::RabbitMq, Action::Kill).await;
    outages.act(Server::RabbitMq, Action::Start).await;
    let began = Instant::now();
    let wallet = world.start_with(Role::Wallet, &slow).await;
    for user in [in_queue, in_tier] {
        let count = format!("SELECT count(*) FROM wallets WHERE user_id = '{user}'");
        eventually(PATIENCE, "the wallet exists", || async {
            (world.sql(Role::Wallet, &count).await == "1").then_some(())
        })
        .await;
    }
    print_measurement("FR-20 to FR-22 broker killed with messages in it", &history, began.elapsed());
    assert_invariants(&world, &history, &Client::new(&users.url(), &wallet.url())).await;
}

/// Registers users one after the other for `span`. Returns the response times, shortest first.
async fn registrations(history: &History, client: &Client, span: Duration) -> Vec<Duration> {
    let (began, mut times) = (Instant::now(), Vec::new());
    while began.elapsed() < span {
        let requested = Instant::now();
        assert!(matches!(history.register(client).await.outcome, Outcome::Done(_)));
        times.push(requested.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    times.sort_unstable();
    times
}

/// The broker is down for a minute, or for `AWAY_S` seconds, after half as long without a fault.
#[tokio::test]
async fn fr_23_users_register_during_a_broker_outage_and_get_their_wallets_afterwards() {
    let outage = std::env::var("AWAY_S").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(60);
    let outage = Duration::from_secs(outage);
    let outages = Outages::begin().await;
    let (world, history) = (World::on(outages.servers).await, History::default());
    let (users, _wallet, client) = world.both().await;
    client.ready_user().await;
    let before = registrations(&history, &client, outage / 2).await;
    let relayed = "SELECT count(*) FROM outbox WHERE status = 'pending'";
    eventually(PATIENCE, "the outbox is empty", || async {
        (world.sql(Role::Users, relayed).await == "0").then_some(())
    })
    .await;
    let memory = users.memory_kib();
    outages.act(Server::RabbitMq, Action::Kill).await;
    let during = registrations(&history, &client, outage).await;
    let waiting = world.sql(Role::Users, "SELECT count(*), max(attempts) FROM outbox WHERE status = 'pending'").await;
    assert_eq!(waiting, format!("{}|0", during.len()));
    let (status, body) = users.readiness().await;
    assert_eq!((status, &body["status"]), (200, &json!("degraded")));
    let grown = users.memory_kib().saturating_sub(memory) / 1024;
    outages.act(Server::RabbitMq, Action::Start).await;
    let quiet = assert_invariants(&world, &history, &client).await;
    let p99 = |times: &[Duration]| times[times.len() * 99 / 100].as_secs_f64() * 1000.0;
    println!(
        "measured: FR-23: {} registrations in {outage:?} without the broker, p50 {:.2} times and p99 {:.2} times ({:.0} to {:.0} ms) those of the {} before, memory grew by {grown} MiB, quiet {:.1} s after it was back",
        during.len(),
        during[during.len() / 2].as_secs_f64() / before[before.len() / 2].as_secs_f64(),
        p99(&during) / p99(&before),
        p99(&before),
        p99(&during),
        before.len(),
        quiet.as_secs_f64()
    );
    assert!(grown < 50, "{grown} MiB");
}

#[tokio::test]
async fn fp_02_and_03_a_hanging_broker_is_dropped_and_reconnected_without_a_leak() {
    let outages = Outages::begin().await;
    let (world, history) = (World::on(outages.servers).await, History::default());
    let (users, wallet, client) = world.both().await;
    client.ready_user().await;
    let before = [&users, &wallet].map(|role| (role.descriptors(), role.threads()));
    for pause in [15, 60] {
        outages.act(Server::RabbitMq, Action::Pause).await;
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(pause) {
            assert!(matches!(history.register(&client).await.outcome, Outcome::Done(_)));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(users.readiness().await.1["status"], "degraded");
        outages.act(Server::RabbitMq, Action::Resume).await;
        let quiet = assert_invariants(&world, &history, &client).await;
        print_measurement(&format!("FP-02, FP-03 broker hangs {pause} s"), &history, quiet);
    }
    for (role, (descriptors, threads)) in [&users, &wallet].into_iter().zip(before) {
        eventually(PATIENCE, "descriptors and threads are as before", || async {
            (role.descriptors() <= descriptors + 4 && role.threads() <= threads + 2).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn fp_04_a_wallet_process_frozen_for_a_minute_resumes_consuming() {
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
    let quiet = assert_invariants(&world, &history, &client).await;
    print_measurement("FP-04 wallet frozen 60 s", &history, quiet);
    assert!(wallet.logged("actor exceeded its restart budget; giving up").is_empty());
}

#[tokio::test]
async fn fp_12_a_memory_alarm_blocks_publishing_but_neither_registration_nor_shutdown() {
    let outages = Outages::begin().await;
    let (world, history) = (World::on(outages.servers).await, History::default());
    let (users, wallet) = (world.start(Role::Users).await, world.start_with(Role::Wallet, FAST_LADDER).await);
    let client = Client::new(&users.url(), &wallet.url());
    client.ready_user().await;
    outages.rabbitmqctl(&["set_vm_memory_high_watermark", "absolute", "1000000"]).await;
    for _ in 0..10 {
        assert!(matches!(history.register(&client).await.outcome, Outcome::Done(_)));
    }
    eventually(PATIENCE, "the alarm is logged", || async {
        (!users
            .logged("broker blocks publishing because of a memory or disk alarm; messages wait until it ends")
            .is_empty())
        .then_some(())
    })
    .await;
    let (status, body) = users.readiness().await;
    assert_eq!((status, &body["status"]), (200, &json!("degraded")), "{body}");
    // No reconnect and no attempt, however long the alarm lasts.
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(users.logged("connected to the broker").len(), 1, "{}", users.output());
    assert_eq!(world.sql(Role::Users, "SELECT max(attempts) FROM outbox").await, "0");
    // Neither role is delayed in its shutdown.
    for mut role in [users, wallet] {
        role.signal(Signal::TERM);
        let began = Instant::now();
        assert_eq!(role.exited().await.code(), Some(0), "{}", role.output());
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    }
    outages.rabbitmqctl(&["set_vm_memory_high_watermark", "absolute", "2GB"]).await;
    let (_users, _wallet, client) = world.both().await;
    let quiet = assert_invariants(&world, &history, &client).await;
    print_measurement("FP-12 memory alarm", &history, quiet);
}

#[tokio::test]
async fn fp_12_deliveries_are_acked_while_publishing_is_blocked() {
    let outages = Outages::begin().await;
    let (world, history) = (World::on(outages.servers).await, History::default());
    let (users, wallet) = (world.start(Role::Users).await, world.start_with(Role::Wallet, FAST_LADDER).await);
    let client = Client::new(&users.url(), &wallet.url());
    client.ready_user().await;
    // First a backlog that nothing consumes, then the alarm.
    wallet.kill().await;
    for _ in 0..20 {
        history.register(&client).await;
    }
    eventually(PATIENCE, "they are in the queue", || async {
        // The event before them may have lost its ack with the process.
        (world.broker.depth("wallet.provision").await >= Some(20)).then_some(())
    })
    .await;
    outages.rabbitmqctl(&["set_disk_free_limit", "1000000000000000"]).await;
    let wallet = world.start(Role::Wallet).await;
    eventually(PATIENCE, "all of them are acked", || async {
        (world.sql(Role::Wallet, "SELECT count(*) FROM wallets").await == "21"
            && world.broker.depth("wallet.provision").await == Some(0)
            && world.broker.unacked().await == 0)
            .then_some(())
    })
    .await;
    outages.rabbitmqctl(&["set_disk_free_limit", "50MB"]).await;
    assert_invariants(&world, &history, &Client::new(&users.url(), &wallet.url())).await;
}

#[tokio::test]
async fn fp_24_a_delivery_past_the_consumer_timeout_is_processed_once_by_a_new_subscription() {
    let outages = Outages::begin().await;
    let (world, history) = (World::on(outages.servers).await, History::default());
    let users = world.start(Role::Users).await;
    // The broker checks once per minute, so the handler sleeps for more than two.
    outages.rabbitmqctl(&["eval", "application:set_env(rabbit,consumer_timeout,30000)."]).await;
    let wallet = world.spawn_with_failpoints(Role::Wallet, "wallet.S10=1*sleep(130000)->off", &[]).await;
    let client = Client::new(&users.url(), &wallet.url());
    history.register(&client).await;
    let quiet = assert_invariants_within(Duration::from_mins(4), &world, &history, &client).await;
    outages.rabbitmqctl(&["eval", "application:set_env(rabbit,consumer_timeout,1800000)."]).await;
    print_measurement("FP-24 consumer timeout of 30 s", &history, quiet);
    assert!(wallet.logged("connected to the broker and consuming").len() >= 2, "{}", wallet.output());
    let created = || async { (wallet.logged("wallet provisioned").len() == 1).then_some(()) };
    eventually(PATIENCE, "the wallet is created once", created).await;
}
