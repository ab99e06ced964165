//! What is deleted at the broker while both roles run is there again, and nothing was lost meanwhile (FP-16 to FP-23).

use std::time::Duration;

use futures_util::future::join_all;
use purse::kernel::Role;
use uuid::Uuid;

use super::FAST_LADDER;
use super::history::History;
use super::invariants::hold;
use crate::support::{PATIENCE, UncommittedWallet, World, eventually};

const HEALED: Duration = Duration::from_mins(1);
const QUEUE: &str = "wallet.provision";
const DEAD: &str = "wallet.provision.dlq";

async fn pending(world: &World) -> String {
    world.sql(Role::Users, "SELECT count(*) FROM outbox WHERE status = 'pending'").await
}

#[tokio::test]
async fn fp_17_a_deleted_exchange_is_declared_again_with_its_binding_and_the_outbox_drains() {
    let (world, history) = (World::new().await, History::default());
    let (_users, _wallet, client) = world.both().await;
    history.register(&client).await;
    hold(&world, &history, &client, HEALED).await;
    world.broker.delete_exchange("domain.events").await;
    for _ in 0..10 {
        history.register(&client).await;
    }
    hold(&world, &history, &client, HEALED).await;
}

#[tokio::test]
async fn fp_19_an_event_without_a_binding_is_never_marked_and_is_told_as_an_error() {
    let (world, history) = (World::new().await, History::default());
    let users = world.spawn(Role::Users, &[]).await;
    // The queue without its binding, and nobody who would bind it.
    drop(world.start(Role::Wallet).await);
    world.broker.unbind(QUEUE, "domain.events", "user.registered").await;
    let client = crate::support::Client::new(&users.url(), &users.url());
    for _ in 0..5 {
        history.register(&client).await;
    }
    let refused =
        "SELECT count(*) FROM outbox WHERE status = 'pending' AND attempts > 0 AND last_error LIKE 'unroutable%'";
    eventually(PATIENCE, "all of them were given back", || async {
        (world.sql(Role::Users, refused).await == "5").then_some(())
    })
    .await;
    assert!(!users.logged("events were refused by the broker and stay pending").is_empty());
    assert_eq!(world.sql(Role::Users, "SELECT count(*) FROM outbox WHERE published_at IS NOT NULL").await, "0");
    // Whoever consumes binds its queue again.
    let wallet = world.start(Role::Wallet).await;
    let client = crate::support::Client::new(&users.url(), &wallet.url());
    hold(&world, &history, &client, HEALED).await;
}

#[tokio::test]
async fn fp_19_a_binding_that_is_removed_while_the_wallet_runs_is_there_again() {
    let (world, history) = (World::new().await, History::default());
    let (_users, _wallet, client) = world.both().await;
    world.broker.unbind(QUEUE, "domain.events", "user.registered").await;
    history.register(&client).await;
    hold(&world, &history, &client, HEALED).await;
}

#[tokio::test]
async fn fp_18_deleted_retry_queues_and_dead_letters_are_declared_before_they_are_used() {
    let (world, history) = (World::new().await, History::default());
    let users = world.start(Role::Users).await;
    let wallet = world.start_with(Role::Wallet, FAST_LADDER).await;
    let client = crate::support::Client::new(&users.url(), &wallet.url());
    let user = Uuid::now_v7();
    let obstacle = UncommittedWallet::insert(&world, user).await;
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
    obstacle.roll_back().await;
    hold(&world, &history, &client, HEALED).await;
}

#[tokio::test]
async fn fp_16_a_deleted_queue_is_consumed_again_within_seconds() {
    let (world, history) = (World::new().await, History::default());
    let (_users, wallet, client) = world.both().await;
    for _ in 0..3 {
        world.broker.delete_queue(QUEUE).await;
        for _ in 0..5 {
            history.register(&client).await;
        }
        assert_eq!(pending(&world).await.parse::<u32>().map(|count| count <= 5), Ok(true));
        hold(&world, &history, &client, HEALED).await;
    }
    assert!(wallet.logged("connected to the broker and consuming").len() > 3, "{}", wallet.output());
}

#[tokio::test]
async fn fp_21_a_broker_that_refuses_the_login_leaves_registration_alone_and_the_log_readable() {
    let world = World::new().await;
    let wrong = world.broker.url().replace("guest:guest@", "guest:wrong@");
    let users = world.spawn(Role::Users, &[("RABBITMQ_URL", &wrong)]).await;
    let client = crate::support::Client::new(&users.url(), &users.url());
    let registered = join_all((0..10).map(|_| client.user())).await;
    assert_eq!((registered.len(), pending(&world).await.as_str()), (10, "10"));
    let away = "a dependency is away; trying again until it is back";
    eventually(PATIENCE, "it is told", || async { (!users.logged(away).is_empty()).then_some(()) }).await;
    let tries = world.broker.failed_logins_during(Duration::from_secs(5)).await;
    assert_eq!(users.logged(away).len(), 1, "told once a minute, not at every try");
    assert!(tries <= 10, "{tries} tries in five seconds");
    let ready: serde_json::Value =
        reqwest::get(format!("{}/health/ready", users.url())).await.expect("answer").json().await.expect("JSON");
    assert_eq!(ready["status"], "degraded");
}

#[tokio::test]
async fn fp_23_a_thousand_shuffled_events_with_late_copies_make_a_thousand_wallets() {
    let world = World::new().await;
    let wallet = world.start(Role::Wallet).await;
    let mut users: Vec<Uuid> = (0..1000).map(|_| Uuid::now_v7()).collect();
    users.sort_unstable_by_key(|user| user.as_u128().reverse_bits());
    let (_connection, channel) = world.broker.channel().await;
    // Each at once, and a copy of each after two hundred others.
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
    eventually(PATIENCE, "all wallets are there", || async {
        (world.sql(Role::Wallet, "SELECT count(*) FROM wallets").await == "1000").then_some(())
    })
    .await;
    eventually(PATIENCE, "the queue is empty", || async { (world.broker.depth(QUEUE).await == Some(0)).then_some(()) })
        .await;
    assert_eq!(world.broker.depth(DEAD).await, Some(0));
    let made = || async { (wallet.logged("wallet provisioned").len() == 1000).then_some(()) };
    eventually(PATIENCE, "each was made once", made).await;
}
