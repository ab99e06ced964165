//! Every statement about holds uses its intended index, also if it was planned while the tables were empty.

use purse::kernel::Role;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::query_plans::{ROWS, check_statement, enable_auto_explain, history_of, plans_after, rows};
use crate::support::{Client, PATIENCE, User, World, eventually, token_of};

/// Each statement and the indexes that it must use.
const EXPECTED_INDEXES: [(&str, &[&str]); 10] = [
    ("wallet.ledger.heads", &["transactions_pkey", "open_holds_mine_idx"]),
    ("wallet.ledger.balance_beside_holds", &["transactions_pkey", "open_holds_mine_idx"]),
    (
        "wallet.ledger.named",
        &["transactions_id_key", "transactions_pkey", "transactions_origin_key", "entry_texts_pkey"],
    ),
    ("wallet.ledger.insert_open_holds", &[]),
    ("wallet.ledger.capture_open_hold", &["open_holds_pkey"]),
    ("wallet.ledger.close_open_holds", &["open_holds_pkey"]),
    ("wallet.holds.open", &["open_holds_pkey", "transactions_pkey", "transactions_origin_key", "entry_texts_pkey"]),
    ("wallet.holds.all", &["transactions_holds_idx", "transactions_origin_key", "entry_texts_pkey"]),
    ("wallet.holds.one", &["transactions_id_key", "transactions_origin_key", "entry_texts_pkey"]),
    ("wallet.holds.due", &["open_holds_due_idx"]),
];

async fn post(client: &Client, user: &User, path: &str, body: &Value) -> Value {
    let request = client.request(Method::POST, &format!("{}{path}", client.wallet)).bearer_auth(&user.token);
    let response = client.send(request.json(body)).await;
    assert!(response.status.is_success(), "{path}: {response:?}");
    response.body
}

/// Sends every kind of request about holds, and waits for a pass of the sweeper.
async fn send_all_requests(world: &World, client: &Client, user: &User) {
    let from = log_length(world);
    post(client, user, "/v1/transactions/credit", &json!({"amountMinor": 10})).await;
    for end in ["capture", "void"] {
        let hold = post(client, user, "/v1/holds", &json!({"amountMinor": 5, "description": "x"})).await;
        let id = hold["id"].as_str().expect("an id");
        let part = json!({"amountMinor": 1, "final": false});
        post(client, user, &format!("/v1/holds/{id}/capture"), &part).await;
        for path in ["/v1/holds", "/v1/holds?status=all", &format!("/v1/holds/{id}"), "/v1/balance"] {
            assert_eq!(client.get(user, path).await.status, 200, "{path}");
        }
        post(client, user, &format!("/v1/holds/{id}/{end}"), &json!({})).await;
    }
    eventually(PATIENCE, "a pass", || async {
        plans_after(world, from).contains_key("wallet.holds.due").then_some(())
    })
    .await;
}

fn log_length(world: &World) -> usize {
    let length = std::fs::metadata(&world.addresses.postgres_log).expect("the server's log").len();
    usize::try_from(length).expect("a length")
}

/// Open holds that are not due: of the user, who has as many closed ones too, and of others.
async fn grow(world: &World, user: &User) {
    let id = &user.id;
    let script = format!(
        "{};
         INSERT INTO transactions (user_id, seq, id, type, amount_minor, balance_after_minor, held_after_minor, expires_at,
                                   created_at, hash)
         SELECT '{id}', {ROWS} + n, gen_random_uuid(), 'hold', 1, 100000000, 1000000, now() + interval '1 day', now(), sha256('')
         FROM generate_series(1, {ROWS}) AS n;
         INSERT INTO open_holds (user_id, seq, id, left_minor, expires_at)
         SELECT user_id, seq, id, 1, expires_at FROM transactions WHERE user_id = '{id}' AND type = 'hold' AND seq % 2 = 0;
         INSERT INTO open_holds (user_id, seq, id, left_minor, expires_at)
         SELECT gen_random_uuid(), 1, gen_random_uuid(), 1, now() + n * interval '1 second' + interval '1 day'
         FROM generate_series(1, {ROWS}) AS n",
        rows(&history_of(id)),
    );
    world.sql(Role::Wallet, &script).await;
}

#[tokio::test]
async fn every_statement_about_holds_uses_its_index_whether_it_was_planned_before_or_after_the_tables_have_grown() {
    let world = World::new().await;
    drop(world.both().await); // for the migrations
    // Now, because each makes sessions plan anew.
    for table in ["transactions", "entry_texts", "open_holds", "wallets"] {
        world.sql(Role::Wallet, &format!("ALTER TABLE {table} SET (autovacuum_enabled = off)")).await;
    }
    let _turn = enable_auto_explain(&world).await;
    // One session for the requests that read, and one for the posts, which are sent one after the other.
    let wallet = world.start_with(Role::Wallet, &[("DB_POOL_MAX", "1")]).await;
    let client = Client::new("", &wallet.url());
    let id = Uuid::now_v7().to_string();
    let user = User { token: token_of(&id), email: String::new(), id };
    let wallet_row = format!("INSERT INTO wallets (user_id, id) VALUES ('{}', gen_random_uuid())", user.id);
    world.sql(Role::Wallet, &wallet_row).await;
    let before = log_length(&world);
    send_all_requests(&world, &client, &user).await;
    let planned = plans_after(&world, before);
    // The history begins with the second entry, and this one has several.
    let other = Uuid::now_v7().to_string();
    let other = User { token: token_of(&other), email: String::new(), id: other };
    world
        .sql(Role::Wallet, &format!("INSERT INTO wallets (user_id, id) VALUES ('{}', gen_random_uuid())", other.id))
        .await;
    grow(&world, &other).await;
    let from = log_length(&world);
    send_all_requests(&world, &client, &other).await;
    let plans = plans_after(&world, from);
    for (name, indexes) in EXPECTED_INDEXES {
        assert!(planned.contains_key(name), "{name} was not planned on the empty database");
        check_statement(&plans, name, indexes);
    }
    drop(wallet);
    world.sql(Role::Wallet, "ANALYZE").await;
    let from = log_length(&world);
    let wallet = world.start_with(Role::Wallet, &[("DB_POOL_MAX", "1")]).await;
    send_all_requests(&world, &Client::new("", &wallet.url()), &other).await;
    let plans = plans_after(&world, from);
    for (name, indexes) in EXPECTED_INDEXES {
        check_statement(&plans, name, indexes);
    }
    let counted = eventually(PATIENCE, "the open holds are counted", || async {
        plans_after(&world, from).remove("wallet.holds.count")
    })
    .await;
    assert!(counted.iter().all(|plan| plan.to_string().contains("open_holds_due_idx")), "{counted:#?}");
}
