//! What clients asked for and what they were told, as Jepsen keeps it: done, not done, or nobody knows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Client, PATIENCE, Response, User};

/// A client gives up after this long, as clients do.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(20);

/// What a client may conclude from what it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A whole answer of success, with the id of what was made.
    Done(String),
    /// A whole answer that says that nothing was done.
    NotDone(String),
    /// A broken connection, or an answer that says that nobody knows.
    Unknown,
}

/// A credit or a debit, with everything that was told about it over all tries.
#[derive(Clone, Debug)]
pub struct Post {
    pub user: String,
    pub kind: &'static str,
    pub cents: i64,
    pub key: String,
    pub told: Vec<Told>,
}

impl Post {
    /// The id that a client was given, if it was.
    pub fn id(&self) -> Option<&str> {
        self.told.iter().find_map(|told| if let Told::Done(id) = told { Some(id.as_str()) } else { None })
    }

    /// Whether an entry may be there although no client was given its id.
    pub fn in_doubt(&self) -> bool {
        self.id().is_none() && self.told.contains(&Told::Unknown)
    }
}

#[derive(Clone, Debug)]
pub struct Registration {
    pub email: String,
    pub told: Told,
    pub user: Option<User>,
}

/// Everything that all clients of a test did.
#[derive(Clone, Default)]
pub struct History(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    posts: HashMap<String, Post>,
    registrations: Vec<Registration>,
    /// When something was done, in order.
    successes: Vec<Instant>,
}

impl Kept {
    fn note(&mut self, told: &Told) {
        if matches!(told, Told::Done(_)) {
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

    /// Those who were told that they are registered.
    pub fn people(&self) -> Vec<User> {
        self.registrations().into_iter().filter_map(|registration| registration.user).collect()
    }

    /// The longest time between two successes: the outage as clients saw it.
    pub fn longest_silence(&self) -> Duration {
        let kept = self.0.lock().expect("history");
        kept.successes.windows(2).map(|pair| pair[1].duration_since(pair[0])).max().unwrap_or_default()
    }

    /// How many posts and registrations were done, and how many are in doubt.
    pub fn counts(&self) -> (usize, usize) {
        let (posts, registrations) = (self.posts(), self.registrations());
        let done = posts.iter().filter(|post| post.id().is_some()).count() + self.people().len();
        let doubt = posts.iter().filter(|post| post.in_doubt()).count();
        (done, doubt + registrations.iter().filter(|registration| registration.told == Told::Unknown).count())
    }

    /// Registers somebody new.
    pub async fn register(&self, client: &Client) -> Registration {
        let email = Client::fresh_email();
        let answer = client.try_register(&email).await;
        let user = answer.as_ref().and_then(Client::registered_user);
        let told = match (&user, &answer) {
            (Some(user), _) => Told::Done(user.id.clone()),
            (None, Some(answer)) if answer.status.is_client_error() || answer.code() == "OVERLOADED" => {
                Told::NotDone(answer.code().to_owned())
            }
            // A database that breaks off while a registration is written may have written it.
            (None, _) => Told::Unknown,
        };
        let registration = Registration { email, told, user };
        let mut kept = self.0.lock().expect("history");
        kept.note(&registration.told);
        kept.registrations.push(registration.clone());
        registration
    }

    /// Posts once under `key`, which may have been tried before.
    pub async fn post(&self, client: &Client, user: &User, kind: &'static str, cents: i64, key: &str) -> Told {
        let request =
            client.post_request(user, kind, &json!({"amountMinor": cents}), Some(key)).timeout(CLIENT_TIMEOUT);
        let told = conclude(client.try_send(request).await.as_ref());
        let mut kept = self.0.lock().expect("history");
        kept.note(&told);
        let name = format!("{} {key}", user.id);
        let fresh = Post { user: user.id.clone(), kind, cents, key: key.to_owned(), told: Vec::new() };
        kept.posts.entry(name).or_insert(fresh).told.push(told.clone());
        told
    }

    /// Posts under `key` until it is known what became of it: done, or refused by a rule.
    pub async fn post_until_known(
        &self,
        client: &Client,
        user: &User,
        kind: &'static str,
        cents: i64,
        key: &str,
    ) -> Told {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.post(client, user, kind, cents, key).await {
                Told::NotDone(code) if is_passing(&code) => {}
                Told::Unknown => {}
                told => return told,
            }
            assert!(Instant::now() < until, "no outcome of {key} within {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Whether a refusal says that it may be otherwise soon.
fn is_passing(code: &str) -> bool {
    matches!(code, "DEPENDENCY_UNAVAILABLE" | "OVERLOADED" | "WALLET_PROVISIONING")
}

fn conclude(answer: Option<&Response>) -> Told {
    match answer {
        Some(answer) if answer.status.is_success() => Told::Done(answer.body["id"].as_str().expect("an id").to_owned()),
        Some(answer) if answer.code() == "OUTCOME_UNKNOWN" => Told::Unknown,
        Some(answer) => Told::NotDone(answer.code().to_owned()),
        None => Told::Unknown,
    }
}
