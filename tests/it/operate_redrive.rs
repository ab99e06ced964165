//! `purse dlq redrive`: the chosen dead letters are requeued, the others stay, and none is lost.

use std::process::Stdio;

use purse::kernel::Role;
use serde_json::json;
use uuid::Uuid;

use crate::operate_dlq::{broker_url_only, dlq, publish_dead_letter, wait_for_depth, world_with_queues};
use crate::support::{PATIENCE, World, command, eventually};

const QUEUE: &str = "wallet.provision";
const DEAD: &str = "wallet.provision.dlq";

fn event(user: Uuid) -> Vec<u8> {
    format!(r#"{{"userId":"{user}"}}"#).into_bytes()
}

/// Many dead letters, each of another user.
pub async fn publish_dead_letters(world: &World, count: usize) {
    let (_connection, channel) = world.broker.channel().await;
    channel.confirm_select(lapin::options::ConfirmSelectOptions::default()).await.expect("confirms");
    let mut confirms = Vec::new();
    for _ in 0..count {
        let properties =
            lapin::BasicProperties::default().with_delivery_mode(2).with_message_id(Uuid::now_v7().to_string().into());
        let options = lapin::options::BasicPublishOptions::default();
        let body = event(Uuid::now_v7());
        confirms.push(channel.basic_publish("".into(), DEAD.into(), options, &body, properties).await.expect("sent"));
    }
    for confirm in confirms {
        confirm.await.expect("confirmed");
    }
}

async fn wait_for_wallets(world: &World, count: usize) {
    eventually(PATIENCE, &format!("{count} wallets"), || async {
        (world.sql(Role::Wallet, "SELECT count(*) FROM wallets").await == count.to_string()).then_some(())
    })
    .await;
}

/// Empties a queue; returns the ids in order.
async fn drain(world: &World, queue: &str) -> Vec<String> {
    let mut ids = Vec::new();
    while let Some(message) = world.broker.take(queue).await {
        ids.push(message.id.unwrap_or_default());
    }
    ids
}

#[tokio::test]
async fn redriving_a_hundred_dead_letters_creates_a_hundred_wallets_and_leaves_none() {
    let world = World::new().await;
    let _wallet = world.start(Role::Wallet).await;
    publish_dead_letters(&world, 100).await;
    let redriven = dlq(&world, &["redrive", "--format", "json"]).await.done();
    assert_eq!(redriven, json!({"dryRun": false, "redriven": 100, "messages": 100, "notFound": [], "left": 0}));
    wait_for_wallets(&world, 100).await;
    assert_eq!(world.broker.depth(DEAD).await, Some(0));
    let nothing = dlq(&world, &["redrive"]).await;
    let message = "Requeued 0 dead letters to wallet.provision; 0 left in wallet.provision.dlq.\n";
    assert_eq!((nothing.code, nothing.out.as_str(), nothing.err.as_str()), (Some(0), message, ""));
}

#[tokio::test]
async fn a_redriven_event_is_unchanged_except_for_its_attempt_count() {
    let world = world_with_queues().await;
    let body = event(Uuid::now_v7());
    let headers = [("x-attempt", "3"), ("x-error", "no"), ("x-request-id", "r-7"), ("tracestate", "a=b")];
    world.broker.publish("domain.events.dlx", DEAD, &body, Some("event-1"), &headers).await;
    dlq(&world, &["redrive", "--format", "json"]).await.done();
    let again = world.broker.take(QUEUE).await.expect("redriven");
    assert_eq!((again.body, again.id.as_deref()), (body, Some("event-1")));
    // The quorum queue adds this header itself.
    let headers = again.headers.iter().filter(|(name, _)| *name != "x-delivery-count");
    let headers: Vec<(&str, &str)> = headers.map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(headers, [("tracestate", "a=b"), ("x-attempt", "0"), ("x-request-id", "r-7")]);
}

#[tokio::test]
async fn only_the_given_dead_letters_are_redriven_and_the_others_keep_their_order() {
    let world = world_with_queues().await;
    for id in ["a", "b", "c", "twin", "d", "twin", "e"] {
        publish_dead_letter(&world, id, b"{}", "no").await;
    }
    // A message without an id is identified by its body.
    world.broker.publish("", DEAD, b"bare", None, &[]).await;
    let arguments = ["redrive", "c", "c", "twin", "unknown", "body:9b828d53402d6e33", "--format", "json"];
    let dry = dlq(&world, &[&arguments[..], &["--dry-run"]].concat()).await;
    // Two messages with one id are one dead letter.
    let counts = |dry_run: bool, left: u32| json!({"dryRun": dry_run, "redriven": 3, "messages": 4, "notFound": ["unknown"], "left": left});
    assert_eq!(dry.json(), counts(true, 8));
    let redriven = dlq(&world, &arguments).await;
    assert_eq!(redriven.json(), counts(false, 4));
    assert_eq!((dry.code, redriven.code), (Some(1), Some(1)));
    assert!(redriven.err.contains("no dead letter with ID unknown"), "{redriven:?}");
    assert_eq!(drain(&world, DEAD).await, ["a", "b", "d", "e"]);
    assert_eq!(drain(&world, QUEUE).await, ["c", "twin", "twin", ""]);
}

#[tokio::test]
async fn a_dry_run_only_reports_the_number_and_first_limits_how_many_are_moved() {
    let world = world_with_queues().await;
    for id in ["a", "b", "c"] {
        publish_dead_letter(&world, id, b"{}", "no").await;
    }
    let dry = dlq(&world, &["redrive", "--dry-run"]).await;
    let message = "Would requeue 3 dead letters to wallet.provision. Nothing was changed.\n";
    assert_eq!((dry.code, dry.out.as_str()), (Some(0), message));
    wait_for_depth(&world, DEAD, 3).await;
    assert_eq!(world.broker.depth(QUEUE).await, Some(0));
    assert_eq!(dlq(&world, &["redrive", "--first", "1", "--format", "json"]).await.done()["redriven"], 1);
    assert_eq!(drain(&world, QUEUE).await, ["a"]);
    assert_eq!(drain(&world, DEAD).await, ["b", "c"]);
}

#[tokio::test]
async fn a_dead_letter_that_fails_again_is_redriven_only_once() {
    let world = World::new().await;
    let _wallet = world.start(Role::Wallet).await;
    for n in 0..300 {
        publish_dead_letter(&world, &format!("poison-{n}"), b"{\"userId\":\"x\"}", "userId is not a UUID").await;
    }
    let redriven = dlq(&world, &["redrive", "--format", "json"]).await.done();
    assert_eq!(redriven["redriven"], 300);
    wait_for_depth(&world, DEAD, 300).await;
}

#[tokio::test]
async fn a_killed_redrive_loses_nothing_and_the_next_one_completes_it() {
    const LETTERS: u32 = 3000;
    let world = world_with_queues().await;
    publish_dead_letters(&world, LETTERS.try_into().expect("count")).await;
    let too_deep = dlq(&world, &["redrive", "unknown"]).await;
    assert_eq!((too_deep.code, world.broker.depth(DEAD).await), (Some(1), Some(LETTERS)), "{too_deep:?}");
    assert!(too_deep.err.contains("no dead letter with ID unknown among the first 2000 of 3000"), "{too_deep:?}");
    let mut child = command(&["dlq", "redrive"], &broker_url_only(&world))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("spawned");
    let moved = eventually(PATIENCE, "some have been requeued", || async {
        world.broker.depth(QUEUE).await.filter(|depth| *depth > 0)
    });
    moved.await;
    child.kill().expect("killed");
    child.wait().expect("ended");
    // The broker returns unacknowledged messages: at worst a message is in both queues.
    let (left, requeued) = eventually(PATIENCE, "unacknowledged messages are returned", || async {
        let (dead, queued) = (world.broker.depth(DEAD).await?, world.broker.depth(QUEUE).await?);
        (dead + queued >= LETTERS).then_some((dead, queued))
    })
    .await;
    assert!(left > 0, "it had already requeued all {requeued} when it was killed");
    let rest = dlq(&world, &["redrive", "--format", "json"]).await.done();
    assert_eq!((&rest["redriven"], &rest["left"]), (&json!(left), &json!(0)));
    let _wallet = world.start(Role::Wallet).await;
    wait_for_wallets(&world, LETTERS.try_into().expect("count")).await;
    wait_for_depth(&world, QUEUE, 0).await;
    assert_eq!(world.broker.depth(DEAD).await, Some(0));
}

#[tokio::test]
async fn when_the_queue_is_full_the_remaining_dead_letters_stay_and_the_command_exits_with_69() {
    let world = world_with_queues().await;
    world.broker.limit_length(QUEUE, 10).await;
    publish_dead_letters(&world, 450).await;
    let output = dlq(&world, &["redrive"]).await;
    assert_eq!((output.code, output.out.as_str()), (Some(69), ""), "{output:?}");
    assert!(output.err.contains("wallet.provision rejected a dead letter because it is full"), "{output:?}");
    assert!(output.err.contains("dead letters had been requeued"), "{output:?}");
    let (dead, queued) =
        (world.broker.depth(DEAD).await.expect("queue"), world.broker.depth(QUEUE).await.expect("queue"));
    assert_eq!((dead + queued, queued >= 10), (450, true), "{dead} + {queued}");
}

#[tokio::test]
async fn without_the_target_queue_the_dead_letters_stay_and_the_command_reports_it() {
    let world = world_with_queues().await;
    publish_dead_letter(&world, "a", b"{}", "no").await;
    world.broker.delete_queue(QUEUE).await;
    let output = dlq(&world, &["redrive"]).await;
    assert_eq!((output.code, output.out.as_str()), (Some(69), ""), "{output:?}");
    assert!(output.err.contains("RabbitMQ has no queue wallet.provision. The wallet role declares it"), "{output:?}");
    wait_for_depth(&world, DEAD, 1).await;
}
