//! Shutdown on SIGTERM: exit code 0, immediately if no request waits, whatever connections are open.

use std::time::{Duration, Instant};

use purse::kernel::Role;
use rustix::process::Signal;

use crate::support::{
    Client, Raw, RoleProcess, WalletLock, World, assert_error, eventually, token_of, unknown_user_id,
};
use crate::transfers::owners;

/// Far longer than a shutdown may take, so that waiting for its end is noticed.
const GRACE: [(&str, &str); 1] = [("SHUTDOWN_GRACE_MS", "60000")];
/// Far shorter than that, and far longer than a loaded machine needs.
const SOON: Duration = Duration::from_secs(20);

/// Sends SIGTERM and waits for a graceful exit.
async fn assert_stops_soon(process: RoleProcess, about: &str) {
    let began = Instant::now();
    process.signal(Signal::TERM);
    assert_exits_soon(process, began, about).await;
}

async fn assert_exits_soon(mut process: RoleProcess, began: Instant, about: &str) {
    let status = process.exited().await;
    let took = began.elapsed();
    assert_eq!(status.code(), Some(0), "{about}: {}", process.output());
    assert!(took < SOON, "{about}: {took:?}\n{}", process.output());
    assert!(process.log().iter().any(|line| line["msg"] == "stopped"), "{about}: the last log line is missing");
}

/// A connection that has received a response and is kept open.
async fn idle_connection(process: &RoleProcess) -> Raw {
    let mut raw = Raw::connect(&process.url()).await;
    raw.send("GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(raw.response().await.expect("a response").status, 200);
    raw
}

#[tokio::test]
async fn a_role_without_connections_stops_immediately() {
    let world = World::new().await;
    for role in [Role::Users, Role::Wallet] {
        assert_stops_soon(world.start_with(role, &GRACE).await, &format!("{role:?}, no connection")).await;
    }
}

#[tokio::test]
async fn idle_connections_do_not_delay_the_shutdown() {
    let world = World::new().await;
    for role in [Role::Users, Role::Wallet] {
        let process = world.start_with(role, &GRACE).await;
        let mut kept = idle_connection(&process).await;
        assert_stops_soon(process, &format!("{role:?}, an idle_connection connection")).await;
        assert!(kept.ends().await);

        let process = world.start_with(role, &GRACE).await;
        let mut kept = Vec::new();
        for _ in 0..50 {
            kept.push(idle_connection(&process).await);
        }
        let _silent = Raw::connect(&process.url()).await;
        assert_stops_soon(process, &format!("{role:?}, 50 idle_connection connections and a silent one")).await;
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
    // It is in progress once a later and shorter wait on another connection has returned.
    let shorter = client.request(reqwest::Method::GET, &format!("{}/v1/wallet/status?wait=1", client.wallet));
    assert_error(&client.send(shorter.bearer_auth(&token)).await, 503, "WALLET_PROVISIONING", "the shorter wait");
    assert!(!waiting.is_finished());
    assert_stops_soon(wallet, "Wallet, a waiting request").await;
    let response = waiting.await.expect("sent");
    assert_error(&response, 503, "WALLET_PROVISIONING", "the longer wait");
    assert_eq!(response.header("retry-after"), "2");
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
    // The handler has the request once it asks for the body.
    assert_eq!(raw.response().await.expect("100 Continue").status, 100);
    users.signal(Signal::TERM);
    let began = Instant::now();
    eventually(SOON, "the shutdown has begun", || async {
        users.log().iter().any(|line| line["msg"] == "stopping").then_some(())
    })
    .await;
    raw.send(body).await;
    let response = raw.response().await.expect("a response");
    assert_eq!(response.status, 201, "{response:?}");
    assert!(raw.ends().await);
    assert_exits_soon(users, began, "Users, a request in progress").await;
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
        let mut kept = idle_connection(&users).await;
        kept.send(half).await;
        let mut fresh = Raw::connect(&users.url()).await;
        fresh.send(half).await;
        // The response to a later request shows that the server has read both.
        idle_connection(&users).await;
        assert_stops_soon(users, &format!("Users, {about}")).await;
    }
}

#[tokio::test]
async fn new_connections_are_refused_while_a_request_in_progress_gets_its_response() {
    let world = World::new().await;
    let patient = [GRACE[0], ("DB_LOCK_TIMEOUT_MS", "50000"), ("DB_STATEMENT_TIMEOUT_MS", "60000")];
    let wallet = world.start_with(Role::Wallet, &patient).await;
    let client = Client::new("", &wallet.url());
    let user = owners(&world, &client, 1, 10).await.remove(0);
    let lock = WalletLock::acquire(&world, &user).await;
    let posting = tokio::spawn({
        let (client, user) = (client.clone(), user.clone());
        async move { client.post(&user, "credit", 5, None).await }
    });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually(SOON, "the post waits", || async { (world.sql(Role::Wallet, waits).await == "1").then_some(()) }).await;
    wallet.signal(Signal::TERM);
    let began = Instant::now();
    let address = wallet.url().strip_prefix("http://").expect("an address").to_owned();
    eventually(SOON, "connections are refused", || async {
        let connected = tokio::net::TcpStream::connect(&address).await;
        connected.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused).then_some(())
    })
    .await;
    assert!(!posting.is_finished());
    lock.release().await;
    assert_eq!(posting.await.expect("sent").status, 201);
    assert_exits_soon(wallet, began, "Wallet, a request in progress").await;
}
