//! Compares the API with a model of accounts: any sequence of registrations, logins, writes of every kind and reads must get
//! the responses of the model. A failing sequence is shortened as far as possible before it is reported.
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
    Write { user: usize, write: Write, text: Option<u8>, key: Option<u8> },
    Balance { user: usize },
    Page { user: usize, limit: usize },
    Entry { user: usize, of: usize, number: usize },
    Hold { user: usize, number: usize },
    OpenHolds { user: usize },
}

/// A request that writes. Entries and holds are chosen by their place, newest first; beyond the first one, an unknown id.
#[derive(Clone, Debug)]
enum Write {
    Post { credit: bool, cents: i64 },
    Transfer { to: usize, cents: i64 },
    Hold { cents: i64 },
    Capture { number: usize, cents: Option<i64>, last: bool },
    Void { number: usize },
    Reverse { number: usize, cents: Option<i64> },
    Bulk { cents: Vec<i64> },
}

fn requests() -> impl Strategy<Value = Vec<ModelRequest>> {
    let user = || 0..USERS;
    let cents = prop_oneof![
        16 => 1..=100_i64,
        1 => Just(CENTS_MAX),
        1 => CENTS_MAX - 100..=CENTS_MAX,
    ];
    let key = prop_oneof![2 => Just(None), 3 => (0..4_u8).prop_map(Some)];
    let text = prop_oneof![3 => Just(None), 1 => (0..2_u8).prop_map(Some)];
    let part = || proptest::option::of(1..60_i64);
    let write = prop_oneof![
        8 => (any::<bool>(), cents.clone()).prop_map(|(credit, cents)| Write::Post { credit, cents }),
        4 => (user(), cents.clone()).prop_map(|(to, cents)| Write::Transfer { to, cents }),
        3 => cents.prop_map(|cents| Write::Hold { cents }),
        3 => (0..3_usize, part(), any::<bool>())
            .prop_map(|(number, cents, last)| Write::Capture { number, cents, last }),
        1 => (0..3_usize).prop_map(|number| Write::Void { number }),
        3 => (0..5_usize, part()).prop_map(|(number, cents)| Write::Reverse { number, cents }),
        2 => proptest::collection::vec((-40..60_i64).prop_filter("an amount", |cents| *cents != 0), 1..4)
            .prop_map(|cents| Write::Bulk { cents }),
    ];
    let request = prop_oneof![
        3 => (user(), any::<bool>()).prop_map(|(user, upper_case)| ModelRequest::Register { user, upper_case }),
        1 => (user(), any::<bool>(), any::<bool>())
            .prop_map(|(user, right, upper_case)| ModelRequest::LogIn { user, right, upper_case }),
        1 => user().prop_map(|user| ModelRequest::Profile { user }),
        20 => (user(), write, text, key)
            .prop_map(|(user, write, text, key)| ModelRequest::Write { user, write, text, key }),
        2 => user().prop_map(|user| ModelRequest::Balance { user }),
        2 => (user(), 1..=5_usize).prop_map(|(user, limit)| ModelRequest::Page { user, limit }),
        2 => (user(), user(), 0..8_usize).prop_map(|(user, of, number)| ModelRequest::Entry { user, of, number }),
        1 => (user(), 0..3_usize).prop_map(|(user, number)| ModelRequest::Hold { user, number }),
        1 => user().prop_map(|user| ModelRequest::OpenHolds { user }),
    ];
    proptest::collection::vec(request, 1..REQUESTS_MAX)
}

/// A posted credit or debit, as the API shows it.
#[derive(Clone, Debug)]
struct Entry {
    response: Value,
    /// What can still be reversed; `None` if the entry is not reversible.
    left: Option<i64>,
    /// What has been reversed.
    reversed: i64,
    /// Of a received transfer: the sender, and the place of the sender's entry.
    sent_by: Option<(usize, usize)>,
}

