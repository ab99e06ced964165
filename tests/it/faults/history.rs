//! The history of all client requests and their outcomes, as Jepsen records it: done, not done, or unknown.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Client, PATIENCE, Response, User, service_token};

/// A client gives up after this long.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(20);

/// What a client may conclude from a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A complete success response, with the id of what was created.
    Done(String),
    /// A complete response with a code that says that nothing was done.
    NotDone(String),
    /// A broken connection, or a response that reports an unknown outcome.
    Unknown,
}

impl Outcome {
    pub fn id(&self) -> Option<&str> {
        if let Self::Done(id) = self { Some(id) } else { None }
    }
}

/// A request that writes to a wallet, and the first row that it should write there.
#[derive(Clone, Debug)]
pub struct Ask {
    /// After `/v1/`.
    pub path: String,
    pub body: Value,
    /// The type of the row.
    pub kind: &'static str,
    /// `None` if the server chooses it.
    pub cents: Option<i64>,
    /// Where the response has the id of the row; `None` if it has another one.
    pub id: Option<&'static str>,
    /// The service that asks on behalf of the user.
    pub service: Option<&'static str>,
}

impl Ask {
    pub fn post(kind: &'static str, cents: i64) -> Self {
        let path = format!("transactions/{kind}");
        Self { path, body: json!({"amountMinor": cents}), kind, cents: Some(cents), id: Some("/id"), service: None }
    }

    pub fn transfer(to: &User, cents: i64) -> Self {
        let body = json!({"toUserId": to.id, "amountMinor": cents, "description": "to a friend"});
        Self { path: "transfers".to_owned(), body, kind: "debit", cents: Some(cents), id: Some("/id"), service: None }
    }

    pub fn hold(cents: i64, seconds: u64) -> Self {
        let body = json!({"amountMinor": cents, "expiresInS": seconds});
        Self { path: "holds".to_owned(), body, kind: "hold", cents: Some(cents), id: Some("/id"), service: None }
    }

    pub fn capture(hold: &str, cents: Option<i64>) -> Self {
        let body = cents.map_or_else(|| json!({}), |cents| json!({"amountMinor": cents, "final": false}));
        Self {
            path: format!("holds/{hold}/capture"),
            body,
            kind: "debit",
            cents,
            id: Some("/transaction/id"),
            service: None,
        }
    }

    pub fn void(hold: &str) -> Self {
        Self { path: format!("holds/{hold}/void"), body: json!({}), kind: "void", cents: None, id: None, service: None }
    }

    /// `kind` is the type of the reversal.
    pub fn reverse(entry: &str, kind: &'static str) -> Self {
        Self {
            path: format!("transactions/{entry}/reverse"),
            body: json!({}),
            kind,
            cents: None,
            id: Some("/id"),
            service: None,
        }
    }

    /// A group of `count` credits and a debit.
    pub fn bulk(cents: i64, count: usize) -> Self {
        let mut items = vec![json!({"type": "credit", "amountMinor": cents}); count];
        items.push(json!({"type": "debit", "amountMinor": cents}));
        let (path, body) = ("transactions/bulk".to_owned(), json!({"items": items}));
        Self { path, body, kind: "credit", cents: Some(cents), id: Some("/items/0/id"), service: None }
    }

    /// The same, by a service.
    pub fn by(self, service: &'static str) -> Self {
        Self { service: Some(service), ..self }
    }
}

/// A request with a key, and the outcomes of all its attempts.
#[derive(Clone, Debug)]
pub struct Post {
    pub user: String,
    pub ask: Ask,
    pub key: String,
    pub outcomes: Vec<Outcome>,
}

impl Post {
    /// The id that a client received, if any.
    pub fn id(&self) -> Option<&str> {
        self.outcomes.iter().find_map(Outcome::id)
    }

    /// Whether an entry may exist although no client received its id.
    pub fn in_doubt(&self) -> bool {
        self.id().is_none() && self.outcomes.contains(&Outcome::Unknown)
    }
}

#[derive(Clone, Debug)]
pub struct Registration {
    pub email: String,
    pub outcome: Outcome,
    pub user: Option<User>,
}

/// Everything that all clients of a test did.
#[derive(Clone, Default)]
pub struct History(Arc<Mutex<Recorded>>);

#[derive(Default)]
struct Recorded {
    posts: HashMap<String, Post>,
    registrations: Vec<Registration>,
    /// In chronological order.
    successes: Vec<(Success, Instant)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Success {
    Post,
    Registration,
}

impl Recorded {
    fn note(&mut self, success: Success, outcome: &Outcome) {
        if matches!(outcome, Outcome::Done(_)) {
            self.successes.push((success, Instant::now()));
        }
    }
}

fn longest_pause(times: impl Iterator<Item = Instant>) -> Duration {
    let times: Vec<Instant> = times.collect();
    times.windows(2).map(|pair| pair[1].duration_since(pair[0])).max().unwrap_or_default()
}

impl History {
    pub fn posts(&self) -> Vec<Post> {
        self.0.lock().expect("history").posts.values().cloned().collect()
    }

    pub fn registrations(&self) -> Vec<Registration> {
        self.0.lock().expect("history").registrations.clone()
    }

