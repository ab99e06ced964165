use std::sync::atomic::{AtomicU64, Ordering};

use reqwest::{Method, RequestBuilder, StatusCode, header::HeaderMap};
use serde_json::{Value, json};

use super::leaks;

static COUNTER: AtomicU64 = AtomicU64::new(0);

/// The password of every user that a test registers without choosing one.
pub const PASSWORD: &str = "correct horse battery";

#[derive(Clone)]
pub struct Client {
    pub users: String,
    pub wallet: String,
    http: reqwest::Client,
}

#[derive(Clone, Debug)]
pub struct User {
    pub id: String,
    pub email: String,
    pub token: String,
}

/// A response whose body was received completely.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Response {
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    /// The invalid fields that a 400 lists.
    pub fn fields(&self) -> Vec<&str> {
        let details = self.body["details"].as_array().map(Vec::as_slice).unwrap_or_default();
        details.iter().filter_map(|d| d["field"].as_str()).collect()
    }
}

impl Client {
    pub fn new(users: &str, wallet: &str) -> Self {
        Self { users: users.to_owned(), wallet: wallet.to_owned(), http: reqwest::Client::new() }
    }

    pub fn request(&self, method: Method, url: &str) -> RequestBuilder {
        self.http.request(method, url)
    }

    /// The response must be JSON, or declare that it is text.
    pub async fn send(&self, request: RequestBuilder) -> Response {
        self.try_send(request).await.expect("a response")
    }

    /// `None` if the connection broke.
    pub async fn try_send(&self, request: RequestBuilder) -> Option<Response> {
        let response = request.send().await.ok()?;
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.ok()?;
        assert!(text.is_empty() || text.ends_with('\n'), "{status} without a line end: {text:?}");
        let kind = headers.get("content-type").map(|value| value.to_str().expect("ASCII")).unwrap_or_default();
        let is_text = kind.starts_with("text/") || kind == "application/x-ndjson";
        let body = if is_text {
            Value::String(text)
        } else {
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{status} without JSON ({e}): {text}"))
        };
        Some(Response { status, headers, body })
    }

    pub fn fresh_email() -> String {
        format!("u{}-{}@example.com", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
    }

    pub async fn register(&self, email: &str) -> Response {
        self.try_register(email).await.expect("a response")
    }

    /// `None` if the connection broke.
    pub async fn try_register(&self, email: &str) -> Option<Response> {
        let body = json!({"firstName": "Ada", "lastName": "Lovelace", "email": email, "password": PASSWORD});
        self.try_send(self.request(Method::POST, &format!("{}/v1/auth/register", self.users)).json(&body)).await
    }

    /// The user that a 201 describes.
    pub fn registered_user(response: &Response) -> Option<User> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let (user, token) = (&response.body["user"], &response.body["accessToken"]);
        (response.status == 201)
            .then(|| Some(User { id: text(&user["id"])?, email: text(&user["email"])?, token: text(token)? }))
            .flatten()
    }

    /// Registers a new user.
    pub async fn user(&self) -> User {
        let response = self.register(&Self::fresh_email()).await;
        Self::registered_user(&response).unwrap_or_else(|| panic!("{response:?}"))
    }

    /// Registers a new user and waits for the wallet.
    pub async fn ready_user(&self) -> User {
        let user = self.user().await;
        let status = self.get(&user, "/v1/wallet/status?wait=30").await;
        assert_eq!(status.status, 200, "{status:?}");
        user
    }

    pub async fn log_in(&self, email: &str, password: &str) -> Response {
        leaks::note_password(password);
        let body = json!({"email": email, "password": password});
        self.send(self.request(Method::POST, &format!("{}/v1/auth/login", self.users)).json(&body)).await
    }

    pub async fn me(&self, token: &str) -> Response {
        self.send(self.request(Method::GET, &format!("{}/v1/users/me", self.users)).bearer_auth(token)).await
    }

    /// A GET from the wallet role.
    pub async fn get(&self, user: &User, path: &str) -> Response {
        self.send(self.request(Method::GET, &format!("{}{path}", self.wallet)).bearer_auth(&user.token)).await
    }

    pub fn post_request(&self, user: &User, kind: &str, body: &Value, key: Option<&str>) -> RequestBuilder {
        let url = format!("{}/v1/transactions/{kind}", self.wallet);
        let request = self.request(Method::POST, &url).bearer_auth(&user.token).json(body);
        key.map_or_else(
            || request.try_clone().expect("cloned"),
            |key| request.try_clone().expect("cloned").header("idempotency-key", key),
        )
    }

    pub async fn post(&self, user: &User, kind: &str, cents: i64, key: Option<&str>) -> Response {
        self.send(self.post_request(user, kind, &json!({"amountMinor": cents}), key)).await
    }

    pub async fn balance(&self, user: &User) -> i64 {
        let response = self.get(user, "/v1/balance").await;
        response.body["balanceMinor"].as_i64().unwrap_or_else(|| panic!("{response:?}"))
    }
}
