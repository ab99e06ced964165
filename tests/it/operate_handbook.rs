//! The commands of docs/operations.md print what the page shows.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use purse::kernel::Role;
use serde_json::json;

use crate::operate_dlq::{publish_dead_letter, world_with_queues};
use crate::support::repository::text;
use crate::support::{Client, ELLIPSIS, PATIENCE, World, eventually, walk_steps};

/// The IDs on the page.
const SHOWN_EVENT: &str = "01a206c3-0b00-7000-8000-0000000000e1";
const SHOWN_USER: &str = "01a206c3-0b00-7000-8000-0000000000a1";
/// Whether a line equals the one on the page, except for column widths and changing values.
fn line_fits(shown: &str, got: &str) -> bool {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let (shown, got) = (words(shown), words(got));
    let parts: Vec<&str> = shown.split(ELLIPSIS).collect();
    let [first, middle @ .., last] = parts.as_slice() else { return shown == got };
    let Some(mut rest) = got.strip_prefix(first).and_then(|rest| rest.strip_suffix(last)) else { return false };
    middle.iter().all(|part| match rest.split_once(part) {
        Some((_, behind)) => {
            rest = behind;
            true
        }
        None => false,
    })
}

fn fits(shown: &str, got: &str) -> bool {
    shown.lines().count() == got.lines().count() && shown.lines().zip(got.lines()).all(|(s, g)| line_fits(s, g))
}

/// Runs the steps of a section, with these values instead of those on the page.
pub async fn follow(mark: &str, settings: &BTreeMap<String, String>, values: &[(&str, &str)]) {
    follow_in(Path::new("."), mark, settings, values).await;
}

/// The same, in a folder where the commands find their files.
pub async fn follow_in(workplace: &Path, mark: &str, settings: &BTreeMap<String, String>, values: &[(&str, &str)]) {
    let real = |text: &str| values.iter().fold(text.to_owned(), |text, (shown, real)| text.replace(shown, real));
    let steps = walk_steps(&text("docs/operations.md"), mark, "text");
    assert!(steps.iter().any(|step| step.output.is_some()), "{mark} shows no output");
    let folder = Path::new(env!("CARGO_BIN_EXE_purse")).parent().expect("folder").display().to_string();
    for step in steps {
        let mut shell = Command::new("sh");
        shell.args(["-eu", "-c", &real(&step.commands)]).current_dir(workplace).env_clear().envs(settings);
        let (own, inherited) = (settings.get("PATH").cloned(), std::env::var("PATH").unwrap_or_default());
        shell.env("PATH", format!("{folder}:{}:{inherited}", own.unwrap_or_default()));
        let ran = tokio::task::spawn_blocking(move || shell.output().expect("sh")).await.expect("thread");
        let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert!(ran.status.success() && err.is_empty(), "{}\n{out}\n{err}", step.commands);
        if let Some(shown) = step.output.map(|output| real(&output)) {
            assert!(fits(&shown, &out), "{}\nthe page shows:\n{shown}\nit printed:\n{out}", step.commands);
        }
    }
}

#[tokio::test]
async fn the_handbook_walk_throughs_print_what_the_page_shows() {
    let world = World::new().await;
    let fast = [("RETRY_TTL_1_MS", "200"), ("RETRY_TTL_2_MS", "300"), ("RETRY_TTL_3_MS", "400")];
    let (users, wallet) = tokio::join!(world.start(Role::Users), world.start_with(Role::Wallet, &fast));
    let client = Client::new(&users.url(), &wallet.url());
    // The cause on the page: a missing privilege.
    let runtime_url = &world.databases.wallet.runtime_url;
    let runtime_user = runtime_url.split("//").nth(1).and_then(|rest| rest.split(':').next()).expect("user");
    world.sql(Role::Wallet, &format!("REVOKE INSERT ON wallets FROM {runtime_user}")).await;
    let body = json!({"firstName": "Ada", "lastName": "L", "email": Client::fresh_email(), "password": "12345678"});
    let request = client
        .request(reqwest::Method::POST, &format!("{}/v1/auth/register", client.users))
        .header("x-request-id", "registration-1")
        .json(&body);
    let registered = client.send(request).await;
    let user = registered.body["user"]["id"].as_str().expect("id").to_owned();
    eventually(PATIENCE, "a dead letter", || async {
        (world.broker.depth("wallet.provision.dlq").await == Some(1)).then_some(())
    })
    .await;
    let event = world.sql(Role::Users, "SELECT id FROM outbox").await;

    let mut settings = world.settings(Role::Wallet);
    settings.extend(world.settings(Role::Users));
    follow("dead-letters", &settings, &[(SHOWN_EVENT, &event), (SHOWN_USER, &user)]).await;
    eventually(PATIENCE, "the wallet exists", || async {
        (world.sql(Role::Wallet, "SELECT user_id FROM wallets").await == user).then_some(())
    })
    .await;
    assert_eq!(world.broker.depth("wallet.provision.dlq").await, Some(0));
    follow("outbox", &settings, &[]).await;
    follow("prune", &settings, &[]).await;
    follow("ledger", &settings, &[]).await;
}

#[tokio::test]
async fn the_purge_of_the_handbook_saves_all_and_removes_the_named_one() {
    let world = world_with_queues().await;
    let event = uuid::Uuid::now_v7().to_string();
    publish_dead_letter(&world, &event, b"{}", "body is not a UserRegistered event").await;
    let saved = std::env::temp_dir().join(format!("purse-dead-letters-{}.jsonl", std::process::id()));
    let values = [
        ("01a206c3-0b00-7000-8000-0000000000e2", event.as_str()),
        ("dead-letters.jsonl", saved.to_str().expect("path")),
    ];
    follow("purge", &world.settings(Role::Wallet), &values).await;
    let lines = fs::read_to_string(&saved).expect("saved");
    fs::remove_file(&saved).expect("removed");
    assert!(lines.lines().count() == 1 && lines.contains(&event), "{lines}");
    assert_eq!(world.broker.depth("wallet.provision.dlq").await, Some(0));
}

#[test]
fn an_output_that_differs_from_the_page_is_detected() {
    assert!(fits("a  …  c\n", "a b  c\n") && fits("… (since …)", "5s (since 2026-11-23T00:00:00Z)"));
    for (shown, got) in [("a … c", "a b d"), ("a\nb", "a"), ("a", "b"), ("a … b … c", "a x c"), ("ab", "a b")] {
        assert!(!fits(shown, got), "{shown:?} {got:?}");
    }
}
