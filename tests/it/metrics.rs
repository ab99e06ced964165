//! `/metrics`: the values of all metrics, and their table in the handbook.

use std::collections::BTreeMap;

use purse::kernel::Role;
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use crate::support::repository::{between, text};
use crate::support::{
    Client, Family, PASSWORD, PATIENCE, RoleProcess, Scrape, World, eventually, token_of, unknown_user_id,
};

/// Waits until a series has a value.
async fn shows(process: &RoleProcess, series: &str, value: &str) {
    let mut last = None;
    let until = std::time::Instant::now() + PATIENCE;
    while last.as_deref() != Some(value) {
        assert!(std::time::Instant::now() < until, "{series} is {last:?} and not {value}");
        last = Scrape::of(&process.url()).await.value(series);
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
}

#[tokio::test]
async fn a_registration_and_its_posts_are_counted_by_the_role_that_processes_them() {
    let world = World::new().await;
    let (users, wallet, client) = world.both().await;
    let user = client.ready_user().await;
    assert_eq!(client.post(&user, "credit", 500, Some("k")).await.status, 201);
    assert_eq!(client.post(&user, "credit", 500, Some("k")).await.status, 200);
    assert_eq!(client.post(&user, "debit", 9_000, None).await.status, 409);
    assert_eq!(client.log_in(&user.email, PASSWORD).await.status, 200);
    // A second event for the same user.
    world.publish_event(user.id.parse().expect("id"), "again").await;

    shows(&users, "purse_outbox_events_total{result=\"published\"}", "1").await;
    shows(&users, "purse_outbox_batch_events_sum", "1").await;
    shows(&users, "purse_outbox_pending_events", "0").await;
    shows(&users, "purse_hash_duration_seconds_count{work=\"hash\"}", "1").await;
    shows(&users, "purse_hash_duration_seconds_count{work=\"compare\"}", "1").await;
    shows(&users, "purse_hash_queue_jobs", "0").await;
    let registered =
        "http_server_request_duration_seconds_count{method=\"POST\",route=\"/v1/auth/register\",status=\"201\"}";
    shows(&users, registered, "1").await;

    shows(&wallet, "purse_provision_deliveries_total{result=\"provisioned\"}", "1").await;
    shows(&wallet, "purse_provision_deliveries_total{result=\"duplicate\"}", "1").await;
    for (result, count) in [("posted", "1"), ("replayed", "1"), ("refused", "1"), ("overloaded", "0")] {
        shows(&wallet, &format!("purse_ledger_posts_total{{result=\"{result}\"}}"), count).await;
    }
    let metrics = Scrape::of(&wallet.url()).await;
    assert_eq!(metrics.sum("purse_ledger_batch_posts_sum", ""), Some(3.0));
    assert_eq!(metrics.sum("purse_ledger_commit_duration_seconds_count", "batch=\"common\""), Some(3.0));
    for lane in ["0", "1"] {
        assert!(metrics.sum("purse_ledger_batch_posts_count", &format!("lane=\"{lane}\"")).is_some(), "lane {lane}");
    }
    shows(&wallet, "purse_ledger_queue_posts", "0").await;
    shows(&wallet, "purse_http_refusals_total{route=\"/v1/transactions/debit\",code=\"INSUFFICIENT_FUNDS\"}", "1")
        .await;

    for (process, role, database) in [(&users, "users", "users-db"), (&wallet, "wallet", "wallet-db")] {
        let version = env!("CARGO_PKG_VERSION");
        shows(process, &format!("purse_build_info{{version=\"{version}\",role=\"{role}\"}}"), "1").await;
        shows(process, "purse_ready", "1").await;
        shows(process, &format!("purse_dependency_up{{dependency=\"{database}\"}}"), "1").await;
        shows(process, "purse_actor_restarts_total{actor=\"http\"}", "0").await;
        shows(process, "purse_db_pool_waiting{pool=\"requests\"}", "0").await;
        // A connection may have been discarded, so each attempt first makes a request that opens one.
        eventually(PATIENCE, "an open connection is shown", || async {
            assert_eq!(client.me(&user.token).await.status, 200);
            assert_eq!(client.balance(&user).await, 500);
            let scrape = Scrape::of(&process.url()).await;
            let open =
                |state| scrape.number(&format!("purse_db_pool_connections{{pool=\"requests\",state=\"{state}\"}}"));
            (open("idle") >= Some(1.0) || open("in_use") >= Some(1.0)).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn rejections_by_the_gate_and_by_a_limit_are_counted_by_route() {
    let world = World::new().await;
    let limited = [("RATE_LIMIT_ENABLED", "true"), ("RL_LOGIN_MAX", "1"), ("RL_LOGIN_WINDOW", "1h")];
    let users = world.start_with(Role::Users, &limited).await;
    let wallet = world.start(Role::Wallet).await;
    let client = Client::new(&users.url(), &wallet.url());
    for status in [401, 429, 429] {
        assert_eq!(client.log_in("unknown@example.com", PASSWORD).await.status, status);
    }
    shows(&users, "purse_http_refusals_total{route=\"/v1/auth/login\",code=\"RATE_LIMITED\"}", "2").await;
    shows(&users, "purse_http_refusals_total{route=\"/v1/auth/login\",code=\"INVALID_CREDENTIALS\"}", "1").await;
    let unknown = token_of(&unknown_user_id());
    let url = format!("{}/v1/balance", wallet.url());
    assert_eq!(
        client.send(client.request(Method::GET, &url).bearer_auth(&unknown)).await.code(),
        "WALLET_PROVISIONING"
    );
    shows(&wallet, "purse_http_refusals_total{route=\"/v1/balance\",code=\"WALLET_PROVISIONING\"}", "1").await;
    // Unknown paths and methods create no series.
    for path in ["/nothing", "/v1/unknown/42"] {
        let unknown =
            client.request(Method::from_bytes(b"BREW").expect("a method"), &format!("{}{path}", wallet.url()));
        assert_eq!(client.send(unknown).await.status, 404);
    }
    let brewed = "http_server_request_duration_seconds_count{method=\"other\",route=\"(none)\",status=\"404\"}";
    shows(&wallet, brewed, "2").await;
}

#[tokio::test]
async fn failures_are_counted_by_tier_and_dead_letters_are_shown() {
    let world = World::new().await;
    let fast = [("RETRY_TTL_1_MS", "100"), ("RETRY_TTL_2_MS", "100"), ("RETRY_TTL_3_MS", "100")];
    let wallet = world.start_with(Role::Wallet, &fast).await;
    world.sql(Role::Wallet, "REVOKE INSERT ON wallets FROM PUBLIC, CURRENT_USER; ALTER TABLE wallets ADD CONSTRAINT none CHECK (false) NOT VALID").await;
    world.publish_event(Uuid::now_v7(), "stuck").await;
    shows(&wallet, "purse_dead_letters", "1").await;
    for tier in 1..=3 {
        shows(&wallet, &format!("purse_provision_retries_total{{tier=\"{tier}\"}}"), "1").await;
    }
    shows(&wallet, "purse_provision_deliveries_total{result=\"retried\"}", "3").await;
    shows(&wallet, "purse_provision_deliveries_total{result=\"dead_lettered\"}", "1").await;
}

#[tokio::test]
async fn an_event_that_cannot_be_published_is_shown_as_pending_with_a_growing_age() {
    let world = World::new().await;
    let users = world.start(Role::Users).await;
    // No wallet role has declared the queue.
    let client = Client::new(&users.url(), "http://127.0.0.1:9");
    client.user().await;
    shows(&users, "purse_outbox_pending_events", "1").await;
    eventually(PATIENCE, "the event is older than a second and was refused", || async {
        let scrape = Scrape::of(&users.url()).await;
        let refused = scrape.number("purse_outbox_events_total{result=\"refused\"}")?;
        (refused >= 1.0 && scrape.number("purse_outbox_oldest_age_seconds")? > 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn with_a_metrics_port_metrics_are_served_on_that_port_only() {
    let world = World::new().await;
    let users = world.start_with(Role::Users, &[("METRICS_PORT", "0")]).await;
    let address = users.logged("listening for metrics")[0]["address"].as_str().expect("address").to_owned();
    let own = Scrape::of(&format!("http://{address}")).await;
    assert_eq!(own.value("purse_ready").as_deref(), Some("1"));
    let client = Client::new(&users.url(), &users.url());
    let elsewhere = client.send(client.request(Method::GET, &format!("{}/metrics", users.url()))).await;
    assert_eq!((elsewhere.status.as_u16(), elsewhere.code()), (404, "NOT_FOUND"));
    let register = client.request(Method::POST, &format!("http://{address}/v1/auth/register")).json(&json!({}));
    assert_eq!(client.send(register).await.status, 404, "the API is served on the metrics port");
}

#[tokio::test]
async fn a_metrics_port_equal_to_the_api_port_is_rejected() {
    let world = World::new().await;
    let mut settings = world.settings(Role::Users);
    settings.extend([("USERS_PORT", "4711"), ("METRICS_PORT", "4711")].map(|(k, v)| (k.to_owned(), v.to_owned())));
    let mut process = RoleProcess::spawn(&["--role", "users"], &settings);
    assert_eq!(process.exited().await.code(), Some(64));
    assert!(process.stderr().contains("METRICS_PORT: must differ from the API port"), "{}", process.stderr());
}

/// The table that the handbook must contain.
fn table(families: &BTreeMap<String, (Vec<Role>, Family)>) -> String {
    let row = |(roles, family): &(Vec<Role>, Family)| {
        let role = if roles.len() == 2 { "both" } else { roles[0].as_str() };
        let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        format!("| `{}` | {} | {role} | {} | {} |", family.name, family.kind, labels.join(", "), family.help)
    };
    let head = "| name | type | role | labels | meaning |\n|---|---|---|---|---|".to_owned();
    std::iter::once(head).chain(families.values().map(row)).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn the_handbook_lists_every_metric_and_no_other() {
    let world = World::new().await;
    let (users, wallet, client) = world.both().await;
    // Some metrics appear only after a request, and after a rejected one.
    for process in [&users, &wallet] {
        client.send(client.request(Method::GET, &format!("{}/v1/users/me", process.url()))).await;
        let url = format!("{}/v1/balance", process.url());
        client.send(client.request(Method::GET, &url)).await;
    }
    // A long poll.
    client.ready_user().await;
    let mut families: BTreeMap<String, (Vec<Role>, Family)> = BTreeMap::new();
    for (role, process) in [(Role::Users, &users), (Role::Wallet, &wallet)] {
        for family in Scrape::of(&process.url()).await.families() {
            let unit = ["_total", "_seconds", "_events", "_posts", "_jobs", "_info", "_bytes", "_fds"];
            let counted = ["purse_ready", "purse_dependency_up", "purse_dead_letters", "purse_db_pool_connections"];
            let counted = [
                &counted[..],
                &[
                    "purse_db_pool_waiting",
                    "purse_broker_connection_blocked",
                    "purse_broker_undeclared",
                    "purse_statements_running",
                    "purse_holds_open",
                    "purse_ledger_shards_unreachable",
                ],
            ]
            .concat();
            let named = unit.iter().any(|unit| family.name.ends_with(unit)) || counted.contains(&family.name.as_str());
            assert!(named, "{} does not end in its unit", family.name);
            assert_eq!(family.kind == "counter", family.name.ends_with("_total"), "{}", family.name);
            let seen = families.entry(family.name.clone()).or_insert_with(|| (Vec::new(), family.clone()));
            seen.0.push(role);
            assert_eq!(seen.1, Family { labels: seen.1.labels.clone(), ..family }, "the roles differ");
        }
    }
    let expected = table(&families);
    assert!(
        between(&text("docs/operations.md"), "metrics") == expected,
        "put this between the marks metrics:begin and metrics:end of docs/operations.md:\n\n{expected}\n"
    );
}
