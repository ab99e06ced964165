//! Headers: request id, trace, authorization, CORS.

use purse::kernel::Role;
use reqwest::Method;
use reqwest::header::HeaderValue;
use serde_json::json;

use crate::support::{
    Client, Response, RoleProcess, World, assert_error, assert_json_response, token_of, unknown_user_id,
};

async fn users() -> (World, RoleProcess, Client) {
    let world = World::new().await;
    let users = world.start(Role::Users).await;
    let client = Client::new(&users.url(), &users.url());
    (world, users, client)
}

/// The response of a cheap route to a request with these headers.
async fn live(client: &Client, headers: &[(&str, &[u8])]) -> Response {
    let mut request = client.request(Method::GET, &format!("{}/health/live", client.users));
    for (name, value) in headers {
        request = request.header(*name, HeaderValue::from_bytes(value).expect("a header value"));
    }
    client.send(request).await
}

#[tokio::test]
async fn a_request_id_of_up_to_64_plain_characters_is_kept_and_any_other_is_replaced() {
    let (_world, _users, client) = users().await;
    let (longest, too_long) = ("r".repeat(64), "r".repeat(65));
    for kept in ["a", "A-z_0.9", "0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e", "...", longest.as_str()] {
        assert_eq!(live(&client, &[("x-request-id", kept.as_bytes())]).await.header("x-request-id"), kept);
    }
    let replaced: [&[u8]; 12] = [
        too_long.as_bytes(),
        b"",
        b"a b",
        b"a\tb",
        b"a/b",
        b"a\"b",
        b"a,b",
        b"<x>",
        b"{}",
        b"%0a",
        "\u{fc}".as_bytes(),
        b"\xff",
    ];
    for sent in replaced {
        let response = live(&client, &[("x-request-id", sent)]).await;
        assert_eq!(response.status, 200, "{sent:?}");
        assert!(response.header("x-request-id").parse::<uuid::Uuid>().is_ok(), "{sent:?}: {response:?}");
    }
    let (first, second) = (live(&client, &[]).await, live(&client, &[]).await);
    assert!(first.header("x-request-id").parse::<uuid::Uuid>().is_ok());
    assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
}

#[tokio::test]
async fn a_well_formed_traceparent_is_kept_and_any_other_is_replaced() {
    let (_world, _users, client) = users().await;
    let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    assert_eq!(live(&client, &[("traceparent", valid.as_bytes())]).await.header("traceparent"), valid);
    for bad in [
        "",
        "x",
        &valid.to_uppercase(),
        &valid.replacen("00-", "ff-", 1),
        &valid.replacen("00-", "01-", 1),
        &format!("{valid}-more"),
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
    ] {
        let response = live(&client, &[("traceparent", bad.as_bytes())]).await;
        let generated = response.header("traceparent");
        assert!(
            generated != bad && generated.len() == 55 && generated.starts_with("00-") && generated.ends_with("-01"),
            "{bad}: {generated}"
        );
    }
}

#[tokio::test]
async fn an_error_response_has_the_id_and_the_trace_of_its_request() {
    let (_world, _users, client) = users().await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    for (method, path, status) in [
        (Method::GET, "/nothing", 404),
        (Method::DELETE, "/v1/auth/login", 405),
        (Method::GET, "/v1/users/me", 401),
        (Method::POST, "/v1/auth/login", 415),
    ] {
        let request = client.request(method, &format!("{}{path}", client.users));
        let response = client.send(request.header("x-request-id", "walk-9").header("traceparent", trace)).await;
        assert_eq!((response.status.as_u16(), response.header("x-request-id")), (status, "walk-9"), "{path}");
        assert_eq!(response.header("traceparent"), trace, "{path}");
        assert_json_response(&response, path);
    }
}

