//! Deliveries: poison messages, the retry ladder, duplicates, deleted queues.

use std::time::Duration;

use purse::kernel::Role;
use serde_json::Value;
use uuid::Uuid;

use crate::support::{PATIENCE, RoleProcess, UncommittedWallet, World, eventually};

const QUEUE: &str = "wallet.provision";
const DEAD: &str = "wallet.provision.dlq";

/// A ladder of less than two seconds, and a short lock timeout.
const FAST: &[(&str, &str)] =
    &[("RETRY_TTL_1_MS", "200"), ("RETRY_TTL_2_MS", "400"), ("RETRY_TTL_3_MS", "800"), ("DB_LOCK_TIMEOUT_MS", "50")];

fn event(user: Uuid) -> Vec<u8> {
    format!(r#"{{"userId":"{user}"}}"#).into_bytes()
}

async fn wallets(world: &World, user: Uuid) -> String {
    world.sql(Role::Wallet, &format!("SELECT count(*) FROM wallets WHERE user_id = '{user}'")).await
}

async fn wait_for_wallet(world: &World, user: Uuid) {
    eventually(PATIENCE, "the wallet exists", || async { (wallets(world, user).await == "1").then_some(()) }).await;
}

async fn dead_letter(world: &World) -> crate::support::Message {
    eventually(PATIENCE, "a dead letter", || async { world.broker.take(DEAD).await }).await
}

fn tiers(wallet: &RoleProcess, message_id: &str) -> Vec<i64> {
    let of_message = |line: &Value| line["event_id"] == message_id && line["tier"].is_i64();
    wallet.log().iter().filter(|line| of_message(line)).filter_map(|line| line["tier"].as_i64()).collect()
}

#[tokio::test]
async fn a_poison_message_is_dead_lettered_at_once_with_its_reason() {
    let world = World::new().await;
    let wallet = world.start(Role::Wallet).await;
    let user = Uuid::now_v7();
    for (body, reason) in [
        (&b"not json"[..], "body is not a UserRegistered event"),
        (br#"["a"]"#, "body is not a UserRegistered event"),
        (br#"{"userId":"x"}"#, "userId is not a UUID"),
    ] {
        world.broker.publish("domain.events", "user.registered", body, Some("poison-1"), &[]).await;
        let dead = dead_letter(&world).await;
        assert_eq!(dead.body, body);
        assert_eq!(dead.headers.get("x-error").map(String::as_str), Some(reason));
        assert_eq!(dead.id.as_deref(), Some("poison-1"));
    }
    // Without an id as well; the next event is processed.
    world.broker.publish("domain.events", "user.registered", b"", None, &[]).await;
    world.broker.publish("domain.events", "user.registered", &event(user), None, &[]).await;
    wait_for_wallet(&world, user).await;
    assert_eq!(dead_letter(&world).await.body, b"");
    assert!(tiers(&wallet, "poison-1").is_empty(), "a poison message was retried");
    assert_eq!(world.broker.depth(QUEUE).await, Some(0));
}

#[tokio::test]
async fn an_event_that_keeps_failing_climbs_three_tiers_and_is_dead_lettered_while_others_are_processed() {
    let world = World::new().await;
    let wallet = world.start_with(Role::Wallet, FAST).await;
    let (stuck, free) = (Uuid::now_v7(), Uuid::now_v7());
    let _obstacle = UncommittedWallet::insert(&world, stuck).await;
    world.broker.publish("domain.events", "user.registered", &event(stuck), Some("stuck"), &[]).await;
    world.broker.publish("domain.events", "user.registered", &event(free), Some("free"), &[]).await;
    wait_for_wallet(&world, free).await;
    let dead = dead_letter(&world).await;
    assert_eq!(dead.id.as_deref(), Some("stuck"));
    assert_eq!(dead.headers.get("x-attempt").map(String::as_str), Some("3"));
    assert!(dead.headers.get("x-error").is_some_and(|e| e.contains("wallet.provision did not succeed")), "{dead:?}");
    assert_eq!(tiers(&wallet, "stuck"), [1, 2, 3]);
    assert!(tiers(&wallet, "free").is_empty());
}

#[tokio::test]
async fn an_event_that_fails_temporarily_is_processed_by_a_later_retry() {
    let world = World::new().await;
    let wallet = world.start_with(Role::Wallet, FAST).await;
    let user = Uuid::now_v7();
    let obstacle = UncommittedWallet::insert(&world, user).await;
    world.broker.publish("domain.events", "user.registered", &event(user), Some("late"), &[]).await;
    eventually(PATIENCE, "the second tier", || async { (tiers(&wallet, "late") == [1, 2]).then_some(()) }).await;
    obstacle.roll_back().await;
    wait_for_wallet(&world, user).await;
    assert_eq!(world.broker.depth(DEAD).await, Some(0));
}

#[tokio::test]
async fn without_an_attempt_header_the_tier_is_derived_from_x_death() {
    let world = World::new().await;
    let wallet = world.start_with(Role::Wallet, FAST).await;
    let user = Uuid::now_v7();
    let _obstacle = UncommittedWallet::insert(&world, user).await;
    // Published into the first tier, it returns with the broker's x-death but without an attempt header.
    world.broker.publish("", "wallet.provision.retry.200ms", &event(user), Some("by-hand"), &[]).await;
    let dead = dead_letter(&world).await;
    assert_eq!(tiers(&wallet, "by-hand"), [2, 3]);
    assert_eq!(dead.headers.get("x-attempt").map(String::as_str), Some("3"));
}

#[tokio::test]
async fn a_thousand_copies_of_one_event_create_one_wallet() {
    let world = World::new().await;
    let wallet = world.start(Role::Wallet).await;
    let user = Uuid::now_v7();
    let (_connection, channel) = world.broker.channel().await;
    let body = event(user);
    for _ in 0..1000 {
        let sent = channel.basic_publish(
            "domain.events".into(),
            "user.registered".into(),
            lapin::options::BasicPublishOptions::default(),
            &body,
            lapin::BasicProperties::default().with_delivery_mode(2),
        );
        sent.await.expect("sent");
    }
    wait_for_wallet(&world, user).await;
    eventually(PATIENCE, "every copy is acked", || async { (world.broker.acked(QUEUE).await >= 1000).then_some(()) })
        .await;
    wallet.kill().await;
    assert_eq!(world.broker.depth(QUEUE).await, Some(0), "a copy was not acked");
    assert_eq!((wallets(&world, user).await, world.broker.depth(DEAD).await), ("1".to_owned(), Some(0)));
}

#[tokio::test]
async fn a_deleted_queue_is_redeclared_and_no_registration_is_lost() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    client.ready_user().await;
    world.broker.delete_queue(QUEUE).await;
    let mut registered = Vec::new();
    for _ in 0..10 {
        registered.push(client.user().await);
    }
    for user in &registered {
        let status = client.get(user, "/v1/wallet/status?wait=30").await;
        assert_eq!(status.status, 200, "{status:?}");
    }
}

#[tokio::test]
async fn an_unroutable_event_is_returned_and_stays_pending() {
    let world = World::new().await;
    // No wallet role has declared the queue.
    let users = world.spawn(Role::Users, &[]).await;
    let client = crate::support::Client::new(&users.url(), &users.url());
    let user = client.user().await;
    let returned = eventually(PATIENCE, "the broker returns the event", || async {
        let row = world.sql(Role::Users, "SELECT status, attempts > 0, last_error FROM outbox").await;
        row.contains("|t|").then_some(row)
    });
    assert_eq!(returned.await, "pending|t|unroutable: 312 NO_ROUTE");
    let _wallet = world.start(Role::Wallet).await;
    wait_for_wallet(&world, user.id.parse().expect("id")).await;
}

#[tokio::test]
async fn an_unsigned_event_is_rejected_where_signatures_are_required_and_an_invalid_signature_everywhere() {
    let world = World::new().await;
    let users = world.start(Role::Users).await;
    let wallet = world.start_with(Role::Wallet, &[("REQUIRE_SIGNED_EVENTS", "true")]).await;
    let (unsigned, forged) = (Uuid::now_v7(), Uuid::now_v7());
    world.broker.publish("domain.events", "user.registered", &event(unsigned), Some("m"), &[]).await;
    assert_eq!(dead_letter(&world).await.headers.get("x-error").map(String::as_str), Some("event is not signed"));
    let client = crate::support::Client::new(&users.url(), &wallet.url());
    client.ready_user().await;
    drop(wallet);
    let _lenient = world.start(Role::Wallet).await;
    world.broker.publish("domain.events", "user.registered", &event(unsigned), Some("m"), &[]).await;
    wait_for_wallet(&world, unsigned).await;
    let signature = [("x-signature", "eyJhbGciOiJIUzI1NiJ9.e30.AAAA")];
    world.broker.publish("domain.events", "user.registered", &event(forged), Some("m"), &signature).await;
    assert_eq!(dead_letter(&world).await.headers.get("x-error").map(String::as_str), Some("signature is not valid"));
    assert_eq!(wallets(&world, forged).await, "0");
}

#[tokio::test]
async fn sigkill_of_either_role_loses_no_registration() {
    let world = World::new().await;
    let (mut users, mut wallet, mut client) = world.both().await;
    let mut registered = Vec::new();
    for round in 0..3 {
        for _ in 0..5 {
            registered.push(client.user().await);
        }
        if round % 2 == 0 {
            users.kill().await;
            users = world.start(Role::Users).await;
        } else {
            wallet.kill().await;
            wallet = world.start(Role::Wallet).await;
        }
        client = crate::support::Client::new(&users.url(), &wallet.url());
    }
    for user in &registered {
        assert_eq!(client.get(user, "/v1/wallet/status?wait=30").await.status, 200);
        assert_eq!(client.log_in(&user.email, crate::support::PASSWORD).await.status, 200);
    }
    tokio::time::timeout(Duration::from_mins(1), async {
        while world.sql(Role::Users, "SELECT count(*) FROM outbox WHERE status <> 'published'").await != "0" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("the outbox is empty");
    assert_eq!(world.broker.depth(DEAD).await, Some(0));
}
