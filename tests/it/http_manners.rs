//! What generic clients expect of an HTTP API: `Location`, RFC 9457, links to documentation, `RateLimit`, precise messages.

use purse::kernel::Role;
use reqwest::{Method, RequestBuilder, Url};
use serde_json::{Value, json};

use crate::support::{
    Client, Document, PASSWORD, Raw, Response, World, assert_common_headers, assert_error, assert_invalid,
    unknown_user_id,
};

const PROBLEM: &str = "application/problem+json";

#[tokio::test]
async fn the_location_of_a_201_is_where_the_created_resource_is() {
    let world = World::new().await;
    let (users, _wallet, client) = world.both().await;
    let registered = client.register(&Client::fresh_email()).await;
    assert_eq!(registered.status, 201);
    let at = |base: &str, response: &Response| Url::parse(base).and_then(|url| url.join(response.header("location")));
    let place = at(&format!("{}/v1/auth/register", users.url()), &registered).expect("a URL");
    let token = registered.body["accessToken"].as_str().expect("token").to_owned();
    let me = client.send(client.request(Method::GET, place.as_str()).bearer_auth(&token)).await;
    assert_eq!((me.status.as_u16(), &me.body), (200, &registered.body["user"]), "{me:?}");

    let user = client.ready_user().await;
    for (path, body) in [
        ("/v1/transactions/credit", json!({"amountMinor": 5})),
        ("/v1/transactions/debit", json!({"amountMinor": 1})),
        ("/v1/transactions", json!({"type": "credit", "amountMinor": 2})),
    ] {
        let url = format!("{}{path}", client.wallet);
        let send = || {
            client.send(
                client.request(Method::POST, &url).bearer_auth(&user.token).header("idempotency-key", path).json(&body),
            )
        };
        let created = send().await;
        assert_eq!(created.status, 201, "{created:?}");
        let place = at(&url, &created).expect("a URL");
        let found = client.send(client.request(Method::GET, place.as_str()).bearer_auth(&user.token)).await;
        assert_eq!((found.status.as_u16(), &found.body), (200, &created.body), "{place}");
        let replayed = send().await;
        assert_eq!((replayed.status.as_u16(), replayed.header("location")), (200, ""), "only a 201 has it");
    }
}

#[tokio::test]
async fn links_begin_with_the_configured_public_url() {
    let world = World::new().await;
    let base = "https://example.com/purse";
    let users = world.start_with(Role::Users, &[("USERS_PUBLIC_URL", &format!("{base}/"))]).await;
    let client = Client::new(&users.url(), &users.url());
    let registered = client.register(&Client::fresh_email()).await;
    assert_eq!(registered.header("location"), format!("{base}/v1/users/me"));
    let unknown = client.send(client.request(Method::GET, &format!("{}/nothing", users.url()))).await;
    assert_eq!(unknown.header("link"), format!("<{base}/docs/errors#NOT_FOUND>; rel=\"help\""));
    let mut raw = Raw::connect(&users.url()).await;
    raw.send("nonsense\r\n\r\n").await;
    let malformed = raw.response().await.expect("a response");
    assert_eq!(malformed.header("link"), format!("<{base}/docs/errors#VALIDATION_ERROR>; rel=\"help\""));
}

