//! Services act on behalf of users with tokens of their own, and `SELF_POST` decides what users may do themselves.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use purse::kernel::Role;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::support::repository::{sources, text};
use crate::support::{
    ACCESS_KEY, Client, CommandOutput, Document, INTERNAL_KEY, PATIENCE, Response, World, assert_error, assert_invalid,
    eventually, mint, path_and_token, purse, seconds_from_now, service_token, token_of, unknown_user_id,
};

const BOTH: &str = "wallet:read wallet:post";

/// A request of a service to the wallet of `user_id`.
fn request(client: &Client, method: Method, user_id: &str, path: &str, token: &str) -> RequestBuilder {
    client.request(method, &format!("{}/v1/wallets/{user_id}{path}", client.wallet)).bearer_auth(token)
}

async fn get(client: &Client, user_id: &str, path: &str, token: &str) -> Response {
    client.send(request(client, Method::GET, user_id, path, token)).await
}

async fn credit(client: &Client, user_id: &str, cents: i64, token: &str) -> Response {
    let request = request(client, Method::POST, user_id, "/transactions/credit", token);
    client.send(request.json(&json!({"amountMinor": cents}))).await
}

/// Runs `purse token` with these arguments and the keys of the tests.
async fn issued(arguments: &[&str], changed: &[(&str, &str)]) -> CommandOutput {
    let keys = [("INTERNAL_JWT_PRIVATE_KEY", INTERNAL_KEY)];
    let settings: BTreeMap<String, String> =
        keys.iter().chain(changed).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    purse(&[&["token"], arguments].concat(), &settings).await
}

/// The operations of users that write, each with the example of its body.
fn writes(document: &Document) -> Vec<(String, Value)> {
    let operations = document.operations().into_iter();
    let own = operations.filter(|(method, path, operation)| {
        method != "GET" && !path.contains("{userId}") && operation["security"] == json!([{"bearer": []}])
    });
    own.map(|(_, path, operation)| (path, operation["requestBody"]["content"]["application/json"]["example"].clone()))
        .collect()
}

