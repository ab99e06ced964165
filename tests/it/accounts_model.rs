//! Compares the API with a model of accounts: any sequence of registrations, logins, posts and reads must get the
//! responses of the model. A failing sequence is shortened as far as possible before it is reported.
//!
//! `PROPTEST_CASES` sets the number of sequences.

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Client, PASSWORD, Response, User, World, assert_error, purse, token_of, unknown_user_id};

/// Sequences by default.
const CASES: u32 = 16;
const REQUESTS_MAX: usize = 40;
/// Users of one sequence.
const USERS: usize = 3;
/// The largest amount and the largest balance.
const CENTS_MAX: i64 = 9_007_199_254_740_991;

/// A request. Users are indexes into the model; there are few keys, so that sequences repeat them.
#[derive(Clone, Debug)]
enum ModelRequest {
    Register { user: usize, upper_case: bool },
    LogIn { user: usize, right: bool, upper_case: bool },
    Profile { user: usize },
    Post { user: usize, credit: bool, cents: i64, text: Option<u8>, key: Option<u8> },
    Balance { user: usize },
    Page { user: usize, limit: usize },
    Entry { user: usize, of: usize, number: usize },
}

fn requests() -> impl Strategy<Value = Vec<ModelRequest>> {
    let user = || 0..USERS;
    let cents = prop_oneof![
        8 => 1..=100_i64,
        1 => Just(CENTS_MAX),
        1 => CENTS_MAX - 100..=CENTS_MAX,
    ];
    let key = prop_oneof![2 => Just(None), 3 => (0..4_u8).prop_map(Some)];
    let text = prop_oneof![3 => Just(None), 1 => (0..2_u8).prop_map(Some)];
    let request = prop_oneof![
        3 => (user(), any::<bool>()).prop_map(|(user, upper_case)| ModelRequest::Register { user, upper_case }),
        1 => (user(), any::<bool>(), any::<bool>())
            .prop_map(|(user, right, upper_case)| ModelRequest::LogIn { user, right, upper_case }),
        1 => user().prop_map(|user| ModelRequest::Profile { user }),
        12 => (user(), any::<bool>(), cents, text, key)
            .prop_map(|(user, credit, cents, text, key)| ModelRequest::Post { user, credit, cents, text, key }),
        2 => user().prop_map(|user| ModelRequest::Balance { user }),
        2 => (user(), 1..=5_usize).prop_map(|(user, limit)| ModelRequest::Page { user, limit }),
        2 => (user(), user(), 0..8_usize).prop_map(|(user, of, number)| ModelRequest::Entry { user, of, number }),
    ];
    proptest::collection::vec(request, 1..REQUESTS_MAX)
}

/// A posted entry, and the response of the API.
#[derive(Clone, Debug)]
struct Entry {
    credit: bool,
    cents: i64,
    description: Value,
    response: Value,
}

struct ModelUser {
    email: String,
    /// `None` until the user is registered.
    registered: Option<User>,
    /// Oldest first.
    entries: Vec<Entry>,
    /// The index of the entry that each key created.
    keys: HashMap<u8, usize>,
}

impl ModelUser {
    fn new() -> Self {
        Self { email: Client::fresh_email(), registered: None, entries: Vec::new(), keys: HashMap::new() }
    }

    fn balance(&self) -> i64 {
        self.entries.iter().map(|entry| if entry.credit { entry.cents } else { -entry.cents }).sum()
    }

    /// Before the registration: a valid token of an unknown user.
    fn bearer(&self) -> User {
        self.registered.clone().unwrap_or_else(|| {
            let id = unknown_user_id();
            User { token: token_of(&id), id, email: self.email.clone() }
        })
    }

    fn address(&self, upper_case: bool) -> String {
        if upper_case { self.email.to_uppercase() } else { self.email.clone() }
    }
}

/// The model and a client of the system that it is compared with.
struct Accounts<'a> {
    client: &'a Client,
    users: Vec<ModelUser>,
}

