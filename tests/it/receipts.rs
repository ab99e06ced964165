//! Receipts: what the API hands out proves, without the database, what the ledger recorded, and nothing that was changed passes.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use futures_util::future::join_all;
use purse::kernel::{EntryId, Role, Timestamp};
use purse::wallet::domain::EntryKind::{Close, Credit, Debit, Expire, Hold, Void};
use purse::wallet::domain::TransferLeg;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::repository::text;
use crate::support::{
    Client, CommandOutput, HandLedger, HandRow, RoleProcess, User, World, purse, service_token, token_of,
};

/// Two signing keys, `old` and `new` of the runbook.
const OLD_KEY: &str = "b2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xkb2w=";
const NEW_KEY: &str = "bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmU=";

/// Files of one test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("purse-receipts-{}", Uuid::now_v7()));
        fs::create_dir(&path).expect("created");
        Self(path)
    }

    fn write(&self, name: &str, content: &Value) -> String {
        let path = self.0.join(name);
        fs::write(&path, content.to_string()).expect("written");
        path.display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs the command, which needs no settings.
async fn verify(arguments: &[&str]) -> CommandOutput {
    let all: Vec<&str> = ["ledger", "verify-receipt", "--json"].into_iter().chain(arguments.iter().copied()).collect();
    purse(&all, &[].into()).await
}

/// Runs the verifier that shares no code with purse.
async fn verify_with_python(arguments: &[&str]) -> CommandOutput {
    let mut command = Command::new("python3");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/clients/receipt.py")).args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output().expect("python3")).await.expect("thread");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    CommandOutput { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Both verifiers accept the files.
async fn assert_consistent(arguments: &[&str]) -> Value {
    let python = verify_with_python(arguments).await;
    assert_eq!(python.code, Some(0), "{python:?}");
    verify(arguments).await.done()
}

/// Both verifiers report a fault. Returns the messages of the command.
async fn assert_faulty(arguments: &[&str]) -> Vec<String> {
    let python = verify_with_python(arguments).await;
    assert_eq!(python.code, Some(1), "{python:?}");
    let report = verify(arguments).await;
    assert_eq!(report.code, Some(1), "{report:?}");
    let faults = report.json()["faults"].as_array().expect("a list").clone();
    faults.iter().map(|fault| format!("{}: {}", fault["seq"], fault["message"].as_str().expect("text"))).collect()
}

async fn get(client: &Client, user: &User, path: &str) -> Value {
    let response = client.get(user, path).await;
    assert_eq!(response.status, 200, "{path}: {response:?}");
    response.body
}

async fn receipt(client: &Client, user: &User, id: &str) -> Value {
    get(client, user, &format!("/v1/transactions/{id}/receipt")).await
}

async fn keys(process: &RoleProcess) -> Value {
    let client = Client::new("", &process.url());
    let response = client
        .send(client.request(reqwest::Method::GET, &format!("{}/.well-known/purse-keys.json", process.url())))
        .await;
    assert_eq!(response.status, 200, "{response:?}");
    response.body
}

/// The whole chain, in pages of this many entries.
async fn chain(client: &Client, user: &User, limit: usize) -> Vec<Value> {
    let (mut pages, mut after) = (Vec::new(), json!(0));
    while !after.is_null() {
        let page = get(client, user, &format!("/v1/ledger/chain?after={after}&limit={limit}")).await;
        after = page["nextAfter"].clone();
        pages.push(page);
    }
    pages
}

fn entries(pages: &[Value]) -> Vec<&Value> {
    pages.iter().flat_map(|page| page["items"].as_array().expect("a list")).collect()
}

async fn post(client: &Client, user: &User, kind: &str, body: &Value, key: Option<&str>) -> String {
    let response = client.send(client.post_request(user, kind, body, key)).await;
    assert_eq!(response.status, 201, "{response:?}");
    response.body["id"].as_str().expect("an id").to_owned()
}

fn owner(ledger: &HandLedger) -> User {
    let id = ledger.user.to_string();
    User { token: token_of(&id), email: String::new(), id }
}

/// Changes the ledger as the superuser, without triggers.
async fn corrupt(world: &World, change: &str) {
    world.sql(Role::Wallet, &format!("SET session_replication_role = replica; {change}")).await;
}

/// A running wallet role that signs.
async fn signing(world: &World) -> RoleProcess {
    let process = world.start_with(Role::Wallet, &[("LEDGER_SIGNING_KEY", OLD_KEY)]).await;
    process.ready().await;
    process
}

#[tokio::test]
async fn a_receipt_is_verified_offline_with_the_published_key() {
    let world = World::new().await;
    let users = world.start(Role::Users).await;
    let wallet = signing(&world).await;
    let client = Client::new(&users.url(), &wallet.url());
    let (user, other) = (client.ready_user().await, client.ready_user().await);
    let body = json!({"amountMinor": 1500, "description": "ü \"quoted\" \\ \u{1f600}"});
    let id = post(&client, &user, "credit", &body, Some("order-17")).await;
    post(&client, &user, "debit", &json!({"amountMinor": 500}), None).await;
    let (receipt, head, keys) =
        (receipt(&client, &user, &id).await, get(&client, &user, "/v1/ledger/head").await, keys(&wallet).await);

    let transaction = get(&client, &user, &format!("/v1/transactions/{id}")).await;
    let entry = &receipt["entry"];
    for field in ["id", "type", "amountMinor", "balanceAfterMinor", "createdAt"] {
        assert_eq!(entry[field], transaction[field], "{field}");
    }
    assert_eq!((&entry["userId"], &entry["seq"], &entry["heldAfterMinor"]), (&json!(user.id), &json!(1), &json!(0)));
    assert_eq!(entry["idempotencyKey"], "order-17");
    assert_eq!(receipt["texts"]["description"], body["description"]);
    assert_eq!((&receipt["texts"]["reference"], &receipt["texts"]["metadata"]), (&Value::Null, &Value::Null));
    assert_eq!((&receipt["version"], &receipt["signature"]["kid"]), (&json!(1), &keys["keys"][0]["kid"]));
    assert!(
        ["origin", "transfer", "expiresAt", "groupSize", "postedBy"].iter().all(|field| entry.get(field).is_none())
    );
    let [key] = &keys["keys"].as_array().expect("keys")[..] else { panic!("{keys}") };
    let form = ["kty", "crv", "alg", "use"].map(|member| key[member].as_str().expect("text"));
    assert_eq!(form, ["OKP", "Ed25519", "EdDSA", "sig"]);

    let folder = Folder::new();
    let (file, head_file) = (folder.write("receipt.json", &receipt), folder.write("head.json", &head));
    let keys_file = folder.write("keys.json", &keys);
    let report = assert_consistent(&["--keys", &keys_file, &file, &head_file]).await;
    assert_eq!((&report["chained"], &report["heads"], &report["signatures"]), (&json!(1), &json!(1), &json!(2)));
    assert_eq!(assert_consistent(&[&file]).await["signaturesVerified"], false);

    // The signature is of this entry of this wallet.
    let mut foreign = receipt.clone();
    foreign["signature"] = head["signature"].clone();
    let foreign_file = folder.write("foreign.json", &foreign);
    let faults = assert_faulty(&["--keys", &keys_file, &foreign_file]).await;
    assert_eq!(faults, ["1: its signature is not valid", "1: no signature covers it"]);
    // The receipts of others, and what is no entry.
    for (user, id) in [(&other, id.as_str()), (&user, &Uuid::now_v7().to_string()), (&user, "1")] {
        let response = client.get(user, &format!("/v1/transactions/{id}/receipt")).await;
        assert_eq!((response.status.as_u16(), response.code()), (404, "TRANSACTION_NOT_FOUND"));
    }
}

#[tokio::test]
async fn without_a_signing_key_receipts_have_no_signature_and_still_prove_their_hash() {
    let world = World::new().await;
    let (_users, wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let empty = get(&client, &user, "/v1/ledger/head").await;
    assert_eq!((&empty["seq"], &empty["balanceMinor"], &empty["at"]), (&json!(0), &json!(0), &Value::Null));
    let id = post(&client, &user, "credit", &json!({"amountMinor": 5}), None).await;
    let receipt = receipt(&client, &user, &id).await;
    assert_eq!((&receipt["signature"], keys(&wallet).await), (&Value::Null, json!({"keys": []})));
    assert_eq!(receipt["previousHash"], empty["hash"], "the first entry continues what the wallet began with");
    let folder = Folder::new();
    let (file, head) = (folder.write("receipt.json", &receipt), folder.write("head.json", &empty));
    assert_consistent(&[&file, &head]).await;
    let key = signing(&world).await;
    let keys = folder.write("keys.json", &keys(&key).await);
    assert_eq!(assert_faulty(&["--keys", &keys, &file]).await, ["1: no signature covers it"]);
}

#[tokio::test]
async fn every_kind_of_entry_has_a_receipt() {
    let world = World::new().await;
    let wallet = signing(&world).await;
    let client = Client::new("", &wallet.url());
    let expires_at = Timestamp::from_second(Timestamp::now().as_second() + 604_800).expect("a time");
    let hold =
        |amount, balance, held| HandRow { expires_at: Some(expires_at), ..HandRow::new(Hold, amount, balance, held) };
    let mut ledger = HandLedger::new();
    let mut ids = Vec::new();
    for row in [
        HandRow { key: Some("k"), description: Some("salary"), ..HandRow::new(Credit, 1000, 1000, 0) },
        hold(400, 1000, 400),
        HandRow::new(Debit, 100, 900, 300).on(2, 1, 300),
        HandRow::new(Void, 300, 900, 0).on(2, 2, 0),
        hold(30, 900, 30),
        HandRow::new(Expire, 30, 900, 0).on(5, 1, 0),
        HandRow { group_size: Some(2), posted_by: Some("payments"), ..HandRow::new(Credit, 7, 907, 0) },
        HandRow { posted_by: Some("payments"), ..HandRow::new(Debit, 7, 900, 0) },
    ] {
        ids.push(ledger.append(&row));
    }
    let transfer = EntryId::from_uuid(Uuid::now_v7());
    let leg = TransferLeg { transfer, counterparty: HandLedger::new().user };
    ledger.append_as(transfer, &HandRow { transfer: Some(leg), ..HandRow::new(Debit, 900, 0, 0) });
    ids.extend([transfer, ledger.append(&HandRow::new(Close, 0, 0, 0))]);
    ledger.write(&world).await;
    let user = owner(&ledger);
    let (folder, mut files) = (Folder::new(), Vec::new());
    let mut receipts = Vec::new();
    for id in ids {
        let receipt = receipt(&client, &user, &id.to_string()).await;
        files.push(folder.write(&format!("{id}.json"), &receipt));
        receipts.push(receipt);
    }
    let types: Vec<&str> = receipts.iter().map(|receipt| receipt["entry"]["type"].as_str().expect("a type")).collect();
    assert_eq!(types, ["credit", "hold", "debit", "void", "hold", "expire", "credit", "debit", "debit", "close"]);
    let of = |seq: usize, field: &str| receipts[seq - 1]["entry"][field].clone();
    assert_eq!(of(3, "origin"), json!({"seq": 2, "nth": 1, "leftMinor": 300}));
    assert_eq!(of(9, "transfer"), json!({"id": transfer.to_string(), "userId": leg.counterparty.to_string()}));
    assert_eq!(of(2, "expiresAt"), json!(purse::kernel::rfc3339(expires_at)));
    assert_eq!(
        (of(7, "groupSize"), of(7, "postedBy"), of(8, "postedBy")),
        (json!(2), json!("payments"), json!("payments"))
    );
    let mut arguments: Vec<&str> = files.iter().map(String::as_str).collect();
    let keys = folder.write("keys.json", &keys(&wallet).await);
    arguments.extend(["--keys", &keys]);
    assert_eq!(assert_consistent(&arguments).await["chained"], 10);
    // The chain has the same entries.
    let pages = chain(&client, &user, 4).await;
    for (item, receipt) in entries(&pages).iter().zip(&receipts) {
        for field in ["entry", "texts", "previousHash", "hash"] {
            assert_eq!(item[field], receipt[field]);
        }
    }
}

#[tokio::test]
async fn the_chain_is_read_in_pages_and_its_head_signs_all_of_it() {
    let world = World::new().await;
    let users = world.start(Role::Users).await;
    let wallet = signing(&world).await;
    let client = Client::new(&users.url(), &wallet.url());
    let user = client.ready_user().await;
    assert_eq!(get(&client, &user, "/v1/ledger/chain").await, json!({"version": 1, "items": [], "nextAfter": null}));
    for n in 1..=7 {
        post(&client, &user, "credit", &json!({"amountMinor": n}), None).await;
    }
    let pages = chain(&client, &user, 3).await;
    let sizes: Vec<usize> = pages.iter().map(|page| page["items"].as_array().expect("a list").len()).collect();
    assert_eq!(sizes, [3, 3, 1]);
    let seqs: Vec<i64> = entries(&pages).iter().map(|item| item["entry"]["seq"].as_i64().expect("a number")).collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(get(&client, &user, "/v1/ledger/chain?after=7").await["items"], json!([]));
    assert_eq!(get(&client, &user, "/v1/ledger/chain?after=9223372036854775807&limit=500").await["items"], json!([]));
    let fields =
        [("after=-1", "after"), ("after=x", "after"), ("limit=0", "limit"), ("limit=501", "limit"), ("x=1", "x")];
    for (query, field) in fields {
        let response = client.get(&user, &format!("/v1/ledger/chain?{query}")).await;
        assert_eq!((response.status.as_u16(), response.fields()), (400, vec![field]), "{query}");
    }
    let folder = Folder::new();
    let keys = folder.write("keys.json", &keys(&wallet).await);
    let files: Vec<String> =
        pages.iter().enumerate().map(|(n, page)| folder.write(&format!("{n}.json"), page)).collect();
    let head = folder.write("head.json", &get(&client, &user, "/v1/ledger/head").await);
    assert_consistent(&["--keys", &keys, &files[0], &files[1], &files[2], &head]).await;
    assert_consistent(&["--keys", &keys, &files[2], &head, &files[1], &files[0]]).await;
    // Without the page between, the head covers the last page only.
    let faults = assert_faulty(&["--keys", &keys, &files[0], &files[2], &head]).await;
    assert_eq!(faults, [1, 2, 3].map(|seq| format!("{seq}: no signature covers it")));
    // Entries of one page in the place of those of another.
    let mut shuffled = pages[0].clone();
    shuffled["items"][1]["previousHash"] = pages[1]["items"][0]["previousHash"].clone();
    let shuffled = folder.write("shuffled.json", &shuffled);
    assert_eq!(
        assert_faulty(&[&shuffled]).await.first().map(String::as_str),
        Some("2: the entry is not the one that was hashed")
    );
}

#[tokio::test]
async fn a_head_with_another_balance_is_refused_together_with_its_entry_and_alone_is_said_to_be_unverified() {
    let world = World::new().await;
    let users = world.start(Role::Users).await;
    let process = signing(&world).await;
    let client = Client::new(&users.url(), &process.url());
    let user = client.ready_user().await;
    let empty = get(&client, &user, "/v1/ledger/head").await;
    let credit = json!({"amountMinor": 5, "description": "a note"});
    let id = post(&client, &user, "credit", &credit, None).await;
    let head = get(&client, &user, "/v1/ledger/head").await;
    let folder = Folder::new();
    let save = |name: &str, document: &Value| folder.write(name, document);
    let said = async |files: &[&str]| purse(&[&["ledger", "verify-receipt"], files].concat(), &[].into()).await.out;
    let keys = save("keys.json", &keys(&process).await);
    let entry = save("entry.json", &receipt(&client, &user, &id).await);
    let genuine = save("head.json", &head);
    let alone = said(&["--keys", &keys, &genuine]).await;
    assert!(alone.contains("Not verified without its entry: the balance, held amount and time of 1 head."), "{alone}");
    let python = verify_with_python(&["--keys", &keys, &genuine]).await;
    assert!(
        python.out.contains("not verified without its entry: the balance, held amount and time of 1 head"),
        "{python:?}"
    );
    assert_consistent(&["--keys", &keys, &genuine, &entry]).await;
    for (field, value) in
        [("balanceMinor", json!(1_000)), ("heldMinor", json!(1)), ("at", json!("2020-01-01T00:00:00.000000Z"))]
    {
        let mut forged = head.clone();
        forged[field] = value.clone();
        let forged = save("forged.json", &forged);
        for files in [[&forged, &entry], [&entry, &forged]] {
            let arguments = ["--keys", keys.as_str(), files[0], files[1]];
            let faults = assert_faulty(&arguments).await;
            assert!(faults.iter().any(|fault| fault.contains("its balance, held amount or time is not")), "{faults:?}");
        }
        let mut forged = empty.clone();
        forged[field] = value;
        assert_faulty(&["--keys", &keys, &save("empty.json", &forged)]).await;
    }
    for (name, document) in [("receipt", receipt(&client, &user, &id).await), ("head", head.clone())] {
        for field in document.as_object().expect("an object").keys() {
            let mut incomplete = document.clone();
            incomplete.as_object_mut().expect("an object").remove(field);
            let faults = assert_faulty(&["--keys", &keys, &save("incomplete.json", &incomplete)]).await;
            assert!(!faults.is_empty(), "{name} without {field}");
        }
    }
    let mut without_texts = receipt(&client, &user, &id).await;
    without_texts["texts"] = Value::Null;
    let without_texts = save("without-texts.json", &without_texts);
    let report = said(&[&without_texts]).await;
    assert!(report.contains("Not verified, because erased or left out: the texts of 1 entry."), "{report}");
    assert_eq!(verify(&[&without_texts]).await.json()["withoutTexts"], 1);
    let python = verify_with_python(&[&without_texts]).await;
    assert!(python.out.contains("not verified, because erased or left out: the texts of 1 entry"), "{python:?}");
    assert!(!said(&[&entry]).await.contains("left out"));
}

#[tokio::test]
async fn with_keys_a_head_without_a_signature_proves_nothing_alone_and_beside_a_chain() {
    let world = World::new().await;
    let users = world.start(Role::Users).await;
    let process = signing(&world).await;
    let client = Client::new(&users.url(), &process.url());
    let user = client.ready_user().await;
    for cents in 1..=3 {
        post(&client, &user, "credit", &json!({"amountMinor": cents}), None).await;
    }
    let folder = Folder::new();
    let keys = folder.write("keys.json", &keys(&process).await);
    let chain = folder.write("chain.json", &chain(&client, &user, 10).await[0]);
    let head = get(&client, &user, "/v1/ledger/head").await;
    let genuine = folder.write("head.json", &head);
    let mut forged = head.clone();
    forged["seq"] = json!(99);
    forged["hash"] = json!("00".repeat(32));
    forged["signature"] = Value::Null;
    let forged = folder.write("forged.json", &forged);
    assert_eq!(assert_faulty(&["--keys", &keys, &forged]).await, ["99: no signature covers it"]);
    let beside = ["--keys", keys.as_str(), &forged, &genuine, &chain];
    assert_eq!(assert_faulty(&beside).await, ["99: no signature covers it"]);
    let mut unsigned = head;
    unsigned["signature"] = Value::Null;
    let unsigned = folder.write("unsigned.json", &unsigned);
    assert_eq!(assert_faulty(&["--keys", &keys, &unsigned]).await, ["3: no signature covers it"]);
    // Its hash is that of the signed one.
    assert_consistent(&["--keys", &keys, &unsigned, &genuine]).await;
    assert_consistent(&[&unsigned]).await;
}

#[tokio::test]
async fn entries_that_are_older_than_the_hash_chain_are_sealed_by_it_and_have_no_receipt() {
    let world = World::new().await;
    let users = world.start(Role::Users).await;
    let wallet = signing(&world).await;
    let client = Client::new(&users.url(), &wallet.url());
    let mut ledger = HandLedger::new();
    let ids: Vec<EntryId> =
        (1..=5).map(|n| ledger.append(&HandRow { key: None, ..HandRow::new(Credit, 1, n, 0) })).collect();
    ledger.write(&world).await;
    let user = owner(&ledger);
    // As the release before wrote them.
    let unhashed = format!("UPDATE transactions SET hash = NULL WHERE user_id = '{}'", user.id);
    corrupt(&world, &format!("ALTER TABLE transactions DROP CONSTRAINT transactions_hashed; {unhashed}")).await;
    let response = client.get(&user, &format!("/v1/transactions/{}/receipt", ids[4])).await;
    assert_eq!((response.status.as_u16(), response.code()), (404, "RECEIPT_NOT_FOUND"));

    let folder = Folder::new();
    let old_head = get(&client, &user, "/v1/ledger/head").await;
    let old_pages = chain(&client, &user, 500).await;
    let files = [folder.write("old-head.json", &old_head), folder.write("old-pages.json", &old_pages[0])];
    let keys = folder.write("keys.json", &keys(&wallet).await);
    // The head of such a wallet is a seal, which says something about the last entry.
    assert_consistent(&["--keys", &keys, &files[0]]).await;
    let alone = verify(&[&files[1]]).await;
    assert_eq!((alone.code, &alone.json()["unchained"], &alone.json()["chained"]), (Some(1), &json!(5), &json!(0)));
    assert_eq!(verify_with_python(&[&files[1]]).await.code, Some(2), "nothing was verified");

    for _ in 0..3 {
        post(&client, &user, "credit", &json!({"amountMinor": 1}), None).await;
    }
    let pages = chain(&client, &user, 500).await;
    let nulls = |item: &Value| (item["previousHash"].is_null(), item["hash"].is_null());
    let items = entries(&pages);
    assert!(items[..5].iter().all(|item| nulls(item) == (true, true)), "{items:?}");
    assert_eq!(items[5]["previousHash"], old_head["hash"], "the seal");
    let page = folder.write("page.json", &pages[0]);
    let report = assert_consistent(&[&page, &files[0], &files[1]]).await;
    assert_eq!(["chained", "sealed", "unchained"].map(|kind| report[kind].as_i64()), [Some(3), Some(5), Some(0)]);
    let python = verify_with_python(&[&page]).await;
    assert_eq!(python.out, "8 entries (3 chained, 5 sealed, 0 unchained): all consistent\n");

    let change = format!("UPDATE transactions SET balance_after_minor = 6 WHERE user_id = '{}' AND seq = 5", user.id);
    corrupt(&world, &change).await;
    let page = folder.write("changed.json", &chain(&client, &user, 500).await[0]);
    // The server computes the seal of what it has now, with which the hash does not fit.
    assert_eq!(assert_faulty(&[&page]).await, ["6: the entry is not the one that was hashed"]);
    let faults = assert_faulty(&[&page, &files[0]]).await;
    assert!(
        faults.iter().any(|fault| fault.starts_with("5: another entry has this sequence number in ")),
        "{faults:?}"
    );
}

#[tokio::test]
async fn a_receipt_outlives_its_erased_texts() {
    let world = World::new().await;
    let wallet = signing(&world).await;
    let client = Client::new("", &wallet.url());
    let mut ledger = HandLedger::new();
    let id = ledger.append(&HandRow { description: Some("rent"), ..HandRow::new(Credit, 45, 45, 0) }).to_string();
    ledger.append(&HandRow::new(Debit, 45, 0, 0));
    ledger.append(&HandRow::new(Close, 0, 0, 0));
    ledger.write(&world).await;
    let user = owner(&ledger);
    let before = receipt(&client, &user, &id).await;
    // Not as the superuser: a closed wallet's texts may be erased.
    world.sql(Role::Wallet, &format!("DELETE FROM entry_texts WHERE user_id = '{}'", user.id)).await;
    let after = receipt(&client, &user, &id).await;
    assert_eq!((&before["texts"]["description"], &after["texts"]), (&json!("rent"), &Value::Null));
    for field in ["entry", "previousHash", "hash", "signature"] {
        assert_eq!(before[field], after[field], "{field}");
    }
    let folder = Folder::new();
    let keys = folder.write("keys.json", &keys(&wallet).await);
    let (before_file, after_file) = (folder.write("before.json", &before), folder.write("after.json", &after));
    assert_consistent(&["--keys", &keys, &before_file, &after_file]).await;
    let mut other_text = before.clone();
    other_text["texts"]["description"] = json!("bribe");
    let other_file = folder.write("other.json", &other_text);
    assert_eq!(assert_faulty(&[&other_file]).await, ["1: the texts are not those that were hashed"]);
}

#[tokio::test]
async fn an_entry_that_was_changed_in_the_database_is_not_signed() {
    let world = World::new().await;
    let users = world.start(Role::Users).await;
    let wallet = signing(&world).await;
    let client = Client::new(&users.url(), &wallet.url());
    let user = client.ready_user().await;
    let mut ids = Vec::new();
    for n in 1..=3 {
        let body = json!({"amountMinor": n, "description": format!("number {n}")});
        ids.push(post(&client, &user, "credit", &body, None).await);
    }
    let (first, kept) = (receipt(&client, &user, &ids[0]).await, receipt(&client, &user, &ids[1]).await);
    for (change, broken) in [
        ("UPDATE transactions SET amount_minor = 7 WHERE seq = 2", 2),
        ("UPDATE entry_texts SET description = 'x' WHERE seq = 3", 3),
    ] {
        corrupt(&world, change).await;
        let response = client.get(&user, &format!("/v1/transactions/{}/receipt", ids[broken - 1])).await;
        assert_eq!((response.status.as_u16(), response.code()), (500, "INTERNAL_ERROR"), "{change}");
    }
    assert_eq!(client.get(&user, "/v1/ledger/head").await.status, 500, "the last entry was changed");
    receipt(&client, &user, &ids[0]).await;
    // The chain shows the evidence.
    let folder = Folder::new();
    let page = folder.write("page.json", &chain(&client, &user, 500).await[0]);
    let expected = ["2: the entry is not the one that was hashed", "3: the texts are not those that were hashed"];
    assert_eq!(assert_faulty(&[&page]).await, expected);

    // Whoever owns the database can hash it all again, but not what its users have kept.
    let mut forged = HandLedger::of(ledger_user(&user));
    forged.append(&HandRow::new(Credit, 1, 1, 0));
    forged.append(&HandRow::new(Credit, 7, 8, 0));
    corrupt(&world, "DELETE FROM transactions; DELETE FROM entry_texts").await;
    forged.write(&world).await;
    let page = folder.write("forged.json", &chain(&client, &user, 500).await[0]);
    assert_consistent(&[&page]).await;
    let kept = folder.write("kept.json", &kept);
    let faults = assert_faulty(&[&page, &kept]).await;
    assert!(
        faults.iter().any(|fault| fault.starts_with("2: another entry has this sequence number in ")),
        "{faults:?}"
    );
    // Nor does the new history continue what they have kept.
    let first = folder.write("first.json", &first);
    let second = folder.write("second.json", &get(&client, &user, "/v1/ledger/chain?after=1").await);
    assert_consistent(&[&second]).await;
    assert_eq!(assert_faulty(&[&first, &second]).await, ["2: does not continue the hash of the entry before it"]);
}

fn ledger_user(user: &User) -> purse::kernel::UserId {
    user.id.parse().expect("an id")
}

/// Changes one character of each text and number in turn.
fn changes(receipt: &Value) -> Vec<Value> {
    fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                members.iter().for_each(|(name, value)| leaves(value, &format!("{path}/{name}"), found));
            }
            Value::Null => {}
            _ => found.push(path.to_owned()),
        }
    }
    let mut paths = Vec::new();
    leaves(receipt, "", &mut paths);
    let changed = paths.iter().map(|path| {
        let mut copy = receipt.clone();
        let leaf = copy.pointer_mut(path).expect("a leaf");
        *leaf = match &*leaf {
            Value::Number(number) => json!(number.as_i64().expect("an integer") + 1),
            Value::String(text) => {
                // Flips the last digit or letter of it.
                let at = text.rfind(|c: char| c.is_ascii_alphanumeric()).unwrap_or(0);
                let flipped = match text.as_bytes()[at] {
                    b'0' => "1",
                    b'Z' => "z",
                    _ => "0",
                };
                json!(format!("{}{flipped}{}", &text[..at], &text[at + 1..]))
            }
            other => panic!("{path}: {other}"),
        };
        copy
    });
    changed.collect()
}

