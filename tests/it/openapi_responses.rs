//! Responses of both roles, successes and errors, checked against their OpenAPI documents: status, headers and body.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::join_all;
use purse::kernel::Role;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::support::{
    Client, Document, PASSWORD, Raw, RoleProcess, User, World, service_token, token_of, unknown_user_id,
};

/// A client of one role that checks every response.
struct CheckedClient {
    client: Client,
    url: String,
    document: Arc<Document>,
}

impl CheckedClient {
    async fn of(client: &Client, process: &RoleProcess) -> Self {
        let document = Arc::new(Document::of(client, &process.url()).await);
        Self { client: client.clone(), url: process.url(), document }
    }

    /// The same document for another process of the role.
    fn over(&self, process: &RoleProcess) -> Self {
        Self { client: self.client.clone(), url: process.url(), document: Arc::clone(&self.document) }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, &format!("{}{path}", self.url))
    }

    async fn send(&self, status: u16, request: RequestBuilder) -> Value {
        let response = self.document.send_and_check(&self.client, request).await;
        assert_eq!(response.status, status, "{response:?}");
        response.body
    }

    async fn get(&self, status: u16, path: &str, token: &str) -> Value {
        self.send(status, self.request(Method::GET, path).bearer_auth(token)).await
    }

    async fn post(&self, status: u16, path: &str, token: &str, key: &str, body: Value) -> Value {
        let request = self.request(Method::POST, path).bearer_auth(token).header("idempotency-key", key);
        self.send(status, request.json(&body)).await
    }

    /// The errors that any route with a body can return.
    async fn send_invalid_bodies(&self, path: &str, token: &str) {
        let post = || self.request(Method::POST, path).bearer_auth(token);
        self.send(415, post().body("x")).await;
        self.send(413, post().header("content-type", "application/json").body("x".repeat(20_000))).await;
        self.send(400, post().header("content-type", "application/json").body("[")).await;
        self.send(400, post().json(&json!({"unknown": 1}))).await;
        self.send(404, self.request(Method::GET, "/nothing")).await;
        self.send(405, self.request(Method::DELETE, path)).await;
        self.send(431, post().header("x-pad", "p".repeat(9_000))).await;
        let mut raw = Raw::connect(&self.url).await;
        let head = "host: x\r\ncontent-type: application/json\r\ncontent-length: 9";
        raw.send(format!("POST {path} HTTP/1.1\r\n{head}\r\nauthorization: Bearer {token}\r\n\r\n{{")).await;
        let slow = raw.response().await.expect("a response");
        assert_eq!(slow.status, 408, "{slow:?}");
        self.document.check("POST", path, &slow);
    }

    /// Every documented code was returned, except those that this test cannot cause.
    fn assert_all_codes_seen_except(&self, exceptions: &[&str]) {
        let exceptions: BTreeSet<String> = exceptions.iter().map(|code| (*code).to_owned()).collect();
        let missing: BTreeSet<_> = self.document.codes().difference(&self.document.checked_codes()).cloned().collect();
        assert_eq!(missing, exceptions, "documented codes that no response had");
    }
}

fn registration(email: &str) -> Value {
    json!({"firstName": "Ada", "lastName": "Lovelace", "email": email, "password": PASSWORD})
}

