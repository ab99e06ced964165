//! The history of all client requests and their outcomes, as Jepsen records it: done, not done, or unknown.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Client, PATIENCE, Response, User};

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

/// A credit or a debit, with the outcomes of all its attempts.
#[derive(Clone, Debug)]
pub struct Post {
    pub user: String,
    pub kind: &'static str,
    pub cents: i64,
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
    successes: Vec<Instant>,
}

impl Recorded {
    fn note_success(&mut self, outcome: &Outcome) {
        if matches!(outcome, Outcome::Done(_)) {
            self.successes.push(Instant::now());
        }
    }
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
        let recorded = self.0.lock().expect("history");
        recorded.successes.windows(2).map(|pair| pair[1].duration_since(pair[0])).max().unwrap_or_default()
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
        recorded.note_success(&registration.outcome);
        if registration.user.is_some() {
            let is_superseded = |earlier: &Registration| earlier.email == registration.email && earlier.user.is_none();
            recorded.registrations.retain(|earlier| !is_superseded(earlier));
        }
        recorded.registrations.push(registration.clone());
        registration
    }

    /// Posts once with `key`, which may have been used before.
    pub async fn post(&self, client: &Client, user: &User, kind: &'static str, cents: i64, key: &str) -> Outcome {
        let request =
            client.post_request(user, kind, &json!({"amountMinor": cents}), Some(key)).timeout(CLIENT_TIMEOUT);
        let outcome = conclude(client.try_send(request).await.as_ref());
        let mut recorded = self.0.lock().expect("history");
        recorded.note_success(&outcome);
        let name = format!("{} {key}", user.id);
        let fresh = Post { user: user.id.clone(), kind, cents, key: key.to_owned(), outcomes: Vec::new() };
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
        let until = Instant::now() + PATIENCE;
        loop {
            match self.post(client, user, kind, cents, key).await {
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

fn conclude(response: Option<&Response>) -> Outcome {
    match response {
        Some(response) if response.status.is_success() => {
            Outcome::Done(response.body["id"].as_str().expect("an id").to_owned())
        }
        Some(response) if response.code() == "OUTCOME_UNKNOWN" => Outcome::Unknown,
        Some(response) => Outcome::NotDone(response.code().to_owned()),
        None => Outcome::Unknown,
    }
}
