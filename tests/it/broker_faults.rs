//! Brokers that reply late or never, that refuse part of the topology, or that reject what is published: nothing leaks,
//! nothing is lost, and only what needs the refused part waits.

use std::time::Duration;

use futures_util::future::join_all;
use purse::kernel::Role;
use serde_json::Value;

use crate::query_plans::{explain_from_now_on, plans_after};
use crate::support::amqp_proxy as amqp;
use crate::support::{AmqpProxy, Client, PATIENCE, RoleProcess, Scrape, World, eventually, purse};

const QUEUE: &str = "wallet.provision";
const DEAD: &str = "wallet.provision.dlq";
/// Longer than any test runs.
const NEVER: Duration = Duration::from_mins(10);
const PASSWORD: &str = "limited-account-1";
/// Connections of one users role and one wallet role.
const CONNECTIONS: usize = 3;

/// Both roles, connected to RabbitMQ through a proxy, and ready.
async fn start_proxied(world: &World, changed: &[(&str, &str)]) -> (AmqpProxy, RoleProcess, RoleProcess, Client) {
    let proxy = AmqpProxy::start(world.addresses.amqp_port).await;
    let broker = proxy.url(&world.broker.url());
    let settings = [changed, &[("RABBITMQ_URL", broker.as_str())]].concat();
    let (users, wallet) =
        tokio::join!(world.start_with(Role::Users, &settings), world.start_with(Role::Wallet, &settings));
    let client = Client::new(&users.url(), &wallet.url());
    (proxy, users, wallet, client)
}

/// The body of `/health/ready`, and the broker's check in it.
async fn broker_health(role: &RoleProcess) -> (String, Value) {
    let response = reqwest::get(format!("{}/health/ready", role.url())).await.expect("a response");
    assert_eq!(response.status(), 200);
    let body: Value = response.json().await.expect("JSON");
    let checks = body["checks"].as_array().expect("checks");
    let check = checks.iter().find(|check| check["name"] == "rabbitmq").expect("the broker's check");
    (body["status"].as_str().expect("a status").to_owned(), check.clone())
}

/// Waits until the role is degraded because of the broker, for a reason that contains `reason`.
async fn degraded(role: &RoleProcess, reason: &str) {
    eventually(PATIENCE, &format!("degraded: {reason}"), || async {
        let (status, check) = broker_health(role).await;
        (status == "degraded" && check["details"].as_str().is_some_and(|details| details.contains(reason)))
            .then_some(())
    })
    .await;
}

/// Lines at the level of errors that contain `text`.
fn errors(role: &RoleProcess, text: &str) -> usize {
    role.log().iter().filter(|line| line["level"] == "error" && line.to_string().contains(text)).count()
}

async fn wallets(world: &World) -> usize {
    world.sql(Role::Wallet, "SELECT count(*) FROM wallets").await.parse().expect("a count")
}

async fn all_have_wallets(world: &World, count: usize) {
    eventually(PATIENCE, "every user has a wallet", || async { (wallets(world).await == count).then_some(()) }).await;
}

async fn settled_connections(world: &World, proxy: &AmqpProxy) {
    eventually(PATIENCE, "each actor has one connection", || async {
        (proxy.open() == CONNECTIONS && world.broker.connections().await == CONNECTIONS).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_subscription_whose_reply_is_late_leaves_no_second_consumer() {
    let world = World::new().await;
    let proxy = AmqpProxy::start(world.addresses.amqp_port).await;
    let broker = proxy.url(&world.broker.url());
    proxy.hold(amqp::CONSUME_OK, 2, Duration::from_secs(6));
    let users = world.start(Role::Users).await;
    let wallet = world.spawn(Role::Wallet, &[("PREFETCH", "10"), ("RABBITMQ_URL", &broker)]).await;
    eventually(PATIENCE, "the queue is bound", || async { world.broker.depth(QUEUE).await }).await;
    let client = Client::new(&users.url(), &wallet.url());
    join_all((0..40).map(|_| client.user())).await;
    all_have_wallets(&world, 40).await;
    assert_eq!(proxy.held(), 2);
    eventually(PATIENCE, "nothing is unacknowledged", || async {
        (world.broker.depth(QUEUE).await == Some(0) && world.broker.unacked().await == 0).then_some(())
    })
    .await;
    assert_eq!(world.broker.consumers(QUEUE).await, Some(1));
}

#[tokio::test]
async fn a_reply_that_never_comes_ends_its_connection_whatever_was_requested() {
    let world = World::new().await;
    let (proxy, users, wallet, client) = start_proxied(&world, &[]).await;
    client.ready_user().await;
    settled_connections(&world, &proxy).await;
    let before = [&users, &wallet].map(|role| (role.descriptors(), role.threads()));
    let methods = [
        amqp::START,
        amqp::TUNE,
        amqp::OPEN_OK,
        amqp::CHANNEL_OPEN_OK,
        amqp::EXCHANGE_DECLARE_OK,
        amqp::QUEUE_DECLARE_OK,
        amqp::BIND_OK,
        amqp::CONFIRM_SELECT_OK,
        amqp::QOS_OK,
        amqp::CONSUME_OK,
    ];
    for method in methods {
        proxy.hold(method, 1, NEVER);
    }
    proxy.reset();
    eventually(PATIENCE, "each reply was withheld once", || async { (proxy.held() == methods.len()).then_some(()) })
        .await;
    settled_connections(&world, &proxy).await;
    assert_eq!(world.broker.consumers(QUEUE).await, Some(1));
    client.ready_user().await;
    for (role, (descriptors, threads)) in [&users, &wallet].into_iter().zip(before) {
        role.ready().await;
        eventually(PATIENCE, "descriptors and threads are as before", || async {
            (role.descriptors() <= descriptors + 4 && role.threads() <= threads + 2).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn connections_do_not_pile_up_while_no_declaration_is_answered() {
    let world = World::new().await;
    let (proxy, _users, wallet, client) = start_proxied(&world, &[]).await;
    for method in [amqp::QUEUE_DECLARE_OK, amqp::EXCHANGE_DECLARE_OK] {
        proxy.hold(method, usize::MAX, NEVER);
    }
    proxy.reset();
    let mut most = 0;
    eventually(PATIENCE, "every actor has tried several times", || {
        most = most.max(proxy.open());
        let opened = proxy.opened();
        async move { (opened >= 4 * CONNECTIONS).then_some(()) }
    })
    .await;
    // One connection may be closing while its successor opens.
    assert!(most <= 2 * CONNECTIONS, "{most} connections at once");
    proxy.hold_nothing();
    proxy.reset();
    wallet.ready().await;
    client.ready_user().await;
    settled_connections(&world, &proxy).await;
}