#[tokio::test]
async fn a_token_of_the_other_kind_returns_401_on_every_route() {
    let world = World::new().await;
    let (_users, wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let document = Document::of(&client, &wallet.url()).await;
    let (mut of_users, mut of_services) = (0, 0);
    for (method, path, operation) in document.operations() {
        if operation["security"] == json!([]) {
            continue;
        }
        let (filled, right) = path_and_token(&path, &user, "0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e");
        let is_for_services = operation["security"] == json!([{"service": []}]);
        *(if is_for_services { &mut of_services } else { &mut of_users }) += 1;
        let wrong = if is_for_services { user.token.clone() } else { service_token("payments", BOTH) };
        let send = async |token: &str| {
            let method: Method = method.parse().expect("a method");
            let request = client.request(method, &format!("{}{filled}", wallet.url())).bearer_auth(token);
            document.send_and_check(&client, request).await
        };
        let about = format!("{method} {path}");
        assert_error(&send(&wrong).await, 401, "UNAUTHORIZED", &about);
        assert_ne!(send(&right).await.status, 401, "{about}: the right kind of token");
    }
    assert!(of_users >= 9 && of_services >= 8, "{of_users} routes of users, {of_services} of services");
}

#[tokio::test]
async fn an_invalid_service_token_returns_401() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let header = json!({"alg": "HS256", "typ": "service+jwt"});
    let now = seconds_from_now(0);
    let valid = json!({"iss": "payments", "aud": "wallet", "scope": BOTH, "iat": now, "exp": now + 600});
    let with = |name: &str, value: Value| {
        let mut claims = valid.clone();
        claims[name] = value;
        mint(&header, &claims, INTERNAL_KEY)
    };
    let without = |name: &str| {
        let mut claims = valid.clone();
        claims.as_object_mut().expect("claims").remove(name);
        mint(&header, &claims, INTERNAL_KEY)
    };
    let event = json!({"iss": "users", "aud": "wallet", "jti": "1", "sub": user.id, "bh": ""});
    for (about, token) in [
        ("a user's token", user.token.clone()),
        ("the key of access tokens", mint(&header, &valid, ACCESS_KEY)),
        ("no typ", mint(&json!({"alg": "HS256"}), &valid, INTERNAL_KEY)),
        ("typ JWT", mint(&json!({"alg": "HS256", "typ": "JWT"}), &valid, INTERNAL_KEY)),
        ("the signature of an event", mint(&json!({"alg": "HS256", "typ": "JWT"}), &event, INTERNAL_KEY)),
        ("the signature of an event with the typ", mint(&header, &event, INTERNAL_KEY)),
        ("alg none", mint(&json!({"alg": "none", "typ": "service+jwt"}), &valid, INTERNAL_KEY)),
        ("crit", mint(&json!({"alg": "HS256", "typ": "service+jwt", "crit": ["exp"]}), &valid, INTERNAL_KEY)),
        ("aud of the other role", with("aud", json!("users"))),
        ("no aud", without("aud")),
        ("a sub", with("sub", json!(user.id))),
        ("a null sub", with("sub", Value::Null)),
        ("no iss", without("iss")),
        ("an empty iss", with("iss", json!(""))),
        ("iss in upper case", with("iss", json!("Payments"))),
        ("iss of 33 characters", with("iss", json!("p".repeat(33)))),
        ("scope a list", with("scope", json!(["wallet:read"]))),
        ("exp a year away", with("exp", json!(now + 31_536_000))),
        ("exp 24 hours and a second after iat", with("exp", json!(now + 86_401))),
        (
            "issued and expiring in a year",
            mint(
                &header,
                &json!({"iss": "payments", "aud": "wallet", "scope": BOTH, "iat": now + 31_536_000, "exp": now + 31_536_060}),
                INTERNAL_KEY,
            ),
        ),
        ("no iat", without("iat")),
        ("no exp", without("exp")),
        ("expired", with("exp", json!(now - 6))),
    ] {
        let refused = get(&client, &user.id, "/balance", &token).await;
        assert_error(&refused, 401, "UNAUTHORIZED", about);
        assert_eq!(refused.header("www-authenticate"), "Bearer", "{about}");
        assert_error(&credit(&client, &user.id, 5, &token).await, 401, "UNAUTHORIZED", about);
    }
    assert_eq!(get(&client, &user.id, "/balance", &mint(&header, &valid, INTERNAL_KEY)).await.body["balanceMinor"], 0);
    let day = with("exp", json!(now + 86_400));
    assert_eq!(get(&client, &user.id, "/balance", &day).await.status, 200, "24 hours are not too long");
}

#[tokio::test]
async fn each_scope_permits_its_own_requests_only() {
    let world = World::new().await;
    let (_users, wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let document = Document::of(&client, &wallet.url()).await;
    for (scopes, may_read, may_post) in [
        ("", false, false),
        ("wallet", false, false),
        ("wallet:read,wallet:post", false, false),
        ("wallet:read", true, false),
        ("wallet:post", false, true),
        ("other wallet:post wallet:read", true, true),
    ] {
        let token = service_token("payments", scopes);
        let read = document.send_and_check(&client, request(&client, Method::GET, &user.id, "/balance", &token)).await;
        let post = request(&client, Method::POST, &user.id, "/transactions/credit", &token);
        let post = document.send_and_check(&client, post.json(&json!({"amountMinor": 5}))).await;
        for (response, is_permitted, needed) in [(read, may_read, "wallet:read"), (post, may_post, "wallet:post")] {
            if is_permitted {
                assert!(response.status.is_success(), "{scopes}: {response:?}");
            } else {
                assert_error(&response, 403, "INSUFFICIENT_SCOPE", scopes);
                let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{needed}\"");
                assert_eq!(response.header("www-authenticate"), challenge, "{scopes}");
            }
        }
    }
    assert_eq!(client.balance(&user).await, 10, "two tokens may post");
}

