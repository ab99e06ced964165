//! Every hot statement uses its intended index, and reads as many pages of a long table as of a short one, even with
//! outdated planner statistics.
//!
//! The plans are those of the statements that the roles send; PostgreSQL's `auto_explain` logs them.

use std::collections::BTreeMap;

use purse::kernel::{Role, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Client, PASSWORD, User, World, seconds_from_now, token_of};

/// Entries of the wallet with a long history, and rows of the users tables.
const ROWS: usize = 20_000;
/// Pages that a statement may read, those of the catalog included, which a new session reads first; the ledger has about 500.
const PAGES_MAX: i64 = 90;

/// Each statement and the indexes that it must use.
const EXPECTED_INDEXES: [(&str, &[&str]); 16] = [
    ("wallet.ledger.lock_free", &["wallets_pkey"]),
    ("wallet.ledger.heads", &["transactions_pkey"]),
    ("wallet.ledger.used_keys", &["transactions_idempotency_key"]),
    ("wallet.ledger.insert", &[]),
    ("wallet.ledger.balance", &["transactions_pkey"]),
    ("wallet.ledger.balance_at", &["transactions_created_at_idx"]),
    ("wallet.ledger.history", &["transactions_pkey", "transactions_created_at_idx"]),
    ("wallet.ledger.entry", &["transactions_id_key"]),
    ("wallet.created_at", &["wallets_pkey"]),
    ("users.register.user", &[]),
    ("users.register.earlier", &["users_registration_key"]),
    ("users.credentials", &["users_email_key"]),
    ("users.find", &["users_pkey"]),
    ("users.outbox.claim", &["outbox_due_idx", "outbox_pkey"]),
    ("users.outbox.published", &["outbox_pkey"]),
    ("users.outbox.depth", &["outbox_due_idx", "outbox_pending_idx"]),
];

/// Creates a wallet with a long history, in a table that was last analyzed when it was short.
async fn grown_wallet(world: &World) -> User {
    let id = Uuid::now_v7().to_string();
    let grow = format!(
        "ALTER TABLE transactions SET (autovacuum_enabled = off);
         INSERT INTO wallets (user_id, id) SELECT gen_random_uuid(), gen_random_uuid() FROM generate_series(1, 999);
         INSERT INTO wallets (user_id, id) VALUES ('{id}', gen_random_uuid());
         INSERT INTO transactions (user_id, seq, id, type, amount_minor, balance_after_minor, idempotency_key, created_at)
         SELECT user_id, 1, gen_random_uuid(), 'credit', 1, 1, 'first', now() - interval '1 year' FROM wallets;
         ANALYZE wallets, transactions;
         INSERT INTO transactions (user_id, seq, id, type, amount_minor, balance_after_minor, idempotency_key, created_at)
         SELECT '{id}', n, gen_random_uuid(), 'credit', 1, n, 'k' || n, now() - interval '1 day' + n * interval '1 second'
         FROM generate_series(2, {ROWS}) AS n"
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

/// Makes the server log the plan of each statement in the two databases of this test.
pub async fn enable_auto_explain(world: &World) {
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
    if kind.contains("Scan") && plan["Relation Name"].is_string() {
        found.push((kind, plan["Index Name"].as_str()));
    }
    plan["Plans"].as_array().into_iter().flatten().for_each(|below| reads(below, found));
}

fn check(plans: &BTreeMap<String, Vec<Value>>) {
    for (name, indexes) in EXPECTED_INDEXES {
        let seen = plans.get(name).unwrap_or_else(|| panic!("{name} did not run; {:?}", plans.keys()));
        let mut used = Vec::new();
        for plan in seen {
            let pages = ["Shared Hit Blocks", "Shared Read Blocks"].map(|field| plan[field].as_i64().expect("pages"));
            assert!(pages.iter().sum::<i64>() <= PAGES_MAX, "{name}: {pages:?} pages\n{plan:#}");
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
}

/// Sends every kind of request to the wallet role, at both ends of a long history.
async fn send_all_wallet_requests(client: &Client, user: &User) {
    let post = client.post(user, "credit", 1, Some("new")).await;
    assert_eq!(post.status, 201, "{post:?}");
    let id = post.body["id"].as_str().expect("an id").to_owned();
    assert_eq!(client.post(user, "credit", 1, Some("k17")).await.status, 200, "a replay");
    let at = |hours: i64| Timestamp::from_second(seconds_from_now(-hours * 3600)).expect("a time").to_string();
    for path in [
        "/v1/balance".to_owned(),
        format!("/v1/balance?at={}", at(20)),
        "/v1/transactions".to_owned(),
        "/v1/transactions?type=credit&limit=50".to_owned(),
        format!("/v1/transactions?from={}&to={}", at(22), at(20)),
        format!("/v1/transactions/{id}"),
    ] {
        assert_eq!(client.get(user, &path).await.status, 200, "{path}");
    }
    let first = client.get(user, "/v1/transactions").await;
    let cursor = first.body["nextCursor"].as_str().expect("a cursor");
    assert_eq!(client.get(user, &format!("/v1/transactions?cursor={cursor}")).await.status, 200);
}

#[tokio::test]
async fn every_hot_statement_uses_its_index_after_its_table_has_grown() {
    let world = World::new().await;
    drop(world.both().await); // for the migrations
    let owner = grown_wallet(&world).await;
    grown_users(&world).await;
    enable_auto_explain(&world).await;
    let from = std::fs::metadata(&world.addresses.postgres_log).expect("the server's log").len();
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    assert_eq!(client.log_in(&user.email, PASSWORD).await.status, 200);
    assert_eq!(client.me(&user.token).await.status, 200);
    for status in [201, 200] {
        let body = json!({"firstName": "A", "lastName": "B", "email": "keyed@example.com", "password": PASSWORD});
        let keyed = client.request(Method::POST, &format!("{}/v1/auth/register", client.users));
        assert_eq!(client.send(keyed.header("idempotency-key", "k").json(&body)).await.status, status);
    }
    send_all_wallet_requests(&client, &owner).await;
    check(&plans_after(&world, usize::try_from(from).expect("a length")));
}
