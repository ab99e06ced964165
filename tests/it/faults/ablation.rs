//! Ablation (CC-16): each safeguard is disabled once, and its check must fail. A check that passes without its safeguard
//! proves nothing.

use std::time::Duration;

use futures_util::future::join_all;
use purse::kernel::Role;
use serde_json::json;

use super::start_with_failpoints;
use crate::support::{Client, PATIENCE, World, eventually};

/// The check must pass with the safeguard and fail without it.
macro_rules! ablation {
    ($name:ident, $safeguard:literal, $check:ident) => {
        #[tokio::test]
        async fn $name() {
            assert_eq!($check("").await, Ok(()), "{} is enabled", $safeguard);
            let checked = $check(concat!($safeguard, "=return")).await;
            assert!(checked.is_err(), "the check passes although {} is disabled", $safeguard);
        }
    };
}

ablation!(debits_overdraw_without_the_row_lock, "ledger.row_lock", parallel_debits_stay_within_the_balance);
ablation!(a_reused_key_replays_any_request_without_the_payload_comparison, "ledger.payload", reused_keys_are_rejected);
ablation!(an_unroutable_event_is_lost_without_mandatory, "amqp.mandatory", an_unroutable_event_stays_pending);
ablation!(an_unconfirmed_event_is_lost_without_the_confirm, "amqp.confirm", an_unconfirmed_event_stays_pending);
ablation!(a_lost_claim_is_settled_without_the_lease_token, "outbox.lease_token", a_lost_claim_changes_nothing);

type Checked = Result<(), String>;

/// CC-01 through two processes: within one process no two batches decide on the same wallet.
async fn parallel_debits_stay_within_the_balance(points: &str) -> Checked {
    let world = World::new().await;
    // Gives the other process time to read the balance between the lock and this process's read.
    let points = format!("{points};ledger.locked=sleep(30)");
    let (first, _users, client) = start_with_failpoints(&world, Role::Wallet, &points, &[]).await;
    let second = world.spawn_with_failpoints(Role::Wallet, &points, &[]).await;
    let other = Client::new(&client.users, &second.url());
    second.ready().await;
    first.ready().await;
    let user = client.ready_user().await;
    client.post(&user, "credit", 20, None).await;
    let (mut created, mut failed) = (0, 0);
    for _ in 0..15 {
        let responses = join_all([&client, &other, &client, &other].map(|via| via.post(&user, "debit", 1, None))).await;
        created += responses.iter().filter(|response| response.status == 201).count();
        failed += responses.iter().filter(|r| !matches!(r.status.as_u16(), 201 | 409 | 503)).count();
    }
    let balance = client.balance(&user).await;
    // Without the lock two processes choose the same sequence number; the primary key rejects the second, which is an
    // internal error.
    if failed == 0 && created <= 20 && balance == 20 - i64::try_from(created).expect("count") {
        Ok(())
    } else {
        Err(format!("{created} debits of 1 on a balance of 20, {failed} internal errors, {balance} left"))
    }
}

/// CC-05.
async fn reused_keys_are_rejected(points: &str) -> Checked {
    let world = World::new().await;
    let (_wallet, _users, client) = start_with_failpoints(&world, Role::Wallet, points, &[]).await;
    let user = client.ready_user().await;
    client.post(&user, "credit", 5, Some("k")).await;
    match client.post(&user, "credit", 6, Some("k")).await.code() {
        "IDEMPOTENCY_KEY_REUSED" => Ok(()),
        other => Err(format!("a different request with the same key returns {other:?}")),
    }
}

/// FP-19.
async fn an_unroutable_event_stays_pending(points: &str) -> Checked {
    let world = World::new().await;
    let users = world.spawn_with_failpoints(Role::Users, points, &[]).await;
    let client = Client::new(&users.url(), &users.url());
    client.user().await;
    let settled = "SELECT CASE WHEN status = 'published' THEN 'lost' WHEN attempts > 0 THEN 'kept' END FROM outbox";
    let outcome = eventually(PATIENCE, "an outcome", || async {
        Some(world.sql(Role::Users, settled).await).filter(|outcome| !outcome.is_empty())
    });
    if outcome.await == "kept" { Ok(()) } else { Err("an unroutable event is marked as published".to_owned()) }
}

/// FR-06: the broker never replies, because its connection is silent from the first event on.
async fn an_unconfirmed_event_stays_pending(points: &str) -> Checked {
    let world = World::new().await;
    drop(world.start(Role::Wallet).await);
    let proxy = super::proxy::Proxy::start(world.addresses.amqp_port).await;
    let broker = proxy.url(&world.broker.url());
    let users = world.spawn_with_failpoints(Role::Users, points, &[("RABBITMQ_URL", &broker)]).await;
    users.ready().await;
    proxy.both(super::proxy::Flow::SILENT);
    let client = Client::new(&users.url(), &users.url());
    client.user().await;
    let settled = "SELECT status FROM outbox WHERE claim_token IS NULL";
    eventually(PATIENCE, "the batch has begun", || async {
        (users.output().contains("events were not confirmed") || world.sql(Role::Users, settled).await == "published")
            .then_some(())
    })
    .await;
    if world.sql(Role::Users, "SELECT status FROM outbox").await == "pending" {
        Ok(())
    } else {
        Err("an unconfirmed event is marked as published".to_owned())
    }
}

/// FP-05: another process owns the row when its first owner resumes.
async fn a_lost_claim_changes_nothing(points: &str) -> Checked {
    let world = World::new().await;
    let wallet = world.start(Role::Wallet).await;
    let points = format!("{points};amqp.written=1*sleep(3000)->off");
    let users = world.spawn_with_failpoints(Role::Users, &points, &[]).await;
    let client = Client::new(&users.url(), &wallet.url());
    client.user().await;
    let steal = "UPDATE outbox SET claim_token = gen_random_uuid(), claimed_until = now() + interval '1 hour'
                 WHERE claim_token IS NOT NULL RETURNING claim_token";
    let thief = eventually(PATIENCE, "the row is taken over", || async {
        world.sql(Role::Users, steal).await.lines().next().map(str::to_owned)
    })
    .await;
    tokio::time::sleep(Duration::from_millis(3500)).await;
    let row = world.sql(Role::Users, "SELECT status, claim_token FROM outbox").await;
    if row == format!("pending|{thief}") { Ok(()) } else { Err(json!({"row": row, "thief": thief}).to_string()) }
}