#[tokio::test]
async fn every_operation_of_services_requires_its_scope() {
    let world = World::new().await;
    let (_users, wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let document = Document::of(&client, &wallet.url()).await;
    let now = seconds_from_now(0);
    let claims = json!({"iss": "payments", "aud": "wallet", "iat": now, "exp": now + 600});
    let without_claim = mint(&json!({"alg": "HS256", "typ": "service+jwt"}), &claims, INTERNAL_KEY);
    let (mut reads, mut posts) = (0, 0);
    for (method, path, _) in document.operations().into_iter().filter(|(_, path, _)| path.contains("{userId}")) {
        let (needed, other) =
            if method == "GET" { ("wallet:read", "wallet:post") } else { ("wallet:post", "wallet:read") };
        *(if method == "GET" { &mut reads } else { &mut posts }) += 1;
        let (filled, _) = path_and_token(&path, &user, "0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e");
        let send = async |token: &str| {
            let method: Method = method.parse().expect("a method");
            let request = client.request(method, &format!("{}{filled}", wallet.url())).bearer_auth(token);
            document.send_and_check(&client, request).await
        };
        for (scope, token) in [
            ("the other scope", service_token("payments", other)),
            ("an empty scope", service_token("payments", "")),
            ("no claim `scope`", without_claim.clone()),
        ] {
            let about = format!("{method} {path} with {scope}");
            let refused = send(&token).await;
            assert_error(&refused, 403, "INSUFFICIENT_SCOPE", &about);
            let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{needed}\"");
            assert_eq!(refused.header("www-authenticate"), challenge, "{about}");
        }
        let permitted = send(&service_token("payments", needed)).await;
        assert!(![401, 403].contains(&permitted.status.as_u16()), "{method} {path}: {permitted:?}");
    }
    assert!(reads >= 5 && posts >= 7, "{reads} reads, {posts} posts");
    assert_eq!(world.sql(Role::Wallet, "SELECT count(*) FROM transactions").await, "0");
}

#[tokio::test]
async fn a_transfer_of_a_service_from_a_user_to_the_same_user_is_400_and_writes_nothing() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let token = service_token("payments", BOTH);
    assert_eq!(credit(&client, &user.id, 100, &token).await.status, 201);
    let spellings = [user.id.clone(), user.id.to_uppercase()];
    for (from, to) in spellings.iter().flat_map(|from| spellings.iter().map(move |to| (from, to))) {
        let sent = request(&client, Method::POST, from, "/transfers", &token);
        let refused = client.send(sent.json(&json!({"toUserId": to, "amountMinor": 5}))).await;
        assert_invalid(&refused, &["toUserId"], &format!("from {from} to {to}"));
        assert_eq!(refused.body["details"][0]["message"], "must be another user");
    }
    assert_eq!(world.sql(Role::Wallet, "SELECT count(*) FROM transactions").await, "1");
    assert_eq!(client.balance(&user).await, 100);
}

