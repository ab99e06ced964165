//! The runbooks of docs/operations.md: for each alert its situation is caused, the alert appears, the commands of its
//! section print what the page shows, and once the cause is gone the alert is gone too.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use futures_util::future::join_all;
use purse::kernel::{Role, Timestamp};
use purse::wallet::domain::EntryKind;
use purse_dev::{Action, Server};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::log_backpressure::Wallet;
use crate::observability::Prometheus;
use crate::operate_handbook::{follow, follow_in};
use crate::support::repository::text;
use crate::support::{
    Client, HandLedger, HandRow, Outages, PATIENCE, User, WalletLock, World, eventually, free_port, token_of,
    walk_steps,
};

/// The rules with seconds instead of minutes, so that no situation has to last for minutes. How long an expression has to
/// be true (`for`) is left as it is: an alert counts from when it is pending.
fn quick_rules() -> String {
    let changes = [
        ("[5m]", "[10s]"),
        ("[10m]", "[20s]"),
        ("purse_outbox_oldest_age_seconds) > 60", "purse_outbox_oldest_age_seconds) > 1"),
        ("purse_gate_closed_seconds) > 300", "purse_gate_closed_seconds) > 1"),
        ("purse_holds_overdue_seconds) > 30", "purse_holds_overdue_seconds) > 5"),
        (">= 100", ">= 5"),
    ];
    changes.iter().fold(text("docker/observability/alerts.yml"), |rules, (minutes, seconds)| {
        assert!(rules.contains(minutes), "the rules have no {minutes}");
        rules.replace(minutes, seconds)
    })
}

/// A new folder for the log that a runbook reads.
fn log_folder(world: &World) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("purse-runbook-{}", world.databases.wallet.database));
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// What the commands of a runbook find in their environment, and what stands for the addresses on the page.
struct Operator {
    settings: BTreeMap<String, String>,
    addresses: Vec<(&'static str, String)>,
    prometheus: Prometheus,
}

impl Operator {
    /// Has Prometheus scrape both roles at these URLs.
    fn of(world: &World, users: &str, wallet: &str) -> Self {
        let mut settings = world.settings(Role::Users);
        settings.extend(world.settings(Role::Wallet));
        settings.insert("PATH".to_owned(), world.addresses.postgres_bin_dir.display().to_string());
        let prometheus = Prometheus::scraping(&[("users", users), ("wallet", wallet)], &quick_rules());
        let addresses = vec![
            ("http://localhost:3002", users.to_owned()),
            ("http://localhost:3001", wallet.to_owned()),
            ("http://localhost:9090", prometheus.url.clone()),
        ];
        Self { settings, addresses, prometheus }
    }

    async fn is_raised(&self, alert: &str) {
        eventually(PATIENCE, &format!("{alert} is raised"), || async {
            self.prometheus.alerts().await.contains(alert).then_some(())
        })
        .await;
    }

    async fn is_resolved(&self, alert: &str) {
        eventually(PATIENCE, &format!("{alert} is resolved"), || async {
            (!self.prometheus.alerts().await.contains(alert)).then_some(())
        })
        .await;
    }

    /// Runs the commands of the alert's section.
    async fn follows(&self, alert: &str) {
        self.follows_with(alert, &[]).await;
    }

    /// The same, with these values instead of those on the page.
    async fn follows_with(&self, alert: &str, values: &[(&str, &str)]) {
        let addresses = self.addresses.iter().map(|(shown, real)| (*shown, real.as_str()));
        let all: Vec<(&str, &str)> = addresses.chain(values.iter().copied()).collect();
        follow(alert, &self.settings, &all).await;
    }
}

#[test]
fn every_alert_has_commands_in_its_runbook_and_a_test_that_causes_it() {
    let (rules, page, tests) = (text("docker/observability/alerts.yml"), text("docs/operations.md"), text(file!()));
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 13, "{alerts:?}");
    for alert in alerts {
        let (_, section) = page.split_once(&format!("\n### {alert}\n")).unwrap_or_else(|| panic!("no section {alert}"));
        let section = section.split("\n### ").next().unwrap_or_default();
        assert!(section.contains(&format!("<!-- {alert}:begin -->")), "{alert} shows no commands");
        assert!(walk_steps(&page, alert, "text").iter().all(|step| step.output.is_some()), "{alert}");
        let follows = ["follows(\"", "follows_with(\"", "follow_in(&folder, \""];
        for step in [&["is_raised(\""][..], &follows, &["is_resolved(\""]] {
            let done = step.iter().any(|call| tests.contains(&format!("{call}{alert}\"")));
            assert!(done, "no test calls {step:?} for {alert}");
        }
    }
}

