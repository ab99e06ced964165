//! `purse dlq redrive`: dead letters go back to work, none is lost, and what is not meant stays where it is.

use std::process::Stdio;

use purse::kernel::Role;
use serde_json::json;
use uuid::Uuid;

use crate::operate_dlq::{broker_alone, bury, depth_is, dlq, quiet_world};
use crate::support::{PATIENCE, World, command, eventually};

const QUEUE: &str = "wallet.provision";
const DEAD: &str = "wallet.provision.dlq";

fn event(user: Uuid) -> Vec<u8> {
    format!(r#"{{"userId":"{user}"}}"#).into_bytes()
}

/// Many dead letters, each of another user.
pub async fn bury_many(world: &World, count: usize) {
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

async fn wallets_are(world: &World, count: usize) {
    eventually(PATIENCE, &format!("{count} wallets"), || async {
        (world.sql(Role::Wallet, "SELECT count(*) FROM wallets").await == count.to_string()).then_some(())
    })
    .await;
}

/// The ids in a queue, in their order; it is empty afterwards.
async fn drained(world: &World, queue: &str) -> Vec<String> {
    let mut ids = Vec::new();
    while let Some(message) = world.broker.take(queue).await {
        ids.push(message.id.unwrap_or_default());
    }
    ids
}

#[tokio::test]
async fn a_hundred_dead_letters_make_a_hundred_wallets_while_the_wallet_role_works_and_none_is_left() {
    let world = World::new().await;
    let _wallet = world.start(Role::Wallet).await;
    bury_many(&world, 100).await;
    let redriven = dlq(&world, &["redrive", "--format", "json"]).await.done();
    assert_eq!(redriven, json!({"dryRun": false, "redriven": 100, "messages": 100, "notFound": [], "left": 0}));
    wallets_are(&world, 100).await;
    assert_eq!(world.broker.depth(DEAD).await, Some(0));
    let nothing = dlq(&world, &["redrive"]).await;
    let told = "Requeued 0 dead letters to wallet.provision; 0 left in wallet.provision.dlq.\n";
    assert_eq!((nothing.code, nothing.out.as_str(), nothing.err.as_str()), (Some(0), told, ""));
}

#[tokio::test]
async fn a_redriven_event_is_what_it_was_with_its_attempts_counted_anew() {
    let world = quiet_world().await;
    let body = event(Uuid::now_v7());
    let headers = [("x-attempt", "3"), ("x-error", "no"), ("x-request-id", "r-7"), ("tracestate", "a=b")];
    world.broker.publish("domain.events.dlx", DEAD, &body, Some("event-1"), &headers).await;
    dlq(&world, &["redrive", "--format", "json"]).await.done();
    let again = world.broker.take(QUEUE).await.expect("redriven");
    assert_eq!((again.body, again.id.as_deref()), (body, Some("event-1")));
    // The queue itself counts deliveries in a header.
    let headers = again.headers.iter().filter(|(name, _)| *name != "x-delivery-count");
    let headers: Vec<(&str, &str)> = headers.map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(headers, [("tracestate", "a=b"), ("x-attempt", "0"), ("x-request-id", "r-7")]);
}

#[tokio::test]
async fn the_named_ones_go_and_all_others_stay_in_their_order() {
    let world = quiet_world().await;
    for id in ["a", "b", "c", "twin", "d", "twin", "e"] {
        bury(&world, id, b"{}", "no").await;
    }
    // Without an id it is named by its body.
    world.broker.publish("", DEAD, b"bare", None, &[]).await;
    let arguments = ["redrive", "c", "c", "twin", "nobody", "body:9b828d53402d6e33", "--format", "json"];
    let dry = dlq(&world, &[&arguments[..], &["--dry-run"]].concat()).await;
    // Two messages with one id are one dead letter.
    let counts = |dry_run: bool, left: u32| json!({"dryRun": dry_run, "redriven": 3, "messages": 4, "notFound": ["nobody"], "left": left});
    assert_eq!(dry.json(), counts(true, 8));
    let redriven = dlq(&world, &arguments).await;
    assert_eq!(redriven.json(), counts(false, 4));
    assert_eq!((dry.code, redriven.code), (Some(1), Some(1)));
    assert!(redriven.err.contains("no dead letter with id nobody"), "{redriven:?}");
    assert_eq!(drained(&world, DEAD).await, ["a", "b", "d", "e"]);
    assert_eq!(drained(&world, QUEUE).await, ["c", "twin", "twin", ""]);
}

#[tokio::test]
async fn a_dry_run_of_all_says_how_many_and_moves_none_and_the_first_can_go_alone() {
    let world = quiet_world().await;
    for id in ["a", "b", "c"] {
        bury(&world, id, b"{}", "no").await;
    }
    let dry = dlq(&world, &["redrive", "--dry-run"]).await;
    let told = "Would requeue 3 dead letters to wallet.provision. Nothing was changed.\n";
    assert_eq!((dry.code, dry.out.as_str()), (Some(0), told));
    depth_is(&world, DEAD, 3).await;
    assert_eq!(world.broker.depth(QUEUE).await, Some(0));
    assert_eq!(dlq(&world, &["redrive", "--first", "1", "--format", "json"]).await.done()["redriven"], 1);
    assert_eq!(drained(&world, QUEUE).await, ["a"]);
    assert_eq!(drained(&world, DEAD).await, ["b", "c"]);
}

#[tokio::test]
async fn what_fails_again_is_not_redriven_for_ever() {
    let world = World::new().await;
    let _wallet = world.start(Role::Wallet).await;
    for n in 0..300 {
        bury(&world, &format!("poison-{n}"), b"{\"userId\":\"x\"}", "userId is not a UUID").await;
    }
    let redriven = dlq(&world, &["redrive", "--format", "json"]).await.done();
    assert_eq!(redriven["redriven"], 300);
    depth_is(&world, DEAD, 300).await;
}

#[tokio::test]
async fn a_redrive_that_is_killed_in_the_middle_loses_nothing_and_the_next_one_ends_it() {
    const LETTERS: u32 = 3000;
    let world = quiet_world().await;
    bury_many(&world, LETTERS.try_into().expect("count")).await;
    let too_deep = dlq(&world, &["redrive", "nobody"]).await;
    assert_eq!((too_deep.code, world.broker.depth(DEAD).await), (Some(1), Some(LETTERS)), "{too_deep:?}");
    assert!(too_deep.err.contains("no dead letter with id nobody among the first 2000 of 3000"), "{too_deep:?}");
    let mut child = command(&["dlq", "redrive"], &broker_alone(&world))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("spawned");
    let moved = eventually(PATIENCE, "some have gone back", || async {
        world.broker.depth(QUEUE).await.filter(|depth| *depth > 0)
    });
    moved.await;
    child.kill().expect("killed");
    child.wait().expect("ended");
    // Whatever was in its hand is in the queue again: at worst both here and there.
    let (back, there) = eventually(PATIENCE, "what was in its hand is given back", || async {
        let (dead, queued) = (world.broker.depth(DEAD).await?, world.broker.depth(QUEUE).await?);
        (dead + queued >= LETTERS).then_some((dead, queued))
    })
    .await;
    assert!(back > 0, "it was killed after its end: {there} had gone back");
    let rest = dlq(&world, &["redrive", "--format", "json"]).await.done();
    assert_eq!((&rest["redriven"], &rest["left"]), (&json!(back), &json!(0)));
    let _wallet = world.start(Role::Wallet).await;
    wallets_are(&world, LETTERS.try_into().expect("count")).await;
    depth_is(&world, QUEUE, 0).await;
    assert_eq!(world.broker.depth(DEAD).await, Some(0));
}

#[tokio::test]
async fn a_queue_that_takes_no_more_leaves_the_others_dead_and_ends_with_69() {
    let world = quiet_world().await;
    world.broker.limit_length(QUEUE, 10).await;
    bury_many(&world, 450).await;
    let refused = dlq(&world, &["redrive"]).await;
    assert_eq!((refused.code, refused.out.as_str()), (Some(69), ""), "{refused:?}");
    assert!(refused.err.contains("wallet.provision rejected a dead letter because it is full"), "{refused:?}");
    assert!(refused.err.contains("dead letters had been requeued"), "{refused:?}");
    let (dead, queued) =
        (world.broker.depth(DEAD).await.expect("queue"), world.broker.depth(QUEUE).await.expect("queue"));
    assert_eq!((dead + queued, queued >= 10), (450, true), "{dead} + {queued}");
}

#[tokio::test]
async fn without_the_queue_that_they_go_to_they_stay_and_the_command_says_so() {
    let world = quiet_world().await;
    bury(&world, "a", b"{}", "no").await;
    world.broker.delete_queue(QUEUE).await;
    let refused = dlq(&world, &["redrive"]).await;
    assert_eq!((refused.code, refused.out.as_str()), (Some(69), ""), "{refused:?}");
    assert!(refused.err.contains("RabbitMQ has no queue wallet.provision. The wallet role declares it"), "{refused:?}");
    depth_is(&world, DEAD, 1).await;
}
