//! The dead-letter queue is what purse declares, whatever the defaults of the broker, and it keeps its messages however often
//! they are looked at.

use purse::kernel::Role;
use serde_json::{Value, json};

use crate::operate_dlq::{dlq, publish_dead_letter, wait_for_depth, world_with_queues};
use crate::support::{Client, PATIENCE, RoleProcess, World, eventually, purse};

const DEAD: &str = "wallet.provision.dlq";
const REFUSED: &str = "cannot be declared at the broker; retrying while the rest of the process keeps running";

async fn arguments(world: &World) -> Value {
    let topology = world.broker.topology().await;
    let queues = topology["queues"].as_array().expect("queues");
    queues.iter().find(|queue| queue["name"] == DEAD).expect("the dead-letter queue")["arguments"].clone()
}

/// Has the wallet role reject a message for good, and waits until it is a dead letter.
async fn becomes_dead(world: &World, id: &str, depth: u32) {
    world.broker.publish("domain.events", "user.registered", b"poison", Some(id), &[]).await;
    wait_for_depth(world, DEAD, depth).await;
}

async fn topology_finding(world: &World) -> (Value, Value) {
    let report = purse(&["doctor", "--role", "wallet", "--json"], &world.settings(Role::Wallet)).await.json();
    let checks = report["checks"].as_array().expect("checks");
    let check = checks.iter().find(|check| check["check"] == "topology").expect("the topology");
    (check["result"].clone(), check["finding"].clone())
}

async fn provisions(world: &World, wallet: &RoleProcess) {
    let users = world.start(Role::Users).await;
    Client::new(&users.url(), &wallet.url()).ready_user().await;
}

#[tokio::test]
async fn the_type_of_the_dead_letter_queue_is_declared_and_tools_that_leave_it_out_may_declare_it_too() {
    let world = World::new().await;
    let _wallet = world.start(Role::Wallet).await;
    assert_eq!(arguments(&world).await, json!({"x-queue-type": "classic"}));
    world.broker.declare_plain(DEAD).await;
    becomes_dead(&world, "p", 1).await;
}

#[tokio::test]
async fn a_dead_letter_queue_that_an_earlier_release_declared_without_its_type_is_used_with_what_is_in_it() {
    let world = World::new().await;
    world.broker.declare_plain(DEAD).await;
    world.broker.publish("", DEAD, b"before", Some("before"), &[]).await;
    let wallet = world.start(Role::Wallet).await;
    becomes_dead(&world, "after", 2).await;
    assert_eq!(arguments(&world).await, json!({}));
    assert_eq!(world.broker.ids_in(DEAD).await.into_iter().collect::<Vec<_>>(), ["after", "before"]);
    assert_eq!(topology_finding(&world).await.0, "ok");
    assert_eq!(wallet.logged(REFUSED).len(), 0);
}

#[tokio::test]
async fn an_existing_quorum_queue_is_accepted_as_the_dead_letter_queue_until_it_is_deleted() {
    let world = World::new().await;
    world.broker.declare_quorum(DEAD, None).await;
    let wallet = world.start(Role::Wallet).await;
    provisions(&world, &wallet).await;
    becomes_dead(&world, "p", 1).await;
    assert_eq!(arguments(&world).await, json!({"x-queue-type": "quorum"}));
    let (result, finding) = topology_finding(&world).await;
    assert_eq!(result, "ok", "{finding}");
    assert_eq!(dlq(&world, &["list", "--json"]).await.done()["total"], 1);
    assert_eq!(wallet.logged(REFUSED).len(), 0);
    world.broker.delete_queue(DEAD).await;
    eventually(PATIENCE, "it is declared again", || async { world.broker.depth(DEAD).await }).await;
    assert_eq!(arguments(&world).await, json!({"x-queue-type": "classic"}));
    becomes_dead(&world, "q", 1).await;
}

#[tokio::test]
async fn a_quorum_queue_with_other_arguments_is_refused_as_the_dead_letter_queue() {
    let world = World::new().await;
    // A message that is returned once too often would be dropped.
    world.broker.declare_quorum(DEAD, Some(1)).await;
    let mut wallet = world.spawn(Role::Wallet, &[]).await;
    assert_eq!(wallet.exited().await.code(), Some(69));
    let (result, finding) = topology_finding(&world).await;
    assert_eq!(result, "error");
    assert!(finding.as_str().is_some_and(|finding| finding.contains("x-queue-type")), "{finding}");
}

#[tokio::test]
async fn dead_letters_in_a_quorum_queue_survive_any_number_of_looks() {
    let world = world_with_queues().await;
    // RabbitMQ 4 limits every quorum queue, to 20 by default, and drops what was returned more often.
    world.broker.delete_queue(DEAD).await;
    world.broker.declare_quorum(DEAD, Some(5)).await;
    world.broker.bind(DEAD, "domain.events.dlx", DEAD).await;
    let ids = ["a", "b", "c"];
    for id in ids {
        publish_dead_letter(&world, id, b"{}", &format!("reason of {id}")).await;
    }
    for look in 0..24 {
        let arguments: &[&str] = match look % 4 {
            0 => &["list", "--json"],
            1 => &["show", "c", "--json"],
            2 => &["export"],
            _ => &["redrive", "--dry-run", "--json"],
        };
        let looked = dlq(&world, arguments).await;
        assert_eq!((looked.code, looked.err.as_str()), (Some(0), ""), "{look}: {looked:?}");
    }
    wait_for_depth(&world, DEAD, 3).await;
    let listed = dlq(&world, &["list", "--json"]).await.done();
    let letters = listed["deadLetters"].as_array().expect("a list");
    let seen: Vec<(&str, &str)> =
        letters.iter().filter_map(|one| Some((one["id"].as_str()?, one["reason"].as_str().unwrap_or("?")))).collect();
    assert_eq!(seen, [("a", "reason of a"), ("b", "reason of b"), ("c", "reason of c")]);
}