    /// Users whose registration was acknowledged.
    pub fn registered_users(&self) -> Vec<User> {
        self.registrations().into_iter().filter_map(|registration| registration.user).collect()
    }

    /// The longest time between two successes: the outage as clients saw it.
    pub fn longest_silence(&self) -> Duration {
        longest_pause(self.0.lock().expect("history").successes.iter().map(|(_, at)| *at))
    }

    /// The same of posts alone.
    pub fn longest_silence_of_posts(&self) -> Duration {
        let recorded = self.0.lock().expect("history");
        longest_pause(recorded.successes.iter().filter(|(of, _)| *of == Success::Post).map(|(_, at)| *at))
    }

    /// How many posts and registrations were done, and how many are in doubt.
    pub fn counts(&self) -> (usize, usize) {
        let (posts, registrations) = (self.posts(), self.registrations());
        let done = posts.iter().filter(|post| post.id().is_some()).count() + self.registered_users().len();
        let doubt = posts.iter().filter(|post| post.in_doubt()).count();
        (done, doubt + registrations.iter().filter(|registration| registration.outcome == Outcome::Unknown).count())
    }

    /// Registers a new user.
    pub async fn register(&self, client: &Client) -> Registration {
        self.register_as(client, Client::fresh_email()).await
    }

    /// Registers an address. A success replaces the record of an earlier attempt that was rejected.
    pub async fn register_as(&self, client: &Client, email: String) -> Registration {
        let response = client.try_register(&email).await;
        let user = response.as_ref().and_then(Client::registered_user);
        let outcome = match (&user, &response) {
            (Some(user), _) => Outcome::Done(user.id.clone()),
            (None, Some(response))
                if response.status.is_client_error()
                    || matches!(response.code(), "OVERLOADED" | "DEPENDENCY_UNAVAILABLE") =>
            {
                Outcome::NotDone(response.code().to_owned())
            }
            // A panic after the commit is an internal error too.
            (None, _) => Outcome::Unknown,
        };
        let registration = Registration { email, outcome, user };
        let mut recorded = self.0.lock().expect("history");
        recorded.note(Success::Registration, &registration.outcome);
        if registration.user.is_some() {
            let is_superseded = |earlier: &Registration| earlier.email == registration.email && earlier.user.is_none();
            recorded.registrations.retain(|earlier| !is_superseded(earlier));
        }
        recorded.registrations.push(registration.clone());
        registration
    }

    /// Posts once with `key`, which may have been used before.
    pub async fn post(&self, client: &Client, user: &User, kind: &'static str, cents: i64, key: &str) -> Outcome {
        self.ask(client, user, &Ask::post(kind, cents), key).await
    }

    /// Asks once with `key`, which may have been used before.
    pub async fn ask(&self, client: &Client, user: &User, ask: &Ask, key: &str) -> Outcome {
        let (whose, token) = match ask.service {
            None => (String::new(), user.token.clone()),
            Some(service) => (format!("wallets/{}/", user.id), service_token(service, "wallet:post")),
        };
        let url = format!("{}/v1/{whose}{}", client.wallet, ask.path);
        let request = client.request(Method::POST, &url).bearer_auth(token).json(&ask.body);
        let request = request.header("idempotency-key", key).timeout(CLIENT_TIMEOUT);
        let outcome = conclude(client.try_send(request).await.as_ref(), ask.id);
        let mut recorded = self.0.lock().expect("history");
        recorded.note(Success::Post, &outcome);
        let name = format!("{} {:?} {key}", user.id, ask.service);
        let fresh = Post { user: user.id.clone(), ask: ask.clone(), key: key.to_owned(), outcomes: Vec::new() };
        recorded.posts.entry(name).or_insert(fresh).outcomes.push(outcome.clone());
        outcome
    }

    /// Posts with `key` until the outcome is known: done, or rejected by a rule.
    pub async fn post_until_known(
        &self,
        client: &Client,
        user: &User,
        kind: &'static str,
        cents: i64,
        key: &str,
    ) -> Outcome {
        self.ask_until_known(client, user, &Ask::post(kind, cents), key).await
    }

    /// The same, of any request.
    pub async fn ask_until_known(&self, client: &Client, user: &User, ask: &Ask, key: &str) -> Outcome {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.ask(client, user, ask, key).await {
                Outcome::NotDone(code) if is_transient(&code) => {}
                Outcome::Unknown => {}
                known => return known,
            }
            assert!(Instant::now() < until, "no outcome of {key} within {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn is_transient(code: &str) -> bool {
    matches!(code, "DEPENDENCY_UNAVAILABLE" | "OVERLOADED" | "WALLET_PROVISIONING")
}

/// What a success has instead of an id that it does not show.
pub const NO_ID: &str = "-";

fn conclude(response: Option<&Response>, id: Option<&str>) -> Outcome {
    match response {
        Some(response) if response.status.is_success() => {
            let shown = id.map_or(NO_ID, |id| response.body.pointer(id).and_then(Value::as_str).expect("an id"));
            Outcome::Done(shown.to_owned())
        }
        Some(response) if response.code() == "OUTCOME_UNKNOWN" => Outcome::Unknown,
        Some(response) => Outcome::NotDone(response.code().to_owned()),
        None => Outcome::Unknown,
    }
}