#[tokio::test]
async fn a_receipt_in_which_one_character_was_changed_is_refused() {
    let world = World::new().await;
    let wallet = signing(&world).await;
    let client = Client::new("", &wallet.url());
    let mut ledger = HandLedger::new();
    let id = ledger.append(&HandRow {
        key: Some("k1"),
        description: Some("rent 1"),
        group_size: Some(2),
        posted_by: Some("payments"),
        transfer: Some(TransferLeg {
            transfer: EntryId::from_uuid(Uuid::now_v7()),
            counterparty: HandLedger::new().user,
        }),
        ..HandRow::new(Credit, 45, 45, 0)
    });
    ledger.write(&world).await;
    let receipt = receipt(&client, &owner(&ledger), &id.to_string()).await;
    let folder = Folder::new();
    let keys = folder.write("keys.json", &keys(&wallet).await);
    let genuine = folder.write("genuine.json", &receipt);
    assert_consistent(&["--keys", &keys, &genuine]).await;
    let changed = changes(&receipt);
    assert!(changed.len() >= 22, "{}", changed.len());
    for receipt in changed {
        let file = folder.write("changed.json", &receipt);
        assert!(!assert_faulty(&["--keys", &keys, &file]).await.is_empty(), "{receipt}");
    }
    for (place, name) in
        [("", "note"), ("/entry", "note"), ("/entry/transfer", "note"), ("/texts", "note"), ("/signature", "note")]
    {
        let mut more = receipt.clone();
        more.pointer_mut(place).expect("an object")[name] = json!("not covered");
        let file = folder.write("more.json", &more);
        assert!(!assert_faulty(&[&file]).await.is_empty(), "{place}");
    }
}

