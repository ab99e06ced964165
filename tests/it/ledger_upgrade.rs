//! From a ledger without a hash chain to one with it: entries, texts and idempotency keys of the release before stay valid,
//! and a process of that release that still runs writes nothing.

use std::collections::BTreeMap;

use purse::kernel::Role;
use refinery::{Migration, Runner};
use serde_json::{Value, json};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{NoTls, Statement};
use uuid::Uuid;

use crate::support::repository::{files, text};
use crate::support::{Client, CommandOutput, User, World, purse, token_of};

/// The newest script of the release before.
const VERSION_BEFORE: u32 = 6;

/// How the release before inserted entries.
const INSERT_BEFORE: &str =
    "INSERT INTO transactions (user_id, seq, id, type, amount_minor, balance_after_minor, description, idempotency_key, created_at)
     SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::text[], $5::bigint[], $6::bigint[], $7::text[], $8::text[],
                          $9::timestamptz[])";
/// How it looked up used keys.
const USED_KEYS_BEFORE: &str =
    "SELECT requested.user_id, requested.key, entry.* FROM unnest($1::uuid[], $2::text[]) AS requested (user_id, key)
     CROSS JOIN LATERAL (
         SELECT id, seq, type, amount_minor, balance_after_minor, description, created_at FROM transactions
         WHERE transactions.user_id = requested.user_id AND transactions.idempotency_key = requested.key
     ) AS entry";

async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("connected");
    tokio::spawn(connection);
    client
}

/// The version in the name of a script, such as `V5__rows_of_a_wallet`.
fn version(name: &str) -> u32 {
    name.strip_prefix('V').and_then(|rest| rest.split("__").next()).and_then(|n| n.parse().ok()).expect("a version")
}

/// Applies the scripts of the release before, as its owner.
async fn migrate_to_the_release_before(world: &World) {
    let name = |path: &str| path.rsplit('/').next().expect("a name").trim_end_matches(".sql").to_owned();
    let scripts = files("migrations/wallet").into_iter().filter(|path| version(&name(path)) <= VERSION_BEFORE);
    let scripts: Vec<_> =
        scripts.map(|path| Migration::unapplied(&name(&path), &text(&path)).expect("a script")).collect();
    assert!(scripts.len() >= 5, "{scripts:?}");
    let mut owner = connect(&world.databases.wallet.migration_url).await;
    Runner::new(&scripts).set_abort_missing(false).run_async(&mut owner).await.expect("migrated");
    let (_, app) = world.databases.wallet.runtime_url.split_once("://").expect("a URL");
    let app = app.split(':').next().expect("a user");
    owner.batch_execute(&format!("GRANT SELECT, INSERT ON wallets, transactions TO {app}")).await.expect("granted");
}

/// A user of the release before, with a wallet.
async fn user_before(world: &World) -> User {
    let id = Uuid::now_v7().to_string();
    world.sql(Role::Wallet, &format!("INSERT INTO wallets (user_id, id) VALUES ('{id}', gen_random_uuid())")).await;
    User { token: token_of(&id), email: String::new(), id }
}

/// An entry of the release before: its amount, its description and its key.
type EntryBefore<'a> = (i64, Option<&'a str>, Option<&'a str>);

/// Inserts an entry as the release before did, with its prepared statement.
async fn insert_before(
    client: &tokio_postgres::Client,
    insert: &Statement,
    user: &User,
    (seq, balance): (i64, i64),
    (cents, description, key): EntryBefore<'_>,
) -> Result<u64, tokio_postgres::Error> {
    let user: Uuid = user.id.parse().expect("an id");
    let kind = if cents > 0 { "credit" } else { "debit" };
    let (users, seqs, ids, kinds) = (vec![user], vec![seq], vec![Uuid::now_v7()], vec![kind]);
    let (amounts, balances, times) = (vec![cents.abs()], vec![balance], vec![jiff::Timestamp::now()]);
    let (descriptions, keys) = (vec![description], vec![key]);
    let parameters: [&(dyn ToSql + Sync); 9] =
        [&users, &seqs, &ids, &kinds, &amounts, &balances, &descriptions, &keys, &times];
    client.execute(insert, &parameters).await
}

