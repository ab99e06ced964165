//! Every hot statement uses its intended index, and reads as many pages of a long table as of a short one, even with
//! outdated planner statistics.
//!
//! The plans are those of the statements that the roles send; PostgreSQL's `auto_explain` logs them.

use std::collections::BTreeMap;

use purse::kernel::{Role, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    Client, PASSWORD, PATIENCE, Response, User, WalletLock, World, eventually, seconds_from_now, service_token,
    token_of,
};
use crate::transfers::{owners, transfer_request};

/// Entries of the wallet with a long history, and rows of the users tables.
pub const ROWS: usize = 20_000;
/// Pages that a statement may read besides those of the rows that it returns, those of the catalog included, which a new session
/// reads first; the ledger has about 500.
const PAGES_MAX: i64 = 90;
/// Pages that the texts of one entry cost: two of the index, one of the table.
const PAGES_PER_ROW: i64 = 3;

/// The same for a statement that looks at 5,000 texts, twice.
const PAGES_OF_SCAN_MAX: i64 = 400;

/// Each statement and the indexes that it must use.
const EXPECTED_INDEXES: &[(&str, &[&str])] = &[
    ("wallet.ledger.lock_free", &["wallets_pkey"]),
    ("wallet.ledger.lock_one", &["wallets_pkey"]),
    ("wallet.ledger.heads", &["transactions_pkey", "open_holds_mine_idx"]),
    ("wallet.ledger.used_keys", &["transactions_idempotency_key"]),
    ("wallet.ledger.service_keys", &["transactions_service_key"]),
    ("wallet.ledger.replayed", &["transactions_pkey", "transactions_origin_key", "entry_texts_pkey"]),
    (
        "wallet.ledger.named",
        &["transactions_id_key", "transactions_pkey", "transactions_origin_key", "entry_texts_pkey"],
    ),
    (
        "wallet.ledger.sent",
        &["transactions_transfer_key", "transactions_pkey", "transactions_origin_key", "entry_texts_pkey"],
    ),
    ("wallet.ledger.insert", &[]),
    ("wallet.ledger.insert_texts", &[]),
    ("wallet.ledger.balance", &["transactions_pkey"]),
    ("wallet.ledger.balance_at", &["transactions_created_at_idx"]),
    ("wallet.ledger.history", &["transactions_pkey", "transactions_created_at_idx", "entry_texts_pkey"]),
    (
        "wallet.ledger.entry",
        &["transactions_id_key", "transactions_pkey", "transactions_origin_key", "entry_texts_pkey"],
    ),
    (
        "wallet.ledger.transfer",
        &["transactions_transfer_key", "transactions_pkey", "transactions_origin_key", "entry_texts_pkey"],
    ),
    (
        "wallet.ledger.history_by_reference",
        &["entry_texts_reference_idx", "entry_texts_pkey", "transactions_pkey", "transactions_created_at_idx"],
    ),
    ("wallet.ledger.history_by_metadata", &["entry_texts_pkey", "transactions_pkey", "transactions_created_at_idx"]),
    ("wallet.ledger.statement.lock", &["wallets_pkey"]),
    ("wallet.ledger.statement", &["transactions_created_at_idx"]),
    ("wallet.ledger.entries", &["transactions_pkey", "entry_texts_pkey"]),
    ("wallet.ledger.receipt", &["transactions_pkey", "transactions_id_key", "entry_texts_pkey"]),
    ("wallet.ledger.head", &["transactions_pkey", "entry_texts_pkey"]),
    ("wallet.ledger.chain", &["transactions_pkey", "entry_texts_pkey"]),
    ("wallet.created_at", &["wallets_pkey"]),
    ("users.register.user", &[]),
    ("users.register.earlier", &["users_registration_key"]),
    ("users.credentials", &["users_email_key"]),
    ("users.find", &["users_pkey"]),
    ("users.outbox.claim", &["outbox_due_idx", "outbox_pkey"]),
    ("users.outbox.published", &["outbox_pkey"]),
    ("users.outbox.depth", &["outbox_due_idx", "outbox_pending_idx"]),
];

