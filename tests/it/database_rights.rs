//! The permissions of each account in each database, tried out with psql as that account.

use std::path::Path;
use std::process::{Command, Output};

use purse::kernel::Role;

use crate::support::{RoleProcess, World};

const INSUFFICIENT_PRIVILEGE: &str = "42501";
/// Raised by the triggers of the ledger.
const RESTRICT_VIOLATION: &str = "23001";
const UNIQUE_VIOLATION: &str = "23505";

/// Statements that no running role may run in any database.
const FORBIDDEN_EVERYWHERE: &[&str] = &[
    "CREATE TABLE mine (x int)",
    "CREATE TEMPORARY TABLE mine (x int)",
    "CREATE VIEW mine AS SELECT 1",
    "CREATE SCHEMA mine",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE EXTENSION dblink",
    "CREATE ROLE mine",
    "ALTER ROLE CURRENT_USER SUPERUSER",
    "SET ROLE postgres",
    "SET session_replication_role = replica",
    "SELECT * FROM pg_authid",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT lo_import('/etc/passwd')",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "COPY (SELECT 1) TO '/tmp/mine'",
    "INSERT INTO refinery_schema_history (version) VALUES (99)",
    "UPDATE refinery_schema_history SET checksum = '0'",
    "DELETE FROM refinery_schema_history",
    "DROP TABLE refinery_schema_history",
];

const FORBIDDEN_IN_WALLET: &[&str] = &[
    "UPDATE transactions SET amount_minor = 1",
    "UPDATE transactions SET balance_after_minor = 0",
    "UPDATE transactions SET seq = seq + 1",
    "UPDATE transactions SET hash = hash",
    "UPDATE entry_texts SET description = 'x'",
    "DELETE FROM entry_texts",
    "TRUNCATE entry_texts",
    "UPDATE open_holds SET expires_at = now()",
    "UPDATE open_holds SET id = id",
    "TRUNCATE open_holds",
    "INSERT INTO hash_chain VALUES (1)",
    "UPDATE hash_chain SET unhashed_entries = 1",
    "DELETE FROM hash_chain",
    "DELETE FROM transactions",
    "TRUNCATE transactions",
    "TRUNCATE wallets CASCADE",
    "INSERT INTO ledger_shards VALUES (2)",
    "UPDATE ledger_shards SET shards = 2",
    "DELETE FROM ledger_shards",
    "TRUNCATE ledger_shards",
    "SELECT 1 FROM transactions FOR UPDATE",
    "MERGE INTO transactions t USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE",
    "ALTER TABLE transactions DISABLE TRIGGER ALL",
    "ALTER TABLE transactions DROP CONSTRAINT transactions_pkey",
    "ALTER TABLE transactions ADD COLUMN x int",
    "ALTER TABLE transactions OWNER TO CURRENT_USER",
    "DROP TRIGGER transactions_refuse_change ON transactions",
    "DROP FUNCTION refuse_ledger_change CASCADE",
    "CREATE OR REPLACE FUNCTION refuse_ledger_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    "DROP TABLE transactions",
    "CREATE INDEX mine ON transactions (seq)",
    "CREATE RULE mine AS ON INSERT TO transactions DO INSTEAD NOTHING",
    "LOCK TABLE transactions IN ACCESS EXCLUSIVE MODE",
    "DELETE FROM wallets",
    "UPDATE wallets SET user_id = id",
    "UPDATE wallets SET created_at = now()",
];

const FORBIDDEN_IN_USERS: &[&str] = &[
    "UPDATE users SET email = 'mallory@example.com'",
    "UPDATE users SET id = id",
    "UPDATE users SET first_name = 'x'",
    "DELETE FROM users",
    "TRUNCATE users",
    "DROP TABLE users",
    "ALTER TABLE users ADD COLUMN x int",
    "UPDATE outbox SET payload_json = payload_json",
    "UPDATE outbox SET id = id",
    "UPDATE outbox SET created_at = 'epoch'",
    "DELETE FROM outbox",
    "DROP FUNCTION delete_expired_events",
    "ALTER FUNCTION delete_expired_events SECURITY INVOKER",
    "TRUNCATE outbox",
    "LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE",
    "DELETE FROM outbox_retention",
    "INSERT INTO outbox_retention DEFAULT VALUES",
    "UPDATE outbox_retention SET deleted_until = NULL",
];

