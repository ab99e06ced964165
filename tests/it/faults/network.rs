//! Faults of the network between a role and its servers: silent, one-way, slow, fragmented, reset (FP-06 to FP-10).

use std::time::Duration;

use purse::kernel::Role;

use super::history::{History, Outcome};
use super::invariants::assert_invariants;
use super::proxy::{Flow, Proxy};
use crate::support::{Client, PATIENCE, RoleProcess, World, eventually};

/// Both roles, connected to PostgreSQL and RabbitMQ through proxies.
pub struct Proxied {
    pub world: World,
    pub postgres: Proxy,
    pub rabbitmq: Proxy,
    pub users: RoleProcess,
    pub wallet: RoleProcess,
    pub client: Client,
}

pub async fn start_proxied(world: World, changed: &[(&str, &str)]) -> Proxied {
    let postgres = Proxy::start(world.addresses.postgres_port).await;
    let rabbitmq = Proxy::start(world.addresses.amqp_port).await;
    let broker = rabbitmq.url(&world.broker.url());
    let start = async |role: Role, variable: &str, url: &str| {
        let url = postgres.url(url);
        let through = [(variable, url.as_str()), ("RABBITMQ_URL", broker.as_str())];
        world.start_with(role, &[changed, &through].concat()).await
    };
    let (users, wallet) = tokio::join!(
        start(Role::Users, "USERS_DATABASE_URL", &world.databases.users.runtime_url),
        start(Role::Wallet, "WALLET_DATABASE_URL", &world.databases.wallet.runtime_url),
    );
    let client = Client::new(&users.url(), &wallet.url());
    Proxied { world, postgres, rabbitmq, users, wallet, client }
}

#[tokio::test]
async fn fp_06_a_silent_database_is_a_503_in_time_and_its_recovery_is_noticed() {
    let quick = [("DB_STATEMENT_TIMEOUT_MS", "500"), ("DB_ACQUIRE_TIMEOUT_MS", "300")];
    let Proxied { world, postgres, client, rabbitmq: _rabbitmq, users: _users, wallet: _wallet } =
        start_proxied(World::new().await, &quick).await;
    let history = History::default();
    let user = client.ready_user().await;
    for round in 0..2 {
        postgres.both(Flow::SILENT);
        let outcome = history.post(&client, &user, "credit", 1, &format!("k{round}")).await;
        assert!(
            matches!(&outcome, Outcome::NotDone(code) if code == "DEPENDENCY_UNAVAILABLE")
                || outcome == Outcome::Unknown,
            "{outcome:?}"
        );
        assert_eq!(client.get(&user, "/v1/balance").await.code(), "DEPENDENCY_UNAVAILABLE");
        assert_eq!(client.me(&user.token).await.code(), "DEPENDENCY_UNAVAILABLE");
        postgres.both(Flow::default());
        history.post_until_known(&client, &user, "credit", 1, &format!("k{round}")).await;
    }
    assert_invariants(&world, &history, &client).await;
}

#[tokio::test]
async fn fp_07_events_stay_in_the_outbox_while_the_broker_is_silent_and_drain_afterwards() {
    let Proxied { world, rabbitmq, client, users, postgres: _postgres, wallet: _wallet } =
        start_proxied(World::new().await, &[]).await;
    let history = History::default();
    history.register(&client).await;
    assert_invariants(&world, &history, &client).await;
    rabbitmq.both(Flow::SILENT);
    for _ in 0..5 {
        let registration = history.register(&client).await;
        assert!(matches!(registration.outcome, Outcome::Done(_)), "{registration:?}");
    }
    eventually(PATIENCE, "the silence is noticed", || async {
        users.output().contains("events were not confirmed and stay pending").then_some(())
    })
    .await;
    assert_eq!(
        world.sql(Role::Users, "SELECT count(*), max(attempts) FROM outbox WHERE status = 'pending'").await,
        "5|0"
    );
    rabbitmq.both(Flow::default());
    assert_invariants(&world, &history, &client).await;
}

#[tokio::test]
async fn fp_08_lost_broker_replies_cause_duplicate_events_but_one_wallet_per_user() {
    let Proxied { world, rabbitmq, client, users, wallet, postgres: _postgres } =
        start_proxied(World::new().await, &[]).await;
    let history = History::default();
    history.register(&client).await;
    assert_invariants(&world, &history, &client).await;
    rabbitmq.down(Flow::SILENT);
    for _ in 0..3 {
        history.register(&client).await;
    }
    eventually(PATIENCE, "the confirms time out", || async {
        users.output().contains("events were not confirmed and stay pending").then_some(())
    })
    .await;
    rabbitmq.both(Flow::default());
    assert_invariants(&world, &history, &client).await;
    let created = || async { (wallet.logged("wallet provisioned").len() == 4).then_some(()) };
    eventually(PATIENCE, "each wallet is created once", created).await;
}

#[tokio::test]
async fn fp_09_slow_and_fragmented_networks_cause_no_error() {
    let patient = [("DB_STATEMENT_TIMEOUT_MS", "60000"), ("DB_ACQUIRE_TIMEOUT_MS", "30000")];
    let Proxied { world, postgres, rabbitmq, client, users, wallet } =
        start_proxied(World::new().await, &patient).await;
    let history = History::default();
    for flow in [Flow::chunks(1), Flow::latency(Duration::from_millis(100))] {
        postgres.both(flow);
        rabbitmq.both(flow);
        let registration = history.register(&client).await;
        let user = registration.user.expect("registered");
        let ready = eventually(PATIENCE, "the wallet exists", || async {
            (client.get(&user, "/v1/wallet/status?wait=30").await.status == 200).then_some(())
        });
        ready.await;
        assert!(matches!(history.post(&client, &user, "credit", 7, "k").await, Outcome::Done(_)));
        assert_eq!(client.balance(&user).await, 7);
    }
    postgres.both(Flow::default());
    rabbitmq.both(Flow::default());
    assert_invariants(&world, &history, &client).await;
    for role in [&users, &wallet] {
        assert!(role.log().iter().all(|line| line["level"] != "error"), "{}", role.output());
    }
}

#[tokio::test]
async fn fp_10_connection_resets_leak_nothing_and_lose_nothing() {
    let Proxied { world, postgres, rabbitmq, client, users, wallet } = start_proxied(World::new().await, &[]).await;
    let history = History::default();
    history.register(&client).await;
    assert_invariants(&world, &history, &client).await;
    let before = [&users, &wallet].map(|role| (role.descriptors(), role.threads()));
    for round in 0..8 {
        history.register(&client).await;
        rabbitmq.reset_connections();
        if round % 2 == 0 {
            postgres.reset_connections();
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    assert_invariants(&world, &history, &client).await;
    for (role, (descriptors, threads)) in [&users, &wallet].into_iter().zip(before) {
        role.ready().await;
        eventually(PATIENCE, "descriptors and threads are as before", || async {
            (role.descriptors() <= descriptors + 4 && role.threads() <= threads + 2).then_some(())
        })
        .await;
    }
    eventually(PATIENCE, "the broker has four connections", || async {
        (world.broker.connections().await == 4).then_some(())
    })
    .await;
}
