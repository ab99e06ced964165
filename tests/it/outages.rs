//! Outages of both servers. These tests take turns on separate servers.

use std::collections::BTreeMap;

use purse::kernel::Role;
use purse_dev::{Action, Server};
use serde_json::json;

use crate::support::{Client, Outages, PATIENCE, World, eventually};

async fn pending(world: &World) -> String {
    world.sql(Role::Users, "SELECT count(*) FROM outbox WHERE status = 'pending'").await
}

#[tokio::test]
async fn users_register_during_a_broker_outage_and_get_their_wallets_afterwards() {
    let outages = Outages::begin().await;
    let world = World::on(outages.servers).await;
    let (users, wallet, client) = world.both().await;
    client.ready_user().await;

    outages.act(Server::RabbitMq, Action::Kill).await;
    let mut registered = Vec::new();
    for _ in 0..10 {
        registered.push(client.user().await);
    }
    assert_eq!(pending(&world).await, "10");
    // Degraded but ready: thanks to the outbox, registrations still work.
    let degraded = eventually(PATIENCE, "degraded", || async {
        let (status, body) = users.readiness().await;
        (body["status"] == "degraded").then_some((status, body))
    });
    let (status, degraded) = degraded.await;
    assert_eq!(status, 200);
    assert_eq!(degraded["checks"][0], json!({"name": "rabbitmq", "ok": false, "details": "not connected"}));
    assert_eq!(client.get(&registered[0], "/v1/balance").await.code(), "WALLET_PROVISIONING");
    let attempts = world.sql(Role::Users, "SELECT max(attempts) FROM outbox").await;
    assert_eq!(attempts, "0", "the outage used an attempt");

    outages.act(Server::RabbitMq, Action::Start).await;
    for user in &registered {
        let status = eventually(PATIENCE, "the wallet exists", || async {
            let status = client.get(user, "/v1/wallet/status?wait=30").await;
            (status.status == 200).then_some(status)
        });
        assert_eq!(status.await.body["status"], "ready");
    }
    eventually(PATIENCE, "the outbox is empty", || async { (pending(&world).await == "0").then_some(()) }).await;
    eventually(PATIENCE, "both roles are fully ready", || async {
        let [users, wallet] = [users.readiness().await.1, wallet.readiness().await.1];
        (users["status"] == "ok" && wallet["status"] == "ok").then_some(())
    })
    .await;
}