impl Accounts<'_> {
    async fn perform(&mut self, request: &ModelRequest) {
        let about = format!("{request:?}");
        match *request {
            ModelRequest::Register { user, upper_case } => self.register(user, upper_case, &about).await,
            ModelRequest::LogIn { user, right, upper_case } => self.log_in(user, right, upper_case, &about).await,
            ModelRequest::Profile { user } => {
                let response = self.client.me(&self.users[user].bearer().token).await;
                match &self.users[user].registered {
                    Some(user) => {
                        assert_eq!(
                            (&response.body["id"], &response.body["email"]),
                            (&json!(user.id), &json!(user.email))
                        );
                    }
                    None => assert_error(&response, 404, "USER_NOT_FOUND", &about),
                }
            }
            ModelRequest::Post { user, credit, cents, text, key } => {
                let description = text.map_or(Value::Null, |text| json!(format!("text {text}")));
                self.post(user, (credit, cents, description), key, &about).await;
            }
            ModelRequest::Balance { user } => {
                if let Some(response) = self.read(user, "/v1/balance", &about).await {
                    let cents = self.users[user].balance();
                    let expected =
                        json!({"balanceMinor": cents, "heldMinor": 0, "availableMinor": cents, "currency": "USD"});
                    assert_eq!(response.body, expected, "{about}");
                }
            }
            ModelRequest::Page { user, limit } => self.history(user, limit, &about).await,
            ModelRequest::Entry { user, of, number } => self.entry(user, of, number, &about).await,
        }
    }

    async fn register(&mut self, user: usize, upper_case: bool, about: &str) {
        let response = self.client.register(&self.users[user].address(upper_case)).await;
        let model = &mut self.users[user];
        if model.registered.is_some() {
            assert_error(&response, 409, "EMAIL_EXISTS", about);
            return;
        }
        assert_eq!(response.status, 201, "{about}: {response:?}");
        assert_eq!(response.body["user"]["email"], json!(model.email), "{about}: not lower-cased");
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let (id, token) = (text(&response.body["user"]["id"]), text(&response.body["accessToken"]));
        let registered = User { id, token, email: model.email.clone() };
        let ready = self.client.get(&registered, "/v1/wallet/status?wait=30").await;
        assert_eq!(ready.status, 200, "{about}: {ready:?}");
        model.registered = Some(registered);
    }

    async fn log_in(&mut self, user: usize, right: bool, upper_case: bool, about: &str) {
        let model = &mut self.users[user];
        let password = if right { PASSWORD } else { "not the right one" };
        let response = self.client.log_in(&model.address(upper_case), password).await;
        match &mut model.registered {
            Some(user) if right => {
                assert_eq!(response.status, 200, "{about}: {response:?}");
                // The following requests use the new token.
                response.body["accessToken"].as_str().expect("token").clone_into(&mut user.token);
            }
            _ => assert_error(&response, 401, "INVALID_CREDENTIALS", about),
        }
    }

    async fn post(&mut self, user: usize, posted: (bool, i64, Value), key: Option<u8>, about: &str) {
        let (credit, cents, description) = posted;
        let model = &mut self.users[user];
        let kind = if credit { "credit" } else { "debit" };
        let text = key.map(|key| format!("key-{key}"));
        let body = json!({"amountMinor": cents, "description": description});
        let request = self.client.post_request(&model.bearer(), kind, &body, text.as_deref());
        let response = self.client.send(request).await;
        if model.registered.is_none() {
            assert_error(&response, 503, "WALLET_PROVISIONING", about);
            return;
        }
        if let Some(first) = key.and_then(|key| model.keys.get(&key)).map(|at| &model.entries[*at]) {
            if (first.credit, first.cents, &first.description) == (credit, cents, &description) {
                assert_eq!(
                    (response.status.as_u16(), response.header("idempotent-replayed")),
                    (200, "true"),
                    "{about}"
                );
                assert_eq!(response.body, first.response, "{about}");
            } else {
                assert_error(&response, 422, "IDEMPOTENCY_KEY_REUSED", about);
            }
            return;
        }
        let balance = if credit { model.balance() + cents } else { model.balance() - cents };
        if balance < 0 {
            assert_error(&response, 409, "INSUFFICIENT_FUNDS", about);
        } else if balance > CENTS_MAX {
            assert_error(&response, 409, "BALANCE_LIMIT", about);
        } else {
            assert_eq!(response.status, 201, "{about}: {response:?}");
            let fields =
                ["type", "amountMinor", "balanceAfterMinor", "description"].map(|field| response.body[field].clone());
            assert_eq!(fields, [json!(kind), json!(cents), json!(balance), description.clone()], "{about}");
            model.keys.extend(key.map(|key| (key, model.entries.len())));
            model.entries.push(Entry { credit, cents, description, response: response.body });
        }
    }

    /// Reads from a wallet. `None`, after checking for the 503 of the gate, if the user is not registered.
    async fn read(&self, user: usize, path: &str, about: &str) -> Option<Response> {
        let response = self.client.get(&self.users[user].bearer(), path).await;
        if self.users[user].registered.is_none() {
            assert_error(&response, 503, "WALLET_PROVISIONING", about);
            return None;
        }
        Some(response)
    }

    /// Compares all pages of the history, newest first.
    async fn history(&self, user: usize, limit: usize, about: &str) {
        let mut expected = self.users[user].entries.iter().rev().map(|entry| entry.response.clone());
        let mut cursor = String::new();
        loop {
            let path = format!("/v1/transactions?limit={limit}{cursor}");
            let Some(response) = self.read(user, &path, about).await else { return };
            let page: Vec<Value> = expected.by_ref().take(limit).collect();
            assert_eq!(response.body["items"], Value::Array(page), "{about}");
            match response.body["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(expected.next(), None, "{about}: entries are missing after the last page");
    }

    /// Reads one entry by its id. Another user's entry is not found.
    async fn entry(&self, user: usize, of: usize, number: usize, about: &str) {
        let owner = &self.users[of];
        let Some(entry) = owner.entries.get(number) else { return };
        let id = entry.response["id"].as_str().expect("id");
        let Some(response) = self.read(user, &format!("/v1/transactions/{id}"), about).await else { return };
        if user == of {
            assert_eq!((response.status.as_u16(), &response.body), (200, &entry.response), "{about}");
        } else {
            assert_error(&response, 404, "TRANSACTION_NOT_FOUND", about);
        }
    }

    /// Compares the histories and balances of all users.
    async fn check_all(&self) {
        for user in 0..USERS {
            self.history(user, 7, "at the end").await;
            let token = self.users[user].bearer().token;
            let url = format!("{}/v1/balance", self.client.wallet);
            let response = self.client.send(self.client.request(Method::GET, &url).bearer_auth(token)).await;
            if self.users[user].registered.is_some() {
                assert_eq!(response.body["balanceMinor"], json!(self.users[user].balance()), "at the end");
            }
        }
    }
}

#[test]
fn any_sequence_of_requests_gets_the_responses_of_the_model() {
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let world = runtime.block_on(World::new());
    let (_users, _wallet, client) = runtime.block_on(world.both());
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(CASES);
    let config = Config { cases, max_shrink_iters: 300, failure_persistence: None, ..Config::default() };
    let ran = TestRunner::new(config).run(&requests(), |requests| {
        runtime.block_on(async {
            let users = (0..USERS).map(|_| ModelUser::new()).collect();
            let mut accounts = Accounts { client: &client, users };
            for request in &requests {
                accounts.perform(request).await;
            }
            accounts.check_all().await;
        });
        Ok(())
    });
    if let Err(e) = ran {
        panic!("{e}");
    }
    // Whatever the API returned, the ledger must also be consistent in itself: sums, hashes and texts.
    let settings = [("WALLET_DATABASE_URL".to_owned(), world.databases.wallet.runtime_url.clone())].into();
    let verified = runtime.block_on(purse(&["ledger", "verify"], &settings));
    assert_eq!(verified.code, Some(0), "{verified:?}");
}