/// Posts entries as the release before did.
async fn post_before(world: &World, user: &User, entries: &[EntryBefore<'_>]) {
    let client = connect(&world.databases.wallet.runtime_url).await;
    let insert = client.prepare(INSERT_BEFORE).await.expect("prepared");
    let mut balance = 0;
    for (seq, entry) in (1_i64..).zip(entries) {
        balance += entry.0;
        assert_eq!(insert_before(&client, &insert, user, (seq, balance), *entry).await.expect("inserted"), 1);
    }
}

async fn verify(world: &World) -> CommandOutput {
    let database = world.databases.wallet.runtime_url.clone();
    purse(&["ledger", "verify", "--format", "json"], &[("WALLET_DATABASE_URL".to_owned(), database)].into()).await
}

fn counts(report: &Value) -> BTreeMap<&str, i64> {
    ["entries", "chained", "sealed", "unchained", "beforeChain", "differingWallets"]
        .into_iter()
        .map(|name| (name, report[name].as_i64().expect("a count")))
        .collect()
}

/// The descriptions in a history, newest first.
async fn descriptions(client: &Client, user: &User) -> Vec<Value> {
    let page = client.get(user, "/v1/transactions").await;
    page.body["items"].as_array().expect("items").iter().map(|item| item["description"].clone()).collect()
}

#[tokio::test]
async fn a_ledger_of_the_release_before_is_sealed_and_continued() {
    let world = World::new().await;
    migrate_to_the_release_before(&world).await;
    let (active, idle) = (user_before(&world).await, user_before(&world).await);
    let old = [
        (500, Some("salary"), Some("k1")),
        (-100, None, Some("k2")),
        (7, Some(""), None),
        (-7, Some("ü \u{1f600} '; --"), None),
        (100, None, None),
    ];
    post_before(&world, &active, &old).await;
    post_before(&world, &idle, &old[..2]).await;

    let wallet = world.start(Role::Wallet).await;
    let client = Client::new("", &wallet.url());
    let before = verify(&world).await.done();
    let expected =
        [("entries", 7), ("chained", 0), ("sealed", 0), ("unchained", 7), ("beforeChain", 7), ("differingWallets", 0)];
    assert_eq!(counts(&before), expected.into());

    // Texts, balances and keys are as they were.
    let texts = [Value::Null, json!("ü \u{1f600} '; --"), json!(""), Value::Null, json!("salary")];
    assert_eq!(descriptions(&client, &active).await, texts);
    assert_eq!((client.balance(&active).await, client.balance(&idle).await), (500, 400));
    let repeat = |kind, body: Value, key| client.send(client.post_request(&active, kind, &body, Some(key)));
    let replayed = repeat("credit", json!({"amountMinor": 500, "description": "salary"}), "k1").await;
    assert_eq!((replayed.status.as_u16(), replayed.header("idempotent-replayed")), (200, "true"), "{replayed:?}");
    assert_eq!((&replayed.body["description"], &replayed.body["balanceAfterMinor"]), (&json!("salary"), &json!(500)));
    assert_eq!(repeat("debit", json!({"amountMinor": 100}), "k2").await.status, 200);
    for (kind, body) in [
        ("credit", json!({"amountMinor": 500})),
        ("credit", json!({"amountMinor": 501, "description": "salary"})),
        ("debit", json!({"amountMinor": 500, "description": "salary"})),
    ] {
        let response = repeat(kind, body, "k1").await;
        assert_eq!((response.status.as_u16(), response.code()), (422, "IDEMPOTENCY_KEY_REUSED"), "{response:?}");
    }
    let id = replayed.body["id"].as_str().expect("an id");
    assert_eq!(client.get(&active, &format!("/v1/transactions/{id}")).await.body, replayed.body);

    // New entries continue the wallet with old ones, and begin a chain of their own.
    let fresh = user_before(&world).await;
    for user in [&active, &active, &active, &fresh] {
        let body = json!({"amountMinor": 1, "description": "new"});
        assert_eq!(client.send(client.post_request(user, "credit", &body, None)).await.status, 201);
    }
    let after = verify(&world).await.done();
    let expected =
        [("entries", 11), ("chained", 4), ("sealed", 5), ("unchained", 2), ("beforeChain", 7), ("differingWallets", 0)];
    assert_eq!(counts(&after), expected.into());
    assert_eq!(descriptions(&client, &active).await[..4], [json!("new"), json!("new"), json!("new"), Value::Null]);

    // The first hash covers the last old entry, balances the others. Not even a superuser changes one by mistake.
    world.sql(Role::Wallet, "ALTER TABLE transactions DROP CONSTRAINT transactions_hashed").await;
    for (seq, change, laws) in [
        (5, "id = gen_random_uuid()", "chain@6"),
        (5, "created_at = created_at + interval '1 microsecond'", "chain@6"),
        (2, "balance_after_minor = 401", "balance@2"),
    ] {
        let change = format!(
            "SET session_replication_role = replica; UPDATE transactions SET {change} WHERE user_id = '{}' AND seq = {seq}",
            active.id
        );
        let undo = "SET session_replication_role = replica;
                    UPDATE transactions SET (id, created_at, balance_after_minor) = (o.id, o.created_at, o.balance_after_minor)
                    FROM original o WHERE (o.user_id, o.seq) = (transactions.user_id, transactions.seq)";
        world.sql(Role::Wallet, "CREATE TABLE IF NOT EXISTS original AS TABLE transactions").await;
        world.sql(Role::Wallet, &change).await;
        let report = verify(&world).await.json();
        let fault = &report["differing"][0]["faults"][0];
        assert_eq!(format!("{}@{}", fault["law"].as_str().expect("a law"), fault["seq"]), laws, "{report}");
        world.sql(Role::Wallet, undo).await;
    }
    verify(&world).await.done();
    // An old entry that disappears is missing in the count, even where no hash covers it.
    let remove = "SET session_replication_role = replica; DELETE FROM transactions WHERE seq = 2 AND user_id = ";
    world.sql(Role::Wallet, &format!("{remove}'{}'", idle.id)).await;
    let report = verify(&world).await;
    assert_eq!((report.code, &report.json()["differingWallets"]), (Some(1), &json!(0)), "{report:?}");
}

#[tokio::test]
async fn a_process_of_the_release_before_that_still_runs_writes_nothing() {
    let world = World::new().await;
    migrate_to_the_release_before(&world).await;
    let user = user_before(&world).await;
    // It has prepared and used its statements.
    let still_running = connect(&world.databases.wallet.runtime_url).await;
    let insert = still_running.prepare(INSERT_BEFORE).await.expect("prepared");
    let used_keys = still_running.prepare(USED_KEYS_BEFORE).await.expect("prepared");
    let id: Uuid = user.id.parse().expect("an id");
    still_running.query(&used_keys, &[&vec![id], &vec!["k"]]).await.expect("looked up");
    post_before(&world, &user, &[(5, Some("old"), Some("k"))]).await;

    let wallet = world.start(Role::Wallet).await;
    let inserted = insert_before(&still_running, &insert, &user, (2, 6), (1, None, None)).await.map(|_| ());
    let looked_up = still_running.query(&used_keys, &[&vec![id], &vec!["k"]]).await.map(|_| ());
    for failed in [inserted, looked_up] {
        // Not a class that a post is retried for, or that is reported as unavailable.
        assert_eq!(failed.expect_err("rejected").code(), Some(&SqlState::UNDEFINED_COLUMN));
    }
    // Nor does it without the column that it still names.
    let bare = "INSERT INTO transactions (user_id, seq, id, type, amount_minor, balance_after_minor, created_at)
                VALUES ($1, 2, gen_random_uuid(), 'credit', 1, 6, now())";
    let failed = still_running.execute(bare, &[&id]).await.expect_err("rejected");
    assert_eq!(failed.code(), Some(&SqlState::NOT_NULL_VIOLATION));
    let client = Client::new("", &wallet.url());
    assert_eq!(client.post(&user, "credit", 1, None).await.body["balanceAfterMinor"], 6);
    assert_eq!(verify(&world).await.done()["entries"], 2);
}
