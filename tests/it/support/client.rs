//! A client of both roles.

use std::sync::atomic::{AtomicU64, Ordering};

use reqwest::{Method, RequestBuilder, StatusCode, header::HeaderMap};
use serde_json::{Value, json};

use super::leaks;

static COUNTER: AtomicU64 = AtomicU64::new(0);

/// The password of every user that a test registers without saying one.
pub const PASSWORD: &str = "correct horse battery";

#[derive(Clone)]
pub struct Client {
    pub users: String,
    pub wallet: String,
    http: reqwest::Client,
}

/// A registered person, with a token.
#[derive(Clone, Debug)]
pub struct User {
    pub id: String,
    pub email: String,
    pub token: String,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    /// The fields that a 400 complains of.
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

    /// Sends it; the answer must be JSON, or say that it is plain text.
    pub async fn send(&self, request: RequestBuilder) -> Answer {
        self.try_send(request).await.expect("an answer")
    }

    /// Sends it; `None` where the connection broke.
    pub async fn try_send(&self, request: RequestBuilder) -> Option<Answer> {
        let response = request.send().await.ok()?;
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.ok()?;
        assert!(text.is_empty() || text.ends_with('\n'), "{status} without a line end: {text:?}");
        let is_text = headers.get("content-type").is_some_and(|value| value.as_bytes().starts_with(b"text/plain"));
        let body = if is_text {
            Value::String(text)
        } else {
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{status} without JSON ({e}): {text}"))
        };
        Some(Answer { status, headers, body })
    }

    pub fn fresh_email() -> String {
        format!("u{}-{}@example.com", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
    }

    pub async fn register(&self, email: &str) -> Answer {
        self.try_register(email).await.expect("an answer")
    }

    /// Registers; `None` where the connection broke.
    pub async fn try_register(&self, email: &str) -> Option<Answer> {
        let body = json!({"firstName": "Ada", "lastName": "Lovelace", "email": email, "password": PASSWORD});
        self.try_send(self.request(Method::POST, &format!("{}/v1/auth/register", self.users)).json(&body)).await
    }

    /// Who was registered by this answer, if somebody was.
    pub fn registered(answer: &Answer) -> Option<User> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let (user, token) = (&answer.body["user"], &answer.body["accessToken"]);
        (answer.status == 201)
            .then(|| Some(User { id: text(&user["id"])?, email: text(&user["email"])?, token: text(token)? }))
            .flatten()
    }

    /// A new person.
    pub async fn user(&self) -> User {
        let answer = self.register(&Self::fresh_email()).await;
        Self::registered(&answer).unwrap_or_else(|| panic!("{answer:?}"))
    }

    /// A new person whose wallet is there.
    pub async fn ready_user(&self) -> User {
        let user = self.user().await;
        let status = self.get(&user, "/v1/wallet/status?wait=30").await;
        assert_eq!(status.status, 200, "{status:?}");
        user
    }

    pub async fn log_in(&self, email: &str, password: &str) -> Answer {
        leaks::sent(password);
        let body = json!({"email": email, "password": password});
        self.send(self.request(Method::POST, &format!("{}/v1/auth/login", self.users)).json(&body)).await
    }

    pub async fn me(&self, token: &str) -> Answer {
        self.send(self.request(Method::GET, &format!("{}/v1/users/me", self.users)).bearer_auth(token)).await
    }

    /// A GET of the wallet role.
    pub async fn get(&self, user: &User, path: &str) -> Answer {
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

    /// A credit or a debit.
    pub async fn post(&self, user: &User, kind: &str, cents: i64, key: Option<&str>) -> Answer {
        self.send(self.post_request(user, kind, &json!({"amountMinor": cents}), key)).await
    }

    pub async fn balance(&self, user: &User) -> i64 {
        let answer = self.get(user, "/v1/balance").await;
        answer.body["balanceMinor"].as_i64().unwrap_or_else(|| panic!("{answer:?}"))
    }
}