#[tokio::test]
async fn a_role_that_is_down_or_has_no_target_is_noticed() {
    let world = World::new().await;
    let port = free_port();
    let users = world.start_on(Role::Users, port, &[]).await;
    let wallet = world.start(Role::Wallet).await;
    let (users_url, wallet_url) = (users.url(), wallet.url());
    let operator = Operator::of(&world, &users_url, &wallet_url);
    eventually(PATIENCE, "both roles are scraped", || async {
        operator.prometheus.has_data("count(up == 1) == 2").await.then_some(())
    })
    .await;
    eventually(PATIENCE, "no alert", || async { operator.prometheus.alerts().await.is_empty().then_some(()) }).await;

    users.kill().await;
    operator.is_raised("PurseDown").await;
    operator.follows("PurseDown").await;
    let _users = world.start_on(Role::Users, port, &[]).await;
    operator.is_resolved("PurseDown").await;

    operator.prometheus.scrape(&[("wallet", &wallet_url)]);
    operator.is_raised("PurseTargetMissing").await;
    operator.follows("PurseTargetMissing").await;
    operator.prometheus.scrape(&[("users", &users_url), ("wallet", &wallet_url)]);
    operator.is_resolved("PurseTargetMissing").await;
}

#[tokio::test]
async fn servers_that_are_away_or_short_of_memory_are_noticed() {
    let outages = Outages::begin().await;
    let world = World::on(outages.servers).await;
    let (users, wallet, client) = world.both().await;
    client.ready_user().await;
    let operator = Operator::of(&world, &users.url(), &wallet.url());

    outages.rabbitmqctl(&["set_vm_memory_high_watermark", "absolute", "1000000"]).await;
    // RabbitMQ announces the alarm to connections that publish.
    client.user().await;
    operator.is_raised("PurseBrokerBlocked").await;
    operator.follows("PurseBrokerBlocked").await;
    assert!(!operator.prometheus.alerts().await.contains("PurseBrokerUnavailable"), "two alerts for one cause");
    outages.rabbitmqctl(&["set_vm_memory_high_watermark", "0.4"]).await;
    operator.is_resolved("PurseBrokerBlocked").await;

    outages.act(Server::RabbitMq, Action::Kill).await;
    operator.is_raised("PurseBrokerUnavailable").await;
    operator.follows("PurseBrokerUnavailable").await;
    operator.is_raised("PurseActorRestarts").await;
    operator.follows("PurseActorRestarts").await;
    outages.act(Server::RabbitMq, Action::Start).await;
    operator.is_resolved("PurseBrokerUnavailable").await;
    operator.is_resolved("PurseActorRestarts").await;

    outages.act(Server::Postgres, Action::Kill).await;
    operator.is_raised("PurseNotReady").await;
    operator.follows("PurseNotReady").await;
    outages.act(Server::Postgres, Action::Start).await;
    operator.is_resolved("PurseNotReady").await;
}