impl Entry {
    fn cents(&self) -> i64 {
        self.response["amountMinor"].as_i64().expect("an amount")
    }

    fn is_credit(&self) -> bool {
        self.response["type"] == "credit"
    }
}

/// A hold, as the API shows it.
#[derive(Clone, Debug)]
struct Hold {
    response: Value,
    left: i64,
}

struct ModelUser {
    email: String,
    /// `None` until the user is registered.
    registered: Option<User>,
    /// Oldest first.
    entries: Vec<Entry>,
    /// Oldest first.
    holds: Vec<Hold>,
    /// The request and the response of each key.
    keys: HashMap<u8, (String, Value, Value)>,
}

impl ModelUser {
    fn new() -> Self {
        let (entries, holds) = (Vec::new(), Vec::new());
        Self { email: Client::fresh_email(), registered: None, entries, holds, keys: HashMap::new() }
    }

    fn balance(&self) -> i64 {
        self.entries.iter().map(|entry| if entry.is_credit() { entry.cents() } else { -entry.cents() }).sum()
    }

    fn held(&self) -> i64 {
        self.holds.iter().map(|hold| hold.left).sum()
    }

    fn available(&self) -> i64 {
        self.balance() - self.held()
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
            ModelRequest::Write { user, ref write, text, key } => self.write(user, write, text, key, &about).await,
            ModelRequest::Balance { user } => {
                if let Some(response) = self.read(user, "/v1/balance", &about).await {
                    let model = &self.users[user];
                    let expected = json!({
                        "balanceMinor": model.balance(),
                        "heldMinor": model.held(),
                        "availableMinor": model.available(),
                        "currency": "USD",
                    });
                    assert_eq!(response.body, expected, "{about}");
                }
            }
            ModelRequest::Page { user, limit } => self.history(user, limit, &about).await,
            ModelRequest::Entry { user, of, number } => self.entry(user, of, number, &about).await,
            ModelRequest::Hold { user, number } => self.hold(user, number, &about).await,
            ModelRequest::OpenHolds { user } => {
                let Some(response) = self.read(user, "/v1/holds", &about).await else { return };
                let open = self.users[user].holds.iter().rev().filter(|hold| hold.left > 0);
                let open: Vec<_> = open.map(|hold| hold.response.clone()).collect();
                assert_eq!(response.body["items"], Value::Array(open), "{about}");
            }
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

    /// The id of the entry or hold at this place, newest first.
    fn id_of<'a>(mut newest_first: impl Iterator<Item = &'a Value>, number: usize) -> String {
        let response = newest_first.nth(number);
        response.map_or_else(unknown_user_id, |response| response["id"].as_str().expect("an id").to_owned())
    }

    /// The path and the body of a request.
    fn request(&self, user: usize, write: &Write, text: Option<u8>) -> (String, Value) {
        let model = &self.users[user];
        let hold = |number| Self::id_of(model.holds.iter().rev().map(|hold| &hold.response), number);
        let (path, mut body) = match write {
            Write::Post { credit, cents } => {
                let kind = if *credit { "credit" } else { "debit" };
                (format!("transactions/{kind}"), json!({"amountMinor": cents}))
            }
            Write::Transfer { to, cents } => {
                ("transfers".to_owned(), json!({"toUserId": self.users[*to].bearer().id, "amountMinor": cents}))
            }
            Write::Hold { cents } => ("holds".to_owned(), json!({"amountMinor": cents})),
            Write::Capture { number, cents, last } => {
                (format!("holds/{}/capture", hold(*number)), json!({"amountMinor": cents, "final": last}))
            }
            Write::Void { number } => (format!("holds/{}/void", hold(*number)), json!({})),
            Write::Reverse { number, cents } => {
                let id = Self::id_of(model.entries.iter().rev().map(|entry| &entry.response), *number);
                (format!("transactions/{id}/reverse"), json!({"amountMinor": cents}))
            }
            Write::Bulk { cents } => {
                let items = cents.iter().map(
                    |cents| json!({"type": if *cents > 0 { "credit" } else { "debit" }, "amountMinor": cents.abs()}),
                );
                ("transactions/bulk".to_owned(), json!({"items": items.collect::<Vec<_>>()}))
            }
        };
        let has_texts = !matches!(write, Write::Void { .. } | Write::Bulk { .. });
        if let Some(text) = text.filter(|_| has_texts) {
            body["description"] = json!(format!("text {text}"));
            body["reference"] = json!(format!("order-{text}"));
            body["metadata"] = json!({"text": format!("{text}")});
        }
        if body["amountMinor"].is_null() {
            body.as_object_mut().expect("an object").remove("amountMinor");
        }
        (path, body)
    }