/// Entries with texts: of the user, sequence number, key and time that `source` selects as `user_id, n, key, at`.
pub fn rows(source: &str) -> String {
    format!(
        "INSERT INTO transactions (user_id, seq, id, type, amount_minor, balance_after_minor, held_after_minor, idempotency_key,
                                   request_digest, texts_digest, created_at, hash)
         SELECT user_id, n, gen_random_uuid(), 'credit', 1, n, 0, key, substr(sha256(''), 1, 16), sha256(''), at, sha256('')
         FROM ({source}) AS source;
         INSERT INTO entry_texts (user_id, seq, salt, description, reference)
         SELECT user_id, n, uuid_send(gen_random_uuid()), 'entry ' || n, 'r' || n FROM ({source}) AS source"
    )
}

/// The source of a long history, without its first entry.
pub fn history_of(id: &str) -> String {
    format!(
        "SELECT '{id}'::uuid AS user_id, n, 'k' || n AS key, now() - interval '1 day' + n * interval '1 second' AS at
         FROM generate_series(2, {ROWS}) AS n"
    )
}

/// Creates a wallet with a long history, in a table that was last analyzed when it was short.
async fn grown_wallet(world: &World) -> User {
    let id = Uuid::now_v7().to_string();
    let grow = format!(
        "ALTER TABLE transactions SET (autovacuum_enabled = off);
         ALTER TABLE entry_texts SET (autovacuum_enabled = off);
         INSERT INTO wallets (user_id, id) SELECT gen_random_uuid(), gen_random_uuid() FROM generate_series(1, 999);
         INSERT INTO wallets (user_id, id) VALUES ('{id}', gen_random_uuid());
         {};
         ANALYZE wallets, transactions, entry_texts;
         {}",
        rows("SELECT user_id, 1 AS n, 'first' AS key, now() - interval '1 year' AS at FROM wallets"),
        rows(&history_of(&id)),
    );
    world.sql(Role::Wallet, &grow).await;
    User { token: token_of(&id), email: String::new(), id }
}

/// Creates many users and published events, in tables that were last analyzed with few rows and all events pending.
async fn grown_users(world: &World) {
    let users = |from: usize, to: usize| {
        format!(
            "INSERT INTO users (id, first_name, last_name, email, password_hash, created_at)
             SELECT gen_random_uuid(), 'A', 'B', 'grown-' || n || '@example.com', '$argon2id$v=19$m=8,t=1,p=1$x$y', now()
             FROM generate_series({from}, {to}) AS n"
        )
    };
    let grow = format!(
        "ALTER TABLE users SET (autovacuum_enabled = off);
         ALTER TABLE outbox SET (autovacuum_enabled = off);
         {};
         INSERT INTO outbox (id, type, payload_json) SELECT gen_random_uuid(), 'UserRegistered', '{{}}' FROM users;
         ANALYZE users, outbox;
         UPDATE outbox SET status = 'published', published_at = now();
         VACUUM outbox;
         {};
         INSERT INTO outbox (id, type, payload_json, status, published_at)
         SELECT gen_random_uuid(), 'UserRegistered', '{{}}', 'published', now() FROM generate_series(1, {ROWS})",
        users(1, 1_000),
        users(1_001, ROWS)
    );
    // VACUUM cannot run in a transaction, so each statement is sent separately.
    for statement in grow.split(";\n") {
        world.sql(Role::Users, statement).await;
    }
}

/// The tests that read the server's log, which has no names of databases. One of them runs at a time.
static READING_THE_LOG: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Makes the server log the plan of each statement in the two databases of this test, which alone does so until it drops
/// what this returns.
pub async fn enable_auto_explain(world: &World) -> tokio::sync::MutexGuard<'static, ()> {
    let turn = READING_THE_LOG.lock().await;
    for role in Role::ALL {
        let database = match role {
            Role::Users => &world.databases.users.database,
            Role::Wallet => &world.databases.wallet.database,
        };
        for setting in [
            "session_preload_libraries = 'auto_explain'",
            "auto_explain.log_min_duration = 0",
            "auto_explain.log_format = 'json'",
            "auto_explain.log_analyze = on",
            "auto_explain.log_buffers = on",
        ] {
            world.sql(role, &format!("ALTER DATABASE {database} SET {setting}")).await;
        }
    }
    turn
}

