//! Each safety measure is taken out once, and the check that stands for it must notice (CC-16). A check that passes
//! without its measure would prove nothing.

use std::time::Duration;

use futures_util::future::join_all;
use purse::kernel::Role;
use serde_json::json;

use super::start_with_failpoints;
use crate::support::{Client, PATIENCE, World, eventually};

/// Runs a check with the measure in place and without it: it must hold, and then break.
macro_rules! notices {
    ($name:ident, $measure:literal, $check:ident) => {
        #[tokio::test]
        async fn $name() {
            assert_eq!($check("").await, Ok(()), "with {} in place", $measure);
            let noticed = $check(concat!($measure, "=return")).await;
            assert!(noticed.is_err(), "nothing noticed that {} was left out", $measure);
        }
    };
}

notices!(debits_overdraw_without_the_row_lock, "ledger.row_lock", parallel_debits_stay_within_the_balance);
notices!(another_request_is_replayed_without_the_payload_comparison, "ledger.payload", another_request_is_refused);
notices!(an_unroutable_event_is_lost_without_mandatory, "amqp.mandatory", an_unroutable_event_stays_pending);
notices!(an_unconfirmed_event_is_lost_without_the_confirm, "amqp.confirm", an_unconfirmed_event_stays_pending);
notices!(a_lost_claim_is_settled_without_the_lease_token, "outbox.lease_token", a_lost_claim_changes_nothing);

type Checked = Result<(), String>;

/// CC-01, through two processes at once: in one alone no two batches decide on the same wallet.
async fn parallel_debits_stay_within_the_balance(points: &str) -> Checked {
    let world = World::new().await;
    // Between the lock and the look at the balance there is time for the other to look.
    let points = format!("{points};ledger.locked=sleep(30)");
    let (first, _users, client) = start_with_failpoints(&world, Role::Wallet, &points, &[]).await;
    let second = world.spawn_with_failpoints(Role::Wallet, &points, &[]).await;
    let beside = Client::new(&client.users, &second.url());
    second.ready().await;
    first.ready().await;
    let user = client.ready_user().await;
    client.post(&user, "credit", 20, None).await;
    let (mut made, mut broken) = (0, 0);
    for _ in 0..15 {
        let answers = join_all([&client, &beside, &client, &beside].map(|via| via.post(&user, "debit", 1, None))).await;
        made += answers.iter().filter(|answer| answer.status == 201).count();
        broken += answers.iter().filter(|a| !matches!(a.status.as_u16(), 201 | 409 | 503)).count();
    }
    let balance = client.balance(&user).await;
    // Without the lock two processes decide on one place; the key of the table refuses the second, as a fault of ours.
    if broken == 0 && made <= 20 && balance == 20 - i64::try_from(made).expect("count") {
        Ok(())
    } else {
        Err(format!("{made} debits of 1 on a balance of 20, {broken} broken answers, {balance} left"))
    }
}

/// CC-05.
async fn another_request_is_refused(points: &str) -> Checked {
    let world = World::new().await;
    let (_wallet, _users, client) = start_with_failpoints(&world, Role::Wallet, points, &[]).await;
    let user = client.ready_user().await;
    client.post(&user, "credit", 5, Some("k")).await;
    match client.post(&user, "credit", 6, Some("k")).await.code() {
        "IDEMPOTENCY_KEY_REUSED" => Ok(()),
        other => Err(format!("another request under the key is told {other:?}")),
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
    if outcome.await == "kept" { Ok(()) } else { Err("an event that no queue took is marked".to_owned()) }
}

/// FR-06: the broker never says a word, because the connection to it is silent from the first event on.
async fn an_unconfirmed_event_stays_pending(points: &str) -> Checked {
    let world = World::new().await;
    drop(world.start(Role::Wallet).await);
    let network = super::proxy::Proxy::before(world.addresses.amqp_port).await;
    let broker = network.url(&world.broker.url());
    let users = world.spawn_with_failpoints(Role::Users, points, &[("RABBITMQ_URL", &broker)]).await;
    users.ready().await;
    network.both(super::proxy::Flow::SILENT);
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
        Err("an event without a confirm is marked".to_owned())
    }
}

/// FP-05: the row is another's when its first owner comes back.
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