#[tokio::test]
async fn two_processes_extend_one_chain_without_forks() {
    let world = World::new().await;
    let users = world.start(Role::Users).await;
    let (first, second) = (signing(&world).await, signing(&world).await);
    let clients = [&first, &second].map(|wallet| Client::new(&users.url(), &wallet.url()));
    let user = clients[0].ready_user().await;
    let posts = (0..64).map(|connection| {
        let (client, user) = (&clients[connection % 2], &user);
        async move {
            for n in 0..4 {
                let text = ["\"a\" \\", "ü 字", ""][n % 3];
                let body = json!({"amountMinor": 1 + n, "description": (!text.is_empty()).then_some(text)});
                let key = format!("{connection}-{n}");
                loop {
                    let request = client.post_request(user, "credit", &body, (n != 1).then_some(key.as_str()));
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
    let pages = chain(&clients[1], &user, 100).await;
    let items = entries(&pages);
    assert_eq!(items.len(), 256);
    let previous: std::collections::BTreeSet<&str> =
        items.iter().map(|item| item["previousHash"].as_str().expect("a hash")).collect();
    assert_eq!(previous.len(), 256, "every hash is continued once");
    let folder = Folder::new();
    let keys = folder.write("keys.json", &keys(&first).await);
    let head = folder.write("head.json", &get(&clients[0], &user, "/v1/ledger/head").await);
    let files: Vec<String> =
        pages.iter().enumerate().map(|(n, page)| folder.write(&format!("{n}.json"), page)).collect();
    let arguments: Vec<&str> = ["--keys", &keys, &head].into_iter().chain(files.iter().map(String::as_str)).collect();
    assert_eq!(assert_consistent(&arguments).await["chained"], 256);
    // One digit of one hash of one page.
    let hash = items[150]["hash"].as_str().expect("a hash");
    let digit = if hash.ends_with('0') { "1" } else { "0" };
    let mut flipped = pages[1].clone();
    flipped["items"][50]["hash"] = json!(format!("{}{digit}", &hash[..63]));
    let file = folder.write("1.json", &flipped);
    assert_eq!(file, files[1]);
    let faults = assert_faulty(&arguments).await;
    assert!(faults.contains(&"151: the entry is not the one that was hashed".to_owned()), "{faults:?}");
}

#[tokio::test]
async fn metadata_is_verified_whatever_its_characters_and_the_order_of_its_keys() {
    let world = World::new().await;
    let wallet = signing(&world).await;
    let client = Client::new("", &wallet.url());
    let mut ledger = HandLedger::new();
    let all = r#"{"-":"","A":"\"quoted\" \\ back / slash","_":"{}","a":"ü 字 😀","a.b":" "}"#;
    let mut ids = Vec::new();
    for (n, row) in [
        HandRow { metadata: Some(all), ..HandRow::new(Credit, 1, 1, 0) },
        HandRow { description: Some("a"), reference: Some("bc"), ..HandRow::new(Credit, 1, 2, 0) },
        HandRow {
            description: Some("ab"),
            reference: Some("c"),
            metadata: Some(r#"{"k":"v"}"#),
            ..HandRow::new(Credit, 1, 3, 0)
        },
    ]
    .iter()
    .enumerate()
    {
        ids.push((n, ledger.append(row).to_string()));
    }
    ledger.write(&world).await;
    let (user, folder) = (owner(&ledger), Folder::new());
    let mut receipts = Vec::new();
    for (n, id) in ids {
        let receipt = receipt(&client, &user, &id).await;
        let file = folder.write(&format!("{n}.json"), &receipt);
        assert_consistent(&[&file]).await;
        receipts.push(receipt);
    }
    // The same object in another order.
    let text = receipts[0].to_string();
    let (first, rest) = (r#""-":"","#, r#""a.b":" ""#);
    assert!(text.contains(first) && text.contains(rest), "{text}");
    let reordered = text.replacen(first, "", 1).replacen(rest, &format!("{rest},{}", first.trim_end_matches(',')), 1);
    let file = folder.0.join("reordered.json");
    fs::write(&file, reordered).expect("written");
    assert_consistent(&[&file.display().to_string()]).await;
    // A text that moves from one field to the next.
    let mut moved = receipts[1].clone();
    (moved["texts"]["description"], moved["texts"]["reference"]) = (json!("ab"), json!("c"));
    let file = folder.write("moved.json", &moved);
    assert_eq!(assert_faulty(&[&file]).await, ["2: the texts are not those that were hashed"]);
    // A key that occurs twice, of which one value is hashed.
    let twice = receipts[2].to_string().replacen(r#""k":"v""#, r#""k":"x","k":"v""#, 1);
    let file = folder.0.join("twice.json");
    fs::write(&file, twice).expect("written");
    assert_faulty(&[&file.display().to_string()]).await;
}

#[tokio::test]
async fn a_wallet_with_all_that_the_api_can_write_is_verified_by_both_verifiers() {
    let world = World::new().await;
    let users = world.start(Role::Users).await;
    let wallet = signing(&world).await;
    let client = Client::new(&users.url(), &wallet.url());
    let (user, friend) = (client.ready_user().await, client.ready_user().await);
    let text = |random: &mut fastrand::Rng| {
        const PARTS: [&str; 12] = ["ü", "\"", "\\", "/", " ", "a", "Z", "\u{1f600}", "\u{fffd}", "'", "{", "\u{e9}"];
        (0..random.usize(0..9)).map(|_| PARTS[random.usize(0..PARTS.len())]).collect::<String>()
    };
    // Times, amounts and texts differ in each run; a failure prints the page.
    let mut random = fastrand::Rng::new();
    let mut last = String::new();
    for n in 0..40 {
        let mut body = json!({"amountMinor": random.i64(100..10_000)});
        if random.bool() {
            body["description"] = json!(text(&mut random));
        }
        if random.bool() {
            body["reference"] = json!(format!("r{}", text(&mut random)));
        }
        if random.bool() {
            let pairs = ["z", "a.b", "A", "_", "0-1"]
                .iter()
                .take(1 + n % 5)
                .map(|key| ((*key).to_owned(), json!(text(&mut random))));
            body["metadata"] = Value::Object(pairs.collect());
        }
        let key = random.bool().then(|| format!("key-{n}"));
        last = post(&client, &user, "credit", &body, key.as_deref()).await;
    }
    let transfer =
        json!({"toUserId": friend.id, "amountMinor": 50, "description": "lunch", "metadata": {"b": "\"", "a": "ü"}});
    for (path, body) in
        [("/v1/transfers".to_owned(), transfer), (format!("/v1/transactions/{last}/reverse"), json!({}))]
    {
        let request =
            client.request(reqwest::Method::POST, &format!("{}{path}", wallet.url())).bearer_auth(&user.token);
        let response = client.send(request.json(&body)).await;
        assert_eq!(response.status, 201, "{response:?}");
    }
    post(&client, &user, "debit", &json!({"amountMinor": 10, "description": "fee"}), Some("a-debit")).await;
    let send = async |path: &str, token: &str, body: Value, status: u16| {
        let request = client.request(reqwest::Method::POST, &format!("{}{path}", wallet.url())).bearer_auth(token);
        let response = client.send(request.json(&body)).await;
        assert_eq!(response.status, status, "{path}: {response:?}");
        response.body
    };
    for end in ["capture", "void"] {
        let placed = json!({"amountMinor": 30, "reference": "r-ü", "metadata": {"b": "", "a": "\\"}});
        let hold =
            format!("/v1/holds/{}", send("/v1/holds", &user.token, placed, 201).await["id"].as_str().expect("an id"));
        let part = json!({"amountMinor": 5, "final": false, "description": "a part"});
        send(&format!("{hold}/capture"), &user.token, part, 201).await;
        let (body, status) = if end == "void" { (json!({}), 200) } else { (json!({"amountMinor": 20}), 201) };
        send(&format!("{hold}/{end}"), &user.token, body, status).await;
    }
    for atomic in [true, false] {
        let items = json!([
            {"type": "credit", "amountMinor": 3, "description": "one"},
            {"type": "debit", "amountMinor": 2, "metadata": {"z": "é"}},
            {"type": "credit", "amountMinor": 1},
        ]);
        let body = json!({"atomic": atomic, "items": items});
        send("/v1/transactions/bulk", &user.token, body, if atomic { 201 } else { 200 }).await;
    }
    let by_service = format!("/v1/wallets/{}/transactions/credit", user.id);
    send(&by_service, &service_token("payments", "wallet:post"), json!({"amountMinor": 9}), 201).await;
    let folder = Folder::new();
    let keys = folder.write("keys.json", &keys(&wallet).await);
    let mut files = vec!["--keys".to_owned(), keys];
    let mut kinds = BTreeSet::new();
    for user in [&user, &friend] {
        let pages = chain(&client, user, 9).await;
        kinds.extend(entries(&pages).iter().map(|item| item["entry"]["type"].as_str().expect("a type").to_owned()));
        for (n, page) in pages.iter().enumerate() {
            files.push(folder.write(&format!("{}-{n}.json", user.id), page));
        }
        files.push(folder.write(&format!("{}-head.json", user.id), &get(&client, user, "/v1/ledger/head").await));
    }
    let report = assert_consistent(&files.iter().map(String::as_str).collect::<Vec<_>>()).await;
    // 40 credits, two legs, a reversal, a debit, two holds with two acts each, two bulk requests, and the service's credit.
    assert_eq!(report["chained"], 40 + 2 + 1 + 1 + 6 + 6 + 1);
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["credit", "debit", "hold", "void"]);
}

/// The steps of the runbook: a name, the key and the previous keys.
fn runbook() -> Vec<[String; 3]> {
    let page = text("docs/operations.md");
    let marked = page
        .split_once("<!-- rotate-signing-key:begin -->")
        .and_then(|(_, rest)| rest.split_once("<!-- rotate-signing-key:end -->"));
    let rows: Vec<Vec<&str>> = marked
        .expect("marks")
        .0
        .lines()
        .filter(|line| line.starts_with("| "))
        .map(|line| line.trim_start_matches('|').trim_end_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert_eq!(rows[0][1..], ["`LEDGER_SIGNING_KEY`", "`LEDGER_SIGNING_KEY_PREVIOUS`"]);
    let key = |name: &str| name.replace("old", OLD_KEY).replace("new", NEW_KEY);
    rows[1..].iter().map(|row| [row[0].to_owned(), key(row[1]), key(row[2])]).collect()
}

#[tokio::test]
async fn the_signing_key_is_rotated_as_the_handbook_says_without_an_unknown_key() {
    let steps = runbook();
    assert_eq!(steps.len(), 3, "before, and two steps");
    let world = World::new().await;
    let users = world.start(Role::Users).await;
    let start = |[_, key, previous]: [String; 3]| {
        let world = &world;
        async move {
            let settings = [("LEDGER_SIGNING_KEY", key.as_str()), ("LEDGER_SIGNING_KEY_PREVIOUS", previous.as_str())];
            let process = world.start_with(Role::Wallet, &settings).await;
            process.ready().await;
            process
        }
    };
    let folder = Folder::new();
    let mut processes = [start(steps[0].clone()).await, start(steps[0].clone()).await];
    let client = |process: &RoleProcess| Client::new(&users.url(), &process.url());
    let mut kids = std::collections::BTreeSet::new();
    // Receipts of all steps, each with its own wallet, so that none covers another.
    let mut receipts = Vec::new();
    for step in &steps {
        for restarted in 0..2 {
            processes[restarted] = start(step.clone()).await;
            for process in &processes {
                let client = client(process);
                let user = client.ready_user().await;
                let id = post(&client, &user, "credit", &json!({"amountMinor": 5}), None).await;
                let receipt = receipt(&client, &user, &id).await;
                kids.insert(receipt["signature"]["kid"].as_str().expect("a key").to_owned());
                receipts.push(folder.write(&format!("{id}.json"), &receipt));
            }
            for process in &processes {
                let keys = folder.write("keys.json", &keys(process).await);
                let arguments: Vec<&str> =
                    ["--keys", &keys].into_iter().chain(receipts.iter().map(String::as_str)).collect();
                let report = verify(&arguments).await;
                assert_eq!(report.code, Some(0), "{}: {report:?}", step[0]);
            }
        }
    }
    assert_eq!(kids.len(), 2, "both keys have signed");

    // A key that is not published any more.
    let only_new = start([String::new(), NEW_KEY.to_owned(), String::new()]).await;
    let keys = folder.write("keys.json", &keys(&only_new).await);
    let faults = assert_faulty(&["--keys", &keys, &receipts[0]]).await;
    let old = kids.iter().find(|kid| faults[0].ends_with(*kid)).expect("its key");
    assert_eq!(faults, [format!("1: is signed with the unknown key {old}"), "1: no signature covers it".to_owned()]);
}

#[tokio::test]
async fn the_receipt_in_the_api_reference_proves_its_entry() {
    let page = text("docs/api.md");
    let (_, section) = page.split_once("\n## Receipts\n").expect("a section");
    let (_, block) = section.split_once("```json\n").expect("a block");
    let receipt: Value = serde_json::from_str(block.split_once("```").expect("its end").0).expect("JSON");
    let folder = Folder::new();
    let file = folder.write("receipt.json", &receipt);
    assert_consistent(&[&file]).await;
}

#[tokio::test]
async fn files_that_are_no_receipts_are_reported_or_refused() {
    let folder = Folder::new();
    let empty = folder.write("empty.json", &json!({"version": 1, "items": [], "nextAfter": null}));
    let report = verify(&[&empty]).await;
    assert_eq!((report.code, &report.json()["entries"]), (Some(1), &json!(0)), "nothing was verified");
    assert_eq!(verify_with_python(&[&empty]).await.code, Some(2));
    for content in [json!([]), json!({}), json!({"entry": {}}), json!({"version": 2, "items": [], "nextAfter": null})] {
        let file = folder.write("other.json", &content);
        assert!(!assert_faulty(&[&file]).await.is_empty(), "{content}");
    }
    // What a file contains cannot control the terminal.
    let control = folder.write("control.json", &json!({"entry": {"\u{1b}[2J": 1}}));
    let table = purse(&["ledger", "verify-receipt", &control], &[].into()).await;
    assert!(table.code == Some(1) && !table.out.contains('\u{1b}'), "{table:?}");
    let missing = folder.0.join("missing.json").display().to_string();
    for arguments in [&[missing.as_str()][..], &["--keys", &empty, &empty], &["--keys", &missing, &empty], &[]] {
        assert_eq!(verify(arguments).await.code, Some(64), "{arguments:?}");
    }
}