/// A request that is answered with an error, with the code of that.
fn refused(client: &Client, token: &str) -> Vec<(&'static str, RequestBuilder)> {
    let request = |method: Method, base: &str, path: &str| client.request(method, &format!("{base}{path}"));
    let (users, wallet) = (client.users.as_str(), client.wallet.as_str());
    let post = |path: &str| request(Method::POST, wallet, path).bearer_auth(token);
    let json_text =
        |request: RequestBuilder, body: String| request.header("content-type", "application/json").body(body);
    vec![
        ("NOT_FOUND", request(Method::GET, users, "/nothing")),
        ("METHOD_NOT_ALLOWED", request(Method::DELETE, wallet, "/v1/balance")),
        ("UNAUTHORIZED", request(Method::GET, wallet, "/v1/balance")),
        ("VALIDATION_ERROR", request(Method::GET, wallet, "/v1/balance?x=1").bearer_auth(token)),
        ("VALIDATION_ERROR", post("/v1/transactions/credit").json(&json!({"colour": "red"}))),
        ("VALIDATION_ERROR", json_text(post("/v1/transactions/credit"), "{".to_owned())),
        ("UNSUPPORTED_MEDIA_TYPE", post("/v1/transactions/credit").body("x")),
        ("PAYLOAD_TOO_LARGE", json_text(post("/v1/transactions/credit"), "x".repeat(20_000))),
        ("HEADERS_TOO_LARGE", request(Method::GET, wallet, "/v1/balance").header("x-pad", "p".repeat(9_000))),
        ("INSUFFICIENT_FUNDS", post("/v1/transactions/debit").json(&json!({"amountMinor": 1}))),
        (
            "TRANSACTION_NOT_FOUND",
            request(Method::GET, wallet, &format!("/v1/transactions/{}", unknown_user_id())).bearer_auth(token),
        ),
        (
            "INVALID_CREDENTIALS",
            request(Method::POST, users, "/v1/auth/login").json(&json!({"email": "x@y.z", "password": PASSWORD})),
        ),
    ]
}

fn assert_problem(document: &Document, response: &Response, error: &Response) {
    let about = format!("{response:?}");
    assert_eq!(response.header("content-type"), PROBLEM, "{about}");
    assert_common_headers(response, &about);
    let (body, code) = (&response.body, error.code());
    let schema = json!({"$ref": "#/components/schemas/Problem"});
    let violations: Vec<_> = document.validator(&schema, true).iter_errors(body).map(|e| e.to_string()).collect();
    assert_eq!(violations, Vec::<String>::new(), "{about}");
    assert_eq!(body["status"], response.status.as_u16(), "{about}");
    assert_eq!(body["type"], format!("/docs/errors#{code}"), "{about}");
    let title = body["title"].as_str().expect("a title").to_uppercase().replace(' ', "_");
    assert_eq!(title, code, "{about}");
    assert_eq!(body["details"], error.body["details"], "{about}");
    let names = ["retry-after", "www-authenticate", "allow", "link", "ratelimit-policy"];
    assert_eq!(names.map(|name| response.header(name)), names.map(|name| error.header(name)), "{about}");
    // A wait that both state may differ, because time passes.
    let without_digits = |text: &Value| text.as_str().expect("a text").replace(|c: char| c.is_ascii_digit(), "");
    assert_eq!(without_digits(&body["detail"]), without_digits(&error.body["message"]), "{about}");
}

#[tokio::test]
async fn an_error_is_a_problem_document_exactly_for_clients_that_ask_for_one() {
    let world = World::new().await;
    let (_users, wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let documents = [Document::of(&client, &client.users).await, Document::of(&client, &wallet.url()).await];
    for (code, request) in refused(&client, &user.token) {
        let document = &documents[usize::from(
            request
                .try_clone()
                .and_then(|r| r.build().ok())
                .expect("a request")
                .url()
                .as_str()
                .starts_with(&client.wallet),
        )];
        let with = |accept: &'static str| {
            let request = request.try_clone().expect("a request").header("accept", accept);
            let client = client.clone();
            async move { client.send(request).await }
        };
        let plain = client.send(request.try_clone().expect("a request")).await;
        assert_error(&plain, plain.status.as_u16(), code, "without Accept");
        for accept in [
            "application/problem+json",
            "application/json, application/problem+json",
            "application/problem+json, application/json;q=0.9",
            "text/html, Application/Problem+JSON; q=0.2, */*;q=0.1",
        ] {
            assert_problem(document, &with(accept).await, &plain);
        }
        for accept in [
            "*/*",
            "application/*",
            "application/json",
            "application/problem+json;q=0",
            "application/problem+json;q=0.5, application/json",
            "text/html, application/xhtml+xml, */*;q=0.8",
            ";;,",
        ] {
            let response = with(accept).await;
            assert_error(&response, plain.status.as_u16(), code, accept);
        }
    }
    // What is not an error stays as it is.
    let balance = client.request(Method::GET, &format!("{}/v1/balance", client.wallet)).bearer_auth(&user.token);
    let balance = client.send(balance.header("accept", PROBLEM)).await;
    assert_eq!((balance.status.as_u16(), balance.header("content-type")), (200, "application/json"));
}

