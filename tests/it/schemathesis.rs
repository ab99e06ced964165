//! Schemathesis generates requests from each role's `/openapi.json` and checks the responses against it: an independent
//! reading of the documents. `just schemathesis` runs it.

use std::fs;
use std::path::Path;
use std::process::Command;

use purse::kernel::Role;

use crate::support::{Client, User, World, service_token};

/// A request that conforms to its schema may still fail because of the state, such as a taken address or a low balance.
/// Requests about money may also get a 400, for what a schema cannot express: that `5.0` is not an amount, which cursors are
/// valid, and which fields exclude each other. Operations of services get the token of a service.
fn config(user: &User) -> String {
    let (of_user, of_service) = (&user.token, service_token("payments", "wallet:read wallet:post"));
    format!(
        r#"
headers = {{ Authorization = "Bearer {of_user}" }}

[checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "422"]

[[operations]]
include-path-regex = "^/v1/(transactions|transfers|holds|statements)"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409", "422"]

[[operations]]
include-path-regex = "^/v1/wallets/"
headers = {{ Authorization = "Bearer {of_service}" }}
parameters = {{ userId = "{}" }}
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409", "422"]
"#,
        user.id
    )
}

/// Tests one role with the token of one user; returns whether it passed, and the report.
async fn run_schemathesis(url: String, user: User) -> (bool, String) {
    let variable = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let (examples, seed) = (variable("PURSE_EXAMPLES", "50"), variable("PURSE_SEED", &fastrand::u32(..).to_string()));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("schemathesis");
    fs::create_dir_all(&folder).expect("folder");
    fs::write(folder.join("schemathesis.toml"), config(&user)).expect("settings");
    let ran = tokio::task::spawn_blocking(move || {
        Command::new("python3")
            .args(["-m", "schemathesis.cli", "--config-file", "schemathesis.toml", "run", "--no-color"])
            .args(["--max-examples", &examples, "--seed", &seed, "--continue-on-failure", "--request-timeout", "30"])
            .args(["--output-sanitize", "false", "--generation-database", "none"])
            .arg(format!("{url}/openapi.json"))
            .current_dir(folder)
            .env("no_proxy", "*")
            .output()
    });
    let ran = ran.await.expect("thread").expect("python3 runs; `just schemathesis` installs what it needs");
    (ran.status.success(), String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr))
}

#[tokio::test]
#[ignore = "takes minutes and needs a Python package: just schemathesis"]
async fn schemathesis_finds_no_response_that_contradicts_the_document() {
    let world = World::new().await;
    let (users, wallet, client): (_, _, Client) = world.both().await;
    let user = client.ready_user().await;
    client.post(&user, "credit", 100_000, None).await;
    for (role, process) in [(Role::Users, &users), (Role::Wallet, &wallet)] {
        let (passed, report) = run_schemathesis(process.url(), user.clone()).await;
        eprintln!("{report}");
        assert!(passed, "{}: schemathesis reports failures, see above", role.as_str());
        assert!(!process.output().contains("\"panicked\""), "a panic was caught");
    }
}
