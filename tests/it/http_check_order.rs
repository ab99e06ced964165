//! The order of checks: 404 and 405, then 401, the scope of a service, then 429, then the gate, then 415, 413 and 400.

use purse::kernel::Role;
use reqwest::Method;
use serde_json::json;

use crate::support::{
    Client, Raw, Response, World, assert_common_headers, assert_error, assert_json_response, service_token, token_of,
    unknown_user_id,
};

/// Role, path and methods of every route of users and operators.
const ROUTES: [(Role, &str, &[&str]); 16] = [
    (Role::Users, "/v1/auth/register", &["POST"]),
    (Role::Users, "/v1/auth/login", &["POST"]),
    (Role::Users, "/v1/users/me", &["GET"]),
    (Role::Users, "/health/live", &["GET"]),
    (Role::Users, "/health/ready", &["GET"]),
    (Role::Wallet, "/v1/transactions", &["GET", "POST"]),
    (Role::Wallet, "/v1/transactions/credit", &["POST"]),
    (Role::Wallet, "/v1/transactions/debit", &["POST"]),
    (Role::Wallet, "/v1/transactions/bulk", &["POST"]),
    (Role::Wallet, "/v1/transactions/0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e/reverse", &["POST"]),
    (Role::Wallet, "/v1/transactions/0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e", &["GET"]),
    (Role::Wallet, "/v1/statements", &["GET"]),
    (Role::Wallet, "/v1/balance", &["GET"]),
    (Role::Wallet, "/v1/wallet/status", &["GET"]),
    (Role::Wallet, "/health/live", &["GET"]),
    (Role::Wallet, "/health/ready", &["GET"]),
];

/// The routes of services.
const SERVICE_ROUTES: [(Role, &str, &[&str]); 5] = [
    (Role::Wallet, "/v1/wallets/0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e/balance", &["GET"]),
    (Role::Wallet, "/v1/wallets/x/transactions", &["GET", "POST"]),
    (Role::Wallet, "/v1/wallets/x/transactions/credit", &["POST"]),
    (Role::Wallet, "/v1/wallets/x/transactions/debit", &["POST"]),
    (Role::Wallet, "/v1/wallets/x/transactions/0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e", &["GET"]),
];

/// Pages of both roles.
const PAGES: [&str; 3] = ["/openapi.json", "/docs", "/docs/page.js"];

/// Every route and every page.
fn everything() -> impl Iterator<Item = (Role, &'static str, &'static [&'static str])> {
    let pages = Role::ALL.into_iter().flat_map(|role| PAGES.map(|path| (role, path, ["GET"].as_slice())));
    ROUTES.into_iter().chain(SERVICE_ROUTES).chain(pages)
}

/// A request without a token, written by hand, because a client library would normalize path and method.
async fn bare(client: &Client, role: Role, method: &str, path: &str) -> Response {
    let url = if role == Role::Users { &client.users } else { &client.wallet };
    let mut raw = Raw::connect(url).await;
    let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    raw.send(request).await;
    raw.response().await.unwrap_or_else(|| panic!("{method} {path}: no response"))
}

#[tokio::test]
async fn an_unsupported_method_returns_405_with_the_supported_ones_before_any_other_check() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    for (role, path, has) in everything() {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "get", "BREW"] {
            if has.contains(&method) {
                continue;
            }
            let about = format!("{method} {path}");
            let response = bare(&client, role, method, path).await;
            assert_error(&response, 405, "METHOD_NOT_ALLOWED", &about);
            let mut allowed: Vec<_> = response.header("allow").split(", ").collect();
            allowed.sort_unstable();
            // Every route with GET also has HEAD.
            let mut expected: Vec<_> = has.iter().copied().chain(has.contains(&"GET").then_some("HEAD")).collect();
            expected.sort_unstable();
            assert_eq!(allowed, expected, "{about}: {response:?}");
        }
    }
}

