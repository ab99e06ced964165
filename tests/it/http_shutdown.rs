//! How a role stops on SIGTERM: exit code 0, at once where nobody waits, whatever connections are open.

use std::time::{Duration, Instant};

use purse::kernel::Role;
use rustix::process::Signal;

use crate::support::{Client, Raw, RoleProcess, World, assert_error, eventually, token_of, unknown_user_id};

/// Far more than a stop may need, so that whatever waits for it is seen.
const GRACE: [(&str, &str); 1] = [("SHUTDOWN_GRACE_MS", "60000")];
/// Far less than that, and far more than a loaded machine needs.
const SOON: Duration = Duration::from_secs(20);

/// Sends SIGTERM, and waits for an end in order.
async fn stops_soon(process: RoleProcess, about: &str) {
    let began = Instant::now();
    process.signal(Signal::TERM);
    ends_soon(process, began, about).await;
}

async fn ends_soon(mut process: RoleProcess, began: Instant, about: &str) {
    let status = process.exited().await;
    let took = began.elapsed();
    assert_eq!(status.code(), Some(0), "{about}: {}", process.output());
    assert!(took < SOON, "{about}: {took:?}\n{}", process.output());
    assert!(process.log().iter().any(|line| line["msg"] == "stopped"), "{about}: the last line is written");
}

/// A connection that has had an answer and is kept open.
async fn idle(process: &RoleProcess) -> Raw {
    let mut raw = Raw::connect(&process.url()).await;
    raw.send("GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(raw.response().await.expect("an answer").status, 200);
    raw
}

#[tokio::test]
async fn a_role_without_connections_stops_immediately() {
    let world = World::new().await;
    for role in [Role::Users, Role::Wallet] {
        stops_soon(world.start_with(role, &GRACE).await, &format!("{role:?}, no connection")).await;
    }
}

#[tokio::test]
async fn idle_connections_do_not_delay_the_shutdown() {
    let world = World::new().await;
    for role in [Role::Users, Role::Wallet] {
        let process = world.start_with(role, &GRACE).await;
        let mut kept = idle(&process).await;
        stops_soon(process, &format!("{role:?}, an idle connection")).await;
        assert!(kept.ends().await);

        let process = world.start_with(role, &GRACE).await;
        let mut kept = Vec::new();
        for _ in 0..50 {
            kept.push(idle(&process).await);
        }
        let _silent = Raw::connect(&process.url()).await;
        stops_soon(process, &format!("{role:?}, 50 idle connections and a silent one")).await;
    }
}

#[tokio::test]
async fn a_waiting_status_request_gets_its_response_at_shutdown_and_does_not_delay_it() {
    let world = World::new().await;
    let wallet = world.start_with(Role::Wallet, &GRACE).await;
    let client = Client::new(&wallet.url(), &wallet.url());
    let token = token_of(&unknown_user_id());
    let request = client
        .request(reqwest::Method::GET, &format!("{}/v1/wallet/status?wait=30", client.wallet))
        .header("x-request-id", "waiting")
        .bearer_auth(&token);
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.send(request).await }
    });
    // In flight: a wait of no length behind it on another connection has been answered meanwhile.
    let behind = client.request(reqwest::Method::GET, &format!("{}/v1/wallet/status?wait=1", client.wallet));
    assert_error(&client.send(behind.bearer_auth(&token)).await, 503, "WALLET_PROVISIONING", "behind it");
    assert!(!waiting.is_finished());
    stops_soon(wallet, "Wallet, a status that waits").await;
    let answer = waiting.await.expect("answered");
    assert_error(&answer, 503, "WALLET_PROVISIONING", "the waiting one");
    assert_eq!(answer.header("retry-after"), "2");
}

#[tokio::test]
async fn a_request_in_progress_gets_its_response_before_the_shutdown() {
    let world = World::new().await;
    let users = world.start_with(Role::Users, &GRACE).await;
    let body = r#"{"firstName":"A","lastName":"L","email":"last@example.com","password":"12345678"}"#;
    let mut raw = Raw::connect(&users.url()).await;
    raw.send(format!(
        "POST /v1/auth/register HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    ))
    .await;
    // Asked for the body: the handler has the request.
    assert_eq!(raw.response().await.expect("leave to go on").status, 100);
    users.signal(Signal::TERM);
    let began = Instant::now();
    eventually(SOON, "the stop has begun", || async {
        users.log().iter().any(|line| line["msg"] == "stopping").then_some(())
    })
    .await;
    raw.send(body).await;
    let answer = raw.response().await.expect("an answer");
    assert_eq!(answer.status, 201, "{answer:?}");
    assert!(raw.ends().await);
    ends_soon(users, began, "Users, a request in hand").await;
    assert_eq!(world.sql(Role::Users, "SELECT email FROM users").await, "last@example.com");
}

#[tokio::test]
async fn half_a_request_does_not_delay_the_shutdown() {
    let world = World::new().await;
    for (half, about) in [
        ("GET /health/live HT", "half a head"),
        (
            "POST /v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 90\r\n\r\n{",
            "half a body",
        ),
    ] {
        let users = world.start_with(Role::Users, &GRACE).await;
        let mut kept = idle(&users).await;
        kept.send(half).await;
        let mut fresh = Raw::connect(&users.url()).await;
        fresh.send(half).await;
        // Answered after both: the server has read what they sent.
        idle(&users).await;
        stops_soon(users, &format!("Users, {about}")).await;
    }
}