#[tokio::test]
async fn an_event_that_no_queue_takes_is_noticed() {
    let world = World::new().await;
    let users = world.start(Role::Users).await;
    let operator = Operator::of(&world, &users.url(), "http://127.0.0.1:9");
    Client::new(&users.url(), &users.url()).user().await;
    operator.is_raised("PurseOutboxOld").await;
    eventually(PATIENCE, "the broker has refused the event", || async {
        let refused = "SELECT count(*) FROM outbox WHERE last_error IS NOT NULL AND claimed_until IS NULL";
        (world.sql(Role::Users, refused).await == "1").then_some(())
    })
    .await;
    operator.follows("PurseOutboxOld").await;
    let _wallet = world.start(Role::Wallet).await;
    operator.is_resolved("PurseOutboxOld").await;
}

#[tokio::test]
async fn events_that_failed_or_were_lost_are_noticed() {
    let world = World::new().await;
    let (users, wallet, client) = world.both().await;
    let port = wallet.url().rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port");
    let operator = Operator::of(&world, &users.url(), &wallet.url());
    world.broker.publish("domain.events", "user.registered", b"poison", Some(&Uuid::now_v7().to_string()), &[]).await;
    operator.is_raised("PurseDeadLetters").await;
    operator.follows("PurseDeadLetters").await;
    let purged = crate::support::purse(&["dlq", "purge", "--all", "--yes"], &operator.settings).await;
    assert_eq!(purged.code, Some(0), "{purged:?}");
    operator.is_resolved("PurseDeadLetters").await;

    // The wallet role is away while a user registers, and the queue is lost with the event.
    drop(wallet);
    let since = Timestamp::now().to_string();
    let user = client.user().await;
    eventually(PATIENCE, "the event is published", || async {
        (world.sql(Role::Users, "SELECT count(*) FROM outbox WHERE status = 'published'").await == "1").then_some(())
    })
    .await;
    world.broker.delete_queue("wallet.provision").await;
    let wallet = world.start_on(Role::Wallet, port, &[]).await;
    wallet.ready().await;
    let asking: JoinHandle<()> = tokio::spawn({
        let client = Client::new(&users.url(), &wallet.url());
        async move {
            while client.get(&user, "/v1/balance").await.status != 200 {
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        }
    });
    operator.is_raised("PurseGateClosed").await;
    operator.follows_with("PurseGateClosed", &[("2026-11-23T10:00:00Z", &since)]).await;
    asking.await.expect("the user has a wallet");
    operator.is_resolved("PurseGateClosed").await;
}

#[tokio::test]
async fn a_hold_whose_end_cannot_be_written_is_noticed() {
    let world = World::new().await;
    let (users, wallet, _client) = world.both().await;
    let operator = Operator::of(&world, &users.url(), &wallet.url());
    let expired_at = Timestamp::from_second(Timestamp::now().as_second() - 10).expect("a time");
    let mut ledger = HandLedger::new();
    ledger.append(&HandRow::new(EntryKind::Credit, 100, 100, 0));
    ledger.write(&world).await;
    let id = ledger.user.to_string();
    let user = User { token: token_of(&id), email: String::new(), id };
    let lock = WalletLock::acquire_as(&world.databases.wallet.migration_url, &user).await;
    let row = HandRow { expires_at: Some(expired_at), ..HandRow::new(EntryKind::Hold, 40, 100, 40) };
    let hold = ledger.append(&row);
    ledger.list_open_hold(2, hold, 40, 0, expired_at);
    ledger.write(&world).await;
    operator.is_raised("PurseHoldsOverdue").await;
    let pid = lock.pid().await.to_string();
    let values = [("01a206c3-0b00-7000-8000-0000000000a1", user.id.as_str()), ("4711", pid.as_str())];
    operator.follows_with("PurseHoldsOverdue", &values).await;
    lock.release().await;
    operator.is_resolved("PurseHoldsOverdue").await;
}

#[tokio::test]
async fn a_shard_that_cannot_be_read_is_noticed() {
    let world = World::new().await;
    let wallet = world.start_with(Role::Wallet, &[("WALLET_SHARDS", "4")]).await;
    wallet.ready().await;
    let operator = Operator::of(&world, "http://127.0.0.1:9", &wallet.url());
    let owner = &world.databases.wallet.migration_url;
    let (session, connection) = tokio_postgres::connect(owner, tokio_postgres::NoTls).await.expect("connected");
    tokio::spawn(connection);
    session.batch_execute("BEGIN; LOCK TABLE shard_02.open_holds IN ACCESS EXCLUSIVE MODE").await.expect("locked");
    operator.is_raised("PurseShardUnreachable").await;
    let folder = log_folder(&world);
    fs::write(folder.join("wallet.log"), wallet.output()).expect("the log");
    follow_in(&folder, "PurseShardUnreachable", &operator.settings, &[]).await;
    session.batch_execute("ROLLBACK").await.expect("unlocked");
    operator.is_resolved("PurseShardUnreachable").await;
    fs::remove_dir_all(&folder).expect("removed");
}

/// Sends requests that need the database, eight at a time, until the task is aborted.
fn ask_for_profiles(client: &Client, token: &str) -> JoinHandle<()> {
    let (client, token) = (Client::new(&client.users, &client.wallet), token.to_owned());
    tokio::spawn(async move {
        loop {
            join_all((0..8).map(|_| client.me(&token))).await;
        }
    })
}

#[tokio::test]
async fn a_transaction_that_was_left_open_is_noticed_as_slow_failing_and_waiting_requests() {
    let world = World::new().await;
    let users = world.start_with(Role::Users, &[("DB_POOL_MAX", "1")]).await;
    let client = Client::new(&users.url(), &users.url());
    let user = client.user().await;
    let operator = Operator::of(&world, &users.url(), "http://127.0.0.1:9");
    let asking = ask_for_profiles(&client, &user.token);

    // An owner's session, like that of an operator who was called away.
    let url = format!("{}?application_name=psql", world.databases.users.migration_url);
    let (left_open, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("connected");
    let connection = tokio::spawn(connection);
    left_open.batch_execute("BEGIN").await.expect("begun");
    left_open.batch_execute("LOCK TABLE users").await.expect("locked");
    let pid: i32 = left_open.query_one("SELECT pg_backend_pid()", &[]).await.expect("a session").get(0);
    // Shown as the last statement of the session.
    left_open.batch_execute("LOCK TABLE users").await.expect("locked");

    operator.is_raised("PursePoolWaits").await;
    operator.follows("PursePoolWaits").await;
    operator.is_raised("PurseErrorRatio").await;
    operator.follows("PurseErrorRatio").await;
    operator.is_raised("PurseSlowRequests").await;
    operator.follows_with("PurseSlowRequests", &[("4711", &pid.to_string())]).await;
    assert!(connection.await.expect("ended").is_err(), "the session was not terminated");
    operator.is_resolved("PurseErrorRatio").await;
    operator.is_resolved("PurseSlowRequests").await;
    asking.abort();
    operator.is_resolved("PursePoolWaits").await;
}

#[tokio::test]
async fn lost_log_records_are_noticed() {
    let world = World::new().await;
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let wallet = Wallet::start(&world, writer.into(), &[]).await;
    let operator = Operator::of(&world, "http://127.0.0.1:9", &wallet.url);
    wallet.fill_the_log().await;
    operator.is_raised("PurseLogRecordsDropped").await;

    // The collector works again and writes the log to a file.
    let folder = log_folder(&world);
    let file = folder.join("wallet.log");
    let collector = std::thread::spawn({
        let file = file.clone();
        move || std::io::copy(&mut reader, &mut fs::File::create(file).expect("a file")).expect("copied")
    });
    eventually(PATIENCE, "the gap is in the log", || async {
        let log = fs::read_to_string(&file).ok()?;
        log.lines().any(|line| line.contains("log records were dropped") && line.ends_with('}')).then_some(())
    })
    .await;
    follow_in(&folder, "PurseLogRecordsDropped", &operator.settings, &[]).await;
    operator.is_resolved("PurseLogRecordsDropped").await;
    drop(wallet);
    collector.join().expect("the log has ended");
    fs::remove_dir_all(&folder).expect("removed");
}