#[tokio::test]
async fn during_a_database_outage_requests_return_503_and_events_use_no_attempt() {
    let outages = Outages::begin().await;
    let world = World::on(outages.servers).await;
    // The ladder is much shorter than the outage.
    let short = [("RETRY_TTL_1_MS", "50"), ("RETRY_TTL_2_MS", "50"), ("RETRY_TTL_3_MS", "50")];
    let (users, wallet) = (world.start(Role::Users).await, world.start_with(Role::Wallet, &short).await);
    let client = Client::new(&users.url(), &wallet.url());
    let old = client.ready_user().await;
    assert_eq!(client.post(&old, "credit", 100, None).await.status, 201);

    outages.act(Server::Postgres, Action::Kill).await;
    let newcomers: Vec<uuid::Uuid> = (0..20).map(|_| uuid::Uuid::now_v7()).collect();
    for user in &newcomers {
        let body = format!(r#"{{"userId":"{user}"}}"#);
        world.broker.publish("domain.events", "user.registered", body.as_bytes(), Some(&user.to_string()), &[]).await;
    }
    for response in [
        client.post(&old, "credit", 1, None).await,
        client.get(&old, "/v1/balance").await,
        client.get(&old, "/v1/transactions").await,
        client.me(&old.token).await,
        client.register(&Client::fresh_email()).await,
        client.log_in(&old.email, "wrong password").await,
    ] {
        assert_eq!((response.status.as_u16(), response.code()), (503, "DEPENDENCY_UNAVAILABLE"), "{response:?}");
        assert!(!response.header("retry-after").is_empty());
    }
    for _ in 0..10 {
        assert_eq!(client.post(&old, "credit", 1, None).await.status, 503);
    }
    eventually(PATIENCE, "not ready", || async { (wallet.readiness().await.0 == 503).then_some(()) }).await;
    assert_eq!(reqwest::get(format!("{}/health/live", wallet.url())).await.expect("response").status(), 200);
    eventually(PATIENCE, "provisioning pauses", || async {
        wallet.log().iter().any(|l| l["msg"].as_str().is_some_and(|m| m.contains("provisioning pauses"))).then_some(())
    })
    .await;

    outages.act(Server::Postgres, Action::Start).await;
    let expected = newcomers.len().to_string();
    let count = format!(
        "SELECT count(*) FROM wallets WHERE user_id IN ({})",
        newcomers.iter().map(|u| format!("'{u}'")).collect::<Vec<_>>().join(",")
    );
    eventually(PATIENCE, "every newcomer has a wallet", || async {
        (world.sql(Role::Wallet, &count).await == expected).then_some(())
    })
    .await;
    assert_eq!(world.broker.depth("wallet.provision.dlq").await, Some(0));
    assert!(wallet.log().iter().all(|line| line["tier"].is_null()), "an attempt was used");
    eventually(PATIENCE, "requests are served again", || async {
        (client.get(&old, "/v1/balance").await.status == 200).then_some(())
    })
    .await;
    assert_eq!(client.balance(&old).await, 100);
    assert_eq!(client.me(&old.token).await.status, 200);
    for role in [&users, &wallet] {
        let mut repeats: BTreeMap<String, usize> = BTreeMap::new();
        let warnings = |line: &&serde_json::Value| line["level"] == "warn" || line["level"] == "error";
        // Each request has its line.
        for line in role.log().iter().filter(warnings).filter(|line| line["actor"] != "http") {
            let name =
                format!("{}: {}", line["actor"].as_str().unwrap_or_default(), line["msg"].as_str().unwrap_or_default());
            *repeats.entry(name).or_default() += 1;
        }
        // Once per minute.
        assert!(repeats.values().all(|count| *count <= 2), "{repeats:#?}");
    }
}

#[tokio::test]
async fn a_hanging_database_causes_a_503_in_time_and_leaves_no_broken_connection() {
    let outages = Outages::begin().await;
    let world = World::on(outages.servers).await;
    let quick = [("DB_STATEMENT_TIMEOUT_MS", "500"), ("DB_ACQUIRE_TIMEOUT_MS", "300")];
    let (users, wallet) = (world.start(Role::Users).await, world.start_with(Role::Wallet, &quick).await);
    let client = Client::new(&users.url(), &wallet.url());
    let user = client.ready_user().await;
    client.post(&user, "credit", 10, None).await;
    client.balance(&user).await;

    outages.act(Server::Postgres, Action::Pause).await;
    let responses = tokio::join!(
        client.post(&user, "credit", 1, Some("hung")),
        client.get(&user, "/v1/balance"),
        client.get(&user, "/v1/transactions"),
    );
    outages.act(Server::Postgres, Action::Resume).await;
    assert!(matches!(responses.0.code(), "DEPENDENCY_UNAVAILABLE" | "OUTCOME_UNKNOWN"), "{:?}", responses.0);
    assert_eq!((responses.1.code(), responses.2.code()), ("DEPENDENCY_UNAVAILABLE", "DEPENDENCY_UNAVAILABLE"));
    let settled = eventually(PATIENCE, "the retry succeeds", || async {
        let retry = client.post(&user, "credit", 1, Some("hung")).await;
        retry.status.is_success().then_some(retry)
    });
    assert_eq!(settled.await.body["balanceAfterMinor"], 11);
    // Reads have a separate pool, which may wait a second before it connects again.
    let served = || async { (client.get(&user, "/v1/balance").await.status == 200).then_some(()) };
    eventually(PATIENCE, "reads are served", served).await;
    for _ in 0..20 {
        assert_eq!(client.balance(&user).await, 11);
    }
}
