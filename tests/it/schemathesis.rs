//! Schemathesis, which makes its requests from each role's own `/openapi.json` and holds the answers against it.
//! `just schemathesis` runs it; another implementation's reading of the document is what our own tests cannot give.

use std::fs;
use std::path::Path;
use std::process::Command;

use purse::kernel::Role;

use crate::support::{Client, User, World};

/// What a request that keeps to the schemas may end in besides a success: a state of ours refuses it, and the document
/// says so, for instance an email that is taken or a wallet that holds too little. Of transactions it may be a 400 as
/// well, for what a schema cannot say: that `5.0` is no amount, and which cursors we gave out.
const CONFIG: &str = r#"
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "422"]

[[operations]]
include-path = ["/v1/transactions", "/v1/transactions/credit", "/v1/transactions/debit"]
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409", "422"]
"#;

/// Runs it against one role with the rights of one user.
async fn try_out(url: String, user: User) -> (bool, String) {
    let asked = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let (examples, seed) = (asked("PURSE_EXAMPLES", "50"), asked("PURSE_SEED", &fastrand::u32(..).to_string()));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("schemathesis");
    fs::create_dir_all(&folder).expect("folder");
    fs::write(folder.join("schemathesis.toml"), CONFIG).expect("settings");
    let ran = tokio::task::spawn_blocking(move || {
        Command::new("python3")
            .args(["-m", "schemathesis.cli", "--config-file", "schemathesis.toml", "run", "--no-color"])
            .args(["--max-examples", &examples, "--seed", &seed, "--continue-on-failure", "--request-timeout", "30"])
            .args(["--output-sanitize", "false", "--generation-database", "none", "--header"])
            .arg(format!("Authorization: Bearer {}", user.token))
            .arg(format!("{url}/openapi.json"))
            .current_dir(folder)
            .env("no_proxy", "*")
            .output()
    });
    let ran = ran.await.expect("thread").expect("python3 runs; `just schemathesis` installs what it needs");
    (ran.status.success(), String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr))
}

#[tokio::test]
#[ignore = "takes minutes and a package of Python's: just schemathesis"]
async fn schemathesis_finds_no_response_that_contradicts_the_document() {
    let world = World::new().await;
    let (users, wallet, client): (_, _, Client) = world.both().await;
    let user = client.ready_user().await;
    client.post(&user, "credit", 100_000, None).await;
    for (role, process) in [(Role::Users, &users), (Role::Wallet, &wallet)] {
        let (fine, report) = try_out(process.url(), user.clone()).await;
        eprintln!("{report}");
        assert!(fine, "{}: schemathesis found something, see above", role.as_str());
        assert!(!process.output().contains("\"panicked\""), "a panic was caught");
    }
}
