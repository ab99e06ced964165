//! One trace, from the request through the outbox and the broker to the wallet, including a retry.

use purse::kernel::Role;
use serde_json::{Value, json};

use crate::support::{Client, PATIENCE, RoleProcess, World, eventually};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// The log lines of the trace, which must be those of the request.
fn lines(process: &RoleProcess) -> Vec<Value> {
    let of =
        |field: &str, value: &str| process.log().into_iter().filter(|line| line[field] == value).collect::<Vec<_>>();
    let traced = of("trace_id", TRACE);
    assert_eq!(traced, of("request_id", "trace-test"), "a line has the trace without the request id, or the reverse");
    traced
}

#[tokio::test]
async fn one_trace_follows_a_registration_through_both_roles_and_a_retry_to_its_wallet() {
    let world = World::new().await;
    let wallet = world.start_with(Role::Wallet, &[("RETRY_TTL_1_MS", "300")]).await;
    let users = world.start(Role::Users).await;
    let client = Client::new(&users.url(), &wallet.url());
    world.broker.tap("spy", "domain.events", "user.registered").await;
    // The first attempt fails with a transient error.
    world.sql(Role::Wallet, "ALTER TABLE wallets ADD CONSTRAINT none CHECK (false) NOT VALID").await;

    let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let body = json!({"firstName": "Ada", "lastName": "L", "email": Client::fresh_email(), "password": "12345678"});
    let request = client.request(reqwest::Method::POST, &format!("{}/v1/auth/register", client.users)).json(&body);
    let request = request.header("x-request-id", "trace-test").header("traceparent", &traceparent);
    let registered = client.send(request).await;
    assert_eq!((registered.status.as_u16(), registered.header("traceparent")), (201, traceparent.as_str()));

    let row = world.sql(Role::Users, "SELECT traceparent || ' ' || request_id FROM outbox").await;
    assert_eq!(row, format!("{traceparent} trace-test"));
    let message = eventually(PATIENCE, "the message", || world.broker.take("spy")).await;
    assert_eq!(message.headers.get("traceparent"), Some(&traceparent));

    let failed = |line: &Value| line["msg"] == "provisioning failed; trying again later" && line["tier"] == 1;
    eventually(PATIENCE, "a retry", || async { lines(&wallet).iter().any(failed).then_some(()) }).await;
    world.sql(Role::Wallet, "ALTER TABLE wallets DROP CONSTRAINT none").await;
    let line = eventually(PATIENCE, "the wallet", || async {
        lines(&wallet).into_iter().find(|line| line["msg"] == "wallet provisioned")
    })
    .await;
    assert_eq!(line["user_id"], registered.body["user"]["id"]);
    assert!(line["attempt"].as_i64() >= Some(1), "{line}");
    assert_eq!(line["event_id"].as_str(), message.id.as_deref());
    let messages: Vec<Value> = lines(&users).into_iter().map(|line| line["msg"].clone()).collect();
    assert_eq!(messages, ["request"]);
}
