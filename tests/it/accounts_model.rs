//! The real API against a model of accounts: any sequence of registrations, logins, posts and reads has to be answered
//! as the model says. A sequence that is not is made as short as possible before it is told.
//!
//! `PROPTEST_CASES` says how many sequences.

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Client, PASSWORD, Response, User, World, assert_error, token_of, unknown_user_id};

/// Sequences, where nobody says how many.
const CASES: u32 = 16;
/// Longest sequence.
const STEPS_MAX: usize = 40;
/// People of one sequence.
const PEOPLE: usize = 3;
/// The largest amount, and the largest balance.
const CENTS_MAX: i64 = 9_007_199_254_740_991;

/// One request. A person is a place in the model; a key one of few, so that it is met again.
#[derive(Clone, Debug)]
enum Step {
    Register { person: usize, shouting: bool },
    LogIn { person: usize, right: bool, shouting: bool },
    Profile { person: usize },
    Post { person: usize, credit: bool, cents: i64, key: Option<u8> },
    Balance { person: usize },
    Page { person: usize, limit: usize },
    Entry { person: usize, of: usize, number: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let person = || 0..PEOPLE;
    let cents = prop_oneof![
        8 => 1..=100_i64,
        1 => Just(CENTS_MAX),
        1 => CENTS_MAX - 100..=CENTS_MAX,
    ];
    let key = prop_oneof![2 => Just(None), 3 => (0..4_u8).prop_map(Some)];
    let step = prop_oneof![
        3 => (person(), any::<bool>()).prop_map(|(person, shouting)| Step::Register { person, shouting }),
        1 => (person(), any::<bool>(), any::<bool>())
            .prop_map(|(person, right, shouting)| Step::LogIn { person, right, shouting }),
        1 => person().prop_map(|person| Step::Profile { person }),
        12 => (person(), any::<bool>(), cents, key)
            .prop_map(|(person, credit, cents, key)| Step::Post { person, credit, cents, key }),
        2 => person().prop_map(|person| Step::Balance { person }),
        2 => (person(), 1..=5_usize).prop_map(|(person, limit)| Step::Page { person, limit }),
        2 => (person(), person(), 0..8_usize).prop_map(|(person, of, number)| Step::Entry { person, of, number }),
    ];
    proptest::collection::vec(step, 1..STEPS_MAX)
}

/// An entry as the API showed it, oldest first.
#[derive(Clone, Debug)]
struct Entry {
    credit: bool,
    cents: i64,
    shown: Value,
}

/// What the model knows of one person.
struct Person {
    email: String,
    user: Option<User>,
    entries: Vec<Entry>,
    keys: HashMap<u8, usize>,
}

impl Person {
    fn new() -> Self {
        Self { email: Client::fresh_email(), user: None, entries: Vec::new(), keys: HashMap::new() }
    }

    fn balance(&self) -> i64 {
        self.entries.iter().map(|entry| if entry.credit { entry.cents } else { -entry.cents }).sum()
    }

    /// Somebody who is not registered has the token of a stranger.
    fn bearer(&self) -> User {
        self.user.clone().unwrap_or_else(|| {
            let id = unknown_user_id();
            User { token: token_of(&id), id, email: self.email.clone() }
        })
    }

    fn spelt(&self, shouting: bool) -> String {
        if shouting { self.email.to_uppercase() } else { self.email.clone() }
    }
}

/// The model, and the system that it is compared with.
struct Accounts<'a> {
    client: &'a Client,
    people: Vec<Person>,
}