/// Runs one statement with psql in a transaction that is never committed.
fn psql(world: &World, url: &str, statement: &str) -> Output {
    Command::new(world.addresses.postgres_bin_dir.join("psql"))
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose", "-d", url])
        .args(["-c", "BEGIN", "-c", statement, "-c", "ROLLBACK"])
        .output()
        .expect("psql")
}

/// psql must report an error like `ERROR:  42501: permission denied for …`.
fn assert_denied(world: &World, url: &str, statement: &str, sqlstate: &str) {
    let output = psql(world, url, statement);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains(&format!("ERROR:  {sqlstate}:")), "{statement}: {errors}");
}

fn assert_allowed(world: &World, url: &str, statement: &str) {
    let output = psql(world, url, statement);
    assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Both databases have rows.
async fn world_with_rows() -> World {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let body = serde_json::json!({"amountMinor": 5, "description": "a text"});
    assert_eq!(client.send(client.post_request(&user, "credit", &body, None)).await.status, 201);
    world
}

#[tokio::test]
async fn the_runtime_accounts_may_run_no_statement_that_their_role_does_not_need() {
    let world = world_with_rows().await;
    for (url, own) in [
        (&world.databases.wallet.runtime_url, FORBIDDEN_IN_WALLET),
        (&world.databases.users.runtime_url, FORBIDDEN_IN_USERS),
    ] {
        for statement in FORBIDDEN_EVERYWHERE.iter().chain(own) {
            assert_denied(&world, url, statement, INSUFFICIENT_PRIVILEGE);
        }
    }
    // Other statements are allowed, so it is the permissions that reject these.
    let wallet = &world.databases.wallet.runtime_url;
    for statement in [
        "SELECT * FROM transactions",
        "SELECT 1 FROM wallets FOR UPDATE",
        "INSERT INTO wallets (user_id, id) VALUES (gen_random_uuid(), gen_random_uuid())",
    ] {
        assert_allowed(&world, wallet, statement);
    }
    for statement in
        ["SELECT * FROM users", "UPDATE users SET password_hash = password_hash", "UPDATE outbox SET attempts = 1"]
    {
        assert_allowed(&world, &world.databases.users.runtime_url, statement);
    }
    assert_eq!(world.sql(Role::Wallet, "SELECT count(*) FROM transactions").await, "1");
    let powers = "SELECT count(*) FROM pg_roles WHERE rolname ~ '_(app|owner)$' \
                  AND (rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls)";
    assert_eq!(world.sql(Role::Wallet, powers).await, "0", "an account has a special role attribute");
}

#[tokio::test]
async fn the_triggers_reject_ledger_changes_by_the_owner_and_by_the_superuser() {
    let world = world_with_rows().await;
    let superuser = world.addresses.superuser_url(&world.databases.wallet.database);
    for url in [&world.databases.wallet.migration_url, &superuser] {
        for statement in [
            "UPDATE transactions SET amount_minor = 1",
            "UPDATE transactions SET hash = hash WHERE false OR true",
            "DELETE FROM transactions",
            "TRUNCATE transactions",
            "TRUNCATE wallets CASCADE",
            "MERGE INTO transactions t USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE",
            "UPDATE entry_texts SET description = 'x'",
            "DELETE FROM entry_texts",
            "TRUNCATE entry_texts",
            "UPDATE hash_chain SET unhashed_entries = 1",
            "DELETE FROM hash_chain",
            "TRUNCATE hash_chain",
            "DELETE FROM wallets",
            "UPDATE wallets SET user_id = gen_random_uuid()",
            "TRUNCATE wallets",
        ] {
            assert_denied(&world, url, statement, RESTRICT_VIOLATION);
        }
        assert_denied(&world, url, "INSERT INTO hash_chain VALUES (1)", UNIQUE_VIOLATION);
    }
}

#[tokio::test]
async fn no_account_of_one_database_can_log_in_to_the_other() {
    let world = World::new().await;
    let (users, wallet) = (&world.databases.users, &world.databases.wallet);
    for (url, own, other) in [
        (&users.runtime_url, users, wallet),
        (&users.migration_url, users, wallet),
        (&wallet.runtime_url, wallet, users),
        (&wallet.migration_url, wallet, users),
    ] {
        assert_allowed(&world, url, "SELECT 1");
        let there = format!("{}{}", url.strip_suffix(&own.database).expect("the database is last"), other.database);
        let output = psql(&world, &there, "SELECT 1");
        let errors = String::from_utf8_lossy(&output.stderr);
        let database = &other.database;
        assert!(!output.status.success(), "{there}");
        assert!(errors.contains(&format!("permission denied for database \"{database}\"")), "{errors}");
    }
}

/// Runs the script that creates the accounts of the containers on the tests' server.
#[tokio::test]
async fn the_accounts_of_the_container_stack_have_the_same_permissions() {
    const OWNER_PASSWORD: &str = "owner-of-the-stack";
    const APP_PASSWORD: &str = "app-of-the-stack";
    let world = World::new().await;
    let database = format!("{}_stack", world.databases.wallet.database);
    world.sql(Role::Wallet, &format!("CREATE DATABASE {database} TEMPLATE template0 ENCODING 'UTF8'")).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("docker/postgres/10-accounts.sh");
    let path = format!("{}:{}", world.addresses.postgres_bin_dir.display(), std::env::var("PATH").unwrap_or_default());
    let ran = Command::new("bash")
        .arg(script)
        .envs([("PATH", &*path), ("PGHOST", world.addresses.host), ("POSTGRES_DB", &*database)])
        .env("PGPORT", world.addresses.postgres_port.to_string())
        .envs([
            ("POSTGRES_USER", world.addresses.postgres_superuser),
            ("POSTGRES_PASSWORD", world.addresses.postgres_password),
        ])
        .envs([("OWNER_PASSWORD", OWNER_PASSWORD), ("APP_PASSWORD", APP_PASSWORD)])
        .output()
        .expect("bash");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let url = |account: &str, password: &str, database: &str| {
        format!("postgres://{account}:{password}@{}:{}/{database}", world.addresses.host, world.addresses.postgres_port)
    };
    let (owner, app) = (format!("{database}_owner"), format!("{database}_app"));
    let (owner_url, app_url) = (url(&owner, OWNER_PASSWORD, &database), url(&app, APP_PASSWORD, &database));
    let mut settings = world.settings(Role::Wallet);
    settings.insert("WALLET_DATABASE_URL".to_owned(), app_url.clone());
    settings.insert("WALLET_MIGRATION_DATABASE_URL".to_owned(), owner_url.clone());
    let mut migrated = RoleProcess::spawn(&["migrate", "--role", "wallet"], &settings);
    assert_eq!(migrated.exited().await.code(), Some(0), "{}", migrated.output());
    for statement in FORBIDDEN_EVERYWHERE.iter().chain(FORBIDDEN_IN_WALLET) {
        assert_denied(&world, &app_url, statement, INSUFFICIENT_PRIVILEGE);
    }
    assert_allowed(&world, &app_url, "SELECT * FROM transactions");
    assert_denied(&world, &owner_url, "TRUNCATE transactions", RESTRICT_VIOLATION);
    for (account, password) in [(&owner, OWNER_PASSWORD), (&app, APP_PASSWORD)] {
        for elsewhere in [&world.databases.users.database, &world.databases.wallet.database, "postgres"] {
            let output = psql(&world, &url(account, password, elsewhere), "SELECT 1");
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(
                !output.status.success() && errors.contains("permission denied for database"),
                "{elsewhere}: {errors}"
            );
        }
    }
}