#[tokio::test]
async fn the_user_of_a_service_is_found_by_any_spelling_of_the_id_and_else_has_no_wallet() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let token = service_token("payments", BOTH);
    assert_eq!(credit(&client, &user.id, 5, &token).await.status, 201);
    assert_eq!(credit(&client, &user.id.to_uppercase(), 7, &token).await.status, 201);
    assert_eq!(client.balance(&user).await, 12);
    let early = unknown_user_id();
    for id in ["x", "0", "%00", "me", &user.id.replace('-', ""), &format!("{}0", user.id), &early] {
        assert_error(&get(&client, id, "/balance", &token).await, 404, "WALLET_NOT_FOUND", id);
        assert_error(&get(&client, id, "/transactions?limit=x", &token).await, 404, "WALLET_NOT_FOUND", id);
        assert_error(&credit(&client, id, 0, &token).await, 404, "WALLET_NOT_FOUND", id);
    }
    // The service was early: it finds the wallet as soon as there is one.
    world.publish_event(early.parse().expect("a UUID"), "1").await;
    eventually(PATIENCE, "the wallet exists", || async {
        (credit(&client, &early, 1, &token).await.status == 201).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_service_reads_and_posts_as_the_user_does() {
    let world = World::new().await;
    let (_users, wallet, client) = world.both().await;
    let (user, other) = (client.ready_user().await, client.ready_user().await);
    let token = service_token("payments", BOTH);
    let created = credit(&client, &user.id, 25, &token).await;
    assert_eq!(created.status, 201, "{created:?}");
    let id = created.body["id"].as_str().expect("id");
    assert_eq!(created.header("location"), format!("/v1/wallets/{}/transactions/{id}", user.id));
    let found = client
        .send(
            client
                .request(Method::GET, &format!("{}{}", client.wallet, created.header("location")))
                .bearer_auth(&token),
        )
        .await;
    assert_eq!(found.body, created.body);
    assert_eq!(created.body["postedBy"], "payments");
    let typed = request(&client, Method::POST, &user.id, "/transactions", &token);
    let debited = client.send(typed.json(&json!({"type": "debit", "amountMinor": 5}))).await;
    assert_eq!((debited.status.as_u16(), &debited.body["balanceAfterMinor"]), (201, &json!(20)));
    let overdraft = request(&client, Method::POST, &user.id, "/transactions/debit", &token);
    let overdraft = client.send(overdraft.json(&json!({"amountMinor": 21}))).await;
    assert_error(&overdraft, 409, "INSUFFICIENT_FUNDS", "more than the balance");
    let page = get(&client, &user.id, "/transactions?limit=1&type=credit", &token).await;
    assert_eq!(page.body["items"], json!([created.body]));
    assert_eq!(get(&client, &user.id, "/balance", &token).await.body, client.get(&user, "/v1/balance").await.body);
    let foreign = get(&client, &other.id, &format!("/transactions/{id}"), &token).await;
    assert_error(&foreign, 404, "TRANSACTION_NOT_FOUND", "of another user");
    let logged = eventually(PATIENCE, "the refusal is logged", || async {
        wallet.log().into_iter().find(|line| line["service"] == "payments" && line["status"] == 409)
    });
    assert_eq!(logged.await["user_id"], user.id);
}

#[tokio::test]
async fn equal_keys_of_a_user_and_of_two_services_create_one_entry_each() {
    let world = World::new().await;
    let (_users, wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let (payments, shop) = (service_token("payments", BOTH), service_token("shop", BOTH));
    let by_service = async |token: &str, cents: i64| {
        let request = request(&client, Method::POST, &user.id, "/transactions/credit", token);
        client.send(request.header("idempotency-key", "order-17").json(&json!({"amountMinor": cents}))).await
    };
    let own = client.post(&user, "credit", 1, Some("order-17")).await;
    let (first, second) = (by_service(&payments, 2).await, by_service(&shop, 3).await);
    for (created, posted_by, balance) in
        [(&own, Value::Null, 1), (&first, json!("payments"), 3), (&second, json!("shop"), 6)]
    {
        assert_eq!(created.status, 201, "{created:?}");
        assert_eq!((&created.body["postedBy"], &created.body["balanceAfterMinor"]), (&posted_by, &json!(balance)));
    }
    assert!(!own.body.as_object().expect("an object").contains_key("postedBy"), "{own:?}");
    // Each has its own replay, also of a request that another one made with that key.
    for (replayed, original) in [
        (client.post(&user, "credit", 1, Some("order-17")).await, &own),
        (by_service(&payments, 2).await, &first),
        (by_service(&shop, 3).await, &second),
    ] {
        assert_eq!((replayed.status.as_u16(), &replayed.body), (200, &original.body));
        assert_eq!(replayed.header("idempotent-replayed"), "true");
    }
    assert_error(&by_service(&payments, 3).await, 422, "IDEMPOTENCY_KEY_REUSED", "another amount");
    let listed = client.get(&user, "/v1/transactions").await.body;
    assert_eq!(listed["items"], json!([second.body, first.body, own.body]));
    let stored = "SELECT posted_by, amount_minor FROM transactions ORDER BY seq";
    assert_eq!(world.sql(Role::Wallet, stored).await, "|1\npayments|2\nshop|3");
    drop(wallet);
    let verified = purse(&["ledger", "verify"], &world.settings(Role::Wallet)).await;
    assert_eq!(verified.code, Some(0), "the poster is part of the hash: {verified:?}");
}

#[tokio::test]
async fn services_have_a_limit_of_their_own_by_their_name() {
    let world = World::new().await;
    let limits =
        [("RATE_LIMIT_ENABLED", "true"), ("RL_SERVICE_MAX", "2"), ("RL_SERVICE_WINDOW", "1h"), ("RL_TX_MAX", "1")];
    let wallet = world.start_with(Role::Wallet, &limits).await;
    let client = Client::new(&wallet.url(), &wallet.url());
    let id = unknown_user_id();
    let (payments, shop) = (service_token("payments", BOTH), service_token("shop", BOTH));
    let refused = get(&client, &id, "/balance", &service_token("payments", "wallet:post")).await;
    assert_error(&refused, 403, "INSUFFICIENT_SCOPE", "not counted");
    for remaining in ["1", "0"] {
        let counted = get(&client, &unknown_user_id(), "/balance", &payments).await;
        assert_error(&counted, 404, "WALLET_NOT_FOUND", "before the limit is reached");
        assert_eq!((counted.header("ratelimit-limit"), counted.header("ratelimit-remaining")), ("2", remaining));
    }
    let limited = credit(&client, &id, 5, &service_token("payments", "wallet:post")).await;
    assert_error(&limited, 429, "RATE_LIMITED", "reads and posts share a count, whatever the token");
    assert!(limited.header("ratelimit-policy").starts_with("\"service\";q=2;"), "{limited:?}");
    assert_error(&get(&client, &id, "/balance", &shop).await, 404, "WALLET_NOT_FOUND", "another service");
    let user = client.request(Method::POST, &format!("{}/v1/transactions/credit", client.wallet));
    let user = client.send(user.bearer_auth(token_of(&id))).await;
    assert_error(&user, 503, "WALLET_PROVISIONING", "users have another count");
    let unlimited = world.start_with(Role::Wallet, &limits[..1]).await;
    let client = Client::new(&unlimited.url(), &unlimited.url());
    for _ in 0..40 {
        assert_error(&get(&client, &id, "/balance", &payments).await, 404, "WALLET_NOT_FOUND", "no limit by default");
    }
}

#[tokio::test]
async fn without_self_post_every_write_of_a_user_is_refused_and_reads_go_on() {
    let world = World::new().await;
    let users = world.start(Role::Users).await;
    let wallet = world.start_with(Role::Wallet, &[("SELF_POST", "none")]).await;
    let client = Client::new(&users.url(), &wallet.url());
    let (user, other) = (client.ready_user().await, client.ready_user().await);
    let token = service_token("payments", BOTH);
    let id = credit(&client, &user.id, 5, &token).await.body["id"].as_str().expect("id").to_owned();
    assert_eq!(credit(&client, &other.id, 2, &token).await.status, 201);
    let placed = request(&client, Method::POST, &user.id, "/holds", &token);
    let placed = client.send(placed.json(&json!({"amountMinor": 1}))).await;
    let transfer = request(&client, Method::POST, &other.id, "/transfers", &token);
    let transfer = client.send(transfer.json(&json!({"toUserId": user.id, "amountMinor": 2}))).await;
    let created = |response: &Response, field: &str| response.body[field].as_str().expect("an ID").to_owned();
    let (hold, transfer) = (created(&placed, "id"), created(&transfer, "id"));
    let document = Document::of(&client, &wallet.url()).await;
    let all = writes(&document);
    assert!(all.len() >= 3, "{all:?}");
    for (path, body) in all {
        let url = format!("{}{}", wallet.url(), path.replace("{id}", &id));
        let refused = client.request(Method::POST, &url).bearer_auth(&user.token).header("idempotency-key", "k");
        let refused = document.send_and_check(&client, refused.json(&body)).await;
        assert_error(&refused, 403, "NOT_ALLOWED", &path);
    }
    let reads = document.operations().into_iter().filter(|(method, path, operation)| {
        method == "GET" && !path.contains("{userId}") && operation["security"] == json!([{"bearer": []}])
    });
    let reads: Vec<String> = reads.map(|(_, path, _)| path).collect();
    assert!(reads.len() >= 11, "{reads:?}");
    for path in reads {
        let shown = match path.as_str() {
            "/v1/holds/{id}" => &hold,
            "/v1/transfers/{id}" => &transfer,
            _ => &id,
        };
        let period = if path == "/v1/statements" { "?from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z" } else { "" };
        let read = client.get(&user, &format!("{}{period}", path.replace("{id}", shown))).await;
        assert_eq!(read.status, 200, "{path}: {read:?}");
    }
    assert_eq!(client.balance(&user).await, 7);
}

#[test]
fn no_handler_builds_a_posting_that_self_post_does_not_limit() {
    let places = sources("src/wallet/http").into_iter().filter(|path| text(path).contains("Posting::new("));
    assert_eq!(places.collect::<Vec<_>>(), ["src/wallet/http/gate.rs"], "use ReadyWallet::posting");
}

#[tokio::test]
async fn with_self_post_debit_users_may_debit_their_wallets_and_not_credit_them() {
    let world = World::new().await;
    let users = world.start(Role::Users).await;
    let wallet = world.start_with(Role::Wallet, &[("SELF_POST", "debit")]).await;
    let client = Client::new(&users.url(), &wallet.url());
    let user = client.ready_user().await;
    assert_eq!(credit(&client, &user.id, 9, &service_token("payments", "wallet:post")).await.status, 201);
    assert_error(&client.post(&user, "credit", 1, None).await, 403, "NOT_ALLOWED", "credit");
    let typed = |kind: &str| {
        let url = format!("{}/v1/transactions", client.wallet);
        client.request(Method::POST, &url).bearer_auth(&user.token).json(&json!({"type": kind, "amountMinor": 1}))
    };
    assert_error(&client.send(typed("credit")).await, 403, "NOT_ALLOWED", "credit by its type");
    assert_eq!(client.send(typed("debit")).await.status, 201);
    let debited = client.post(&user, "debit", 3, None).await;
    assert_eq!((debited.status.as_u16(), client.balance(&user).await), (201, 5));
    let reverse = |id: &Value| {
        let path = format!("/v1/transactions/{}/reverse", id.as_str().expect("an ID"));
        client.request(Method::POST, &format!("{}{path}", client.wallet)).bearer_auth(&user.token).json(&json!({}))
    };
    assert_error(&client.send(reverse(&debited.body["id"])).await, 403, "NOT_ALLOWED", "a reversal that is a credit");
    assert_eq!(client.balance(&user).await, 5);
    let own = client.get(&user, "/v1/transactions?type=credit").await.body["items"][0]["id"].clone();
    let partly = reverse(&own).json(&json!({"amountMinor": 2}));
    assert_eq!(client.send(partly).await.status, 201, "a reversal that is a debit");
    assert_eq!(client.balance(&user).await, 3);
}

#[tokio::test]
async fn a_user_can_neither_void_nor_capture_the_hold_of_a_service() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    assert_eq!(client.post(&user, "credit", 100, None).await.status, 201);
    let token = service_token("rides", "wallet:post");
    let placed = request(&client, Method::POST, &user.id, "/holds", &token).json(&json!({"amountMinor": 60}));
    let placed = client.send(placed).await;
    assert_eq!((placed.status.as_u16(), &placed.body["postedBy"]), (201, &json!("rides")), "{placed:?}");
    let hold = placed.body["id"].as_str().expect("an ID");
    for act in ["void", "capture"] {
        let url = format!("{}/v1/holds/{hold}/{act}", client.wallet);
        let own = client.request(Method::POST, &url).bearer_auth(&user.token).json(&json!({}));
        assert_error(&client.send(own).await, 403, "NOT_ALLOWED", act);
    }
    let captured = request(&client, Method::POST, &user.id, &format!("/holds/{hold}/capture"), &token);
    let captured = client.send(captured.json(&json!({}))).await;
    assert_eq!(captured.status, 201, "{captured:?}");
    assert_eq!(client.balance(&user).await, 40);
}

#[tokio::test]
async fn nobody_credits_their_own_wallet_where_self_post_forbids_it_sixty_four_fold_through_two_processes() {
    let world = World::new().await;
    let users = world.start(Role::Users).await;
    let forbidden = [("SELF_POST", "debit")];
    let (one, two) =
        tokio::join!(world.start_with(Role::Wallet, &forbidden), world.start_with(Role::Wallet, &forbidden));
    let clients = [&one, &two].map(|wallet| Client::new(&users.url(), &wallet.url()));
    let user = clients[0].ready_user().await;
    let token = service_token("payments", "wallet:post");
    let attempts = (0..64).map(|n: usize| {
        let (client, user, token) = (&clients[n % 2], &user, &token);
        async move {
            let own = client.post(user, "credit", 1, Some(&format!("k{n}"))).await;
            // The same key and body, at the same time, by those who may.
            let url = format!("{}/v1/wallets/{}/transactions/credit", client.wallet, user.id);
            let request =
                client.request(Method::POST, &url).bearer_auth(token).header("idempotency-key", format!("k{n}"));
            (own, client.send(request.json(&json!({"amountMinor": 1}))).await)
        }
    });
    for (own, by_service) in join_all(attempts).await {
        assert_error(&own, 403, "NOT_ALLOWED", "a credit by its user");
        assert_eq!(by_service.status, 201, "{by_service:?}");
    }
    assert_eq!(clients[1].balance(&user).await, 64);
    assert_eq!(world.sql(Role::Wallet, "SELECT count(*) FROM transactions").await, "64");
}

#[tokio::test]
async fn a_token_of_the_command_is_accepted_and_the_previous_key_during_a_rotation() {
    let world = World::new().await;
    let (_users, wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let arguments = ["--service", "shop-2", "--scope", "wallet:read", "--scope", "wallet:post", "--ttl", "24h"];
    let output = issued(&arguments, &[]).await;
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.err.contains("INTERNAL_JWT_PRIVATE_KEY has 22 bytes"), "{output:?}");
    let token = output.out.trim_end();
    assert_eq!(output.out, format!("{token}\n"));
    assert_eq!(credit(&client, &user.id, 5, token).await.status, 201);
    assert_eq!(get(&client, &user.id, "/balance", token).await.body["balanceMinor"], 5);
    drop(wallet);
    let rotated =
        [("INTERNAL_JWT_PRIVATE_KEY", "the new internal key"), ("INTERNAL_JWT_PRIVATE_KEY_PREVIOUS", INTERNAL_KEY)];
    for (keys, status) in [(&rotated[..], 200), (&rotated[..1], 401)] {
        let wallet = world.start_with(Role::Wallet, keys).await;
        let client = Client::new(&wallet.url(), &wallet.url());
        let response = get(&client, &user.id, "/balance", token).await;
        assert_eq!(response.status, status, "{keys:?}: {response:?}");
    }
}

#[tokio::test]
async fn scopes_are_separated_by_spaces_as_in_the_claim_or_by_commas_or_given_one_by_one() {
    for scopes in [
        &["--scope", "wallet:read wallet:post"][..],
        &["--scope", " wallet:post  wallet:read "],
        &["--scope", "wallet:read,wallet:post"],
        &["--scope", "wallet:read", "--scope", "wallet:post wallet:read"],
    ] {
        let output = issued(&[&["--service", "shop"], scopes].concat(), &[]).await;
        let claims = output.out.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
        let claims: Value =
            serde_json::from_slice(&claims.unwrap_or_default()).unwrap_or_else(|e| panic!("{e}: {output:?}"));
        assert_eq!(claims["scope"], "wallet:read wallet:post", "{scopes:?}");
    }
}

#[tokio::test]
async fn a_service_token_that_could_not_be_used_is_not_issued() {
    let long = "s".repeat(33);
    let base = ["--service", "payments", "--scope", "wallet:read"];
    for (arguments, named) in [
        (&base[..2], "--scope"),
        (&base[2..], "--service"),
        (&["--service", "Payments", "--scope", "wallet:read"], "1 to 32 characters"),
        (&["--service", "", "--scope", "wallet:read"], "--service"),
        (&["--service", &long, "--scope", "wallet:read"], "1 to 32 characters"),
        (&["--service", "payments", "--scope", "wallet:write"], "wallet:read or wallet:post"),
        (&["--service", "payments", "--scope", "wallet:read wallet:write"], "separate several by spaces or commas"),
        (&["--service", "payments", "--scope", "wallet:read;wallet:post"], "wallet:read or wallet:post"),
        (&["--service", "payments", "--scope", "  "], "no scope"),
        (&["--service", "payments", "--scope", ""], "no scope"),
        (&[&base[..], &["--ttl", "25h"]].concat(), "up to 24h"),
        (&[&base[..], &["--ttl", "0s"]].concat(), "up to 24h"),
        (&[&base[..], &["--ttl", "500ms"]].concat(), "whole seconds"),
    ] {
        let output = issued(arguments, &[]).await;
        assert_eq!((output.code, output.out.as_str()), (Some(64), ""), "{arguments:?}: {output:?}");
        assert!(output.err.contains(named), "{arguments:?}: {output:?}");
    }
    let short = issued(&base, &[("APP_ENV", "production")]).await;
    assert_eq!((short.code, short.out.as_str()), (Some(64), ""), "{short:?}");
    assert!(short.err.contains("INTERNAL_JWT_PRIVATE_KEY: has 22 bytes"), "{short:?}");
    let none = purse(&[&["token"], &base[..]].concat(), &BTreeMap::new()).await;
    assert_eq!(none.code, Some(64));
    assert!(none.err.contains("INTERNAL_JWT_PRIVATE_KEY: is required"), "{none:?}");
}

#[tokio::test]
async fn production_does_not_start_until_self_post_is_set_either_way() {
    let key = |letter: &str| letter.repeat(32);
    let settings = |self_post: Option<&str>| -> BTreeMap<String, String> {
        let keys = [("JWT_PRIVATE_KEY", key("a")), ("INTERNAL_JWT_PRIVATE_KEY", key("b"))];
        let rest = [
            ("APP_ENV", "production"),
            ("WALLET_DATABASE_URL", "postgres://a:b@127.0.0.1:1/c"),
            ("RABBITMQ_URL", "amqp://a:b@127.0.0.1:1/%2f"),
        ];
        let rest = rest.into_iter().chain(self_post.map(|value| ("SELF_POST", value)));
        keys.into_iter()
            .chain(rest.map(|(name, value)| (name, value.to_owned())))
            .map(|(n, v)| (n.to_owned(), v))
            .collect()
    };
    let check = async |self_post| purse(&["check-config", "--role", "wallet"], &settings(self_post)).await;
    for valid in ["credit,debit", "debit", "none"] {
        let output = check(Some(valid)).await;
        assert_eq!(output.code, Some(0), "{valid}: {output:?}");
    }
    for (invalid, problem) in [
        (None, "SELF_POST: is required in production"),
        (Some("credit"), "SELF_POST: `credit` must be `credit,debit`, `debit` or `none`"),
        (Some("yes"), "SELF_POST: `yes` must be"),
    ] {
        let output = check(invalid).await;
        assert_eq!(output.code, Some(64), "{invalid:?}: {output:?}");
        assert!(output.err.contains(problem), "{invalid:?}: {output:?}");
    }
}