#[tokio::test]
async fn a_limited_request_and_one_during_an_outage_get_a_problem_document_too() {
    let world = World::new().await;
    let settings = [("RATE_LIMIT_ENABLED", "true"), ("RL_LOGIN_MAX", "1"), ("RL_LOGIN_WINDOW", "1h")];
    let users = world.start_with(Role::Users, &settings).await;
    let client = Client::new(&users.url(), &users.url());
    let document = Document::of(&client, &users.url()).await;
    let login = || client.request(Method::POST, &format!("{}/v1/auth/login", users.url()));
    assert_eq!(client.send(login()).await.status, 415);
    let plain = client.send(login()).await;
    assert_error(&plain, 429, "RATE_LIMITED", "the second");
    assert_problem(&document, &client.send(login().header("accept", PROBLEM)).await, &plain);

    let token = crate::support::token_of(&unknown_user_id());
    world.sql(Role::Users, "ALTER TABLE users RENAME TO gone").await;
    let me = || client.request(Method::GET, &format!("{}/v1/users/me", users.url())).bearer_auth(&token);
    let plain = client.send(me()).await;
    assert_error(&plain, 500, "INTERNAL_ERROR", "without its table");
    assert_problem(&document, &client.send(me().header("accept", PROBLEM)).await, &plain);
}

#[tokio::test]
async fn the_page_of_error_codes_has_every_code_of_the_documents_at_its_fragment() {
    let world = World::new().await;
    let (users, wallet, client) = world.both().await;
    for process in [&users, &wallet] {
        let response =
            client.request(Method::GET, &format!("{}/docs/errors", process.url())).send().await.expect("a response");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
        assert!(
            response.headers()["content-security-policy"].to_str().expect("text").starts_with("default-src 'none'")
        );
        let page = response.text().await.expect("a page");
        let codes = Document::of(&client, &process.url()).await.codes();
        assert!(codes.len() > 10, "{codes:?}");
        for code in codes {
            assert_eq!(page.matches(&format!("id=\"{code}\"")).count(), 1, "{code}");
        }
        assert!(!page.contains(['`', '{']), "{page}");
    }
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_a_400_that_says_why_and_where() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let post = |body: &'static str| {
        let request = client.request(Method::POST, &format!("{}/v1/transactions/credit", client.wallet));
        client.send(request.bearer_auth(&user.token).header("content-type", "application/json").body(body))
    };
    for (body, field, message) in [
        ("[]", "body", "must be a JSON object"),
        ("", "body", "must be a JSON object"),
        ("null", "body", "must be a JSON object"),
        ("{\"amountMinor\": 5,}", "body", "is not valid JSON in line 1, character 19"),
        ("{\n  \"description\": \"größer\",\n  amountMinor: 5\n}", "body", "is not valid JSON in line 3, character 3"),
        ("{\"amountMinor\": 5", "body", "is not valid JSON: it ends too early, in line 1, character 17"),
        ("{\"amountMinor\": 5, \"amountMinor\": 6}", "amountMinor", "must not be repeated"),
    ] {
        let response = post(body).await;
        assert_invalid(&response, &[field], body);
        assert_eq!(response.body["details"][0]["message"], message, "{body}");
    }
    let both = post("{\"amountMinor\": 5, \"amountMinor\": 6, \"description\": 7}").await;
    assert_invalid(&both, &["amountMinor", "description"], "every problem at once");
    assert_eq!(client.balance(&user).await, 0);
}

