//! A broker that accepts connections and confirms nothing, as a cluster without a majority of its nodes does.

use std::time::{Duration, Instant};

use purse::kernel::Role;

use crate::support::amqp_proxy as amqp;
use crate::support::{AmqpProxy, Client, PATIENCE, RoleProcess, World, eventually};

async fn reported(role: &RoleProcess) -> String {
    let (status, body) = role.readiness().await;
    assert_eq!(status, 200);
    body["status"].as_str().expect("a status").to_owned()
}

#[tokio::test]
async fn a_users_role_whose_events_are_not_confirmed_is_degraded_however_often_it_connects() {
    let world = World::new().await;
    let proxy = AmqpProxy::start(world.addresses.amqp_port).await;
    let broker = proxy.url(&world.broker.url());
    let wallet = world.start(Role::Wallet).await;
    let users = world.start_with(Role::Users, &[("RABBITMQ_URL", &broker)]).await;
    let client = Client::new(&users.url(), &wallet.url());
    client.ready_user().await;
    proxy.hold(amqp::CONFIRM, usize::MAX, Duration::from_mins(10));
    let waiting = client.user().await;
    eventually(PATIENCE, "the role is degraded", || async { (reported(&users).await == "degraded").then_some(()) })
        .await;
    let (opened, began) = (proxy.opened(), Instant::now());
    while proxy.opened() < opened + 3 {
        assert_eq!(reported(&users).await, "degraded", "after {} connections", proxy.opened() - opened);
        assert!(began.elapsed() < PATIENCE, "{} connections", proxy.opened() - opened);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    proxy.hold_nothing();
    proxy.reset();
    users.ready().await;
    let has_wallet = || async { (client.get(&waiting, "/v1/balance").await.status == 200).then_some(()) };
    eventually(PATIENCE, "the event is published", has_wallet).await;
}
