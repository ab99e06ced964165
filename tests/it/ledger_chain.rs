//! The hash chain and the other laws of the ledger: `purse ledger verify` accepts entries of every kind, and reports each
//! change of a row, whatever was changed.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use purse::kernel::{EntryId, Role, Timestamp};
use purse::wallet::domain::EntryKind::{Close, Credit, Debit, Expire, Hold, Void};
use purse::wallet::domain::{Origin, TransferLeg};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::shards::{shards, without_moments};
use crate::support::{Client, CommandOutput, HandLedger, HandRow, User, World, purse, token_of};

async fn verify(world: &World, arguments: &[&str]) -> CommandOutput {
    let database = world.databases.wallet.runtime_url.clone();
    let all: Vec<&str> =
        ["ledger", "verify", "--format", "json"].into_iter().chain(arguments.iter().copied()).collect();
    purse(&all, &[("WALLET_DATABASE_URL".to_owned(), database)].into()).await
}

/// Changes the ledger as the superuser, without triggers.
async fn corrupt(world: &World, change: &str) {
    world.sql(Role::Wallet, &format!("SET session_replication_role = replica; {change}")).await;
}

/// The violations of each inconsistent wallet, as `law@seq`.
async fn violations(world: &World) -> BTreeMap<String, Vec<String>> {
    let report = verify(world, &[]).await.json();
    let wallets = report["differing"].as_array().expect("a list").iter();
    let laws = |wallet: &Value| {
        let faults = wallet["faults"].as_array().expect("faults").iter();
        faults.map(|fault| format!("{}@{}", fault["law"].as_str().expect("a law"), fault["seq"])).collect()
    };
    wallets.map(|wallet| (wallet["userId"].as_str().expect("an id").to_owned(), laws(wallet))).collect()
}

async fn migrated() -> World {
    let world = World::new().await;
    let output = purse(&["migrate", "--role", "wallet"], &world.settings(Role::Wallet)).await;
    assert_eq!(output.code, Some(0), "{output:?}");
    world
}

fn in_a_week() -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second() + 604_800).expect("a time")
}

/// Two wallets with every kind of entry, which transfer to each other.
struct Pair {
    sender: HandLedger,
    /// Ends with the closing of the wallet.
    recipient: HandLedger,
}

impl Pair {
    async fn write(world: &World) -> Self {
        let (mut sender, mut recipient) = (HandLedger::new(), HandLedger::new());
        let expires_at = in_a_week();
        let hold = |amount, balance, held| HandRow {
            expires_at: Some(expires_at),
            ..HandRow::new(Hold, amount, balance, held)
        };
        let salary = HandRow { key: Some("k"), description: Some("salary"), ..HandRow::new(Credit, 1000, 1000, 0) };
        sender.append(&salary);
        sender.append(&hold(400, 1000, 400));
        sender.append(&HandRow::new(Debit, 100, 900, 300).on(2, 1, 300));
        sender.append(&HandRow::new(Debit, 50, 850, 0).on(2, 2, 0)); // the last capture releases the rest
        sender.append(&hold(200, 850, 200));
        sender.append(&HandRow::new(Void, 200, 850, 0).on(5, 1, 0));
        sender.append(&hold(30, 850, 30));
        sender.append(&HandRow::new(Expire, 30, 850, 0).on(7, 1, 0));
        let open = sender.append(&hold(10, 850, 10));
        sender.append(&HandRow::new(Debit, 5, 845, 5).on(9, 1, 5));
        sender.list_open_hold(9, open, 5, 1, expires_at);
        sender.append(&HandRow::new(Debit, 300, 545, 5).on(1, 1, 700)); // a reversal of the salary, in part
        let transfer = EntryId::from_uuid(Uuid::now_v7());
        let leg = |counterparty| Some(TransferLeg { transfer, counterparty });
        let sent = HandRow { transfer: leg(recipient.user), ..HandRow::new(Debit, 45, 500, 5) };
        sender.append_as(transfer, &sent);
        sender.append(&HandRow { group_size: Some(2), posted_by: Some("payments"), ..HandRow::new(Credit, 7, 507, 5) });
        sender.append(&HandRow { posted_by: Some("payments"), ..HandRow::new(Credit, 3, 510, 5) });
        recipient.append(&HandRow { transfer: leg(sender.user), ..HandRow::new(Credit, 45, 45, 0) });
        recipient.append(&HandRow { description: Some("rent"), ..HandRow::new(Debit, 45, 0, 0) });
        recipient.append(&HandRow::new(Close, 0, 0, 0));
        sender.write(world).await;
        recipient.write(world).await;
        Self { sender, recipient }
    }
}

