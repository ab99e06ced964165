//! The pretty log format, as a role writes it to a terminal.

use purse::kernel::Role;
use serde_json::Value;

use crate::support::{Client, PATIENCE, RoleProcess, World, eventually, free_port};

/// Columns of a wide terminal, without the line end.
const COLUMNS_MAX: usize = 120;

/// Starts a role that logs in the pretty format; its URL. [`RoleProcess::listening`] reads JSON only.
async fn start(world: &World, role: Role) -> (RoleProcess, String) {
    let port = free_port().to_string();
    let arguments = ["--role", role.as_str(), "--port", &port, "--log-format", "pretty", "--log-level", "info"];
    let process = RoleProcess::spawn(&arguments, &world.settings(role));
    let url = format!("http://127.0.0.1:{port}");
    eventually(PATIENCE, &format!("the {role} role is ready"), || async {
        let ready: Value = reqwest::get(format!("{url}/health/ready")).await.ok()?.json().await.ok()?;
        (ready["status"] == "ok").then_some(())
    })
    .await;
    (process, url)
}

#[tokio::test]
async fn the_line_of_an_ordinary_request_fits_the_terminal_and_has_its_request_id() {
    let world = World::new().await;
    let ((users, users_url), (wallet, wallet_url)) =
        tokio::join!(start(&world, Role::Users), start(&world, Role::Wallet));
    let client = Client::new(&users_url, &wallet_url);
    let user = client.ready_user().await;
    client.log_in(&user.email, crate::support::PASSWORD).await;
    let credit = client.post(&user, "credit", 500, Some("a-key")).await;
    client.get(&user, "/v1/transactions?limit=10").await;
    client.get(&user, &format!("/v1/transactions/{}", credit.body["id"].as_str().expect("an id"))).await;
    client.get(&user, "/v1/nothing").await;

    for (process, role, requests) in [
        (&users, "users", &["POST /v1/auth/register 201", "POST /v1/auth/login 200"][..]),
        (
            &wallet,
            "wallet",
            &[
                "GET /v1/wallet/status 200",
                "POST /v1/transactions/credit 201",
                "GET /v1/transactions 200",
                "GET /v1/transactions/{id} 200",
                "GET (none) 404",
            ],
        ),
    ] {
        for request in requests {
            let begin = format!(" INFO  {role:<6} {request} ");
            let line = eventually(PATIENCE, &begin, || async {
                process.output().lines().find(|line| line.contains(&begin)).map(str::to_owned)
            })
            .await;
            assert!(line.chars().count() < COLUMNS_MAX, "{} columns: {line}", line.chars().count());
            let (_, pairs) = line.split_once(" ms ").expect("a duration");
            let id = pairs.strip_prefix("request_id=").expect("a request id");
            assert!(id.parse::<uuid::Uuid>().is_ok(), "more than the request id: {line}");
        }
    }
    let id = credit.header("x-request-id");
    let found: Vec<String> = wallet.output().lines().filter(|line| line.contains(id)).map(str::to_owned).collect();
    assert_eq!(found.len(), 1, "the credit, by the id that its client got: {found:?}");
}
