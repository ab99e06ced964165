//! The life of a process: start, rejected configurations, stop, exit codes.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use purse::kernel::Role;
use rustix::process::Signal;

use crate::support::{Client, PATIENCE, RoleProcess, World, eventually, purse};

fn valid_settings(role: Role) -> BTreeMap<String, String> {
    [
        (format!("{}_DATABASE_URL", role.as_str().to_uppercase()), "postgres://u:hunter22@127.0.0.1:1/db".to_owned()),
        ("RABBITMQ_URL".to_owned(), "amqp://u:hunter22@127.0.0.1:1/%2f".to_owned()),
        ("JWT_PRIVATE_KEY".to_owned(), "ILIACHALLENGE".to_owned()),
        ("INTERNAL_JWT_PRIVATE_KEY".to_owned(), "ILIACHALLENGE_INTERNAL".to_owned()),
    ]
    .into()
}

async fn run(arguments: &[&str], settings: &BTreeMap<String, String>) -> (Option<i32>, String) {
    let mut process = RoleProcess::spawn(arguments, settings);
    let status = process.exited().await;
    (status.code(), process.output())
}

#[tokio::test]
async fn a_valid_configuration_is_checked_without_connecting_to_anything() {
    for role in Role::ALL {
        for arguments in [["check-config", "--role", role.as_str()], ["--role", role.as_str(), "--check-config"]] {
            let (code, output) = run(&arguments, &valid_settings(role)).await;
            assert_eq!(code, Some(0), "{output}");
            assert!(output.contains(&format!("The configuration of the {role} role is valid.")), "{output}");
            assert!(output.contains("JWT_PRIVATE_KEY has 13 bytes"), "{output}");
        }
    }
}

#[tokio::test]
async fn every_configuration_error_is_reported_at_once_with_exit_code_64() {
    let mut settings = valid_settings(Role::Users);
    settings.remove("JWT_PRIVATE_KEY");
    settings.extend([("USERS_PORT".to_owned(), "x".to_owned()), ("LOG_LEVEL".to_owned(), "loud".to_owned())]);
    let flags = ["--role", "users", "--outbox-batch-max", "-1"];
    for arguments in [&flags[..], &[&flags[..], &["--check-config"]].concat()] {
        let (code, output) = run(arguments, &settings).await;
        assert_eq!(code, Some(64), "{output}");
        for problem in [
            "the configuration has 4 problems",
            "`-1` must be a whole number from",
            "JWT_PRIVATE_KEY: is required",
            "USERS_PORT: `x` must be a whole number from 0 to 65535",
            "LOG_LEVEL: `loud` must be",
        ] {
            assert!(output.contains(problem), "{problem}\n{output}");
        }
        assert!(!output.contains("hunter22"));
    }
}

#[tokio::test]
async fn invalid_usage_exits_with_64_and_help_with_0() {
    let nothing = BTreeMap::new();
    for arguments in [
        &[][..],
        &["--role", "bank"],
        &["--role", "users", "--prefetch", "3"],
        &["--role", "wallet", "--outbox-batch-max", "3"],
        &["--role", "wallet", "--retry-ttl-ms", "1,2"],
        &["--role", "users", "--frobnicate"],
        &["frobnicate"],
        &["--role", "users", "--config-dir", "/nonexistent"],
    ] {
        let (code, output) = run(arguments, &nothing).await;
        assert_eq!(code, Some(64), "{arguments:?}\n{output}");
    }
    for arguments in [&["--help"][..], &["--version"], &["migrate", "--help"]] {
        assert_eq!(run(arguments, &nothing).await.0, Some(0), "{arguments:?}");
    }
}

#[tokio::test]
async fn production_rejects_the_unsafe_defaults() {
    let mut settings = valid_settings(Role::Wallet);
    settings.insert("APP_ENV".to_owned(), "production".to_owned());
    let (code, output) = run(&["check-config", "--role", "wallet"], &settings).await;
    assert_eq!(code, Some(64));
    assert!(output.contains("JWT_PRIVATE_KEY: has 13 bytes"), "{output}");
}

#[tokio::test]
async fn a_port_in_use_causes_one_clear_message_and_exit_code_69() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = taken.local_addr().expect("address").port().to_string();
    let (code, output) =
        run(&["--role", "users", "--host", "127.0.0.1", "--port", &port], &valid_settings(Role::Users)).await;
    assert_eq!(code, Some(69), "{output}");
    assert!(output.contains(&format!("cannot listen on 127.0.0.1:{port}")) && output.contains("--port"), "{output}");
}