#[tokio::test]
async fn a_token_is_accepted_only_in_a_single_authorization_header_with_the_bearer_scheme() {
    let world = World::new().await;
    let wallet = world.start(Role::Wallet).await;
    let client = Client::new(&wallet.url(), &wallet.url());
    let token = token_of(&unknown_user_id());
    let url = format!("{}/v1/balance", client.wallet);
    let get = |values: Vec<String>| {
        let request = client.request(Method::GET, &url);
        let request = values.into_iter().fold(request, |request, value| request.header("authorization", value));
        client.send(request)
    };
    // A request that reaches the gate has been authenticated.
    for scheme in ["Bearer", "bearer", "BEARER", "bEaReR"] {
        let response = get(vec![format!("{scheme} {token}")]).await;
        assert_error(&response, 503, "WALLET_PROVISIONING", scheme);
    }
    assert_error(&get(vec![format!("Bearer   {token}")]).await, 503, "WALLET_PROVISIONING", "1*SP");
    let genuine = format!("Bearer {token}");
    for values in [
        vec![],
        vec![String::new()],
        vec!["Bearer".into()],
        vec!["Bearer ".into()],
        vec![token.clone()],
        vec![format!("Basic {token}")],
        vec![format!("Bearer{token}")],
        vec![format!("Bearer\t{token}")],
        vec![format!("Token {token}")],
        vec![format!("Bearer {token} {token}")],
        vec![format!("Bearer {token}, Bearer {token}")],
        vec![format!("Bearer \"{token}\"")],
        vec![format!("Bearer token={token}")],
        vec![genuine.clone(), genuine.clone()],
        vec!["Basic eDp5".into(), genuine.clone()],
        vec![genuine.clone(), "Basic eDp5".into()],
    ] {
        let about = format!("{values:?}");
        let response = get(values).await;
        assert_error(&response, 401, "UNAUTHORIZED", &about);
        assert_eq!(response.header("www-authenticate"), "Bearer", "{about}");
    }
    for query in [format!("access_token={token}"), format!("token={token}")] {
        let response = client.send(client.request(Method::GET, &format!("{url}?{query}"))).await;
        assert_error(&response, 401, "UNAUTHORIZED", "a token in the query");
    }
    let cookie = client.request(Method::GET, &url).header("cookie", format!("accessToken={token}"));
    assert_error(&client.send(cookie).await, 401, "UNAUTHORIZED", "a token in a cookie");
}

#[tokio::test]
async fn no_response_allows_another_site_by_default() {
    let (_world, _users, client) = users().await;
    let login = client
        .request(Method::POST, &format!("{}/v1/auth/login", client.users))
        .header("origin", "https://evil.example")
        .json(&json!({"email": "unknown@example.com", "password": "12345678"}));
    let preflight = client
        .request(Method::OPTIONS, &format!("{}/v1/auth/login", client.users))
        .header("origin", "https://evil.example")
        .header("access-control-request-method", "POST");
    for request in [login, preflight] {
        let response = client.send(request).await;
        assert!(response.headers.keys().all(|name| !name.as_str().starts_with("access-control")), "{response:?}");
        assert!(!response.headers.contains_key("set-cookie"), "{response:?}");
    }
}

#[tokio::test]
async fn only_a_configured_origin_may_read_responses_in_a_browser() {
    let world = World::new().await;
    let named = [("CORS_ORIGINS", "https://app.example.com, http://localhost:8080")];
    let users = world.start_with(Role::Users, &named).await;
    let client = Client::new(&users.url(), &users.url());
    let user = client.user().await;
    let me = format!("{}/v1/users/me", client.users);
    let values = |response: &reqwest::Response, name: &str| {
        let text = |value: &reqwest::header::HeaderValue| value.to_str().expect("text").to_ascii_lowercase();
        response.headers().get_all(name).iter().map(text).collect::<Vec<_>>().join(",")
    };
    for (origin, allowed) in [
        ("https://app.example.com", true),
        ("http://localhost:8080", true),
        ("https://app.example.com.evil.example", false),
    ] {
        let preflight = client.request(Method::OPTIONS, &me).header("origin", origin);
        let preflight = preflight.header("access-control-request-method", "GET");
        let preflight =
            preflight.header("access-control-request-headers", "authorization,idempotency-key").send().await;
        let preflight = preflight.expect("a response");
        assert_eq!(values(&preflight, "access-control-allow-origin"), if allowed { origin } else { "" });
        if allowed {
            let headers = values(&preflight, "access-control-allow-headers");
            assert!(headers.contains("authorization") && headers.contains("idempotency-key"), "{headers}");
            assert!(preflight.status().is_success(), "{preflight:?}");
        }
        let read = client.request(Method::GET, &me).bearer_auth(&user.token).header("origin", origin).send().await;
        let read = read.expect("a response");
        assert_eq!(read.status(), 200, "it is the browser that hides the response from the page");
        assert_eq!(values(&read, "access-control-allow-origin"), if allowed { origin } else { "" });
        assert_eq!(values(&read, "access-control-allow-credentials"), "");
        assert!(!allowed || values(&read, "access-control-expose-headers").contains("retry-after"));
        assert_eq!(values(&read, "cache-control"), "no-store");
    }
}
