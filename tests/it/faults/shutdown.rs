//! SIGTERM at the worst moments (FP-31 to FP-33): in time, with 0, the last line written, and nothing lost.

use std::time::{Duration, Instant};

use purse::kernel::Role;
use rustix::process::Signal;
use uuid::Uuid;

use super::history::{History, Told};
use super::invariants::hold;
use super::network::{Networks, networks};
use super::proxy::Flow;
use super::{FAST_LADDER, start_with_failpoints};
use crate::support::{Client, PATIENCE, RoleProcess, UncommittedWallet, World, eventually};

const HEALED: Duration = Duration::from_mins(1);
/// What a machine that is busy may need beside the grace.
const MARGIN: Duration = Duration::from_secs(10);

async fn ends_in_order(mut process: RoleProcess, grace: Duration) {
    let began = Instant::now();
    process.signal(Signal::TERM);
    let status = process.exited().await;
    assert_eq!(status.code(), Some(0), "{}", process.output());
    assert!(began.elapsed() < grace + MARGIN, "{:?}\n{}", began.elapsed(), process.output());
    assert_eq!(process.log().last().map(|line| line["msg"].clone()), Some("stopped".into()), "{}", process.output());
}

#[tokio::test]
async fn fp_32_a_stop_ends_within_its_grace_while_the_database_and_the_broker_are_silent() {
    let grace = Duration::from_secs(4);
    let quick = [("SHUTDOWN_GRACE_MS", "4000")];
    let Networks { world, postgres, rabbitmq, users, wallet, client } = networks(World::new().await, &quick).await;
    let history = History::default();
    let user = client.ready_user().await;
    postgres.both(Flow::SILENT);
    rabbitmq.both(Flow::SILENT);
    // In hand while the stop comes: a registration, a post, an event.
    let asking = [
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
    tokio::join!(ends_in_order(users, grace), ends_in_order(wallet, grace));
    for asked in asking {
        asked.await.expect("asked");
    }
    postgres.both(Flow::default());
    rabbitmq.both(Flow::default());
    let (_users, _wallet, client) = world.both().await;
    history.post_until_known(&client, &user, "credit", 5, "k").await;
    hold(&world, &history, &client, HEALED).await;
}

#[tokio::test]
async fn fp_31_a_stop_during_a_hash_and_a_debit_answers_both() {
    let (world, history) = (World::new().await, History::default());
    // Each takes half a second longer than it would.
    let slow = "password_hasher.job=1*off->sleep(500);ledger.decided=sleep(500)";
    let users = world.spawn_with_failpoints(Role::Users, slow, &[]).await;
    let wallet = world.spawn_with_failpoints(Role::Wallet, slow, &[]).await;
    let client = Client::new(&users.url(), &wallet.url());
    let user = client.ready_user().await;
    let registering = tokio::spawn({
        let (history, client) = (history.clone(), client.clone());
        async move { history.register(&client).await.told }
    });
    let posting = tokio::spawn({
        let (history, client) = (history.clone(), client.clone());
        async move { history.post(&client, &user, "credit", 5, "k").await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    tokio::join!(ends_in_order(users, Duration::from_secs(15)), ends_in_order(wallet, Duration::from_secs(15)));
    for told in [registering.await.expect("asked"), posting.await.expect("asked")] {
        assert!(matches!(told, Told::Done(_)), "{told:?}");
    }
    let (_users, _wallet, client) = world.both().await;
    hold(&world, &history, &client, HEALED).await;
}

#[tokio::test]
async fn fp_31_a_stop_while_an_event_is_published_marks_it_and_does_not_lose_it() {
    let (world, history) = (World::new().await, History::default());
    let (users, wallet, client) = start_with_failpoints(&world, Role::Users, "amqp.written=sleep(1000)", &[]).await;
    history.register(&client).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    ends_in_order(users, Duration::from_secs(15)).await;
    assert_eq!(world.sql(Role::Users, "SELECT status, claim_token IS NULL FROM outbox").await, "published|t");
    let users = world.start(Role::Users).await;
    hold(&world, &history, &Client::new(&users.url(), &wallet.url()), HEALED).await;
}

#[tokio::test]
async fn fp_31_a_stop_while_a_delivery_is_in_hand_acks_it_or_leaves_it_to_the_next() {
    let (world, history) = (World::new().await, History::default());
    let (wallet, users, client) =
        start_with_failpoints(&world, Role::Wallet, "wallet.S12=sleep(1000)", FAST_LADDER).await;
    history.register(&client).await;
    // A second one is on its way to a tier.
    let stuck = Uuid::now_v7();
    let obstacle = UncommittedWallet::insert(&world, stuck).await;
    world.publish_event(stuck, "stuck").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    ends_in_order(wallet, Duration::from_secs(15)).await;
    obstacle.roll_back().await;
    let wallet = world.start_with(Role::Wallet, FAST_LADDER).await;
    hold(&world, &history, &Client::new(&users.url(), &wallet.url()), HEALED).await;
    assert_eq!(world.sql(Role::Wallet, &format!("SELECT count(*) FROM wallets WHERE user_id = '{stuck}'")).await, "1");
}

#[tokio::test]
async fn a_stop_says_not_ready_before_it_closes_the_door() {
    let world = World::new().await;
    // A post that takes its time holds the listener open.
    let (wallet, _users, client) = start_with_failpoints(&world, Role::Wallet, "ledger.decided=sleep(2000)", &[]).await;
    let user = client.ready_user().await;
    let mut kept = crate::support::Raw::connect(&wallet.url()).await;
    kept.send("GET /health/ready HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(kept.response().await.expect("an answer").status, 200);
    let posting = tokio::spawn({
        let client = client.clone();
        async move { client.post(&user, "credit", 5, None).await.status.as_u16() }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    wallet.signal(Signal::TERM);
    eventually(PATIENCE, "stopping", || async { (!wallet.logged("stopping").is_empty()).then_some(()) }).await;
    kept.send("GET /health/ready HTTP/1.1\r\nhost: x\r\n\r\n").await;
    // The connection is told, or is closed: it is never told that all is well.
    if let Some(answer) = kept.response().await {
        assert_eq!(answer.status, 503, "{answer:?}");
    }
    assert_eq!(posting.await.expect("asked"), 201);
}