#[tokio::test]
async fn a_queue_with_different_arguments_causes_one_clear_message_and_exit_code_69() {
    let world = World::new().await;
    world.broker.declare_plain("wallet.provision").await;
    let mut wallet = world.spawn(Role::Wallet, &[]).await;
    assert_eq!(wallet.exited().await.code(), Some(69), "{}", wallet.output());
    let errors = wallet.stderr();
    assert!(errors.contains("wallet.provision already exists at the broker with different arguments"), "{errors}");
}

#[tokio::test]
async fn a_stop_signal_stops_a_role_gracefully_with_0_and_its_last_log_line_is_written() {
    let world = World::new().await;
    for (role, signal) in [(Role::Users, Signal::TERM), (Role::Wallet, Signal::INT)] {
        let mut process = world.start_with(role, &[("LOG_LEVEL", "debug")]).await;
        process.signal(signal);
        assert_eq!(process.exited().await.code(), Some(0), "{}", process.output());
        let log = process.log();
        assert_eq!(log.last().map(|line| line["msg"].clone()), Some("stopped".into()), "{}", process.output());
        assert!(log.iter().any(|line| line["msg"] == "actor stopped" && line["actor"] == "http"));
    }
}

#[tokio::test]
async fn a_hangup_is_ignored_and_a_stop_signal_works_while_the_database_is_unreachable() {
    let mut settings = valid_settings(Role::Users);
    settings.extend([("USERS_PORT".to_owned(), "0".to_owned()), ("HOST".to_owned(), "127.0.0.1".to_owned())]);
    settings.insert("LOG_FORMAT".to_owned(), "json".to_owned());
    let mut process = RoleProcess::spawn(&["--role", "users"], &settings);
    eventually(PATIENCE, "the role waits for the database", || async {
        process.output().contains("the database cannot be used yet").then_some(())
    })
    .await;
    process.signal(Signal::HUP);
    process.signal(Signal::TERM);
    assert_eq!(process.exited().await.code(), Some(0), "{}", process.output());
    assert!(!process.output().contains("hunter22"));
}