#[tokio::test]
async fn head_returns_the_same_as_get_without_the_body() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    for (role, path, has) in everything() {
        let url = if role == Role::Users { &client.users } else { &client.wallet };
        let send = async |method| {
            let request = client.request(method, &format!("{url}{path}")).bearer_auth(&user.token);
            let response = request.send().await.expect("a response");
            let (status, headers) = (response.status(), response.headers().clone());
            (Response { status, headers, body: json!(null) }, response.bytes().await.expect("read"))
        };
        let (head, nothing) = send(Method::HEAD).await;
        assert!(nothing.is_empty(), "{path}");
        assert_common_headers(&head, path);
        if !has.contains(&"GET") {
            assert_eq!((head.status.as_u16(), head.header("allow")), (405, "POST"), "{path}");
            continue;
        }
        let (get, body) = send(Method::GET).await;
        assert_eq!(head.status, get.status, "{path}");
        for name in ["content-type", "content-length", "content-security-policy", "allow"] {
            assert_eq!(head.header(name), get.header(name), "{path}: {name}");
        }
        assert_eq!(head.header("content-length"), body.len().to_string(), "{path}");
    }
}

#[tokio::test]
async fn a_path_that_is_not_exactly_a_route_returns_404_before_any_other_check() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    for path in
        ["//", "/v1", "/v1/", "/v2/balance", "/v1/accounts", "/favicon.ico", "/.env", "/health", "/*", "/v1/%00"]
    {
        for (role, method) in
            [(Role::Users, "GET"), (Role::Users, "POST"), (Role::Wallet, "GET"), (Role::Wallet, "TRACE")]
        {
            assert_error(&bare(&client, role, method, path).await, 404, "NOT_FOUND", &format!("{method} {path}"));
        }
    }
    for (role, path, has) in everything() {
        let variants = [
            format!("{path}/"),
            format!("{path}//"),
            format!("/{path}"),
            path.replacen("/v1/", "/v1//", 1).replacen("/health/", "/health//", 1),
            path.replacen("/v1", "/V1", 1).replacen("/health", "/Health", 1),
            path.replacen("/v1/", "/v1%2f", 1).replacen("/health/", "/health%2F", 1),
            path.replacen("/v1/", "/v1/./", 1).replacen("/health/", "/health/./", 1),
            path.replacen("/v1/", "/v1/x/../", 1).replacen("/health/", "/health/x/../", 1),
            format!("{path}/more/of/it"),
            format!("{path};x=1/"),
        ];
        for variant in variants.into_iter().filter(|variant| variant != path) {
            let about = format!("{} {variant}", has[0]);
            assert_error(&bare(&client, role, has[0], &variant).await, 404, "NOT_FOUND", &about);
        }
        // The other role does not have the route.
        if path.starts_with("/v1") {
            let other = if role == Role::Users { Role::Wallet } else { Role::Users };
            assert_error(&bare(&client, other, has[0], path).await, 404, "NOT_FOUND", path);
        }
    }
}

#[tokio::test]
async fn without_a_token_every_wallet_route_and_the_profile_return_401() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    for (role, path, has) in ROUTES.into_iter().chain(SERVICE_ROUTES) {
        if path.starts_with("/health") || path.starts_with("/v1/auth") {
            continue;
        }
        for method in has {
            // There is neither a media type nor a body: the token is checked before both.
            let response = bare(&client, role, method, path).await;
            assert_error(&response, 401, "UNAUTHORIZED", &format!("{method} {path}"));
            assert_eq!(response.header("www-authenticate"), "Bearer");
        }
    }
    for (role, url) in [(Role::Users, &client.users), (Role::Wallet, &client.wallet)] {
        for path in ["/health/live", "/health/ready"] {
            let response = client.send(client.request(Method::GET, &format!("{url}{path}"))).await;
            assert_eq!((response.status.as_u16(), &response.body["status"]), (200, &json!("ok")), "{role:?} {path}");
            assert_json_response(&response, path);
        }
    }
}