/// The plans in the server's log after its first `from` bytes, by statement name.
pub fn plans_after(world: &World, from: usize) -> BTreeMap<String, Vec<Value>> {
    let log = std::fs::read(&world.addresses.postgres_log).expect("the server's log");
    let log = String::from_utf8_lossy(&log[from..]).into_owned();
    let mut plans = BTreeMap::<String, Vec<Value>>::new();
    for entry in log.split("  plan:\n").skip(1) {
        // The lines of an entry are indented by a tab.
        let logged: String = entry.lines().map_while(|line| line.strip_prefix('\t')).collect();
        let logged: Value = serde_json::from_str(&logged).unwrap_or_else(|e| panic!("{e}: {logged}"));
        let query = logged["Query Text"].as_str().expect("a query");
        if let Some(name) = query.strip_prefix("-- ").and_then(|rest| rest.split_whitespace().next()) {
            plans.entry(name.to_owned()).or_default().push(logged["Plan"].clone());
        }
    }
    plans
}

/// The scans in a plan, each with its index.
fn reads<'a>(plan: &'a Value, found: &mut Vec<(&'a str, Option<&'a str>)>) {
    let kind = plan["Node Type"].as_str().expect("a node");
    // A scan by row address reads the rows that another scan has found.
    if kind.contains("Scan") && kind != "Tid Scan" && plan["Relation Name"].is_string() {
        found.push((kind, plan["Index Name"].as_str()));
    }
    plan["Plans"].as_array().into_iter().flatten().for_each(|below| reads(below, found));
}

pub fn check_statement(plans: &BTreeMap<String, Vec<Value>>, name: &str, indexes: &[&str]) {
    let seen = plans.get(name).unwrap_or_else(|| panic!("{name} did not run; {:?}", plans.keys()));
    let mut used = Vec::new();
    for plan in seen {
        let pages = ["Shared Hit Blocks", "Shared Read Blocks"].map(|field| plan[field].as_i64().expect("pages"));
        // Newer servers write `21.00`.
        let rows: i64 = format!("{:.0}", plan["Actual Rows"].as_f64().expect("rows")).parse().expect("a number");
        let pages_max = if name.ends_with("_by_metadata") { PAGES_OF_SCAN_MAX } else { PAGES_MAX };
        let allowed = pages_max + PAGES_PER_ROW * rows;
        assert!(pages.iter().sum::<i64>() <= allowed, "{name}: {pages:?} pages\n{plan:#}");
        let mut found = Vec::new();
        reads(plan, &mut found);
        for (kind, index) in found {
            let by_index = index.is_some_and(|index| indexes.contains(&index));
            assert!(by_index, "{name}: {kind} by {index:?}\n{plan:#}");
            used.extend(index);
        }
    }
    for index in indexes {
        assert!(used.contains(index), "{name}: {index} is never used");
    }
}

/// Requests that read, without times.
const READS: [&str; 6] = [
    "/v1/balance",
    "/v1/transactions",
    "/v1/transactions?type=credit&limit=50",
    "/v1/ledger/head",
    "/v1/ledger/chain?limit=500",
    "/v1/ledger/chain?after=15000",
];