    /// Why the model refuses a request, if it does.
    fn refusal(&self, user: usize, write: &Write) -> Option<(u16, &'static str)> {
        let model = &self.users[user];
        let fits = |receiver: &ModelUser, cents: i64| receiver.balance() + cents <= CENTS_MAX;
        match write {
            Write::Post { credit: true, cents } => (!fits(model, *cents)).then_some((409, "BALANCE_LIMIT")),
            Write::Post { credit: false, cents } | Write::Hold { cents } => {
                (model.available() < *cents).then_some((409, "INSUFFICIENT_FUNDS"))
            }
            Write::Transfer { to, cents } => {
                let receiver = &self.users[*to];
                if receiver.registered.is_none() {
                    Some((404, "RECIPIENT_NOT_FOUND"))
                } else if model.available() < *cents {
                    Some((409, "INSUFFICIENT_FUNDS"))
                } else {
                    (!fits(receiver, *cents)).then_some((409, "RECIPIENT_CANNOT_RECEIVE"))
                }
            }
            Write::Capture { number, .. } | Write::Void { number } => {
                let Some(hold) = model.holds.iter().rev().nth(*number) else { return Some((404, "HOLD_NOT_FOUND")) };
                let asked = if let Write::Capture { cents: Some(cents), .. } = write { *cents } else { hold.left };
                if hold.left == 0 {
                    Some((409, "HOLD_CLOSED"))
                } else {
                    (asked > hold.left).then_some((409, "HOLD_AMOUNT_EXCEEDED"))
                }
            }
            Write::Reverse { number, cents } => {
                let Some(entry) = model.entries.iter().rev().nth(*number) else {
                    return Some((404, "TRANSACTION_NOT_FOUND"));
                };
                let Some(left) = entry.left else { return Some((409, "NOT_REVERSIBLE")) };
                let asked = cents.unwrap_or(left);
                if left == 0 {
                    Some((409, "ALREADY_REVERSED"))
                } else if asked > left {
                    Some((409, "REVERSAL_EXCEEDS"))
                } else if entry.is_credit() {
                    let sender = entry.sent_by.map(|(sender, _)| &self.users[sender]);
                    if model.available() < asked {
                        Some((409, "INSUFFICIENT_FUNDS"))
                    } else {
                        let full = sender.is_some_and(|sender| !fits(sender, asked));
                        full.then_some((409, "RECIPIENT_CANNOT_RECEIVE"))
                    }
                } else {
                    (!fits(model, asked)).then_some((409, "BALANCE_LIMIT"))
                }
            }
            Write::Bulk { cents } => {
                let mut available = model.available();
                cents.iter().find_map(|cents| {
                    available += cents;
                    (available < 0).then_some((409, "BULK_REFUSED"))
                })
            }
        }
    }