#[tokio::test]
async fn every_response_of_the_users_role_is_documented() {
    let world = World::new().await;
    let users = world.start(Role::Users).await;
    let client = Client::new(&users.url(), &users.url());
    let role = CheckedClient::of(&client, &users).await;
    let (register, login, me) = ("/v1/auth/register", "/v1/auth/login", "/v1/users/me");
    let email = Client::fresh_email();
    let registered = role.send(201, role.request(Method::POST, register).json(&registration(&email))).await;
    let token = registered["accessToken"].as_str().expect("token");
    role.send(409, role.request(Method::POST, register).json(&registration(&email))).await;
    let keyed = |first_name: &str| {
        let mut body = registration("keyed@example.com");
        body["firstName"] = json!(first_name);
        role.request(Method::POST, register).header("idempotency-key", "k").json(&body)
    };
    role.send(201, keyed("Ada")).await;
    role.send(200, keyed("Ada")).await;
    role.send(422, keyed("Grace")).await;
    role.send(200, role.request(Method::POST, login).json(&json!({"email": email, "password": PASSWORD}))).await;
    role.send(401, role.request(Method::POST, login).json(&json!({"email": email, "password": "wrong"}))).await;
    role.get(200, me, token).await;
    role.get(401, me, "nonsense").await;
    role.get(400, &format!("{me}?unknown=1"), token).await;
    role.get(404, me, &token_of(&unknown_user_id())).await;
    tokio::join!(role.send_invalid_bodies(register, token), role.send_invalid_bodies(login, token));

    let limits = [("RATE_LIMIT_ENABLED", "true"), ("RL_LOGIN_MAX", "1"), ("RL_REGISTER_MAX", "1")];
    let limited = world.start_with(Role::Users, &limits).await;
    for path in [register, login] {
        let limited = role.over(&limited);
        limited.send(415, limited.request(Method::POST, path)).await;
        let refused = limited.document.send_and_check(&client, limited.request(Method::POST, path)).await;
        assert_eq!((refused.status.as_u16(), refused.header("ratelimit-remaining")), (429, "0"), "{refused:?}");
    }

    let narrow = world.start_with(Role::Users, &[("HASH_QUEUE_MAX", "1")]).await;
    let narrow = role.over(&narrow);
    let flood =
        (0..12).map(|_| narrow.request(Method::POST, login).json(&json!({"email": email, "password": PASSWORD})));
    let responses = join_all(flood.map(|request| narrow.document.send_and_check(&client, request))).await;
    assert!(responses.iter().any(|response| response.code() == "OVERLOADED"), "{responses:?}");

    let url = world.addresses.superuser_url(&world.databases.users.database);
    let (holder, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("connected");
    tokio::spawn(connection);
    holder.batch_execute("BEGIN; LOCK TABLE users").await.expect("locked");
    role.get(503, me, token).await;
    holder.batch_execute("ALTER TABLE users RENAME TO gone; COMMIT").await.expect("renamed");
    role.get(500, me, token).await;
    // The answer to a commit would have to be lost on its way.
    role.assert_all_codes_seen_except(&["OUTCOME_UNKNOWN"]);
}

/// The same requests by services, and what only they can be refused for.
async fn check_responses_to_services(role: &CheckedClient, user: &User) {
    let token = &service_token("payments", "wallet:read wallet:post");
    let of_user = |path: &str| format!("/v1/wallets/{}{path}", user.id);
    let (credit, debit) = (of_user("/transactions/credit"), of_user("/transactions/debit"));
    let created = role.post(201, &credit, token, "s", json!({"amountMinor": 5})).await;
    role.post(200, &credit, token, "s", json!({"amountMinor": 5})).await;
    role.post(422, &credit, token, "s", json!({"amountMinor": 6})).await;
    role.post(409, &debit, token, "t", json!({"amountMinor": 100})).await;
    role.post(201, &of_user("/transactions"), token, "u", json!({"type": "debit", "amountMinor": 1})).await;
    role.send_invalid_bodies(&credit, token).await;
    for path in ["/balance", "/transactions", &format!("/transactions/{}", created["id"].as_str().expect("id"))] {
        role.get(200, &of_user(path), token).await;
        role.get(400, &format!("{}?unknown=1", of_user(path)), token).await;
        role.get(401, &of_user(path), &user.token).await;
        role.get(403, &of_user(path), &service_token("payments", "wallet:post")).await;
        role.get(404, &format!("/v1/wallets/{}{path}", unknown_user_id()), token).await;
    }
    role.get(404, &of_user(&format!("/transactions/{}", unknown_user_id())), token).await;
    role.post(403, &credit, &service_token("payments", "wallet:read"), "v", json!({})).await;
}

/// `full` has the largest balance.
async fn check_reversals(role: &CheckedClient, client: &Client, full: &User) {
    let user = client.ready_user().await;
    let (token, credit, debit) = (user.token.as_str(), "/v1/transactions/credit", "/v1/transactions/debit");
    let path = |entry: &Value| format!("/v1/transactions/{}/reverse", entry["id"].as_str().expect("an id"));
    let first = role.post(201, credit, token, "a", json!({"amountMinor": 5})).await;
    let first = path(&first);
    let text = json!({"amountMinor": 2, "description": "x", "reference": "r", "metadata": {"a": "1"}});
    let reversal = role.post(201, &first, token, "b", text.clone()).await;
    role.post(200, &first, token, "b", text).await;
    role.post(422, &first, token, "b", json!({})).await;
    role.get(200, first.trim_end_matches("/reverse"), token).await;
    role.post(409, &path(&reversal), token, "c", json!({})).await; // NOT_REVERSIBLE
    role.post(409, &first, token, "c", json!({"amountMinor": 4})).await; // REVERSAL_EXCEEDS
    let spent = role.post(201, debit, token, "d", json!({"amountMinor": 3})).await;
    role.post(409, &first, token, "e", json!({})).await; // INSUFFICIENT_FUNDS
    role.post(201, &path(&spent), token, "f", json!({"amountMinor": null})).await;
    role.post(201, &first, token, "g", json!({})).await;
    role.post(409, &first, token, "h", json!({})).await; // ALREADY_REVERSED
    role.post(404, &path(&json!({"id": unknown_user_id()})), token, "h", json!({})).await;
    role.post(400, &first, token, "h", json!({"amountMinor": 0, "colour": "red"})).await;
    role.post(401, &first, "nonsense", "h", json!({})).await;
    role.post(503, &first, &token_of(&unknown_user_id()), "h", json!({})).await;
    role.post(201, credit, token, "i", json!({"amountMinor": 1})).await;
    let sent = role.post(201, debit, &full.token, "sent", json!({"amountMinor": 1})).await;
    role.post(201, credit, &full.token, "full-again", json!({"amountMinor": 1})).await;
    role.post(409, &path(&sent), &full.token, "back", json!({})).await; // BALANCE_LIMIT
    role.send_invalid_bodies(&first, token).await;
}

async fn check_bulk(role: &CheckedClient, client: &Client) {
    let user = client.ready_user().await;
    let (token, bulk) = (user.token.as_str(), "/v1/transactions/bulk");
    let credits = |amounts: &[i64]| -> Value {
        amounts.iter().map(|amount| json!({"type": "credit", "amountMinor": amount, "description": "x"})).collect()
    };
    role.post(201, bulk, token, "a", json!({"items": credits(&[1, 2])})).await;
    role.post(200, bulk, token, "a", json!({"atomic": true, "items": credits(&[1, 2])})).await;
    role.post(422, bulk, token, "a", json!({"items": credits(&[1, 3])})).await;
    role.post(409, bulk, token, "b", json!({"items": credits(&[1, 9_007_199_254_740_991])})).await;
    role.post(400, bulk, token, "b", json!({"atomic": false, "items": credits(&[1])})).await;
    role.post(401, bulk, "nonsense", "b", json!({})).await;
    role.post(503, bulk, &token_of(&unknown_user_id()), "b", json!({})).await;
    let mut keyed = credits(&[1, 9_007_199_254_740_991, 2]);
    keyed[0]["idempotencyKey"] = json!("c");
    for _ in 0..2 {
        let each = role.request(Method::POST, bulk).bearer_auth(token);
        role.send(200, each.json(&json!({"atomic": false, "items": keyed}))).await;
    }
    let post = || role.request(Method::POST, bulk).bearer_auth(token).header("content-type", "application/json");
    role.send(413, post().body("x".repeat(200_000))).await;
    role.send(400, post().body("x".repeat(20_000))).await;
    role.send(415, role.request(Method::POST, bulk).bearer_auth(token).body("x")).await;
    role.send(431, post().header("x-pad", "p".repeat(9_000))).await;
}

/// What only requests about holds return.
async fn check_responses_of_holds(role: &CheckedClient, world: &World, user: &User) {
    let (token, holds) = (user.token.as_str(), "/v1/holds");
    role.post(201, "/v1/transactions/credit", token, "funds", json!({"amountMinor": 100})).await;
    let hold = role.post(201, holds, token, "hold", json!({"amountMinor": 60, "expiresInS": 60})).await;
    role.post(200, holds, token, "hold", json!({"amountMinor": 60, "expiresInS": 60})).await;
    role.post(422, holds, token, "hold", json!({"amountMinor": 61})).await;
    role.post(409, holds, token, "more", json!({"amountMinor": 41})).await; // INSUFFICIENT_FUNDS
    role.post(400, holds, token, "more", json!({"amountMinor": 0, "expiresInS": 59})).await;
    role.get(200, "/v1/holds?status=all&limit=1", token).await;
    role.get(400, "/v1/holds?status=x", token).await;
    let of = |hold: &Value| format!("{holds}/{}", hold["id"].as_str().expect("id"));
    let (one, unknown) = (of(&hold), format!("{holds}/{}", unknown_user_id()));
    role.get(200, &one, token).await;
    role.get(404, &unknown, token).await;
    let part = || json!({"amountMinor": 1, "final": false});
    for path in [format!("{unknown}/capture"), format!("{unknown}/void")] {
        role.post(404, &path, token, "unknown", json!({})).await;
    }
    let capture = format!("{one}/capture");
    role.post(409, &capture, token, "exceeds", json!({"amountMinor": 61})).await; // HOLD_AMOUNT_EXCEEDED
    for number in 1..50 {
        role.post(201, &capture, token, &format!("part-{number}"), part()).await;
    }
    role.post(409, &capture, token, "fiftieth", part()).await; // CAPTURE_LIMIT
    role.post(201, &capture, token, "last", json!({})).await;
    role.post(200, &capture, token, "last", json!({})).await;
    role.post(409, &capture, token, "again", json!({})).await; // HOLD_CLOSED
    role.post(409, &format!("{one}/void"), token, "void", json!({})).await;
    let hold = of(&role.post(201, holds, token, "second", json!({"amountMinor": 1})).await);
    role.post(200, &format!("{hold}/void"), token, "void", json!({})).await;
    role.post(200, &format!("{hold}/void"), token, "void", json!({})).await;
    let due = of(&role.post(201, holds, token, "third", json!({"amountMinor": 1})).await);
    let over = "SET session_replication_role = replica;
                UPDATE transactions SET expires_at = now() WHERE expires_at > now();
                UPDATE open_holds SET expires_at = now()";
    world.sql(Role::Wallet, over).await;
    role.post(409, &format!("{due}/capture"), token, "late", json!({})).await; // HOLD_EXPIRED
    role.post(409, &format!("{due}/void"), token, "late", json!({})).await;
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a list of requests")]
async fn every_response_of_the_wallet_role_is_documented() {
    let world = World::new().await;
    let (_users, wallet, client) = world.both().await;
    let role = CheckedClient::of(&client, &wallet).await;
    let user = client.user().await;
    let token = user.token.as_str();
    role.get(200, "/v1/wallet/status?wait=30", token).await;
    role.get(400, "/v1/wallet/status?wait=31", token).await;
    let (credit, debit, either) = ("/v1/transactions/credit", "/v1/transactions/debit", "/v1/transactions");
    let created = role.post(201, credit, token, "a", json!({"amountMinor": 5, "description": "x"})).await;
    role.post(200, credit, token, "a", json!({"amountMinor": 5, "description": "x"})).await;
    role.post(422, credit, token, "a", json!({"amountMinor": 6})).await;
    role.post(201, debit, token, "b", json!({"amountMinor": 1, "description": null})).await;
    role.post(409, debit, token, "c", json!({"amountMinor": 100})).await;
    role.post(201, either, token, "d", json!({"type": "debit", "amountMinor": 1})).await;
    role.post(409, either, token, "e", json!({"type": "credit", "amountMinor": 9_007_199_254_740_991_i64})).await;
    role.post(400, either, token, "f", json!({"type": "x", "amountMinor": 0, "description": 5, "more": 1})).await;
    role.post(400, credit, token, "a b", json!({"amountMinor": 1})).await;
    role.get(200, "/v1/transactions?limit=1", token).await;
    role.get(200, "/v1/transactions?limit=100&type=credit&from=2026-01-01T00:00:00Z", token).await;
    role.get(400, "/v1/transactions?limit=0&type=x&from=x&cursor=x&unknown=1", token).await;
    role.get(200, &format!("/v1/transactions/{}", created["id"].as_str().expect("id")), token).await;
    role.get(404, &format!("/v1/transactions/{}", unknown_user_id()), token).await;
    let created = format!("/v1/transactions/{}", created["id"].as_str().expect("id"));
    role.get(200, &format!("{created}/receipt"), token).await;
    role.get(404, &format!("/v1/transactions/{}/receipt", unknown_user_id()), token).await;
    role.get(200, "/v1/ledger/head", token).await;
    role.get(200, "/v1/ledger/chain?after=1&limit=1", token).await;
    role.get(400, "/v1/ledger/chain?after=x&limit=501&unknown=1", token).await;
    role.get(200, "/.well-known/purse-keys.json", token).await;
    let signing = [("LEDGER_SIGNING_KEY", "c2lnbmluZ3NpZ25pbmdzaWduaW5nc2lnbmluZ3NpZ24=")];
    let signing_process = world.start_with(Role::Wallet, &signing).await;
    let signing = role.over(&signing_process);
    signing.get(200, "/.well-known/purse-keys.json", token).await;
    signing.get(200, &format!("{created}/receipt"), token).await;
    signing.get(200, "/v1/ledger/head", token).await;
    // As if all entries were older than the hash chain.
    let unhashed =
        "SET session_replication_role = replica; ALTER TABLE transactions DROP CONSTRAINT transactions_hashed;
                    UPDATE transactions SET hash = NULL";
    world.sql(Role::Wallet, unhashed).await;
    role.get(404, &format!("{created}/receipt"), token).await;
    role.get(200, "/v1/ledger/chain", token).await;
    role.get(200, "/v1/balance", token).await;
    role.get(200, "/v1/balance?at=2026-01-01T00:00:00Z", token).await;
    role.get(400, "/v1/balance?at=yesterday", token).await;
    let (transfers, recipient) = ("/v1/transfers", client.ready_user().await);
    let to = |id: &str, cents: i64| json!({"toUserId": id, "amountMinor": cents});
    role.post(409, transfers, token, "t", to(&recipient.id, 4)).await;
    let transfer = role.post(201, transfers, token, "t", to(&recipient.id, 1)).await;
    role.post(200, transfers, token, "t", to(&recipient.id, 1)).await;
    role.post(422, transfers, token, "t", to(&recipient.id, 2)).await;
    role.post(404, transfers, token, "u", to(&unknown_user_id(), 1)).await;
    role.post(400, transfers, token, "u", to(&user.id, 0)).await;
    let transfer = format!("/v1/transfers/{}", transfer["id"].as_str().expect("id"));
    role.get(200, &transfer, token).await;
    role.get(200, &transfer, &recipient.token).await;
    role.get(404, "/v1/transfers/x", token).await;
    role.post(201, credit, &recipient.token, "full", json!({"amountMinor": 9_007_199_254_740_990_i64})).await;
    role.post(409, transfers, token, "u", to(&recipient.id, 1)).await;
    let closed = client.ready_user().await;
    let close = format!(
        "INSERT INTO transactions (user_id, seq, id, type, amount_minor, balance_after_minor, held_after_minor, created_at, hash)
         VALUES ('{}', 1, gen_random_uuid(), 'close', 0, 0, 0, clock_timestamp(), sha256(''))",
        closed.id
    );
    world.sql(Role::Wallet, &close).await;
    role.post(409, transfers, &closed.token, "c", to(&recipient.id, 1)).await;
    check_responses_of_holds(&role, &world, &client.ready_user().await).await;
    let january = "from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z";
    for format in ["csv", "csv&bom=true", "ndjson"] {
        role.get(200, &format!("/v1/statements?{january}&format={format}"), token).await;
    }
    role.get(400, "/v1/statements?from=x", token).await;
    tokio::join!(
        role.send_invalid_bodies(credit, token),
        role.send_invalid_bodies(debit, token),
        role.send_invalid_bodies(either, token),
        role.send_invalid_bodies(transfers, token)
    );

    let unknown = token_of(&unknown_user_id());
    for path in [
        "/v1/balance",
        "/v1/transactions",
        "/v1/transactions/x",
        "/v1/statements",
        "/v1/transfers/x",
        "/v1/ledger/chain",
        "/v1/wallet/status",
    ] {
        role.get(503, path, &unknown).await;
        role.get(401, path, "nonsense").await;
    }
    for path in [credit, debit, either, transfers] {
        role.post(503, path, &unknown, "a", json!({})).await;
        role.post(401, path, "nonsense", "a", json!({})).await;
    }

    check_responses_to_services(&role, &user).await;
    check_reversals(&role, &client, &recipient).await;
    check_bulk(&role, &client).await;
    let forbidden = world.start_with(Role::Wallet, &[("SELF_POST", "none")]).await;
    let forbidden = role.over(&forbidden);
    let one = || json!({"items": [{"type": "credit", "amountMinor": 1}]});
    forbidden.post(403, credit, token, "i", json!({"amountMinor": 1})).await;
    forbidden.post(403, "/v1/transactions/bulk", token, "i", one()).await;

    let limits = [
        ("RATE_LIMIT_ENABLED", "true"),
        ("RL_TX_MAX", "1"),
        ("RL_BULK_MAX", "1"),
        ("RL_EXPORT_MAX", "1"),
        ("LEDGER_QUEUE_MAX", "1"),
    ];
    let limited = world.start_with(Role::Wallet, &limits).await;
    let limited = role.over(&limited);
    limited.post(201, credit, token, "g", json!({"amountMinor": 1})).await;
    limited.post(429, credit, token, "h", json!({"amountMinor": 1})).await;
    limited.post(201, "/v1/transactions/bulk", token, "j", one()).await;
    limited.post(429, "/v1/transactions/bulk", token, "k", one()).await;
    limited.get(200, &format!("/v1/statements?{january}"), token).await;
    limited.get(429, "/v1/statements", token).await;

    // A queue for one post, which will wait for the lock.
    let full = world.start_with(Role::Wallet, &[("LEDGER_QUEUE_MAX", "1"), ("DB_LOCK_TIMEOUT_MS", "3000")]).await;
    let full = role.over(&full);
    let url = world.addresses.superuser_url(&world.databases.wallet.database);
    let (holder, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("connected");
    tokio::spawn(connection);
    holder.batch_execute("BEGIN; LOCK TABLE transactions").await.expect("locked");
    role.get(503, "/v1/balance", token).await;
    let posts = (0..4).map(|_| full.request(Method::POST, credit).bearer_auth(token).json(&json!({"amountMinor": 1})));
    let responses = join_all(posts.map(|request| full.document.send_and_check(&client, request))).await;
    assert!(responses.iter().any(|response| response.code() == "OVERLOADED"), "{responses:?}");
    holder.batch_execute("ALTER TABLE transactions RENAME TO gone; COMMIT").await.expect("renamed");
    role.get(500, "/v1/balance", token).await;
    // Would require that PostgreSQL's reply to a commit is lost.
    role.assert_all_codes_seen_except(&["OUTCOME_UNKNOWN"]);
}