#[tokio::test]
async fn entries_of_every_kind_are_consistent() {
    let world = migrated().await;
    let pair = Pair::write(&world).await;
    let report = verify(&world, &[]).await.done();
    let counts = ["wallets", "entries", "chained", "sealed", "unchained", "differingWallets"].map(|name| &report[name]);
    assert_eq!(counts, [2, 17, 17, 0, 0, 0].map(|count| json!(count)).each_ref(), "{report}");
    for user in [pair.sender.user, pair.recipient.user] {
        verify(&world, &["--user", &user.to_string()]).await.done();
    }
}

#[tokio::test]
async fn each_law_of_the_acts_is_reported_with_the_first_entry_that_breaks_it() {
    let world = migrated().await;
    // What the change does to the sender, or to the recipient; then the laws that each of them breaks.
    let cases: &[(&str, &[&str], &[&str])] = &[
        (
            "UPDATE transactions SET held_after_minor = 399 WHERE user_id = $sender AND seq = 2",
            &["held@2", "chain@2"],
            &[],
        ),
        // Captured once more than was held, and less than was released.
        (
            "UPDATE transactions SET origin_left_minor = 301 WHERE user_id = $sender AND seq = 3",
            &["held@3", "chain@3", "origin@3"],
            &[],
        ),
        ("UPDATE transactions SET origin_nth = 3 WHERE user_id = $sender AND seq = 4", &["chain@4", "origin@4"], &[]),
        (
            "UPDATE transactions SET origin_seq = 1, origin_nth = 2 WHERE user_id = $sender AND seq = 6",
            &["held@6", "chain@6", "origin@6", "open_holds@5"],
            &[],
        ),
        (
            "UPDATE transactions SET origin_left_minor = 650 WHERE user_id = $sender AND seq = 11",
            &["chain@11", "origin@11"],
            &[],
        ),
        (
            "UPDATE transactions SET transfer_id = gen_random_uuid() WHERE user_id = $recipient AND seq = 1",
            &["transfer@12"],
            &["chain@1", "transfer@1"],
        ),
        (
            "UPDATE transactions SET amount_minor = 44 WHERE user_id = $recipient AND seq = 1",
            &["transfer@12"],
            &["balance@1", "negative@2", "chain@1", "transfer@1"],
        ),
        // More entries than there are, and entries of other requests among them.
        ("UPDATE transactions SET group_size = 3 WHERE user_id = $sender AND seq = 13", &["chain@13", "group@13"], &[]),
        (
            "UPDATE transactions SET posted_by = NULL WHERE user_id = $sender AND seq = 14",
            &["chain@14", "group@14"],
            &[],
        ),
        (
            "UPDATE transactions SET idempotency_key = 'k', request_digest = substr(sha256(''), 1, 16)
             WHERE user_id = $sender AND seq = 14",
            &["chain@14", "group@14"],
            &[],
        ),
        ("UPDATE transactions SET group_size = 3 WHERE user_id = $sender AND seq = 1", &["chain@1", "group@2"], &[]),
        (
            "UPDATE transactions SET created_at = created_at + interval '1 second' WHERE user_id = $sender AND seq = 14",
            &["chain@14", "group@14"],
            &[],
        ),
        ("DELETE FROM transactions WHERE user_id = $sender AND seq = 14", &["group@13"], &[]),
        ("DELETE FROM open_holds WHERE user_id = $sender", &["open_holds@9"], &[]),
        ("UPDATE open_holds SET acts = 2 WHERE user_id = $sender", &["open_holds@9"], &[]),
        ("UPDATE open_holds SET expires_at = now() WHERE user_id = $sender", &["open_holds@9"], &[]),
        (
            "INSERT INTO open_holds SELECT user_id, seq, id, 1, 0, expires_at FROM transactions WHERE user_id = $sender AND seq = 5",
            &["open_holds@5"],
            &[],
        ),
        ("UPDATE entry_texts SET description = 'wages' WHERE user_id = $sender", &["texts@1"], &[]),
        ("UPDATE entry_texts SET salt = substr(sha256(''), 1, 16) WHERE user_id = $sender", &["texts@1"], &[]),
        (
            "UPDATE entry_texts SET reference = description, description = NULL WHERE user_id = $sender",
            &["texts@1"],
            &[],
        ),
        ("UPDATE entry_texts SET seq = 2 WHERE user_id = $sender", &["texts@1"], &[]),
        ("DELETE FROM entry_texts WHERE user_id = $sender", &["texts@1"], &[]),
        (
            "INSERT INTO entry_texts SELECT user_id, 99, salt, description FROM entry_texts WHERE user_id = $sender",
            &["texts@99"],
            &[],
        ),
        // Texts may be erased once the wallet is closed, but not changed.
        ("DELETE FROM entry_texts WHERE user_id = $recipient", &[], &[]),
        ("UPDATE entry_texts SET description = 'x' WHERE user_id = $recipient", &[], &["texts@2"]),
    ];
    let mut pairs = Vec::new();
    for _ in 0..=cases.len() {
        pairs.push(Pair::write(&world).await);
    }
    let mut expected = BTreeMap::new();
    for ((change, sender, recipient), pair) in cases.iter().zip(&pairs) {
        let named = change.replace("$sender", &format!("'{}'", pair.sender.user));
        corrupt(&world, &named.replace("$recipient", &format!("'{}'", pair.recipient.user))).await;
        for (user, laws) in [(pair.sender.user, sender), (pair.recipient.user, recipient)] {
            if !laws.is_empty() {
                expected.insert(user.to_string(), (laws.iter().map(ToString::to_string).collect::<Vec<_>>(), *change));
            }
        }
    }
    // An entry that follows the closing of its wallet is chained like any other.
    let mut closed = pairs.pop().expect("a pair").recipient;
    closed.append(&HandRow::new(Credit, 1, 1, 0));
    closed.write(&world).await;
    expected.insert(closed.user.to_string(), (vec!["closed@4".to_owned()], "a credit after the closing"));
    let found = violations(&world).await;
    let wrong: Vec<_> = expected.iter().filter(|(user, (laws, _))| found.get(*user) != Some(laws)).collect();
    let wrong: Vec<_> = wrong.into_iter().map(|(user, expected)| (expected, found.get(user))).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(found.len(), expected.len(), "{found:?}");
}