/// Checks `RateLimit` and `RateLimit-Policy` against the other fields, and returns what is left.
fn assert_counted(response: &Response, name: &str, max: u32, window_s: u32) -> u32 {
    let about = format!("{response:?}");
    assert_eq!(response.header("ratelimit-policy"), format!("\"{name}\";q={max};w={window_s}"), "{about}");
    let remaining: u32 = response.header("ratelimit-remaining").parse().expect("a number");
    let wait_s: u32 = if response.status == 429 {
        response.header("retry-after").parse().expect("seconds")
    } else {
        window_s.div_ceil(max)
    };
    assert_eq!(response.header("ratelimit"), format!("\"{name}\";r={remaining};t={wait_s}"), "{about}");
    assert_eq!(response.header("ratelimit-limit"), max.to_string(), "{about}");
    remaining
}

#[tokio::test]
async fn every_counted_response_has_the_fields_of_the_current_draft_whatever_its_status_and_the_store() {
    for store in ["local", "postgres"] {
        let world = World::new().await;
        let settings = [
            ("RATE_LIMIT_ENABLED", "true"),
            ("RATE_LIMIT_STORE", store),
            ("RL_REGISTER_MAX", "3"),
            ("RL_REGISTER_WINDOW", "1h"),
            ("RL_LOGIN_MAX", "7"),
            ("RL_LOGIN_WINDOW", "1h"),
        ];
        let users = world.start_with(Role::Users, &settings).await;
        let wallet = world
            .start_with(
                Role::Wallet,
                &[
                    ("RATE_LIMIT_ENABLED", "true"),
                    ("RATE_LIMIT_STORE", store),
                    ("RL_TX_MAX", "2"),
                    ("RL_TX_WINDOW", "1h"),
                ],
            )
            .await;
        let client = Client::new(&users.url(), &wallet.url());
        let email = Client::fresh_email();
        let mut seen = Vec::new();
        for _ in 0..4 {
            let response = client.register(&email).await;
            seen.push((response.status.as_u16(), assert_counted(&response, "register", 3, 3600)));
        }
        assert_eq!(seen, [(201, 2), (409, 1), (409, 0), (429, 0)], "{store}");
        let login = client.log_in(&email, "wrong").await;
        assert_eq!((login.status.as_u16(), assert_counted(&login, "login", 7, 3600)), (401, 6), "{store}");
        let token = client.log_in(&email, PASSWORD).await.body["accessToken"].as_str().expect("token").to_owned();
        let request =
            |method: Method, path: &str| client.request(method, &format!("{}{path}", wallet.url())).bearer_auth(&token);
        assert_eq!(client.send(request(Method::GET, "/v1/wallet/status?wait=30")).await.status, 200);
        let mut seen = Vec::new();
        for body in [json!({"amountMinor": 5}), json!({}), json!({"amountMinor": 5})] {
            let response = client.send(request(Method::POST, "/v1/transactions/credit").json(&body)).await;
            seen.push((response.status.as_u16(), assert_counted(&response, "transactions", 2, 3600)));
        }
        assert_eq!(seen, [(201, 1), (400, 0), (429, 0)], "{store}");
        let unlimited = client.send(request(Method::GET, "/v1/balance")).await;
        assert!(unlimited.headers.keys().all(|name| !name.as_str().contains("ratelimit")), "{unlimited:?}");
        let rejected =
            client.send(client.request(Method::POST, &format!("{}/v1/transactions/credit", wallet.url()))).await;
        assert_eq!((rejected.status.as_u16(), rejected.header("ratelimit")), (401, ""), "not counted");
    }
}
