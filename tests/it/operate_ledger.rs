//! `purse ledger verify`: a consistent ledger passes, and each broken rule is reported with its wallet.

use std::collections::BTreeMap;

use purse::kernel::Role;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::shards::without_moments;
use crate::support::{Client, CommandOutput, User, World, purse};

/// Changes the ledger as the superuser, with triggers and foreign keys disabled.
async fn corrupt(world: &World, change: &str) {
    world.sql(Role::Wallet, &format!("SET session_replication_role = replica; {change}")).await;
}

async fn verify(world: &World, arguments: &[&str]) -> CommandOutput {
    let database = world.databases.wallet.runtime_url.clone();
    let all: Vec<&str> = ["ledger", "verify"].into_iter().chain(arguments.iter().copied()).collect();
    let output = purse(&all, &[("WALLET_DATABASE_URL".to_owned(), database)].into()).await;
    CommandOutput { out: without_moments(&output.out), ..output }
}

/// The differing wallets, with the broken_laws that each breaks.
fn broken_laws(report: &Value) -> BTreeMap<String, Vec<String>> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let wallets = report["differing"].as_array().expect("a list").iter();
    let broken_laws =
        |wallet: &Value| wallet["faults"].as_array().expect("faults").iter().map(|f| text(&f["law"])).collect();
    wallets.map(|wallet| (text(&wallet["userId"]), broken_laws(wallet))).collect()
}

/// Creates users with five entries each; the balances are 100, 200, 300, 250, 350.
async fn users_with_entries(client: &Client, count: usize) -> Vec<User> {
    let mut users = Vec::new();
    for _ in 0..count {
        let user = client.ready_user().await;
        for (kind, cents) in [("credit", 100), ("credit", 100), ("credit", 100), ("debit", 50), ("credit", 100)] {
            assert_eq!(client.post(&user, kind, cents, None).await.status, 201);
        }
        users.push(user);
    }
    users
}

#[tokio::test]
async fn only_a_corrupted_wallet_is_reported_and_with_its_first_wrong_entry() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let users = users_with_entries(&client, 3).await;
    client.ready_user().await; // a wallet without an entry
    let consistent = verify(&world, &[]).await;
    let message =
        "4 wallets with 15 entries (15 chained, 0 sealed, 0 unchained; 15 posted by users): all consistent.\n";
    assert_eq!((consistent.code, consistent.out.as_str(), consistent.err.as_str()), (Some(0), message, ""));
    let totals = |wallets: u64, entries: u64, expected: Value, differing: u64| {
        json!({
            "wallets": wallets, "entries": entries, "chained": entries, "sealed": 0, "unchained": 0,
            "beforeChain": expected, "differingWallets": differing,
            "postedBy": {"users": entries, "services": {}, "otherServices": {"count": 0, "entries": 0}},
        })
    };
    let report_of = |differing: Value, mut totals: Value| {
        totals["differing"] = differing;
        totals
    };
    let empty = report_of(json!([]), totals(4, 15, json!(0), 0));
    assert_eq!(verify(&world, &["--format", "json"]).await.done(), empty);

    let broken = &users[1].id;
    let change = format!("UPDATE transactions SET balance_after_minor = 999 WHERE user_id = '{broken}' AND seq = 3");
    corrupt(&world, &change).await;
    let report = verify(&world, &["--format", "json"]).await;
    assert_eq!((report.code, report.err.as_str()), (Some(1), ""), "{report:?}");
    let fault = json!({"law": "balance", "seq": 3, "message": "entry 3 has balance 999, but the entries up to it add up to 300"});
    let chain = json!({"law": "chain", "seq": 3, "message":
        "the hash of entry 3 does not follow from the entry and the one before it: one of them was changed, removed or inserted"});
    let wallet =
        json!({"userId": broken, "entries": 5, "balanceMinor": 350, "recountedMinor": 350, "faults": [fault, chain]});
    assert_eq!(report.json(), report_of(json!([wallet]), totals(4, 15, json!(0), 1)));
    let table = verify(&world, &[]).await;
    let lines: Vec<&str> = table.out.lines().collect();
    assert_eq!(table.code, Some(1));
    assert_eq!(
        lines[1],
        format!("{broken}  balance  3      entry 3 has balance 999, but the entries up to it add up to 300")
    );
    assert_eq!(
        lines[4],
        "4 wallets with 15 entries (15 chained, 0 sealed, 0 unchained; 15 posted by users): 1 inconsistent."
    );

    // One user's wallet alone.
    assert_eq!(verify(&world, &["--user", broken]).await.code, Some(1));
    let other = verify(&world, &["--user", &users[0].id, "--format", "json"]).await.done();
    assert_eq!(other, report_of(json!([]), totals(1, 5, Value::Null, 0)));
    let unknown = Uuid::now_v7().to_string();
    let output = verify(&world, &["--user", &unknown]).await;
    assert_eq!((output.code, output.out.as_str()), (Some(1), ""));
    assert!(output.err.contains(&format!("user {unknown} has no wallet")), "{output:?}");
}