/// Sends every kind of request to the wallet role, at both ends of a long history.
async fn send_all_wallet_requests(client: &Client, user: &User) {
    let body = serde_json::json!({"amountMinor": 1, "description": "new"});
    let post = client.send(client.post_request(user, "credit", &body, Some("newer"))).await;
    assert_eq!(post.status, 201, "{post:?}");
    let id = post.body["id"].as_str().expect("an id").to_owned();
    assert_eq!(client.post(user, "credit", 1, Some("k17")).await.status, 422, "a used key");
    credit_by_a_service(client, user).await;
    let items = json!({"items": vec![json!({"type": "credit", "amountMinor": 2, "description": "new"}); 4]});
    for status in [201, 200] {
        let bulk = client.send(client.post_request(user, "bulk", &items, Some("bulk"))).await;
        assert_eq!(bulk.status, status, "{bulk:?}");
    }
    assert_eq!(reverse(client, user, &id, Some("undo")).await.status, 201);
    assert_eq!(reverse(client, user, &id, Some("undo")).await.status, 200);
    let at = |hours: i64| Timestamp::from_second(seconds_from_now(-hours * 3600)).expect("a time").to_string();
    let timed = [format!("/v1/balance?at={}", at(20)), format!("/v1/transactions?from={}&to={}", at(22), at(20))];
    let one = [format!("/v1/transactions/{id}"), format!("/v1/transactions/{id}/receipt")];
    for path in READS.into_iter().chain(timed.iter().chain(&one).map(String::as_str)) {
        assert_eq!(client.get(user, path).await.status, 200, "{path}");
    }
    let statement = format!("/v1/statements?from={}&to={}", at(22), at(20));
    assert_eq!(client.get(user, &statement).await.status, 200);
    // The history has one entry with each reference, and metadata that match nothing in the entries that are looked at.
    for filter in ["reference=r17", "metadata.a=1"] {
        let range = format!("from={}&to={}", at(25), at(20));
        for path in [format!("/v1/transactions?{filter}"), format!("/v1/transactions?{filter}&{range}")] {
            assert_eq!(client.get(user, &path).await.status, 200, "{path}");
        }
    }
    let first = client.get(user, "/v1/transactions").await;
    let cursor = first.body["nextCursor"].as_str().expect("a cursor");
    assert_eq!(client.get(user, &format!("/v1/transactions?cursor={cursor}")).await.status, 200);
}

/// Credits the wallet as a service does, and repeats the request.
async fn credit_by_a_service(client: &Client, user: &User) {
    let url = format!("{}/v1/wallets/{}/transactions/credit", client.wallet, user.id);
    let token = service_token("shop", "wallet:post");
    let key = Uuid::now_v7().to_string();
    for status in [201, 200] {
        let request = client.request(Method::POST, &url).bearer_auth(&token).header("Idempotency-Key", &key);
        let credit = client.send(request.json(&json!({"amountMinor": 1}))).await;
        assert_eq!(credit.status, status, "{credit:?}");
    }
}

/// Reverses a credit, as a whole.
async fn reverse(client: &Client, user: &User, id: &str, key: Option<&str>) -> Response {
    let body = json!({"description": "undone"});
    client.send(client.post_request(user, &format!("{id}/reverse"), &body, key)).await
}

/// Transfers from one user to the other and back again, also while another transaction has locked the recipient's wallet.
async fn send_transfers(world: &World, client: &Client, from: &User, to: &User) {
    let body = json!({"toUserId": to.id, "amountMinor": 1, "description": "new"});
    let first = client.send(transfer_request(client, from, &body, None)).await;
    assert_eq!(first.status, 201, "{first:?}");
    let path = format!("/v1/transfers/{}", first.body["id"].as_str().expect("an id"));
    assert_eq!(client.get(from, &path).await.status, 200);
    let received = client.get(to, &path).await;
    let back = reverse(client, to, received.body["id"].as_str().expect("an id"), None).await;
    assert_eq!(back.status, 201, "{back:?}");
    let holder = WalletLock::acquire(world, to).await;
    let waiting = tokio::spawn({
        let (client, request) = (client.clone(), transfer_request(client, from, &body, None));
        async move { client.send(request).await }
    });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually(PATIENCE, "a lock is waited for", || async {
        (world.sql(Role::Wallet, waits).await == "1").then_some(())
    })
    .await;
    holder.release().await;
    assert_eq!(waiting.await.expect("sent").status, 201);
}

/// The settings of a wallet role that waits for a lock as long as a busy machine needs.
const PATIENT: [(&str, &str); 2] = [("DB_LOCK_TIMEOUT_MS", "50000"), ("DB_STATEMENT_TIMEOUT_MS", "60000")];

