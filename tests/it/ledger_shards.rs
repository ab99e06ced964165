//! Several shards: where wallets are, what a transfer between two shards leaves, and what refuses another number of shards.
//!
//! `just test-shards` runs the suite itself with four shards.

use std::time::Duration;

use futures_util::future::join_all;
use purse::kernel::Role;
use serde_json::json;

use crate::support::repository::{production, sources, text};
use crate::support::shards::user_ending_with;
use crate::support::{Client, CommandOutput, PATIENCE, Raw, RoleProcess, Scrape, User, World, eventually, purse};
use crate::transfers::transfer;

const FOUR: [(&str, &str); 1] = [("WALLET_SHARDS", "4")];

async fn run(world: &World, arguments: &[&str], changed: &[(&str, &str)]) -> CommandOutput {
    let mut settings = world.settings(Role::Wallet);
    settings.extend(changed.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    purse(arguments, &settings).await
}

/// A wallet role with four shards and a user in each, who has a wallet with `cents`.
async fn one_user_per_shard(world: &World, cents: i64) -> (RoleProcess, Client, Vec<User>) {
    start_with_one_user_per_shard(world, cents, &FOUR).await
}

async fn start_with_one_user_per_shard(
    world: &World,
    cents: i64,
    settings: &[(&str, &str)],
) -> (RoleProcess, Client, Vec<User>) {
    let wallet = world.start_with(Role::Wallet, settings).await;
    let client = Client::new("", &wallet.url());
    let users: Vec<User> = (4..8).map(user_ending_with).collect();
    for user in &users {
        world.publish_event(user.id.parse().expect("an ID"), &user.id).await;
    }
    for user in &users {
        let ready = client.get(user, "/v1/wallet/status?wait=30").await;
        assert_eq!(ready.body["status"], "ready", "{ready:?}");
        assert_eq!(client.post(user, "credit", cents, Some("first")).await.status, 201);
    }
    (wallet, client, users)
}

#[tokio::test]
async fn each_user_is_in_the_shard_of_the_last_byte_of_the_id_and_nothing_is_in_the_shared_schema() {
    let world = World::new().await;
    let (wallet, client, users) = one_user_per_shard(&world, 10).await;
    for (number, user) in users.iter().enumerate() {
        let here = format!(
            "SELECT (SELECT string_agg(user_id::text, ',') FROM shard_0{number}.wallets),
                    (SELECT string_agg(user_id::text, ',') FROM shard_0{number}.transactions)"
        );
        assert_eq!(world.sql(Role::Wallet, &here).await, format!("{0}|{0}", user.id));
        assert_eq!(client.balance(user).await, 10);
    }
    let shared = "SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(world.sql(Role::Wallet, shared).await, "ledger_shards rate_limits refinery_schema_history");
    drop(wallet);
    let user = &users[2].id;
    let of_one = run(&world, &["ledger", "verify", "--user", user, "--json"], &FOUR).await.done();
    assert_eq!((&of_one["wallets"], &of_one["entries"]), (&json!(1), &json!(1)));
    let all = run(&world, &["ledger", "verify"], &FOUR).await;
    let end = ": all consistent. Each of the 4 shards was read at a moment of its own.\n";
    assert!(all.out.starts_with("4 wallets with 4 entries ") && all.out.ends_with(end), "{all:?}");
    let report = run(&world, &["doctor", "--role", "wallet", "--json"], &FOUR).await.json();
    for check in ["migrations", "rights"] {
        let checks = report["checks"].as_array().expect("a list");
        let found = checks.iter().find(|found| found["check"] == check).expect("the check");
        assert_eq!(found["result"], "ok", "{found}");
    }
}

#[tokio::test]
async fn a_database_that_was_set_up_with_another_number_of_shards_is_refused_and_left_as_it_is() {
    let schemas = "SELECT string_agg(schemaname || '.' || tablename, ' ' ORDER BY 1) FROM pg_tables
                   WHERE schemaname NOT IN ('pg_catalog', 'information_schema', 'all_shards')";
    for (stored, other) in [("1", "4"), ("4", "2")] {
        let world = World::new().await;
        let migrated = run(&world, &["migrate", "--role", "wallet"], &[("WALLET_SHARDS", stored)]).await;
        assert_eq!(migrated.code, Some(0), "{migrated:?}");
        let before = world.sql(Role::Wallet, schemas).await;
        let differs = format!(
            "WALLET_SHARDS is {other}, but the database was set up with {stored}; set WALLET_SHARDS={stored}, because the \
             number of shards cannot be changed"
        );
        for arguments in
            [&["migrate", "--role", "wallet"][..], &["--role", "wallet"], &["ledger", "verify"], &["ledger", "holds"]]
        {
            let refused = run(&world, arguments, &[("WALLET_SHARDS", other)]).await;
            assert_eq!(refused.code, Some(64), "{arguments:?}: {refused:?}");
            assert!(refused.err.contains(&differs), "{arguments:?}: {refused:?}");
        }
        let report = run(&world, &["doctor", "--role", "wallet"], &[("WALLET_SHARDS", other)]).await;
        assert_eq!(report.out.matches(&differs).count(), 1, "{report:?}");
        let mut both = world.settings(Role::Users);
        both.extend(world.settings(Role::Wallet));
        both.insert("WALLET_SHARDS".to_owned(), other.to_owned());
        let report = purse(&["doctor", "--role", "wallet"], &both).await;
        assert_eq!(report.out.matches(&differs).count(), 1, "{report:?}");
        assert!(report.out.contains("the number of shards is not that of the database"), "{report:?}");
        assert_eq!(world.sql(Role::Wallet, schemas).await, before);
    }
}

#[tokio::test]
async fn the_number_of_shards_and_of_lanes_has_to_fit() {
    let world = World::new().await;
    for (changed, problem) in [
        (&[("WALLET_SHARDS", "3")][..], "WALLET_SHARDS: `3` must be a power of two from 1 to 32"),
        (
            &[("WALLET_SHARDS", "4"), ("LEDGER_LANES", "6")],
            "LEDGER_LANES: is 6 and must be a multiple of WALLET_SHARDS, which is 4",
        ),
    ] {
        let refused = run(&world, &["check-config", "--role", "wallet"], changed).await;
        assert_eq!(refused.code, Some(64), "{refused:?}");
        assert!(refused.err.contains(problem), "{refused:?}");
    }
    let shown = run(&world, &["config", "show", "--role", "wallet", "--json"], &[("WALLET_SHARDS", "8")]).await;
    assert!(shown.out.contains("LEDGER_LANES"), "{shown:?}");
    let lanes = shown.json()["settings"].as_array().and_then(|all| {
        let of_lanes = all.iter().find(|one| one["setting"] == "LEDGER_LANES" || one["name"] == "LEDGER_LANES");
        of_lanes.map(|one| one["value"].clone())
    });
    assert_eq!(lanes, Some(json!("8")), "{shown:?}");
}

#[tokio::test]
async fn setting_up_that_was_interrupted_after_any_schema_is_continued() {
    let world = World::new().await;
    for interrupted in [
        "DELETE FROM public.ledger_shards; DROP SCHEMA shard_00, shard_01, shard_02, shard_03 CASCADE",
        "DROP SCHEMA shard_02, shard_03 CASCADE",
        "DROP SCHEMA shard_03 CASCADE; CREATE SCHEMA shard_03",
    ] {
        let first = run(&world, &["migrate", "--role", "wallet"], &FOUR).await;
        assert_eq!(first.code, Some(0), "{first:?}");
        let owner = &world.databases.wallet.migration_url;
        let (client, connection) = tokio_postgres::connect(owner, tokio_postgres::NoTls).await.expect("connected");
        tokio::spawn(connection);
        client.batch_execute(interrupted).await.expect(interrupted);
    }
    let (_wallet, client, users) = one_user_per_shard(&world, 10).await;
    assert_eq!(client.balance(&users[3]).await, 10);
}

/// The SQL keywords before a table, and the tables of a shard.
const BEFORE_A_TABLE: [&str; 5] = ["FROM", "JOIN", "INTO", "UPDATE", "ON"];
const OF_A_SHARD: [&str; 5] = ["wallets", "transactions", "entry_texts", "open_holds", "hash_chain"];

/// Places in a source, without its tests and comments, where a table of a shard is named without the shard.
fn without_a_shard(source: &str) -> Vec<String> {
    let code = production(source);
    let words = code.split(|c: char| !c.is_ascii_alphanumeric() && !"_.".contains(c)).filter(|word| !word.is_empty());
    let words: Vec<&str> = words.collect();
    let named = words.windows(2).filter(|pair| BEFORE_A_TABLE.contains(&pair[0]) && OF_A_SHARD.contains(&pair[1]));
    named.map(|pair| pair.join(" ")).collect()
}

#[test]
fn no_statement_of_the_product_names_a_table_of_a_shard_without_the_shard() {
    assert_eq!(without_a_shard("let q = \"SELECT 1 FROM wallets\";"), ["FROM wallets"]);
    assert_eq!(
        without_a_shard("// FROM wallets\nlet q = \"SELECT 1 FROM shard.wallets JOIN\n transactions\";"),
        ["JOIN transactions"]
    );
    for file in sources("src") {
        assert_eq!(without_a_shard(&text(&file)), Vec::<String>::new(), "{file}");
    }
}

#[test]
fn no_statement_of_the_product_inserts_what_it_selects_from_arrays() {
    // A distributed PostgreSQL runs that as a COPY, which is no write of the transaction: its commit may be lost.
    let inserts = |source: &str| {
        let code = production(source);
        code.split("INSERT INTO")
            .skip(1)
            .filter(|rest| {
                let statement = rest.split('"').next().unwrap_or_default();
                statement.contains("SELECT") && statement.contains("unnest(")
            })
            .count()
    };
    assert_eq!(inserts("\"INSERT INTO shard.t (a) SELECT a FROM unnest($1::int[])\""), 1);
    for file in sources("src").iter().filter(|file| file.starts_with("src/wallet")) {
        assert_eq!(inserts(&text(file)), 0, "{file}");
    }
}

#[tokio::test]
async fn an_owner_without_a_privilege_for_the_schema_of_a_shard_gets_the_statement_that_grants_it() {
    let world = World::new().await;
    let owner = world
        .sql(Role::Wallet, "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()")
        .await;
    for revoke in [
        format!("DO $$ BEGIN EXECUTE format('REVOKE CREATE ON DATABASE %I FROM {owner}', current_database()); END $$"),
        "DROP SCHEMA shard_02 CASCADE; CREATE SCHEMA shard_02".to_owned(),
    ] {
        world.sql(Role::Wallet, &revoke).await;
        let rejected = run(&world, &["migrate", "--role", "wallet"], &FOUR).await;
        assert_eq!(rejected.code, Some(69), "{rejected:?}");
        let grant = rejected.err.split("as a superuser, run: ").nth(1).expect("a statement").trim();
        world.sql(Role::Wallet, grant).await;
        let migrated = run(&world, &["migrate", "--role", "wallet"], &FOUR).await;
        assert_eq!(migrated.code, Some(0), "{migrated:?}");
    }
}

#[tokio::test]
async fn transfers_between_shards_in_both_directions_at_once_keep_the_sum_and_both_legs() {
    let world = World::new().await;
    let (first, client, users) = one_user_per_shard(&world, 1_000).await;
    let second = world.start_with(Role::Wallet, &FOUR).await;
    let clients = [client, Client::new("", &second.url())];
    // 64 each way between the first two, half of them through each process, and around all four.
    let pairs = (0..64).flat_map(|n| [(n, 0, 1), (n, 1, 0), (n, n % 4, (n + 1) % 4)]);
    let transfers = pairs.map(|(n, from, to)| {
        let (clients, users) = (&clients, &users);
        async move {
            let key = format!("{n}-{from}-{to}");
            loop {
                let done = transfer(&clients[n % 2], &users[from], &users[to], 1, Some(&key)).await;
                if done.status.is_success() {
                    return;
                }
                assert_eq!(done.status, 503, "{done:?}");
            }
        }
    });
    join_all(transfers).await;
    let mut sum = 0;
    for user in &users {
        sum += clients[0].balance(user).await;
    }
    assert_eq!(sum, 4_000);
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(world.sql(Role::Wallet, deadlocks).await, "0");
    drop((first, second));
    let verified = run(&world, &["ledger", "verify"], &FOUR).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
}

/// Locks are waited for longer, so that only the time limit ends a statement.
const LIMITS: [(&str, &str); 3] =
    [("WALLET_SHARDS", "4"), ("DB_STATEMENT_TIMEOUT_MS", "2000"), ("DB_LOCK_TIMEOUT_MS", "60000")];

/// From now on, `shard_02` is like a server that does not respond: each statement that needs it ends by its time limit.
async fn silence(world: &World) -> tokio_postgres::Client {
    let owner = &world.databases.wallet.migration_url;
    let (locker, connection) = tokio_postgres::connect(owner, tokio_postgres::NoTls).await.expect("connected");
    tokio::spawn(connection);
    let lock = "BEGIN; LOCK TABLE shard_02.wallets, shard_02.transactions, shard_02.entry_texts, shard_02.open_holds
                IN ACCESS EXCLUSIVE MODE";
    locker.batch_execute(lock).await.expect("locked");
    locker
}

async fn unreachable_shards(wallet: &RoleProcess) -> Option<f64> {
    Scrape::of(&wallet.url()).await.number("purse_ledger_shards_unreachable")
}

#[tokio::test]
async fn a_shard_that_does_not_respond_fails_only_the_requests_that_need_it() {
    let world = World::new().await;
    let (wallet, client, users) = start_with_one_user_per_shard(&world, 1_000, &LIMITS).await;
    // The wallets of recipients are known from now on.
    for [from, to] in [[1, 0], [1, 2], [1, 3], [2, 1]] {
        assert_eq!(transfer(&client, &users[from], &users[to], 1, None).await.status, 201);
    }
    let at_once = |round: usize| {
        let (client, users) = (&client, &users);
        let requests = (0..50).map(move |n: usize| async move {
            let key = format!("{round}-{n}");
            match n % 5 {
                0 => (503, transfer(client, &users[1], &users[2], 1, Some(&key)).await),
                1 => (503, transfer(client, &users[2], &users[1], 1, Some(&key)).await),
                2 => (201, transfer(client, &users[1], &users[3], 1, Some(&key)).await),
                3 => (201, transfer(client, &users[0], &users[1], 1, Some(&key)).await),
                _ => (201, client.post(&users[1], "credit", 1, Some(&key)).await),
            }
        });
        join_all(requests)
    };
    let silence = silence(&world).await;
    // A read that its client has abandoned still counts as one: it uses its connection until the time limit.
    let read = format!("GET /v1/balance HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", users[2].token);
    for _ in 0..5 {
        for _ in 0..20 {
            let mut abandoned = Raw::connect(&wallet.url()).await;
            assert!(abandoned.send(&read).await);
            tokio::time::sleep(Duration::from_millis(5)).await;
            abandoned.reset();
        }
    }
    for response in join_all((0..20).map(|_| client.get(&users[1], "/v1/balance"))).await {
        assert_eq!(response.status, 200, "{response:?}");
    }
    for round in 0..3 {
        for (status, response) in at_once(round).await {
            assert_eq!(response.status, status, "{response:?}");
        }
        assert_eq!(client.post(&users[2], "credit", 1, None).await.status, 503);
        // More than there are connections, so that none is left for the others if these wait.
        let reads = (0..200).map(|n: usize| {
            let (client, user, status) = if n < 20 { (&client, &users[1], 200) } else { (&client, &users[2], 503) };
            async move { (status, client.get(user, "/v1/balance").await) }
        });
        for (status, response) in join_all(reads).await {
            assert_eq!(response.status, status, "{response:?}");
        }
        assert_eq!(unreachable_shards(&wallet).await, Some(1.0));
    }
    let reported = || wallet.logged("shard cannot be read").first().map(|line| line["schema"].clone());
    let schema = eventually(PATIENCE, "the shard is reported", || async { reported() }).await;
    assert_eq!(schema, "shard_02");
    silence.batch_execute("ROLLBACK").await.expect("unlocked");
    eventually(PATIENCE, "the shard is used again", || async {
        (client.post(&users[2], "credit", 1, Some("after")).await.status.as_u16() < 300).then_some(())
    })
    .await;
    assert_eq!(unreachable_shards(&wallet).await, Some(0.0));
    // The same requests again: what succeeded is replayed, and what did not is done now.
    for round in 0..3 {
        for (status, response) in at_once(round).await {
            assert_eq!(response.status, if status == 201 { 200 } else { 201 }, "{response:?}");
        }
    }
}

#[tokio::test]
async fn registrations_of_a_shard_that_does_not_respond_wait_beside_the_others_and_count_no_attempt() {
    let world = World::new().await;
    let settings = [&LIMITS[..], &[("PREFETCH", "4"), ("RETRY_TTL_1_MS", "200")]].concat();
    let (wallet, client, users) = start_with_one_user_per_shard(&world, 1_000, &settings).await;
    let silence = silence(&world).await;
    // More than are delivered at once.
    let waiting: Vec<User> = (0..12).map(|n| user_ending_with(6 + 4 * n)).collect();
    for user in &waiting {
        world.publish_event(user.id.parse().expect("an ID"), &user.id).await;
    }
    for last in [9, 11] {
        let user = user_ending_with(last);
        world.publish_event(user.id.parse().expect("an ID"), &user.id).await;
        let ready = client.get(&user, "/v1/wallet/status?wait=30").await;
        assert_eq!(ready.body["status"], "ready", "{ready:?}");
    }
    // More attempts than an event has.
    let postponed = "purse_provision_deliveries_total{result=\"postponed\"}";
    eventually(PATIENCE, "each of them is postponed more than four times", || async {
        let postponed = Scrape::of(&wallet.url()).await.number(postponed)?;
        (postponed > 12.0 * 5.0).then_some(())
    })
    .await;
    silence.batch_execute("ROLLBACK").await.expect("unlocked");
    for user in &waiting {
        eventually(PATIENCE, "the user has a wallet", || async {
            (client.get(user, "/v1/wallet/status?wait=30").await.body["status"] == "ready").then_some(())
        })
        .await;
    }
    let scrape = Scrape::of(&wallet.url()).await;
    for result in ["retried", "dead_lettered"] {
        let series = format!("purse_provision_deliveries_total{{result=\"{result}\"}}");
        assert_eq!(scrape.number(&series), Some(0.0), "{result}");
    }
    assert_eq!(client.post(&users[2], "credit", 1, None).await.status, 201);
}

#[tokio::test]
async fn a_missing_leg_in_another_shard_and_a_row_in_the_wrong_shard_are_reported() {
    let world = World::new().await;
    let (wallet, client, users) = one_user_per_shard(&world, 100).await;
    assert_eq!(transfer(&client, &users[1], &users[2], 30, None).await.status, 201);
    drop(wallet);
    let tamper = format!(
        "SET session_replication_role = replica; DELETE FROM shard_02.transactions WHERE user_id = '{}' AND seq = 2;
         INSERT INTO shard_03.wallets SELECT * FROM shard_00.wallets;
         INSERT INTO shard_03.transactions SELECT * FROM shard_00.transactions",
        users[2].id
    );
    world.sql(Role::Wallet, &tamper).await;
    let report = run(&world, &["ledger", "verify", "--json"], &FOUR).await;
    assert_eq!(report.code, Some(1), "{report:?}");
    let report = report.json();
    let found: Vec<_> = report["differing"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|wallet| (wallet["userId"].as_str().expect("an ID"), wallet["faults"][0]["law"].as_str().expect("a rule")))
        .collect();
    assert_eq!(found, [(users[1].id.as_str(), "transfer"), (users[0].id.as_str(), "wallet")]);
}