#[tokio::test]
async fn texts_are_kept_until_their_wallet_is_closed_and_their_digest_is_salted() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let (open, other) = (client.ready_user().await, client.ready_user().await);
    let body = json!({"amountMinor": 5, "description": "the same text"});
    for user in [&open, &open, &other] {
        assert_eq!(client.send(client.post_request(user, "credit", &body, None)).await.status, 201);
    }
    let digests = world.sql(Role::Wallet, "SELECT count(DISTINCT texts_digest) FROM transactions").await;
    let salts = world.sql(Role::Wallet, "SELECT count(DISTINCT salt) FROM entry_texts").await;
    assert_eq!((digests.as_str(), salts.as_str()), ("3", "3"), "equal texts have different digests");

    let pair = Pair::write(&world).await;
    let erase = |user: &str| {
        format!(
            "DO $$ BEGIN DELETE FROM entry_texts WHERE user_id = '{user}'; RAISE NOTICE 'erased';
             EXCEPTION WHEN restrict_violation THEN NULL; END $$;
             SELECT count(*) FROM entry_texts WHERE user_id = '{user}'"
        )
    };
    for (user, left) in [(&open.id, "2"), (&pair.sender.user.to_string(), "1"), (&pair.recipient.user.to_string(), "0")]
    {
        assert_eq!(world.sql(Role::Wallet, &erase(user)).await, left);
    }
    verify(&world, &[]).await.done();
    let history = client.get(&open, "/v1/transactions").await;
    assert_eq!(history.body["items"][0]["description"], "the same text");
    // The owner of the closed wallet sees the entry without its text.
    let id = pair.recipient.user.to_string();
    let closed = User { token: token_of(&id), email: String::new(), id };
    let history = client.get(&closed, "/v1/transactions").await;
    let descriptions: Vec<_> =
        history.body["items"].as_array().expect("items").iter().map(|i| &i["description"]).collect();
    assert_eq!(descriptions, [&Value::Null, &Value::Null], "neither the closing nor a text is shown: {history:?}");
}