impl Accounts<'_> {
    async fn step(&mut self, step: &Step) {
        let about = format!("{step:?}");
        match *step {
            Step::Register { person, shouting } => self.register(person, shouting, &about).await,
            Step::LogIn { person, right, shouting } => self.log_in(person, right, shouting, &about).await,
            Step::Profile { person } => {
                let answer = self.client.me(&self.people[person].bearer().token).await;
                match &self.people[person].user {
                    Some(user) => {
                        assert_eq!((&answer.body["id"], &answer.body["email"]), (&json!(user.id), &json!(user.email)));
                    }
                    None => assert_error(&answer, 404, "USER_NOT_FOUND", &about),
                }
            }
            Step::Post { person, credit, cents, key } => self.post(person, credit, cents, key, &about).await,
            Step::Balance { person } => {
                if let Some(answer) = self.read(person, "/v1/balance", &about).await {
                    assert_eq!(
                        answer.body,
                        json!({"balanceMinor": self.people[person].balance(), "currency": "USD"}),
                        "{about}"
                    );
                }
            }
            Step::Page { person, limit } => self.history(person, limit, &about).await,
            Step::Entry { person, of, number } => self.entry(person, of, number, &about).await,
        }
    }

    async fn register(&mut self, person: usize, shouting: bool, about: &str) {
        let answer = self.client.register(&self.people[person].spelt(shouting)).await;
        let person = &mut self.people[person];
        if person.user.is_some() {
            assert_error(&answer, 409, "EMAIL_EXISTS", about);
            return;
        }
        assert_eq!(answer.status, 201, "{about}: {answer:?}");
        assert_eq!(answer.body["user"]["email"], json!(person.email), "{about}: folded");
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let (id, token) = (text(&answer.body["user"]["id"]), text(&answer.body["accessToken"]));
        let user = User { id, token, email: person.email.clone() };
        let ready = self.client.get(&user, "/v1/wallet/status?wait=30").await;
        assert_eq!(ready.status, 200, "{about}: {ready:?}");
        person.user = Some(user);
    }

    async fn log_in(&mut self, person: usize, right: bool, shouting: bool, about: &str) {
        let person = &mut self.people[person];
        let password = if right { PASSWORD } else { "not the right one" };
        let answer = self.client.log_in(&person.spelt(shouting), password).await;
        match &mut person.user {
            Some(user) if right => {
                assert_eq!(answer.status, 200, "{about}: {answer:?}");
                // From here on the new token is used.
                answer.body["accessToken"].as_str().expect("token").clone_into(&mut user.token);
            }
            _ => assert_error(&answer, 401, "INVALID_CREDENTIALS", about),
        }
    }

    async fn post(&mut self, person: usize, credit: bool, cents: i64, key: Option<u8>, about: &str) {
        let person = &mut self.people[person];
        let kind = if credit { "credit" } else { "debit" };
        let text = key.map(|key| format!("key-{key}"));
        let answer = self.client.post(&person.bearer(), kind, cents, text.as_deref()).await;
        if person.user.is_none() {
            assert_error(&answer, 503, "WALLET_PROVISIONING", about);
            return;
        }
        if let Some(first) = key.and_then(|key| person.keys.get(&key)).map(|at| &person.entries[*at]) {
            if (first.credit, first.cents) == (credit, cents) {
                assert_eq!((answer.status.as_u16(), answer.header("idempotent-replayed")), (200, "true"), "{about}");
                assert_eq!(answer.body, first.shown, "{about}");
            } else {
                assert_error(&answer, 422, "IDEMPOTENCY_KEY_REUSED", about);
            }
            return;
        }
        let balance = if credit { person.balance() + cents } else { person.balance() - cents };
        if balance < 0 {
            assert_error(&answer, 409, "INSUFFICIENT_FUNDS", about);
        } else if balance > CENTS_MAX {
            assert_error(&answer, 409, "BALANCE_LIMIT", about);
        } else {
            assert_eq!(answer.status, 201, "{about}: {answer:?}");
            let shown = ["type", "amountMinor", "balanceAfterMinor"].map(|field| answer.body[field].clone());
            assert_eq!(shown, [json!(kind), json!(cents), json!(balance)], "{about}");
            person.keys.extend(key.map(|key| (key, person.entries.len())));
            person.entries.push(Entry { credit, cents, shown: answer.body });
        }
    }

    /// A read of a wallet; `None` for somebody who has none, after that was answered as it has to be.
    async fn read(&self, person: usize, path: &str, about: &str) -> Option<Response> {
        let answer = self.client.get(&self.people[person].bearer(), path).await;
        if self.people[person].user.is_none() {
            assert_error(&answer, 503, "WALLET_PROVISIONING", about);
            return None;
        }
        Some(answer)
    }

    /// All pages, newest first.
    async fn history(&self, person: usize, limit: usize, about: &str) {
        let mut expected = self.people[person].entries.iter().rev().map(|entry| entry.shown.clone());
        let mut cursor = String::new();
        loop {
            let path = format!("/v1/transactions?limit={limit}{cursor}");
            let Some(answer) = self.read(person, &path, about).await else { return };
            let page: Vec<Value> = expected.by_ref().take(limit).collect();
            assert_eq!(answer.body["items"], Value::Array(page), "{about}");
            match answer.body["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(expected.next(), None, "{about}: the last page was not the last");
    }

    /// One entry by its id: one's own, or another's, which does not exist.
    async fn entry(&self, person: usize, of: usize, number: usize, about: &str) {
        let owner = &self.people[of];
        let Some(entry) = owner.entries.get(number) else { return };
        let id = entry.shown["id"].as_str().expect("id");
        let Some(answer) = self.read(person, &format!("/v1/transactions/{id}"), about).await else { return };
        if person == of {
            assert_eq!((answer.status.as_u16(), &answer.body), (200, &entry.shown), "{about}");
        } else {
            assert_error(&answer, 404, "TRANSACTION_NOT_FOUND", about);
        }
    }

    /// What has to hold after all of it.
    async fn settle(&self) {
        for person in 0..PEOPLE {
            self.history(person, 7, "at the end").await;
            let token = self.people[person].bearer().token;
            let url = format!("{}/v1/balance", self.client.wallet);
            let answer = self.client.send(self.client.request(Method::GET, &url).bearer_auth(token)).await;
            if self.people[person].user.is_some() {
                assert_eq!(answer.body["balanceMinor"], json!(self.people[person].balance()), "at the end");
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
    let ran = TestRunner::new(config).run(&steps(), |steps| {
        runtime.block_on(async {
            let people = (0..PEOPLE).map(|_| Person::new()).collect();
            let mut accounts = Accounts { client: &client, people };
            for step in &steps {
                accounts.step(step).await;
            }
            accounts.settle().await;
        });
        Ok(())
    });
    if let Err(e) = ran {
        panic!("{e}");
    }
    // The ledger agrees with itself too, whatever the API showed.
    let wrong = "SELECT count(*) FROM (SELECT balance_after_minor AS told, sum(CASE type WHEN 'credit' THEN amount_minor \
                 ELSE -amount_minor END) OVER (PARTITION BY user_id ORDER BY seq) AS summed FROM transactions) AS rows \
                 WHERE told <> summed OR told < 0";
    assert_eq!(runtime.block_on(world.sql(purse::kernel::Role::Wallet, wrong)), "0");
}