#[tokio::test]
async fn the_token_is_checked_before_the_limit_and_the_limit_before_the_gate() {
    let world = World::new().await;
    let limited = [("RATE_LIMIT_ENABLED", "true"), ("RL_TX_MAX", "2"), ("RL_TX_WINDOW", "1h")];
    let wallet = world.start_with(Role::Wallet, &limited).await;
    let client = Client::new(&wallet.url(), &wallet.url());
    let token = token_of(&unknown_user_id());
    let url = format!("{}/v1/transactions/credit", client.wallet);
    let post = |token: &str| client.request(Method::POST, &url).bearer_auth(token);
    for n in 1..=2 {
        // Without a media type and a body: neither is read.
        let gate = client.send(post(&token)).await;
        assert_error(&gate, 503, "WALLET_PROVISIONING", &format!("request {n}"));
    }
    assert_error(&client.send(post(&token)).await, 429, "RATE_LIMITED", "the limit is checked before the gate");
    assert_error(&client.send(post("x")).await, 401, "UNAUTHORIZED", "the token is checked before the limit");
    let delete = client.send(client.request(Method::DELETE, &url)).await;
    assert_error(&delete, 405, "METHOD_NOT_ALLOWED", "the method is checked first");
}

#[tokio::test]
async fn the_scope_of_a_service_is_checked_before_the_limit_and_the_limit_before_the_wallet() {
    let world = World::new().await;
    let limited = [("RATE_LIMIT_ENABLED", "true"), ("RL_SERVICE_MAX", "1"), ("RL_SERVICE_WINDOW", "1h")];
    let wallet = world.start_with(Role::Wallet, &limited).await;
    let client = Client::new(&wallet.url(), &wallet.url());
    let url = format!("{}/v1/wallets/{}/transactions/credit?x=1", client.wallet, unknown_user_id());
    let post = |scope: &str| client.request(Method::POST, &url).bearer_auth(service_token("payments", scope));
    let scope = client.send(post("wallet:read")).await;
    assert_error(&scope, 403, "INSUFFICIENT_SCOPE", "the scope is checked first");
    let gate = client.send(post("wallet:post")).await;
    assert_error(&gate, 404, "WALLET_NOT_FOUND", "the wallet is checked before the query and the body");
    assert_error(
        &client.send(post("wallet:post")).await,
        429,
        "RATE_LIMITED",
        "the limit is checked before the wallet",
    );
    let scope = client.send(post("wallet:read")).await;
    assert_error(&scope, 403, "INSUFFICIENT_SCOPE", "the scope is checked before the limit");
}

#[tokio::test]
async fn the_gate_returns_the_same_503_whatever_else_is_wrong_with_the_request() {
    let world = World::new().await;
    let wallet = world.start(Role::Wallet).await;
    let client = Client::new(&wallet.url(), &wallet.url());
    let token = token_of(&unknown_user_id());
    for (role, path, has) in ROUTES {
        if role == Role::Users || path.starts_with("/health") {
            continue;
        }
        for (method, query) in has.iter().flat_map(|method| [(method, ""), (method, "?limit=x&wait=x&at=x&unknown=x")])
        {
            let about = format!("{method} {path}{query}");
            let method = method.parse::<Method>().expect("method");
            let request = client.request(method, &format!("{}{path}{query}", client.wallet)).bearer_auth(&token);
            let invalid = request.header("content-type", "text/plain").header("idempotency-key", "").body("[");
            let response = client.send(invalid).await;
            assert_error(&response, 503, "WALLET_PROVISIONING", &about);
            assert_eq!(response.header("retry-after"), "2", "{about}");
            let body = json!({"code": "WALLET_PROVISIONING", "message": "Wallet is being provisioned. Retry shortly."});
            assert_eq!(response.body, body, "{about}");
        }
    }
}