/// As during a rollout, when a newer process writes what this one cannot request.
#[tokio::test]
async fn entries_of_other_kinds_are_respected_and_not_shown() {
    let world = World::new().await;
    let wallet = world.start(Role::Wallet).await;
    let client = Client::new("", &wallet.url());
    let mut ledger = HandLedger::new();
    ledger.append(&HandRow { key: Some("group"), group_size: Some(2), ..HandRow::new(Credit, 600, 600, 0) });
    ledger.append(&HandRow { description: Some("second of the group"), ..HandRow::new(Credit, 400, 1000, 0) });
    let expires_at = in_a_week();
    let hold = ledger.append(&HandRow { expires_at: Some(expires_at), ..HandRow::new(Hold, 300, 1000, 300) });
    ledger.list_open_hold(3, hold, 300, 0, expires_at);
    ledger.append(&HandRow { key: Some("own"), posted_by: Some("payments"), ..HandRow::new(Credit, 50, 1050, 300) });
    ledger.write(&world).await;
    let id = ledger.user.to_string();
    let user = User { token: token_of(&id), email: String::new(), id };

    assert_eq!(client.post(&user, "debit", 751, None).await.code(), "INSUFFICIENT_FUNDS", "300 of 1050 are held");
    assert_eq!(client.post(&user, "debit", 700, None).await.body["balanceAfterMinor"], 350);
    assert_eq!(client.post(&user, "debit", 51, None).await.code(), "INSUFFICIENT_FUNDS");
    let reused = client.post(&user, "credit", 600, Some("group")).await;
    assert_eq!((reused.status.as_u16(), reused.code()), (422, "IDEMPOTENCY_KEY_REUSED"), "one post is not the group");
    assert_eq!(client.post(&user, "credit", 1, Some("own")).await.status, 201, "a service's key is not the user's");
    assert_eq!(client.post(&user, "credit", 1, Some("own")).await.status, 200);

    let page = client.get(&user, "/v1/transactions").await;
    let items = page.body["items"].as_array().expect("items").iter();
    let shown: Vec<_> = items.map(|item| (item["type"].as_str(), item["amountMinor"].as_i64())).collect();
    let credit = |cents| (Some("credit"), Some(cents));
    assert_eq!(shown, [credit(1), (Some("debit"), Some(700)), credit(50), credit(400), credit(600)]);
    assert_eq!(client.get(&user, &format!("/v1/transactions/{hold}")).await.status, 404);
    assert_eq!(client.balance(&user).await, 351);
    let report = verify(&world, &[]).await.done();
    assert_eq!((&report["entries"], &report["chained"]), (&json!(6), &json!(6)), "each new entry continues the chain");
}

/// Drops every check of the table, so that a test can write nonsense.
const WITHOUT_CHECKS: &str = r"DO $$
    DECLARE ledger regclass; name text;
    BEGIN
        FOR ledger, name IN SELECT conrelid, conname FROM pg_constraint
            WHERE conrelid::regclass::text ~ '(^|\.)transactions$' AND contype = 'c'
        LOOP
            EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', ledger, name);
        END LOOP;
    END $$";