#[tokio::test]
async fn posts_in_progress_finish_before_a_stop_and_acknowledged_ones_are_stored() {
    let world = World::new().await;
    let (_users, mut wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let posts = (0..200).map(|n| {
        let client = client.clone();
        let user = user.clone();
        tokio::spawn(async move {
            let request =
                client.post_request(&user, "credit", &serde_json::json!({"amountMinor": 1}), Some(&format!("k{n}")));
            client.try_send(request).await.is_some_and(|response| response.status == 201)
        })
    });
    let posts: Vec<_> = posts.collect();
    tokio::time::sleep(Duration::from_millis(20)).await;
    wallet.signal(Signal::TERM);
    assert_eq!(wallet.exited().await.code(), Some(0), "{}", wallet.output());
    let mut acknowledged = 0;
    for post in posts {
        acknowledged += i64::from(post.await.expect("post"));
    }
    let stored: i64 = world.sql(Role::Wallet, "SELECT count(*) FROM transactions").await.parse().expect("number");
    assert!(stored >= acknowledged, "{stored} entries for {acknowledged} acknowledged posts");
    let again = world.start(Role::Wallet).await;
    let client = Client::new(&client.users, &again.url());
    assert_eq!(client.balance(&user).await, stored);
}

#[tokio::test]
async fn migrate_only_migrates_and_exits_and_healthcheck_returns_readiness() {
    let world = World::new().await;
    for role in Role::ALL {
        let settings = world.settings(role);
        let first = run(&["migrate", "--role", role.as_str()], &settings).await;
        assert_eq!(first.0, Some(0), "{}", first.1);
        let second = run(&["--role", role.as_str(), "--migrate-only"], &settings).await;
        assert!(second.0 == Some(0) && second.1.contains("database is up to date"), "{}", second.1);
    }
    let users = world.start(Role::Users).await;
    let port = users.url().rsplit_once(':').expect("port").1.to_owned();
    let healthcheck = ["healthcheck", "--role", "users", "--port", &port];
    assert_eq!(run(&healthcheck, &BTreeMap::new()).await.0, Some(0));
    drop(users);
    assert_eq!(run(&healthcheck, &BTreeMap::new()).await.0, Some(1));
}

#[tokio::test]
async fn a_database_that_is_not_utf8_is_rejected_with_69() {
    let world = World::new().await;
    let name = world.databases.users.database.clone();
    world
        .sql(Role::Wallet, &format!("CREATE DATABASE {name}_ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'"))
        .await;
    let mut settings = world.settings(Role::Users);
    for variable in ["USERS_DATABASE_URL", "USERS_MIGRATION_DATABASE_URL"] {
        settings.insert(variable.to_owned(), world.addresses.superuser_url(&format!("{name}_ascii")));
    }
    let (code, output) = run(&["migrate", "--role", "users"], &settings).await;
    assert_eq!(code, Some(69), "{output}");
    assert!(output.contains("is encoded in SQL_ASCII; recreate it with ENCODING 'UTF8'"), "{output}");
}

#[tokio::test]
async fn a_role_without_the_owners_password_serves_only_a_database_that_is_already_migrated() {
    let world = World::new().await;
    for role in [Role::Users, Role::Wallet] {
        let with_owner = world.settings(role);
        let mut settings = with_owner.clone();
        settings.retain(|name, _| !name.ends_with("_MIGRATION_DATABASE_URL"));
        let too_soon = purse(&["--role", role.as_str()], &settings).await;
        assert_eq!(too_soon.code, Some(69), "{too_soon:?}");
        assert!(too_soon.err.contains("run `purse migrate` as the owner first"), "{too_soon:?}");

        assert_eq!(purse(&["migrate", "--role", role.as_str()], &with_owner).await.code, Some(0));
        let mut process = RoleProcess::spawn(&["--role", role.as_str()], &settings);
        process.listening().await;
        process.ready().await;
        drop(process);
        // A database that lacks the last migration counts as not migrated.
        world.sql(role, "DELETE FROM refinery_schema_history WHERE version = (SELECT max(version) FROM refinery_schema_history)").await;
        assert_eq!(purse(&["--role", role.as_str()], &settings).await.code, Some(69));
    }
}

#[tokio::test]
async fn a_request_whose_body_never_arrives_gets_a_response_on_shutdown() {
    let world = World::new().await;
    let mut users = world.start(Role::Users).await;
    let mut half = TcpStream::connect(users.url().trim_start_matches("http://")).expect("connected");
    let head = "POST /v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 90\r\n\
        expect: 100-continue\r\n\r\n";
    half.write_all(head.as_bytes()).expect("sent");
    // The interim response shows that the handler waits for the body.
    let mut interim = [0; 25];
    half.read_exact(&mut interim).expect("an interim response");
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    users.signal(Signal::TERM);
    assert_eq!(users.exited().await.code(), Some(0), "{}", users.output());
    let mut response = String::new();
    half.read_to_string(&mut response).expect("received");
    assert!(response.starts_with("HTTP/1.1 503 ") && response.contains("The service is shutting down."), "{response}");
}

#[tokio::test]
async fn a_second_signal_exits_immediately() {
    let world = World::new().await;
    let users = world.start(Role::Users).await;
    let patient =
        [("DB_LOCK_TIMEOUT_MS", "50000"), ("DB_STATEMENT_TIMEOUT_MS", "60000"), ("SHUTDOWN_GRACE_MS", "60000")];
    let mut wallet = world.start_with(Role::Wallet, &patient).await;
    let client = Client::new(&users.url(), &wallet.url());
    let user = client.ready_user().await;
    // A post waits for its locked wallet, and the shutdown waits for the post.
    let url = world.addresses.superuser_url(&world.databases.wallet.database);
    let (holder, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("connected");
    tokio::spawn(connection);
    holder.batch_execute("BEGIN; SELECT FROM wallets FOR UPDATE").await.expect("locked");
    let post = client.post_request(&user, "credit", &serde_json::json!({"amountMinor": 1}), None);
    let post = tokio::spawn(async move { post.send().await.is_ok() });
    let waits =
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    eventually(PATIENCE, "the post waits", || async { (world.sql(Role::Wallet, waits).await == "t").then_some(()) })
        .await;

    wallet.signal(Signal::TERM);
    eventually(PATIENCE, "stopping", || async { wallet.output().contains("\"stopping\"").then_some(()) }).await;
    assert!(!post.is_finished(), "the first signal waits for the post");
    wallet.signal(Signal::TERM);
    assert_eq!(wallet.exited().await.code(), Some(0), "{}", wallet.output());
    assert!(wallet.output().contains("stopping immediately"), "{}", wallet.output());
}