    async fn write(&mut self, user: usize, write: &Write, text: Option<u8>, key: Option<u8>, about: &str) {
        let (path, body) = self.request(user, write, text);
        let bearer = self.users[user].bearer();
        let url = format!("{}/v1/{path}", self.client.wallet);
        let mut request = self.client.request(Method::POST, &url).bearer_auth(&bearer.token).json(&body);
        if let Some(key) = key {
            request = request.header("idempotency-key", format!("key-{key}"));
        }
        let response = self.client.send(request).await;
        if self.users[user].registered.is_none() {
            assert_error(&response, 503, "WALLET_PROVISIONING", about);
            return;
        }
        if matches!(write, Write::Transfer { to, .. } if *to == user) {
            assert_error(&response, 400, "VALIDATION_ERROR", about);
            return;
        }
        if let Some((used_path, used_body, first)) = key.and_then(|key| self.users[user].keys.get(&key)) {
            if (used_path, used_body) == (&path, &body) {
                let replayed = (response.status.as_u16(), response.header("idempotent-replayed"));
                assert_eq!(replayed, (200, "true"), "{about}");
                assert_eq!(&response.body, first, "{about}");
            } else {
                assert_error(&response, 422, "IDEMPOTENCY_KEY_REUSED", about);
            }
            return;
        }
        if let Some((status, code)) = self.refusal(user, write) {
            assert_eq!((response.status.as_u16(), response.code()), (status, code), "{about}: {response:?}");
            return;
        }
        let created = if matches!(write, Write::Void { .. }) { 200 } else { 201 };
        assert_eq!(response.status, created, "{about}: {response:?}");
        let texts = ["description", "reference", "metadata"].map(|field| body[field].clone());
        self.apply(user, write, &texts, &response.body, about).await;
        self.users[user].keys.extend(key.map(|key| (key, (path, body, response.body))));
    }

    /// Checks the response to an accepted request, and follows it in the model.
    async fn apply(&mut self, user: usize, write: &Write, texts: &[Value; 3], response: &Value, about: &str) {
        match write {
            Write::Post { credit, cents } => {
                self.add_entry(user, response, *credit, *cents, texts, about);
            }
            Write::Bulk { cents } => {
                let items = response["items"].as_array().expect("items");
                assert_eq!(items.len(), cents.len(), "{about}");
                for (item, cents) in items.iter().zip(cents) {
                    self.add_entry(
                        user,
                        item,
                        *cents > 0,
                        cents.abs(),
                        &[Value::Null, Value::Null, Value::Null],
                        about,
                    );
                }
            }
            Write::Transfer { to, cents } => {
                self.add_entry(user, response, false, *cents, texts, about).left = None;
                let sent = self.users[user].entries.len() - 1;
                self.receive(*to, user, Some(sent), *cents, texts, response, about).await;
            }
            Write::Hold { cents } => {
                let fields = ["status", "amountMinor", "capturedMinor", "remainingMinor"].map(|f| response[f].clone());
                assert_eq!(fields, [json!("open"), json!(cents), json!(0), json!(cents)], "{about}");
                self.users[user].holds.push(Hold { response: response.clone(), left: *cents });
            }
            Write::Capture { number, cents, last } => {
                let place = self.users[user].holds.len() - 1 - number;
                let hold = &mut self.users[user].holds[place];
                let captured = cents.unwrap_or(hold.left);
                hold.left = if *last { 0 } else { hold.left - captured };
                let before = hold.response["capturedMinor"].as_i64().expect("captured");
                hold.response["capturedMinor"] = json!(before + captured);
                hold.response["remainingMinor"] = json!(hold.left);
                hold.response["status"] = json!(if hold.left == 0 { "captured" } else { "open" });
                assert_eq!(response["hold"], hold.response, "{about}");
                let taken = json!({"id": hold.response["id"], "remainingMinor": hold.left, "final": hold.left == 0});
                assert_eq!(response["transaction"]["hold"], taken, "{about}");
                self.add_entry(user, &response["transaction"], false, captured, texts, about);
            }
            Write::Void { number } => {
                let place = self.users[user].holds.len() - 1 - number;
                let hold = &mut self.users[user].holds[place];
                hold.left = 0;
                hold.response["remainingMinor"] = json!(0);
                hold.response["status"] = json!("voided");
                assert_eq!(response, &hold.response, "{about}");
            }
            Write::Reverse { number, cents } => {
                let place = self.users[user].entries.len() - 1 - number;
                let original = &mut self.users[user].entries[place];
                let reversed = cents.or(original.left).expect("something is left");
                original.left = original.left.map(|left| left - reversed);
                original.reversed += reversed;
                let (is_credit, id, sent_by) =
                    (original.is_credit(), original.response["id"].clone(), original.sent_by);
                assert_eq!(response["reverses"], id, "{about}");
                self.add_entry(user, response, !is_credit, reversed, texts, about).left = None;
                if let Some((sender, sent)) = sent_by {
                    self.users[sender].entries[sent].reversed += reversed;
                    self.receive(sender, user, None, reversed, texts, response, about).await;
                    self.users[sender].entries.last_mut().expect("an entry").left = None;
                }
            }
        }
    }