#[tokio::test]
async fn every_broken_rule_of_the_ledger_is_reported() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let users = users_with_entries(&client, 7).await;
    let of = |n: usize| format!("WHERE user_id = '{}'", users[n].id);
    for change in [
        // A missing first entry, and one missing in the middle.
        format!("DELETE FROM transactions {} AND seq = 1", of(0)),
        format!("DELETE FROM transactions {} AND seq = 4", of(1)),
        // A wrong amount in the middle, and a wrong balance at the end.
        format!("UPDATE transactions SET amount_minor = 101 {} AND seq = 2", of(2)),
        format!("UPDATE transactions SET balance_after_minor = 351 {} AND seq = 5", of(3)),
        format!("UPDATE transactions SET created_at = created_at - interval '1 hour' {} AND seq = 3", of(4)),
        "ALTER TABLE transactions DROP CONSTRAINT transactions_balance_in_range, DROP CONSTRAINT transactions_held_in_range"
            .to_owned(),
        format!(
            "UPDATE transactions SET type = 'debit', balance_after_minor = balance_after_minor - 200 {} AND seq = 1",
            of(5)
        ),
        format!("DELETE FROM wallets {}", of(6)),
    ] {
        corrupt(&world, &change).await;
    }
    let report = verify(&world, &["--format", "json"]).await;
    assert_eq!((report.code, &report.json()["differingWallets"]), (Some(1), &json!(7)), "{report:?}");
    let expected: [&[&str]; 7] = [
        &["sequence", "balance", "chain"],
        &["sequence", "balance", "chain"],
        &["balance", "chain"],
        &["balance", "chain"],
        &["time", "chain"],
        &["balance", "negative", "chain"],
        &["wallet"],
    ];
    let found = broken_laws(&report.json());
    for (user, broken_laws) in users.iter().zip(expected) {
        assert_eq!(found[&user.id], broken_laws, "{found:?}");
    }
}

#[tokio::test]
async fn posts_during_a_verification_neither_wait_nor_appear_as_faults() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let (posting, poster) = (client.clone(), user.clone());
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let posts = tokio::spawn(async move {
        let mut written = 0_u64;
        while stopped.try_recv().is_err() {
            assert_eq!(posting.post(&poster, "credit", 7, None).await.status, 201);
            written += 1;
        }
        written
    });
    let mut seen = Vec::new();
    for _ in 0..10 {
        let report = verify(&world, &["--format", "json"]).await.done();
        seen.push(report["entries"].as_u64().expect("entries"));
    }
    stop.send(()).expect("still posting");
    let written = posts.await.expect("posted");
    assert!(seen.is_sorted() && seen.last() > seen.first(), "{seen:?}");
    let last = verify(&world, &["--format", "json"]).await.done();
    assert_eq!(last["entries"], json!(written));
}

#[tokio::test]
async fn many_differing_wallets_are_all_reported() {
    let world = World::new().await;
    let migrated = purse(&["migrate", "--role", "wallet"], &world.settings(Role::Wallet)).await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    let generate =
        "INSERT INTO wallets (user_id, id) SELECT gen_random_uuid(), gen_random_uuid() FROM generate_series(1, 5000);
         INSERT INTO transactions (user_id, seq, id, type, amount_minor, balance_after_minor, held_after_minor, created_at, hash)
         SELECT user_id, seq, gen_random_uuid(), 'credit', 1, CASE WHEN seq = 3 THEN 4 ELSE seq END, 0, now(), sha256('')
         FROM wallets, generate_series(1, 4) AS seq";
    corrupt(&world, generate).await;
    let report = verify(&world, &["--format", "json"]).await;
    assert_eq!((report.code, broken_laws(&report.json()).len()), (Some(1), 5000));
    assert_eq!(report.json()["entries"], 20_000);
    let table = verify(&world, &[]).await;
    assert_eq!((table.code, table.out.lines().count()), (Some(1), 2 * 5000 + 3));
}

#[tokio::test]
async fn without_its_database_or_its_tables_the_command_reports_what_to_do_and_exits_with_69() {
    let world = World::new().await;
    let bare = verify(&world, &[]).await;
    assert_eq!((bare.code, bare.out.as_str()), (Some(69), ""), "{bare:?}");
    assert!(bare.err.contains("Run `purse migrate --role wallet` first"), "{bare:?}");
    let unreachable = [("WALLET_DATABASE_URL".to_owned(), "postgres://u:hunter22@127.0.0.1:1/x".to_owned())].into();
    let output = purse(&["ledger", "verify"], &unreachable).await;
    assert_eq!(output.code, Some(69), "{output:?}");
    assert!(output.err.contains("WALLET_DATABASE_URL is correct") && !output.err.contains("hunter22"), "{output:?}");
}

#[tokio::test]
async fn invalid_usage_exits_with_64() {
    let settings: BTreeMap<String, String> =
        [("WALLET_DATABASE_URL".to_owned(), "postgres://u:p@127.0.0.1:1/x".to_owned())].into();
    for arguments in [
        &["ledger"][..],
        &["ledger", "repair"],
        &["ledger", "verify", "--user", "ada"],
        &["ledger", "verify", "--dry-run"],
        &["ledger", "verify", "--format", "csv"],
    ] {
        let output = purse(arguments, &settings).await;
        assert_eq!((output.code, output.out.as_str()), (Some(64), ""), "{arguments:?} {output:?}");
    }
    assert_eq!(purse(&["ledger", "verify"], &BTreeMap::new()).await.code, Some(64));
}
