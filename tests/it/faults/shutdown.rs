//! SIGTERM at the worst moments (FP-31, FP-32): exit in time with code 0, the last line logged, nothing lost.

use std::time::{Duration, Instant};

use purse::kernel::Role;
use rustix::process::Signal;
use uuid::Uuid;

use super::history::{History, Outcome};
use super::invariants::assert_invariants;
use super::network::{Proxied, start_proxied};
use super::proxy::Flow;
use super::{FAST_LADDER, start_with_failpoints};
use crate::support::{Client, PATIENCE, RoleProcess, UncommittedWallet, World, eventually};

/// What a loaded machine may need in addition to the grace period.
const MARGIN: Duration = Duration::from_secs(10);

async fn assert_graceful_exit(mut process: RoleProcess, grace: Duration) {
    let began = Instant::now();
    process.signal(Signal::TERM);
    let status = process.exited().await;
    assert_eq!(status.code(), Some(0), "{}", process.output());
    assert!(began.elapsed() < grace + MARGIN, "{:?}\n{}", began.elapsed(), process.output());
    let log = process.log();
    assert_eq!(log.last().map(|line| line["msg"].clone()), Some("stopped".into()), "{}", process.output());
    // The stop ends the connections of libraries, which would report that as errors.
    let stop = log.iter().skip_while(|line| line["msg"] != "stopping");
    let of_libraries: Vec<_> =
        stop.filter(|line| !line["target"].as_str().is_some_and(|target| target.starts_with("purse::"))).collect();
    assert!(of_libraries.is_empty(), "{of_libraries:#?}");
}

#[tokio::test]
async fn fp_32_a_shutdown_ends_within_its_grace_period_while_both_servers_are_silent() {
    let grace = Duration::from_secs(4);
    let quick = [("SHUTDOWN_GRACE_MS", "4000")];
    let Proxied { world, postgres, rabbitmq, users, wallet, client } = start_proxied(World::new().await, &quick).await;
    let history = History::default();
    let user = client.ready_user().await;
    postgres.both(Flow::SILENT);
    rabbitmq.both(Flow::SILENT);
    // In flight during the shutdown: a registration, a post, an event.
    let requests = [
        tokio::spawn({
            let (history, client) = (history.clone(), client.clone());
            async move { drop(history.register(&client).await) }
        }),
        tokio::spawn({
            let (history, client, user) = (history.clone(), client.clone(), user.clone());
            async move { drop(history.post(&client, &user, "credit", 5, "k").await) }
        }),
    ];
    tokio::time::sleep(Duration::from_millis(300)).await;
    tokio::join!(assert_graceful_exit(users, grace), assert_graceful_exit(wallet, grace));
    for request in requests {
        request.await.expect("task");
    }
    postgres.both(Flow::default());
    rabbitmq.both(Flow::default());
    let (_users, _wallet, client) = world.both().await;
    history.post_until_known(&client, &user, "credit", 5, "k").await;
    assert_invariants(&world, &history, &client).await;
}

#[tokio::test]
async fn fp_31_a_shutdown_during_a_hash_and_a_post_completes_both() {
    let (world, history) = (World::new().await, History::default());
    // Each takes an additional half second.
    let slow = "password_hasher.job=1*off->sleep(500);ledger.decided=sleep(500)";
    let users = world.spawn_with_failpoints(Role::Users, slow, &[]).await;
    let wallet = world.spawn_with_failpoints(Role::Wallet, slow, &[]).await;
    let client = Client::new(&users.url(), &wallet.url());
    let user = client.ready_user().await;
    let registering = tokio::spawn({
        let (history, client) = (history.clone(), client.clone());
        async move { history.register(&client).await.outcome }
    });
    let posting = tokio::spawn({
        let (history, client) = (history.clone(), client.clone());
        async move { history.post(&client, &user, "credit", 5, "k").await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    tokio::join!(
        assert_graceful_exit(users, Duration::from_secs(15)),
        assert_graceful_exit(wallet, Duration::from_secs(15))
    );
    for outcome in [registering.await.expect("task"), posting.await.expect("task")] {
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    }
    let (_users, _wallet, client) = world.both().await;
    assert_invariants(&world, &history, &client).await;
}

#[tokio::test]
async fn fp_31_a_shutdown_while_an_event_is_published_marks_it_and_does_not_lose_it() {
    let (world, history) = (World::new().await, History::default());
    let (users, wallet, client) = start_with_failpoints(&world, Role::Users, "amqp.written=sleep(1000)", &[]).await;
    history.register(&client).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_graceful_exit(users, Duration::from_secs(15)).await;
    assert_eq!(world.sql(Role::Users, "SELECT status, claim_token IS NULL FROM outbox").await, "published|t");
    let users = world.start(Role::Users).await;
    assert_invariants(&world, &history, &Client::new(&users.url(), &wallet.url())).await;
}

#[tokio::test]
async fn fp_31_a_shutdown_during_a_delivery_acks_it_or_leaves_it_for_the_next_process() {
    let (world, history) = (World::new().await, History::default());
    let (wallet, users, client) =
        start_with_failpoints(&world, Role::Wallet, "wallet.S12=sleep(1000)", FAST_LADDER).await;
    history.register(&client).await;
    // A second delivery is being copied to a retry tier.
    let stuck = Uuid::now_v7();
    let uncommitted = UncommittedWallet::insert(&world, stuck).await;
    world.publish_event(stuck, "stuck").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_graceful_exit(wallet, Duration::from_secs(15)).await;
    uncommitted.roll_back().await;
    let wallet = world.start_with(Role::Wallet, FAST_LADDER).await;
    assert_invariants(&world, &history, &Client::new(&users.url(), &wallet.url())).await;
    assert_eq!(world.sql(Role::Wallet, &format!("SELECT count(*) FROM wallets WHERE user_id = '{stuck}'")).await, "1");
}

#[tokio::test]
async fn readiness_fails_before_the_listener_closes() {
    let world = World::new().await;
    // A slow post keeps the listener open.
    let (wallet, _users, client) = start_with_failpoints(&world, Role::Wallet, "ledger.decided=sleep(2000)", &[]).await;
    let user = client.ready_user().await;
    let mut kept_alive = crate::support::Raw::connect(&wallet.url()).await;
    kept_alive.send("GET /health/ready HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(kept_alive.response().await.expect("a response").status, 200);
    let posting = tokio::spawn({
        let client = client.clone();
        async move { client.post(&user, "credit", 5, None).await.status.as_u16() }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    wallet.signal(Signal::TERM);
    eventually(PATIENCE, "stopping", || async { (!wallet.logged("stopping").is_empty()).then_some(()) }).await;
    kept_alive.send("GET /health/ready HTTP/1.1\r\nhost: x\r\n\r\n").await;
    // The connection may be closed instead, but never reports readiness.
    if let Some(response) = kept_alive.response().await {
        assert_eq!(response.status, 503, "{response:?}");
    }
    assert_eq!(posting.await.expect("task"), 201);
}