    fn add_entry(
        &mut self,
        user: usize,
        response: &Value,
        credit: bool,
        cents: i64,
        texts: &[Value; 3],
        about: &str,
    ) -> &mut Entry {
        let model = &mut self.users[user];
        let balance = if credit { model.balance() + cents } else { model.balance() - cents };
        let fields = ["type", "amountMinor", "balanceAfterMinor", "description", "reference", "metadata"];
        let [description, reference, metadata] = texts.clone();
        let kind = json!(if credit { "credit" } else { "debit" });
        let expected = [kind, json!(cents), json!(balance), description, reference, metadata];
        assert_eq!(fields.map(|field| response[field].clone()), expected, "{about}");
        model.entries.push(Entry { response: response.clone(), left: Some(cents), reversed: 0, sent_by: None });
        model.entries.last_mut().expect("an entry")
    }

    /// Follows the entry of a transfer's recipient, whom no response tells.
    #[expect(clippy::too_many_arguments, reason = "one call per kind of transfer")]
    async fn receive(
        &mut self,
        recipient: usize,
        sender: usize,
        sent: Option<usize>,
        cents: i64,
        texts: &[Value; 3],
        response: &Value,
        about: &str,
    ) {
        let newest = self.client.get(&self.users[recipient].bearer(), "/v1/transactions?limit=1").await;
        let received = newest.body["items"][0].clone();
        let sender_id = self.users[sender].bearer().id;
        let transfer = json!({"id": response["transfer"]["id"], "direction": "in", "userId": sender_id});
        assert_eq!(received["transfer"], transfer, "{about}");
        assert_eq!(
            response["transfer"]["id"], response["id"],
            "{about}: the transfer has the id of the sender's entry"
        );
        let shown = [texts[0].clone(), Value::Null, Value::Null];
        self.add_entry(recipient, &received, true, cents, &shown, about).sent_by = sent.map(|sent| (sender, sent));
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
            assert_eq!(response.status, 200, "{about}: {response:?}");
            let mut shown = response.body;
            let reversed = shown.as_object_mut().expect("an object").remove("reversedMinor");
            assert_eq!(shown, entry.response, "{about}");
            assert_eq!(reversed.map_or(0, |cents| cents.as_i64().expect("cents")), entry.reversed, "{about}");
        } else {
            assert_error(&response, 404, "TRANSACTION_NOT_FOUND", about);
        }
    }

    /// Reads one hold by its id.
    async fn hold(&self, user: usize, number: usize, about: &str) {
        let model = &self.users[user];
        let id = Self::id_of(model.holds.iter().rev().map(|hold| &hold.response), number);
        let Some(response) = self.read(user, &format!("/v1/holds/{id}"), about).await else { return };
        match model.holds.iter().rev().nth(number) {
            Some(hold) => assert_eq!((response.status.as_u16(), &response.body), (200, &hold.response), "{about}"),
            None => assert_error(&response, 404, "HOLD_NOT_FOUND", about),
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
