//! What is hashed before it is written is what the database returns: the hashes of many random entries are computed again by
//! PostgreSQL from the stored rows.

use futures_util::future::join_all;
use purse::kernel::Role;
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::support::{User, World, purse};

const WALLETS: usize = 10;
const REQUESTS: usize = 10;
/// Per request.
const ITEMS: usize = 100;

/// Texts that encodings and escapes are likely to change.
const CHARACTERS: [char; 20] = [
    'a',
    'Z',
    '0',
    ' ',
    'ü',
    'e',
    '\u{301}',
    'ß',
    '中',
    '😀',
    '"',
    '\\',
    '\'',
    '/',
    '<',
    '&',
    '%',
    '\u{200d}',
    '\u{fffd}',
    '\u{10ffff}',
];

fn text(random: &mut fastrand::Rng, length_max: usize) -> String {
    (0..random.usize(1..=length_max)).map(|_| *random.choice(CHARACTERS.iter()).expect("a character")).collect()
}

fn item(random: &mut fastrand::Rng) -> Value {
    let mut item = json!({"type": "credit", "amountMinor": random.i64(1..=1_000_000_000)});
    if random.u8(..) < 64 {
        item["type"] = json!("debit");
        // So small that the credits before it nearly always suffice; else the whole group would be refused.
        item["amountMinor"] = json!(1);
    }
    if random.bool() {
        item["description"] = json!(text(random, 40));
    }
    if random.bool() {
        item["reference"] = json!(text(random, 20));
    }
    if random.bool() {
        let keys = ["b", "a", "B", "a.b", "a-b", "_", "10", "9"];
        let pairs =
            (0..random.usize(1..=4)).map(|_| (keys[random.usize(..keys.len())].to_owned(), text(random, 20).into()));
        item["metadata"] = Value::Object(pairs.collect::<Map<_, _>>());
    }
    item
}

#[tokio::test]
async fn the_hashes_of_10_000_random_entries_follow_from_the_rows_that_the_database_returns() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let seed = fastrand::u64(..);
    let users: Vec<User> = join_all((0..WALLETS).map(|_| client.ready_user())).await;
    let post = async |number: usize, user: &User| {
        let mut random = fastrand::Rng::with_seed(seed.wrapping_add(u64::try_from(number).expect("small")));
        let url = format!("{}/v1/transactions/bulk", client.wallet);
        for request in 0..REQUESTS {
            let mut items: Vec<Value> = (0..ITEMS).map(|_| item(&mut random)).collect();
            items[0] = json!({"type": "credit", "amountMinor": 1_000});
            let body = json!({"items": items});
            let bulk = client.request(Method::POST, &url).bearer_auth(&user.token).json(&body);
            let key = format!("{number}-{request}");
            let response = client.send(bulk.header("idempotency-key", key)).await;
            assert_eq!(response.status, 201, "seed {seed}: {response:?}");
        }
    };
    join_all(users.iter().enumerate().map(|(number, user)| post(number, user))).await;
    let database = [("WALLET_DATABASE_URL".to_owned(), world.databases.wallet.runtime_url.clone())].into();
    let report = purse(&["ledger", "verify", "--json"], &database).await;
    assert_eq!(report.code, Some(0), "seed {seed}: {report:?}");
    assert_eq!(report.json()["chained"], WALLETS * REQUESTS * ITEMS);
    let kinds = "SELECT count(*) FILTER (WHERE type = 'debit') > 1000 AND count(texts_digest) > 5000
                 AND count(group_size) = 100 AND count(idempotency_key) = 100 FROM transactions";
    assert_eq!(world.sql(Role::Wallet, kinds).await, "t", "seed {seed}: they differ enough");
}
