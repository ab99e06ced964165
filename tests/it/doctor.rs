//! `purse doctor`: each finding, caused on purpose.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use purse::kernel::Role;
use purse::operate::Check;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::broker_rights::{PASSWORD, USERS, WALLET, accounts};
use crate::operate_handbook::follow;
use crate::support::{AmqpProxy, Client, CommandOutput, Outages, PATIENCE, PrivatePostgres, World, eventually, purse};

/// Long enough to be no finding.
const KEYS: [(&str, &str); 2] = [
    ("JWT_PRIVATE_KEY", "the-access-key-of-the-doctor-tests-32"),
    ("INTERNAL_JWT_PRIVATE_KEY", "the-event-key-of-the-doctor-tests-32"),
];

fn settings(world: &World, role: Role, changed: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut settings = world.settings(role);
    settings.extend(KEYS.iter().chain(changed).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    settings
}

struct Report {
    output: CommandOutput,
    checks: Vec<Value>,
}

impl Report {
    /// The finding of a check that has this text, with its level and its advice.
    fn finding(&self, check: &str, text: &str) -> (&str, &str) {
        let found = self
            .checks
            .iter()
            .find(|one| one["check"] == check && one["finding"].as_str().is_some_and(|finding| finding.contains(text)));
        let found = found.unwrap_or_else(|| panic!("no finding {check} {text:?}: {:#?}", self.checks));
        (found["result"].as_str().expect("a level"), found["advice"].as_str().unwrap_or_default())
    }

    fn assert(&self, check: &str, level: &str, text: &str, advice: &str) {
        let found = self.finding(check, text);
        assert!(found.0 == level && found.1.contains(advice), "{check}: {found:?}");
        assert!(level == "ok" || level == "skipped" || !found.1.is_empty(), "no advice: {found:?}");
    }

    /// The checks with a warning or an error, in their order.
    fn bad(&self) -> Vec<&str> {
        let bad = self.checks.iter().filter(|one| one["result"] == "warning" || one["result"] == "error");
        bad.filter_map(|one| one["check"].as_str()).collect()
    }

    /// The same without the finding that the tests' own servers cause: they do without fsync.
    fn own(&self) -> Vec<&str> {
        self.bad().into_iter().filter(|check| *check != "durability").collect()
    }
}

async fn doctor(world: &World, role: Role, changed: &[(&str, &str)]) -> Report {
    let output = purse(&["doctor", "--role", role.as_str(), "--json"], &settings(world, role, changed)).await;
    assert_eq!(output.err, "", "{output:?}");
    let checks = output.json()["checks"].as_array().expect("a list").clone();
    Report { output, checks }
}

/// Both databases are migrated and the topology exists; no role is running.
async fn prepared() -> World {
    let world = World::new().await;
    drop(world.both().await);
    world.broker.wait_until_unconsumed("wallet.provision").await;
    world
}

fn user_of(url: &str) -> &str {
    url.split("//").nth(1).and_then(|rest| rest.split(':').next()).expect("a user")
}

#[tokio::test]
async fn a_healthy_deployment_has_no_findings_and_the_handbook_shows_the_report() {
    let outages = Outages::begin().await;
    let world = World::on(outages.servers).await;
    let (_users, _wallet, client) = world.both().await;
    client.ready_user().await;
    world.sql(Role::Users, "UPDATE users SET created_at = now() - interval '1 hour'").await;
    let both = |role: Role| {
        let mut all = world.settings(Role::Users);
        all.extend(settings(&world, role, &[]));
        all.extend(world.settings(Role::Wallet).into_iter().filter(|(name, _)| name == "WALLET_DATABASE_URL"));
        all
    };
    let mut seen = Vec::new();
    for role in Role::ALL {
        let output = purse(&["doctor", "--role", role.as_str(), "--json"], &both(role)).await;
        let report = output.done();
        assert_eq!(
            (&report["role"], &report["errors"], &report["warnings"]),
            (&json!(role.as_str()), &json!(0), &json!(0))
        );
        for one in report["checks"].as_array().expect("a list") {
            assert_eq!((&one["result"], &one["advice"]), (&json!("ok"), &Value::Null), "{one}");
            seen.push(one["check"].as_str().expect("a name").to_owned());
        }
        let wallets = report["checks"].as_array().and_then(|all| all.last()).expect("the last");
        assert_eq!(wallets["finding"], "every user older than a minute has a wallet (1 user)");
    }
    for check in Check::ALL {
        assert!(seen.iter().any(|seen| seen == check.name()), "{} was not checked", check.name());
    }
    follow("doctor", &both(Role::Wallet), &[]).await;
}

#[tokio::test]
async fn weak_keys_and_a_server_that_may_lose_commits_are_warnings_with_exit_code_1() {
    let world = prepared().await;
    let report = doctor(&world, Role::Users, &[("JWT_PRIVATE_KEY", "ILIACHALLENGE"), ("RL_LOGIN_MXA", "7")]).await;
    assert_eq!(report.output.code, Some(1), "{:?}", report.output);
    report.assert("configuration", "warning", "JWT_PRIVATE_KEY has 13 bytes", "purse config show");
    report.assert("configuration", "warning", "did you mean RL_LOGIN_MAX?", "purse config show");
    report.assert("durability", "warning", "off: fsync", "postgresql.conf");
    // Nothing consumes while no wallet role runs.
    report.assert("consumers", "warning", "no process consumes wallet.provision", "Start the wallet role");
    report.assert("wallets", "skipped", "set WALLET_DATABASE_URL too", "");
    assert_eq!(report.own(), ["configuration", "configuration", "consumers"]);
    let table = purse(&["doctor", "--role", "users"], &settings(&world, Role::Users, &[])).await;
    assert_eq!((table.code, table.err.as_str()), (Some(1), ""), "{table:?}");
    assert!(table.out.starts_with("RESULT ") && table.out.contains("\nOK       database"), "{}", table.out);
    assert!(
        table.out.contains("→ Start the wallet role") && table.out.ends_with("0 errors, 2 warnings.\n"),
        "{}",
        table.out
    );
}

#[tokio::test]
async fn missing_changed_and_newer_migrations_are_told_apart() {
    let world = World::new().await;
    let bare = doctor(&world, Role::Wallet, &[]).await;
    bare.assert("migrations", "error", "finds no tables", "purse migrate --role wallet");
    bare.assert("rights", "skipped", "no tables", "");
    let migrated = purse(&["migrate", "--role", "wallet"], &world.settings(Role::Wallet)).await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    doctor(&world, Role::Wallet, &[]).await.assert("migrations", "ok", "all 9 applied", "");

    world.sql(Role::Wallet, "UPDATE refinery_schema_history SET checksum = '7' WHERE version = 2").await;
    // With nothing to apply, migrating would not look at what has been applied.
    world.sql(Role::Wallet, "UPDATE refinery_schema_history SET version = -9 WHERE version = 9").await;
    let refused = purse(&["migrate", "--role", "wallet"], &world.settings(Role::Wallet)).await;
    assert_ne!(refused.code, Some(0), "{refused:?}");
    assert!(refused.err.contains("V2 was applied in another form than this version has"), "{refused:?}");
    world.sql(Role::Wallet, "UPDATE refinery_schema_history SET version = 9 WHERE version = -9").await;
    let history = "INSERT INTO refinery_schema_history (version, name, applied_on, checksum) VALUES (99, 'next', now()::text, '1')";
    world.sql(Role::Wallet, history).await;
    let report = doctor(&world, Role::Wallet, &[]).await;
    report.assert("migrations", "error", "applied in another form than this release has: V2 ", "Find out which build");
    world.sql(Role::Wallet, "DELETE FROM refinery_schema_history WHERE version = 2").await;
    let report = doctor(&world, Role::Wallet, &[]).await;
    report.assert("migrations", "error", "not applied: V2 ", "Run `purse migrate --role wallet`");
    world.sql(Role::Wallet, "DELETE FROM refinery_schema_history WHERE version < 99").await;
    assert_eq!(doctor(&world, Role::Wallet, &[]).await.output.code, Some(1));
}

#[tokio::test]
async fn a_database_that_a_newer_release_has_migrated_is_no_finding() {
    let world = prepared().await;
    let history = "INSERT INTO refinery_schema_history (version, name, applied_on, checksum) VALUES (99, 'next', now()::text, '1')";
    world.sql(Role::Users, history).await;
    let user = user_of(&world.databases.users.runtime_url);
    world.sql(Role::Users, &format!("GRANT DELETE ON outbox TO {user}")).await;
    let report = doctor(&world, Role::Users, &[]).await;
    report.assert("migrations", "ok", "a newer release has applied V99 next", "");
    report.assert("rights", "ok", "has the privileges", "");
}

#[tokio::test]
async fn privileges_that_are_missing_or_too_many_are_named() {
    let world = prepared().await;
    let user = user_of(&world.databases.wallet.runtime_url);
    doctor(&world, Role::Wallet, &[]).await.assert("rights", "ok", "and no others", "");
    world
        .sql(
            Role::Wallet,
            &format!("REVOKE INSERT ON wallets FROM {user}; REVOKE UPDATE (lock_anchor) ON wallets FROM {user}"),
        )
        .await;
    let report = doctor(&world, Role::Wallet, &[]).await;
    let named = format!("{user} lacks INSERT ON wallets, UPDATE (lock_anchor) ON wallets");
    report.assert("rights", "error", &named, "WALLET_MIGRATION_DATABASE_URL");
    // Through the table, a column, everybody, and attributes of the account.
    world
        .sql(
            Role::Wallet,
            &format!(
                "GRANT INSERT, UPDATE (lock_anchor) ON wallets TO {user}; GRANT DELETE ON transactions TO {user};
                 GRANT UPDATE (seq) ON transactions TO {user}; GRANT TRUNCATE ON wallets TO PUBLIC; ALTER ROLE {user} CREATEDB"
            ),
        )
        .await;
    let report = doctor(&world, Role::Wallet, &[]).await;
    for excess in ["DELETE ON transactions", "UPDATE (seq) ON transactions", "TRUNCATE ON wallets"] {
        report.assert("rights", "warning", excess, "revokes what is granted");
    }
    report.assert("rights", "warning", "has CREATEDB, which no role needs", "ALTER ROLE");
    assert_eq!(report.own(), ["rights", "rights", "consumers"]);
    world
        .sql(
            Role::Wallet,
            &format!("ALTER ROLE {user} NOCREATEDB; REVOKE SELECT ON refinery_schema_history FROM {user}"),
        )
        .await;
    let report = doctor(&world, Role::Wallet, &[]).await;
    report.assert("migrations", "error", "permission denied", "purse migrate --role wallet");
    report.assert("rights", "error", "lacks SELECT ON refinery_schema_history", "purse migrate");
}

#[tokio::test]
async fn disabled_triggers_are_an_error() {
    let world = prepared().await;
    let disable = "ALTER TABLE transactions DISABLE TRIGGER transactions_refuse_change;
                   ALTER TABLE entry_texts ENABLE REPLICA TRIGGER entry_texts_refuse_change";
    world.sql(Role::Wallet, disable).await;
    let report = doctor(&world, Role::Wallet, &[]).await;
    let named =
        "disabled triggers: entry_texts_refuse_change ON entry_texts, transactions_refuse_change ON transactions";
    report.assert("rights", "error", named, "ENABLE TRIGGER");
    assert_eq!(report.own(), ["rights", "consumers"]);
    let enable = "ALTER TABLE transactions ENABLE TRIGGER ALL; ALTER TABLE entry_texts ENABLE ALWAYS TRIGGER entry_texts_refuse_change";
    world.sql(Role::Wallet, enable).await;
    assert_eq!(doctor(&world, Role::Wallet, &[]).await.own(), ["consumers"]);
}

#[tokio::test]
async fn a_runtime_user_that_owns_the_tables_is_a_warning() {
    let world = prepared().await;
    let owner = world.databases.users.migration_url.clone();
    let report = doctor(&world, Role::Users, &[("USERS_DATABASE_URL", &owner)]).await;
    report.assert("rights", "warning", "owns the tables", "USERS_MIGRATION_DATABASE_URL");
    assert_eq!(report.own(), ["rights", "consumers"]);
}

#[tokio::test]
async fn a_read_only_database_and_one_in_another_encoding_are_errors() {
    let world = prepared().await;
    let user = user_of(&world.databases.wallet.runtime_url).to_owned();
    world.sql(Role::Wallet, &format!("ALTER ROLE {user} SET default_transaction_read_only = on")).await;
    let report = doctor(&world, Role::Wallet, &[]).await;
    report.assert("database", "error", "read-only", "primary");
    let other = format!("{}_latin", world.databases.wallet.database);
    world.sql(Role::Wallet, &format!("CREATE DATABASE {other} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")).await;
    let url = world.addresses.superuser_url(&other);
    let report = doctor(&world, Role::Wallet, &[("WALLET_DATABASE_URL", &url)]).await;
    report.assert("database", "error", "its encoding is LATIN1", "UTF8");
}

/// Functions of the server that return something else to this role.
async fn pretend(world: &World, role: Role, functions: &str) {
    let url = match role {
        Role::Users => &world.databases.users.runtime_url,
        Role::Wallet => &world.databases.wallet.runtime_url,
    };
    let user = user_of(url);
    let script = format!(
        "CREATE SCHEMA pretended; GRANT USAGE ON SCHEMA pretended TO {user}; {functions};
         ALTER ROLE {user} SET search_path = pretended, pg_catalog, public"
    );
    world.sql(role, &script).await;
}

#[tokio::test]
async fn an_old_server_and_a_clock_that_differs_are_errors() {
    let world = prepared().await;
    pretend(
        &world,
        Role::Wallet,
        "CREATE FUNCTION pretended.clock_timestamp() RETURNS timestamptz LANGUAGE sql
             AS 'SELECT pg_catalog.clock_timestamp() - interval ''61 minutes''';
         CREATE FUNCTION pretended.current_setting(text) RETURNS text LANGUAGE sql AS
             'SELECT CASE $1 WHEN ''server_version_num'' THEN ''140012'' WHEN ''server_version'' THEN ''14.12''
                     ELSE pg_catalog.current_setting($1) END'",
    )
    .await;
    let report = doctor(&world, Role::Wallet, &[]).await;
    report.assert("postgresql-version", "error", "PostgreSQL 14.12 is too old", "Upgrade to PostgreSQL 15 to 18");
    report.assert("clock", "error", "the database is 1h behind this machine", "NTP");
    assert_eq!(report.own(), ["postgresql-version", "clock", "consumers"]);
}

#[tokio::test]
async fn events_that_are_refused_or_late_are_warnings() {
    let world = World::new().await;
    let users = world.spawn(Role::Users, &[]).await;
    let client = Client::new(&users.url(), &users.url());
    client.user().await;
    // No wallet role has declared a queue or a binding.
    let refused = eventually(PATIENCE, "the broker has refused it", || async {
        let report = doctor(&world, Role::Users, &[]).await;
        report.bad().contains(&"outbox").then_some(report)
    })
    .await;
    refused.assert("outbox", "warning", "1 refused by the broker: unroutable: 312 NO_ROUTE", "start the wallet role");
    drop(users);
    world.sql(Role::Users, "UPDATE outbox SET last_error = NULL, attempts = 0").await;
    doctor(&world, Role::Users, &[]).await.assert("outbox", "ok", "1 event pending", "");
    world.sql(Role::Users, "UPDATE outbox SET created_at = now() - interval '10 minutes'").await;
    let late = doctor(&world, Role::Users, &[]).await;
    late.assert("outbox", "warning", "1 event pending, the oldest for 10m", "/health/ready");
}

#[tokio::test]
async fn exchanges_and_queues_that_are_missing_or_differ_are_named_and_left_as_they_are() {
    let world = World::new().await;
    for role in Role::ALL {
        let migrated = purse(&["migrate", "--role", role.as_str()], &world.settings(role)).await;
        assert_eq!(migrated.code, Some(0), "{migrated:?}");
    }
    let report = doctor(&world, Role::Users, &[]).await;
    report.assert("topology", "error", "domain.events does not exist", "Start a role");
    report.assert("topology", "error", "wallet.provision does not exist", "Start the wallet role");
    let report = doctor(&world, Role::Wallet, &[]).await;
    for name in [
        "domain.events",
        "wallet.provision",
        "domain.events.dlx",
        "wallet.provision.dlq",
        "wallet.provision.retry.10s",
        "wallet.provision.retry.30s",
        "wallet.provision.retry.120s",
    ] {
        report.assert("topology", "error", &format!("{name} does not exist"), "Start ");
    }
    assert_eq!(world.broker.queues().await, BTreeMap::new(), "the doctor has declared queues");

    drop(world.start(Role::Wallet).await);
    world.broker.delete_queue("wallet.provision.retry.30s").await;
    world.broker.recreate_with_other_arguments("wallet.provision").await;
    world.broker.delete_exchange("domain.events").await;
    world.broker.declare_fanout("domain.events").await;
    let report = doctor(&world, Role::Wallet, &[]).await;
    report.assert("topology", "error", "wallet.provision.retry.30s does not exist", "Start the wallet role");
    report.assert("topology", "error", "wallet.provision exists with different arguments", "Delete wallet.provision");
    report.assert("topology", "error", "domain.events exists with different arguments", "own virtual host");
    assert_eq!(report.own(), ["topology", "topology", "topology", "consumers"]);
    assert!(!world.broker.queues().await.contains_key("wallet.provision.retry.30s"), "the doctor has declared it");
    doctor(&world, Role::Users, &[]).await.assert("topology", "error", "domain.events exists with different", "Delete");
}

#[tokio::test]
async fn an_account_that_may_not_declare_a_queue_is_an_error() {
    let world = prepared().await;
    world.broker.account("narrow", "narrow-password-1", "^domain").await;
    let url = world.broker.url_for("narrow", "narrow-password-1");
    let report = doctor(&world, Role::Wallet, &[("RABBITMQ_URL", &url)]).await;
    report.assert("topology", "error", "wallet.provision cannot be declared: ", "permission");
}

#[tokio::test]
async fn the_accounts_of_the_container_stack_may_do_what_the_doctor_does() {
    let world = prepared().await;
    world.broker.import_definitions(&accounts(world.broker.virtual_host())).await;
    for (role, account) in [(Role::Users, USERS), (Role::Wallet, WALLET)] {
        let url = world.broker.url_for(account, PASSWORD);
        let report = doctor(&world, role, &[("RABBITMQ_URL", &url)]).await;
        assert_eq!(report.own(), ["consumers"], "{:#?}", report.checks);
    }
}

#[tokio::test]
async fn commits_that_wait_for_a_standby_in_vain_are_an_error() {
    let world = prepared().await;
    world.wait_for_standby(Role::Wallet).await;
    let report = doctor(&world, Role::Wallet, &[]).await;
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'purse doctor' AND wait_event = 'SyncRep'";
    eventually(PATIENCE, "the session no longer waits", || async {
        (world.sql(Role::Wallet, waiting).await == "0").then_some(())
    })
    .await;
    world.wait_for_no_standby(Role::Wallet).await;
    report.assert("durability", "error", "a commit was not confirmed within 5 seconds", "synchronous_standby_names");
}

#[tokio::test]
async fn a_standby_before_the_primary_in_the_url_is_no_finding() {
    let primary = PrivatePostgres::start(&[]).await;
    let standby = primary.standby().await;
    let mut world = World::new().await;
    world.move_to(&primary).await;
    let migrated = purse(&["migrate", "--role", "users"], &world.settings(Role::Users)).await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    standby.has_replayed(&primary).await;
    let direct = &world.databases.users.runtime_url;
    let own = format!("127.0.0.1:{}", primary.port());
    assert!(direct.contains(&own), "{direct}");
    let url = |servers: &str| direct.replace(&own, servers);
    let both = url(&format!("127.0.0.1:{},{own}", standby.port()));
    doctor(&world, Role::Users, &[("USERS_DATABASE_URL", &both)]).await.assert("database", "ok", "connected as", "");
    let only = url(&format!("127.0.0.1:{}", standby.port()));
    let report = doctor(&world, Role::Users, &[("USERS_DATABASE_URL", &only)]).await;
    report.assert("database", "error", "standby or read-only", "primary");
}

#[tokio::test]
async fn an_old_broker_is_an_error_and_a_newer_one_a_warning() {
    let world = prepared().await;
    let proxy = AmqpProxy::start(world.addresses.amqp_port).await;
    let url = proxy.url(&world.broker.url());
    let version = doctor(&world, Role::Wallet, &[]).await;
    let ok = version.checks.iter().find(|one| one["check"] == "rabbitmq-version").expect("checked").clone();
    let real = ok["finding"].as_str().and_then(|text| text.strip_prefix("RabbitMQ ")).expect("a version").to_owned();
    let length = real.len();
    let of_length = |text: &str| -> &'static str { String::leak(format!("{text:0<length$}")) };
    let real: &'static str = real.leak();
    for (pretended, level, text) in
        [(of_length("3.9."), "error", "is too old"), (of_length("5.0."), "warning", "is newer")]
    {
        proxy.replace(real, pretended);
        let report = doctor(&world, Role::Wallet, &[("RABBITMQ_URL", &url)]).await;
        report.assert("rabbitmq-version", level, text, "RabbitMQ 3.10 to 4");
    }
}

#[tokio::test]
async fn dead_letters_are_a_warning_that_names_the_commands() {
    let world = prepared().await;
    doctor(&world, Role::Wallet, &[]).await.assert("dead-letters", "ok", "no dead letters", "");
    for id in ["a", "b"] {
        world.broker.publish("", "wallet.provision.dlq", b"{}", Some(id), &[]).await;
    }
    let report = doctor(&world, Role::Wallet, &[]).await;
    report.assert("dead-letters", "warning", "2 messages in wallet.provision.dlq", "purse dlq redrive");
    assert_eq!(world.broker.depth("wallet.provision.dlq").await, Some(2));
}

#[tokio::test]
async fn users_without_a_wallet_are_found_from_either_role_once_they_are_a_minute_old() {
    let world = prepared().await;
    let insert = |count: u32| {
        format!(
            "INSERT INTO users (id, first_name, last_name, email, password_hash, created_at)
             SELECT gen_random_uuid(), 'A', 'B', gen_random_uuid() || '@example.com', '$argon2id$v=19$x', now()
             FROM generate_series(1, {count})"
        )
    };
    world.sql(Role::Users, &insert(12_000)).await;
    let stray = Uuid::now_v7();
    world.sql(Role::Users, &format!("UPDATE users SET id = '{stray}' WHERE id = (SELECT id FROM users LIMIT 1)")).await;
    let ids = world.sql(Role::Users, "SELECT string_agg(id::text, ',') FROM users").await;
    let wallets = format!(
        "INSERT INTO wallets (user_id, id) SELECT id::uuid, gen_random_uuid() FROM unnest(string_to_array('{ids}', ',')) AS id WHERE id <> '{stray}'"
    );
    world.sql(Role::Wallet, &wallets).await;
    let (users, wallet) = (world.databases.users.runtime_url.clone(), world.databases.wallet.runtime_url.clone());
    let other = |role| match role {
        Role::Users => [("WALLET_DATABASE_URL", wallet.as_str())],
        Role::Wallet => [("USERS_DATABASE_URL", users.as_str())],
    };
    for role in Role::ALL {
        doctor(&world, role, &other(role)).await.assert(
            "wallets",
            "ok",
            "every user older than a minute has a wallet (0 users)",
            "",
        );
    }
    world.sql(Role::Users, "UPDATE users SET created_at = now() - interval '2 minutes'").await;
    for role in Role::ALL {
        let report = doctor(&world, role, &other(role)).await;
        report.assert(
            "wallets",
            "error",
            &format!("1 without a wallet, of 12000 users: {stray}"),
            "purse outbox republish",
        );
    }
}

#[tokio::test]
async fn a_server_that_is_unreachable_is_69_and_the_other_one_is_checked_all_the_same() {
    let world = prepared().await;
    let database = [("WALLET_DATABASE_URL", "postgres://app:hunter22@127.0.0.1:1/x")];
    let report = doctor(&world, Role::Wallet, &database).await;
    assert_eq!(report.output.code, Some(69), "{:?}", report.output);
    report.assert("database", "error", "127.0.0.1:1", "WALLET_DATABASE_URL");
    report.assert("topology", "ok", "as declared", "");
    assert!(!report.output.out.contains("hunter22"), "{:?}", report.output);
    let wrong = world.broker.url().replacen(":purse", ":hunter22", 1);
    for broker in ["amqp://u:hunter22@127.0.0.1:1/%2f", &wrong, &world.broker.url_for("nobody", "hunter22")] {
        let report = doctor(&world, Role::Wallet, &[("RABBITMQ_URL", broker)]).await;
        assert!(report.output.code == Some(69) || broker == world.broker.url(), "{broker}: {:?}", report.output);
        report.assert("rights", "ok", "no others", "");
        assert!(!report.output.out.contains("hunter22"), "{:?}", report.output);
    }
    let nowhere = format!("{}_not_there", world.broker.url());
    let report = doctor(&world, Role::Wallet, &[("RABBITMQ_URL", &nowhere)]).await;
    report.assert("broker", "error", "_not_there", "virtual host");
    let both = [("USERS_DATABASE_URL", "postgres://app:hunter22@127.0.0.1:1/x")];
    let report = doctor(&world, Role::Wallet, &both).await;
    assert_eq!(report.output.code, Some(69), "{:?}", report.output);
    report.assert("wallets", "error", "127.0.0.1:1", "both URLs");
}

#[tokio::test]
async fn servers_that_accept_connections_and_say_nothing_do_not_keep_it_from_ending() {
    let world = World::new().await;
    let silent = TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = silent.local_addr().expect("address").port();
    let (database, broker) = (format!("postgres://a:b@127.0.0.1:{port}/x"), format!("amqp://a:b@127.0.0.1:{port}/%2f"));
    let began = Instant::now();
    let changed = [("USERS_DATABASE_URL", &*database), ("WALLET_DATABASE_URL", &*database), ("RABBITMQ_URL", &*broker)];
    let report = doctor(&world, Role::Users, &changed).await;
    assert_eq!(report.output.code, Some(69), "{:?}", report.output);
    assert_eq!(report.bad(), ["database", "broker", "wallets"]);
    assert!(began.elapsed() < Duration::from_mins(2), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_hanging_database_statement_is_reported_and_ended() {
    let world = prepared().await;
    pretend(
        &world,
        Role::Wallet,
        "CREATE FUNCTION pretended.clock_timestamp() RETURNS timestamptz LANGUAGE sql
             AS 'SELECT pg_catalog.clock_timestamp() FROM pg_sleep(600)'",
    )
    .await;
    let report = doctor(&world, Role::Wallet, &[]).await;
    assert_eq!(report.output.code, Some(69), "{:?}", report.output);
    report.assert("clock", "error", "canceling statement due to statement timeout", "try again");
    report.assert("rights", "ok", "no others", "");
}

#[tokio::test]
async fn an_invalid_configuration_is_64_and_connects_to_nothing() {
    let nothing = BTreeMap::new();
    for arguments in [&["doctor"][..], &["doctor", "--role", "bank"], &["doctor", "--role", "users", "--format", "xml"]]
    {
        let output = purse(arguments, &nothing).await;
        assert_eq!((output.code, output.out.as_str()), (Some(64), ""), "{output:?}");
    }
    let output = purse(&["doctor", "--role", "users"], &nothing).await;
    assert_eq!(output.code, Some(64), "{output:?}");
    assert!(
        output.err.contains("USERS_DATABASE_URL: is required") && output.err.contains("RABBITMQ_URL"),
        "{output:?}"
    );
    let world = World::new().await;
    let broken = [("WALLET_DATABASE_URL", "postgres://nothing")];
    let output = purse(&["doctor", "--role", "users"], &settings(&world, Role::Users, &broken)).await;
    assert_eq!(output.code, Some(64), "{output:?}");
    assert!(output.err.contains("WALLET_DATABASE_URL: "), "{output:?}");
}