#[tokio::test]
async fn every_hot_statement_uses_its_index_after_its_table_has_grown() {
    let world = World::new().await;
    drop(world.both().await); // for the migrations
    let owner = grown_wallet(&world).await;
    grown_users(&world).await;
    let _turn = enable_auto_explain(&world).await;
    let from = std::fs::metadata(&world.addresses.postgres_log).expect("the server's log").len();
    let (users, wallet) = tokio::join!(world.start(Role::Users), world.start_with(Role::Wallet, &PATIENT));
    let client = Client::new(&users.url(), &wallet.url());
    let user = client.ready_user().await;
    assert_eq!(client.log_in(&user.email, PASSWORD).await.status, 200);
    assert_eq!(client.me(&user.token).await.status, 200);
    for status in [201, 200] {
        let body = json!({"firstName": "A", "lastName": "B", "email": "keyed@example.com", "password": PASSWORD});
        let keyed = client.request(Method::POST, &format!("{}/v1/auth/register", client.users));
        assert_eq!(client.send(keyed.header("idempotency-key", "k").json(&body)).await.status, status);
    }
    send_all_wallet_requests(&client, &owner).await;
    send_transfers(&world, &client, &owner, &user).await;
    send_transfers(&world, &client, &user, &owner).await;
    let plans = plans_after(&world, usize::try_from(from).expect("a length"));
    for (name, indexes) in EXPECTED_INDEXES {
        check_statement(&plans, name, indexes);
    }
}

/// A plan is kept for the life of a session, so one that was made while the tables were empty has to be right for a long
/// history too: until the first ANALYZE, a minute later, a wallet may get a million entries.
#[tokio::test]
async fn every_hot_statement_that_was_planned_on_an_empty_database_uses_its_index_after_the_table_has_grown() {
    let world = World::new().await;
    drop(world.both().await); // for the migrations
    // Now, because each makes sessions plan anew.
    for table in ["transactions", "entry_texts", "wallets"] {
        world.sql(Role::Wallet, &format!("ALTER TABLE {table} SET (autovacuum_enabled = off)")).await;
    }
    let _turn = enable_auto_explain(&world).await;
    // One session for the requests that read, and one for the posts, which are sent one after the other.
    let one_session = [PATIENT.as_slice(), &[("DB_POOL_MAX", "1")]].concat();
    let wallet = world.start_with(Role::Wallet, &one_session).await;
    let client = Client::new("", &wallet.url());
    let [user, sender, recipient] = <[User; 3]>::try_from(owners(&world, &client, 3, 0).await).expect("three");
    let before = std::fs::metadata(&world.addresses.postgres_log).expect("the server's log").len();
    let body = serde_json::json!({"amountMinor": 1, "description": "first"});
    for status in [201, 200] {
        assert_eq!(client.send(client.post_request(&user, "credit", &body, Some("new"))).await.status, status);
    }
    let timed =
        ["/v1/balance?at=2026-01-31T12:00:00Z", "/v1/transactions?from=2026-01-31T12:00:00Z&to=2026-02-28T12:00:00Z"];
    let statement = format!(
        "/v1/statements?from={}&to={}",
        Timestamp::from_second(seconds_from_now(-3600)).expect("a time"),
        Timestamp::from_second(seconds_from_now(3600)).expect("a time")
    );
    let filtered = ["/v1/transactions?reference=r17", "/v1/transactions?metadata.a=1"];
    for path in READS.into_iter().chain(timed).chain(filtered).chain([statement.as_str()]) {
        assert_eq!(client.get(&user, path).await.status, 200, "{path}");
    }
    let unknown = format!("/v1/transactions/{}", Uuid::now_v7());
    assert_eq!(client.post(&sender, "credit", 9, None).await.status, 201);
    credit_by_a_service(&client, &sender).await;
    send_transfers(&world, &client, &sender, &recipient).await;
    for path in [format!("{unknown}/receipt"), unknown] {
        assert_eq!(client.get(&user, &path).await.status, 404, "{path}");
    }
    let planned = plans_after(&world, usize::try_from(before).expect("a length"));

    world.sql(Role::Wallet, &rows(&history_of(&user.id))).await;
    let from = std::fs::metadata(&world.addresses.postgres_log).expect("the server's log").len();
    send_all_wallet_requests(&client, &user).await;
    send_transfers(&world, &client, &user, &recipient).await;
    send_transfers(&world, &client, &recipient, &user).await;
    let plans = plans_after(&world, usize::try_from(from).expect("a length"));
    for (name, indexes) in EXPECTED_INDEXES.iter().filter(|(name, _)| name.starts_with("wallet.ledger.")) {
        assert!(planned.contains_key(*name), "{name} was not planned on the empty database");
        check_statement(&plans, name, indexes);
    }
}