#[tokio::test]
async fn a_change_of_any_column_is_reported_with_its_row() {
    let world = migrated().await;
    world.sql(Role::Wallet, WITHOUT_CHECKS).await;
    let columns = "SELECT attname FROM pg_attribute
                   WHERE attrelid = 'transactions'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
    let mut changed = BTreeMap::new();
    for column in world.sql(Role::Wallet, columns).await.lines() {
        let value = match column {
            "user_id" => continue, // another wallet: the next test
            "seq" => "seq + 1",
            "type" => "'debit'",
            "id" | "transfer_id" | "counterparty_user_id" => "gen_random_uuid()",
            "created_at" | "expires_at" => "{column} + interval '1 microsecond'",
            "idempotency_key" | "posted_by" => "{column} || 'x'",
            "request_digest" => "substr(sha256(''), 1, 16)",
            "texts_digest" | "hash" => "sha256('')",
            // A column that is not listed here has to be a number, or this test has to learn it.
            _ => "{column} + 1",
        };
        let mut ledger = HandLedger::new();
        ledger.append(&HandRow::new(Credit, 5, 5, 0));
        // Nonsense, but with every part that a row can have.
        ledger.append(&HandRow {
            origin: Some(Origin { seq: 1, nth: 1, left: 3 }),
            transfer: Some(TransferLeg { transfer: EntryId::from_uuid(Uuid::now_v7()), counterparty: ledger.user }),
            expires_at: Some(in_a_week()),
            key: Some("k"),
            description: Some("text"),
            group_size: Some(2),
            posted_by: Some("payments"),
            ..HandRow::new(Credit, 5, 10, 2)
        });
        ledger.write(&world).await;
        let change = format!("{column} = {}", value.replace("{column}", column));
        changed.insert(ledger.user.to_string(), change);
    }
    assert!(changed.len() >= 19, "{changed:?}");
    let chain = |violations: &[String]| violations.iter().find(|law| law.starts_with("chain@")).cloned();
    let before = violations(&world).await;
    assert!(before.values().all(|violations| chain(violations).is_none()), "{before:?}");
    for (user, change) in &changed {
        corrupt(&world, &format!("UPDATE transactions SET {change} WHERE user_id = '{user}' AND seq = 2")).await;
    }
    let after = violations(&world).await;
    let row = |change: &str| if change.starts_with("seq") { "chain@3" } else { "chain@2" };
    let wrong = |(user, change): &(&String, &String)| {
        after.get(*user).and_then(|violations| chain(violations)).as_deref() != Some(row(change))
    };
    let wrong: Vec<_> = changed.iter().filter(wrong).map(|(user, change)| (change, after.get(user))).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn removed_swapped_and_foreign_rows_are_reported_with_their_place() {
    let world = migrated().await;
    let mut ledgers = Vec::new();
    for _ in 0..6 {
        let mut ledger = HandLedger::new();
        // Equal amounts and balances, so that only the chain can tell the rows apart.
        for n in 0..3 {
            ledger.append(&HandRow::new(Credit, 5, 5 * (2 * n + 1), 0));
            ledger.append(&HandRow::new(Credit, 5, 5 * (2 * n + 2), 0));
        }
        ledger.write(&world).await;
        ledgers.push(ledger.user.to_string());
    }
    let [removed, swapped, foreign, donor, inserted, unhashed] = &ledgers[..] else { panic!("six wallets") };
    let swap = format!(
        "UPDATE transactions SET seq = seq - 4 WHERE user_id = '{swapped}' AND seq IN (3, 4);
         UPDATE transactions SET seq = CASE seq WHEN 0 THEN 3 ELSE 4 END WHERE user_id = '{swapped}' AND seq <= 0;
         UPDATE transactions SET balance_after_minor = 5 * seq WHERE user_id = '{swapped}'"
    );
    let adopt = format!(
        "DELETE FROM transactions WHERE user_id = '{foreign}' AND seq = 6;
         INSERT INTO transactions SELECT (jsonb_populate_record(t, jsonb_build_object('user_id', '{foreign}'))).*
         FROM transactions t WHERE user_id = '{donor}' AND seq = 6"
    );
    let insert = format!(
        "INSERT INTO transactions
         SELECT (jsonb_populate_record(t, jsonb_build_object('seq', 7, 'id', gen_random_uuid(), 'balance_after_minor', 35))).*
         FROM transactions t WHERE user_id = '{inserted}' AND seq = 6"
    );
    for change in [
        WITHOUT_CHECKS.to_owned(),
        format!("DELETE FROM transactions WHERE user_id = '{removed}' AND seq = 3"),
        swap,
        adopt,
        insert,
        format!("UPDATE transactions SET hash = NULL WHERE user_id = '{unhashed}' AND seq = 4"),
    ] {
        corrupt(&world, &change).await;
    }
    let found = violations(&world).await;
    let expected = [
        (removed, &["sequence@4", "balance@4", "chain@4"][..]),
        (swapped, &["time@4", "chain@3"]),
        (foreign, &["chain@6"]),
        (inserted, &["chain@7"]),
        (unhashed, &["chain@4"]),
    ];
    for (user, laws) in expected {
        assert_eq!(
            found.get(user).map(Vec::as_slice),
            Some(&laws.iter().map(ToString::to_string).collect::<Vec<_>>()[..])
        );
    }
    assert_eq!(found.len(), expected.len(), "{found:?}");
}

#[tokio::test]
async fn a_wallet_whose_hashes_were_all_removed_is_noticed_by_their_number() {
    let world = migrated().await;
    let mut ledger = HandLedger::new();
    ledger.append(&HandRow::new(Credit, 5, 5, 0));
    ledger.append(&HandRow::new(Credit, 5, 10, 0));
    ledger.write(&world).await;
    world.sql(Role::Wallet, WITHOUT_CHECKS).await;
    corrupt(&world, "UPDATE transactions SET hash = NULL").await;
    let report = verify(&world, &[]).await;
    let json = report.json();
    let counts = ["chained", "sealed", "unchained", "beforeChain", "differingWallets"].map(|name| &json[name]);
    assert_eq!((report.code, counts), (Some(1), [0, 0, 2, 0, 0].map(|count| json!(count)).each_ref()), "{report:?}");
    let database = world.databases.wallet.runtime_url.clone();
    let table = purse(&["ledger", "verify"], &[("WALLET_DATABASE_URL".to_owned(), database)].into()).await;
    let sentence = "1 wallet with 2 entries (0 chained, 0 sealed, 2 unchained; 2 posted by users): 0 inconsistent; 2 \
                    entries have no hash, but 0 are older than the hash chain.\n";
    assert_eq!((table.code, without_moments(&table.out).as_str()), (Some(1), sentence));
}

#[tokio::test]
async fn two_processes_and_64_connections_extend_one_chain() {
    let world = World::new().await;
    let users = world.start(Role::Users).await;
    // As few lanes as there may be, and several per shard.
    let lanes = [shards(), 4 * shards()].map(|lanes| lanes.to_string());
    let first = world.start_with(Role::Wallet, &[("LEDGER_LANES", &lanes[0])]).await;
    let second = world.start_with(Role::Wallet, &[("LEDGER_LANES", &lanes[1])]).await;
    let client = Client::new(&users.url(), &first.url());
    let clients = [client.clone(), Client::new(&client.users, &second.url())];
    let (busy, other) = (client.ready_user().await, client.ready_user().await);
    let texts = ["", "ü 字 \u{1f600}", "\"quoted\" \\ back\nline", "a", "'; DROP TABLE transactions;--"];
    let posts = (0..64).map(|connection| {
        let (client, user) = (&clients[connection % 2], if connection % 4 == 3 { &other } else { &busy });
        async move {
            for n in 0..10 {
                let text = texts.get((connection + n) % 8);
                let body = json!({"amountMinor": 1 + n, "description": text});
                let key = (n % 2 == 0).then(|| format!("{connection}-{n}"));
                loop {
                    let request =
                        client.post_request(user, if n == 9 { "debit" } else { "credit" }, &body, key.as_deref());
                    let response = client.send(request).await;
                    // 503 if the other process locks the wallet for too long; nothing was written then.
                    if response.code() != "DEPENDENCY_UNAVAILABLE" {
                        assert_eq!(response.status, 201, "{response:?}");
                        break;
                    }
                }
            }
        }
    });
    join_all(posts).await;
    let report = verify(&world, &[]).await.done();
    let counts = ["entries", "chained", "sealed", "unchained", "differingWallets"].map(|name| &report[name]);
    assert_eq!(counts, [640, 640, 0, 0, 0].map(|count| json!(count)).each_ref(), "{report}");
    let with_texts = world.sql(Role::Wallet, "SELECT count(*) FROM entry_texts").await;
    assert_eq!(with_texts, world.sql(Role::Wallet, "SELECT count(texts_digest) FROM transactions").await);
    assert_ne!(with_texts, "0");
}

#[tokio::test]
async fn entries_with_one_time_are_chained_by_their_sequence_numbers() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    join_all((0..50).map(|_| client.post(&user, "credit", 1, None))).await;
    // All posts of a batch have one time.
    let times = world.sql(Role::Wallet, "SELECT count(DISTINCT created_at) < count(*) FROM transactions").await;
    assert_eq!(times, "t");
    assert_eq!(verify(&world, &[]).await.done()["chained"], 50);
}
