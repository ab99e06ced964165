//! The servers go away and come back. These tests take turns on servers of their own.

use purse::kernel::Role;
use purse_dev::{Action, Server};
use serde_json::json;

use crate::support::{Client, Outages, PATIENCE, World, eventually};

async fn ready_body(url: &str) -> serde_json::Value {
    let answer = reqwest::get(format!("{url}/health/ready")).await.expect("answer");
    let status = answer.status().as_u16();
    let mut body: serde_json::Value = answer.json().await.expect("json");
    body["http"] = json!(status);
    body
}

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
    let mut people = Vec::new();
    for _ in 0..10 {
        people.push(client.user().await);
    }
    assert_eq!(pending(&world).await, "10");
    // Degraded, and still ready: the outbox exists so that registration goes on.
    let degraded = eventually(PATIENCE, "degraded", || async {
        let body = ready_body(&users.url()).await;
        (body["status"] == "degraded").then_some(body)
    });
    let degraded = degraded.await;
    assert_eq!(degraded["http"], 200);
    assert_eq!(degraded["checks"][0], json!({"name": "rabbitmq", "ok": false, "details": "not connected"}));
    assert_eq!(client.get(&people[0], "/v1/balance").await.code(), "WALLET_PROVISIONING");
    let attempts = world.sql(Role::Users, "SELECT max(attempts) FROM outbox").await;
    assert_eq!(attempts, "0", "an absent broker spends no attempt");

    outages.act(Server::RabbitMq, Action::Start).await;
    for user in &people {
        let status = eventually(PATIENCE, "the wallet is there", || async {
            let status = client.get(user, "/v1/wallet/status?wait=30").await;
            (status.status == 200).then_some(status)
        });
        assert_eq!(status.await.body["status"], "ready");
    }
    eventually(PATIENCE, "the outbox is empty", || async { (pending(&world).await == "0").then_some(()) }).await;
    eventually(PATIENCE, "whole again", || async {
        (ready_body(&users.url()).await["status"] == "ok" && ready_body(&wallet.url()).await["status"] == "ok")
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn during_a_database_outage_requests_return_503_and_events_use_no_attempt() {
    let outages = Outages::begin().await;
    let world = World::on(outages.servers).await;
    // A ladder so short that the outage would climb it many times over.
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
    for answer in [
        client.post(&old, "credit", 1, None).await,
        client.get(&old, "/v1/balance").await,
        client.get(&old, "/v1/transactions").await,
        client.me(&old.token).await,
        client.register(&Client::fresh_email()).await,
        client.log_in(&old.email, "wrong password").await,
    ] {
        assert_eq!((answer.status.as_u16(), answer.code()), (503, "DEPENDENCY_UNAVAILABLE"), "{answer:?}");
        assert!(!answer.header("retry-after").is_empty());
    }
    eventually(PATIENCE, "not ready", || async { (ready_body(&wallet.url()).await["http"] == 503).then_some(()) })
        .await;
    assert_eq!(reqwest::get(format!("{}/health/live", wallet.url())).await.expect("answer").status(), 200);
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
    assert!(wallet.log().iter().all(|line| line["tier"].is_null()), "no attempt was spent");
    eventually(PATIENCE, "requests are served again", || async {
        (client.get(&old, "/v1/balance").await.status == 200).then_some(())
    })
    .await;
    assert_eq!(client.balance(&old).await, 100);
    assert_eq!(client.me(&old.token).await.status, 200);
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
    let answers = tokio::join!(
        client.post(&user, "credit", 1, Some("hung")),
        client.get(&user, "/v1/balance"),
        client.get(&user, "/v1/transactions"),
    );
    outages.act(Server::Postgres, Action::Resume).await;
    assert!(matches!(answers.0.code(), "DEPENDENCY_UNAVAILABLE" | "OUTCOME_UNKNOWN"), "{:?}", answers.0);
    assert_eq!((answers.1.code(), answers.2.code()), ("DEPENDENCY_UNAVAILABLE", "DEPENDENCY_UNAVAILABLE"));
    let settled = eventually(PATIENCE, "the retry is answered", || async {
        let retry = client.post(&user, "credit", 1, Some("hung")).await;
        retry.status.is_success().then_some(retry)
    });
    assert_eq!(settled.await.body["balanceAfterMinor"], 11);
    // Reads have a pool of their own, and its next try to connect may be a second away.
    let served = || async { (client.get(&user, "/v1/balance").await.status == 200).then_some(()) };
    eventually(PATIENCE, "reads are served", served).await;
    for _ in 0..20 {
        assert_eq!(client.balance(&user).await, 11);
    }
}
