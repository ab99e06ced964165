//! Queues, exchanges and bindings that are deleted while both roles run are redeclared, and nothing is lost meanwhile
//! (FP-16 to FP-19); rejected logins (FP-21); shuffled events (FP-23).

use std::time::Duration;

use futures_util::future::join_all;
use purse::kernel::Role;
use uuid::Uuid;

use super::FAST_LADDER;
use super::history::History;
use super::invariants::assert_invariants;
use crate::support::{Client, PATIENCE, UncommittedWallet, World, eventually};

const QUEUE: &str = "wallet.provision";
const DEAD: &str = "wallet.provision.dlq";

async fn pending(world: &World) -> String {
    world.sql(Role::Users, "SELECT count(*) FROM outbox WHERE status = 'pending'").await
}

#[tokio::test]
async fn fp_17_a_deleted_exchange_is_redeclared_with_its_binding_and_the_outbox_drains() {
    let (world, history) = (World::new().await, History::default());
    let (_users, _wallet, client) = world.both().await;
    history.register(&client).await;
    assert_invariants(&world, &history, &client).await;
    world.broker.delete_exchange("domain.events").await;
    for _ in 0..10 {
        history.register(&client).await;
    }
    assert_invariants(&world, &history, &client).await;
}

#[tokio::test]
async fn fp_19_an_unroutable_event_is_never_marked_and_is_logged_as_an_error() {
    let (world, history) = (World::new().await, History::default());
    let users = world.spawn(Role::Users, &[]).await;
    // The queue exists without its binding, and no wallet role runs that would restore it.
    drop(world.start(Role::Wallet).await);
    world.broker.unbind(QUEUE, "domain.events", "user.registered").await;
    let client = Client::new(&users.url(), &users.url());
    for _ in 0..5 {
        history.register(&client).await;
    }
    let returned =
        "SELECT count(*) FROM outbox WHERE status = 'pending' AND attempts > 0 AND last_error LIKE 'unroutable%'";
    eventually(PATIENCE, "all of them are returned", || async {
        (world.sql(Role::Users, returned).await == "5").then_some(())
    })
    .await;
    assert!(!users.logged("events were refused by the broker and stay pending").is_empty());
    assert_eq!(world.sql(Role::Users, "SELECT count(*) FROM outbox WHERE published_at IS NOT NULL").await, "0");
    // The consumer binds its queue again.
    let wallet = world.start(Role::Wallet).await;
    let client = Client::new(&users.url(), &wallet.url());
    assert_invariants(&world, &history, &client).await;
}

#[tokio::test]
async fn fp_19_a_binding_removed_while_the_wallet_role_runs_is_restored() {
    let (world, history) = (World::new().await, History::default());
    let (_users, _wallet, client) = world.both().await;
    world.broker.unbind(QUEUE, "domain.events", "user.registered").await;
    history.register(&client).await;
    assert_invariants(&world, &history, &client).await;
}

#[tokio::test]
async fn fp_18_deleted_retry_and_dead_letter_queues_are_redeclared_before_use() {
    let (world, history) = (World::new().await, History::default());
    let users = world.start(Role::Users).await;
    let wallet = world.start_with(Role::Wallet, FAST_LADDER).await;
    let client = Client::new(&users.url(), &wallet.url());
    let user = Uuid::now_v7();
    let uncommitted = UncommittedWallet::insert(&world, user).await;
    for queue in ["wallet.provision.retry.200ms", "wallet.provision.retry.400ms", "wallet.provision.retry.800ms", DEAD]
    {
        world.broker.delete_queue(queue).await;
    }
    world.broker.delete_exchange("domain.events.dlx").await;
    world.publish_event(user, "stuck").await;
    let dead = eventually(PATIENCE, "a dead letter", || async {
        world.broker.depth(DEAD).await.filter(|depth| *depth > 0)?;
        world.broker.take(DEAD).await
    })
    .await;
    assert_eq!((dead.id.as_deref(), dead.headers.get("x-attempt").map(String::as_str)), (Some("stuck"), Some("3")));
    uncommitted.roll_back().await;
    assert_invariants(&world, &history, &client).await;
}

#[tokio::test]
async fn fp_16_a_deleted_queue_is_redeclared_and_consumed_within_seconds() {
    let (world, history) = (World::new().await, History::default());
    let (_users, wallet, client) = world.both().await;
    for _ in 0..3 {
        world.broker.delete_queue(QUEUE).await;
        for _ in 0..5 {
            history.register(&client).await;
        }
        assert_eq!(pending(&world).await.parse::<u32>().map(|count| count <= 5), Ok(true));
        assert_invariants(&world, &history, &client).await;
    }
    assert!(wallet.logged("connected to the broker and consuming").len() > 3, "{}", wallet.output());
}

#[tokio::test]
async fn fp_21_rejected_broker_logins_affect_no_registration_and_do_not_flood_the_log() {
    let world = World::new().await;
    let wrong = world.broker.url().replace("guest:guest@", "guest:wrong@");
    let users = world.spawn(Role::Users, &[("RABBITMQ_URL", &wrong)]).await;
    let client = Client::new(&users.url(), &users.url());
    let registered = join_all((0..10).map(|_| client.user())).await;
    assert_eq!((registered.len(), pending(&world).await.as_str()), (10, "10"));
    let away = "a dependency is unavailable; retrying until it is back";
    eventually(PATIENCE, "the outage is logged", || async { (!users.logged(away).is_empty()).then_some(()) }).await;
    let attempts = world.broker.failed_logins_during(Duration::from_secs(5)).await;
    assert_eq!(users.logged(away).len(), 1, "logged once per minute, not at every attempt");
    assert!(attempts <= 10, "{attempts} attempts in five seconds");
    assert_eq!(users.readiness().await.1["status"], "degraded");
}

#[tokio::test]
async fn fp_23_a_thousand_shuffled_events_with_late_copies_create_a_thousand_wallets() {
    let world = World::new().await;
    let wallet = world.start(Role::Wallet).await;
    let mut users: Vec<Uuid> = (0..1000).map(|_| Uuid::now_v7()).collect();
    users.sort_unstable_by_key(|user| user.as_u128().reverse_bits());
    let (_connection, channel) = world.broker.channel().await;
    // Each event once, and a copy of it after two hundred others.
    let late = users.iter().chain(std::iter::repeat(&users[0])).take(200);
    for (first, copy) in users.iter().zip(late.chain(users.iter())) {
        for user in [first, copy] {
            let body = format!(r#"{{"userId":"{user}"}}"#);
            let sent = channel.basic_publish(
                "domain.events".into(),
                "user.registered".into(),
                lapin::options::BasicPublishOptions::default(),
                body.as_bytes(),
                lapin::BasicProperties::default().with_delivery_mode(2),
            );
            sent.await.expect("sent");
        }
    }
    eventually(PATIENCE, "all wallets exist", || async {
        (world.sql(Role::Wallet, "SELECT count(*) FROM wallets").await == "1000").then_some(())
    })
    .await;
    eventually(PATIENCE, "the queue is empty", || async { (world.broker.depth(QUEUE).await == Some(0)).then_some(()) })
        .await;
    assert_eq!(world.broker.depth(DEAD).await, Some(0));
    let created = || async { (wallet.logged("wallet provisioned").len() == 1000).then_some(()) };
    eventually(PATIENCE, "each wallet is created once", created).await;
}
