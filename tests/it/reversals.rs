//! `POST /v1/transactions/{id}/reverse`: what can be undone, how often, by whom, and what is left of it.

use futures_util::future::{join, join_all};
use purse::kernel::{EntryId, Role, Timestamp};
use purse::wallet::domain::EntryKind::{Close, Credit, Debit, Expire, Hold, Void};
use purse::wallet::domain::{MINOR_MAX, TransferLeg};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Client, HandLedger, HandRow, Response, RoleProcess, User, World, assert_error, purse, token_of};
use crate::transfers::with_constant_sum;

/// A wallet role without a users role, because the wallets are written by hand.
async fn wallet_role(world: &World) -> (RoleProcess, Client) {
    let wallet = world.start(Role::Wallet).await;
    let client = Client::new("", &wallet.url());
    (wallet, client)
}

async fn reverse(client: &Client, user: &User, id: &str, body: &Value, key: Option<&str>) -> Response {
    client.send(client.post_request(user, &format!("{id}/reverse"), body, key)).await
}

/// A reversal of all that is left.
async fn reverse_all(client: &Client, user: &User, id: &str) -> Response {
    reverse(client, user, id, &json!({}), None).await
}

async fn reverse_cents(client: &Client, user: &User, id: &str, cents: i64) -> Response {
    reverse(client, user, id, &json!({"amountMinor": cents}), None).await
}

/// The id of a new credit or debit.
async fn posted(client: &Client, user: &User, kind: &str, cents: i64) -> String {
    let response = client.post(user, kind, cents, None).await;
    assert_eq!(response.status, 201, "{response:?}");
    id_of(&response)
}

fn id_of(response: &Response) -> String {
    response.body["id"].as_str().unwrap_or_else(|| panic!("{response:?}")).to_owned()
}

fn owner(ledger: &HandLedger) -> User {
    let id = ledger.user.to_string();
    User { token: token_of(&id), email: String::new(), id }
}

async fn count(world: &World, user: &User) -> String {
    world.sql(Role::Wallet, &format!("SELECT count(*) FROM transactions WHERE user_id = '{}'", user.id)).await
}

async fn reversed_minor(client: &Client, user: &User, id: &str) -> Value {
    client.get(user, &format!("/v1/transactions/{id}")).await.body["reversedMinor"].clone()
}

async fn assert_verified(world: &World) {
    let verified = purse(&["ledger", "verify"], &world.settings(Role::Wallet)).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
}

fn in_a_week() -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second() + 604_800).expect("a time")
}

/// A new wallet with a credit of 100, of which `held` is held.
async fn wallet_with_hold(world: &World, held: i64) -> (User, EntryId) {
    let mut ledger = HandLedger::new();
    let credit = ledger.append(&HandRow::new(Credit, 100, 100, 0));
    let expires_at = in_a_week();
    let hold = ledger.append(&HandRow { expires_at: Some(expires_at), ..HandRow::new(Hold, held, 100, held) });
    ledger.list_open_hold(2, hold, held, 0, expires_at);
    ledger.write(world).await;
    (owner(&ledger), credit)
}

/// Two wallets. The first has `before` and sends `amounts` to the second, which begins with `of_recipient`.
struct Transferred {
    sender: HandLedger,
    recipient: HandLedger,
    /// Those of the sender, which are also the ids of the transfers.
    sent: Vec<EntryId>,
    received: Vec<EntryId>,
}

impl Transferred {
    fn of(before: i64, of_recipient: i64, amounts: &[i64]) -> Self {
        let (mut sender, mut recipient) = (HandLedger::new(), HandLedger::new());
        let (mut has, mut got) = (before, of_recipient);
        sender.append(&HandRow::new(Credit, before, before, 0));
        if of_recipient > 0 {
            recipient.append(&HandRow::new(Credit, of_recipient, of_recipient, 0));
        }
        let (mut sent, mut received) = (Vec::new(), Vec::new());
        for amount in amounts {
            (has, got) = (has - amount, got + amount);
            let transfer = EntryId::from_uuid(Uuid::now_v7());
            let leg = |counterparty| Some(TransferLeg { transfer, counterparty });
            let debit = HandRow { transfer: leg(recipient.user), ..HandRow::new(Debit, *amount, has, 0) };
            sender.append_as(transfer, &debit);
            let credit = HandRow { transfer: leg(sender.user), ..HandRow::new(Credit, *amount, got, 0) };
            received.push(recipient.append(&credit));
            sent.push(transfer);
        }
        Self { sender, recipient, sent, received }
    }

    async fn write(&mut self, world: &World) {
        self.sender.write(world).await;
        self.recipient.write(world).await;
    }
}

#[tokio::test]
async fn a_reversal_is_a_transaction_of_its_own_and_the_original_shows_what_was_reversed() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let body = json!({"amountMinor": 100, "description": "order", "reference": "r1", "metadata": {"shop": "a"}});
    let credit = client.send(client.post_request(&user, "credit", &body, None)).await;
    let credit_id = id_of(&credit);
    let path = format!("/v1/transactions/{credit_id}");
    assert_eq!(client.get(&user, &path).await.body, credit.body, "nothing is reversed");

    let of_credit = reverse_cents(&client, &user, &credit_id, 30).await;
    let id = id_of(&of_credit);
    let expected = json!({
        "id": id, "type": "debit", "amountMinor": 30, "balanceAfterMinor": 70, "description": null,
        "createdAt": of_credit.body["createdAt"], "reverses": credit_id,
    });
    assert_eq!((of_credit.status.as_u16(), &of_credit.body), (201, &expected), "nothing is inherited");
    assert!(of_credit.header("location").ends_with(&format!("/v1/transactions/{id}")), "{of_credit:?}");
    assert_eq!(client.get(&user, &format!("/v1/transactions/{id}")).await.body, expected);
    let mut shown = credit.body.clone();
    shown["reversedMinor"] = json!(30);
    assert_eq!(client.get(&user, &path).await.body, shown);

    let debit = posted(&client, &user, "debit", 20).await;
    let texts = json!({"description": "sent back", "reference": "r2", "metadata": {"b": "2", "a": "ü"}});
    let of_debit = reverse(&client, &user, &debit, &texts, None).await;
    assert_eq!(of_debit.status, 201, "{of_debit:?}");
    let expected = json!({
        "id": of_debit.body["id"], "type": "credit", "amountMinor": 20, "balanceAfterMinor": 70, "description": "sent back",
        "createdAt": of_debit.body["createdAt"], "reference": "r2", "metadata": {"a": "ü", "b": "2"}, "reverses": debit,
    });
    assert_eq!(of_debit.body, expected);
    assert_eq!(reversed_minor(&client, &user, &debit).await, json!(20));

    let history = client.get(&user, "/v1/transactions").await;
    let items = history.body["items"].as_array().expect("a list");
    let reverses: Vec<_> = items.iter().map(|item| item["reverses"].as_str()).collect();
    assert_eq!(reverses, [Some(debit.as_str()), None, Some(credit_id.as_str()), None]);
    assert!(items.iter().all(|item| item.get("reversedMinor").is_none()), "{items:?}");
    assert_verified(&world).await;
}

#[tokio::test]
async fn a_second_reversal_is_refused_and_does_not_undo_the_first() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    client.post(&user, "credit", 50, None).await;
    for kind in ["credit", "debit"] {
        let id = posted(&client, &user, kind, 50).await;
        let before: usize = count(&world, &user).await.parse().expect("a number");
        let once = reverse(&client, &user, &id, &json!({}), Some(&format!("{kind}-1"))).await;
        assert_eq!(once.status, 201, "{once:?}");
        for n in 2..4 {
            let again = reverse(&client, &user, &id, &json!({}), Some(&format!("{kind}-{n}"))).await;
            assert_error(&again, 409, "ALREADY_REVERSED", kind);
            assert_error(&reverse_cents(&client, &user, &id, 1).await, 409, "ALREADY_REVERSED", kind);
        }
        assert_eq!(client.balance(&user).await, 50, "as after the first reversal of a {kind}");
        assert_eq!(count(&world, &user).await, (before + 1).to_string());
    }
    assert_verified(&world).await;
}

#[tokio::test]
async fn of_64_concurrent_reversals_through_two_processes_exactly_one_succeeds() {
    let world = World::new().await;
    let (_users, _first, client) = world.both().await;
    let second = world.start(Role::Wallet).await;
    let other_client = Client::new(&client.users, &second.url());
    let user = client.ready_user().await;
    client.post(&user, "credit", 10_000, None).await;
    for (kind, after) in [("credit", 10_000), ("debit", 10_000)] {
        let id = posted(&client, &user, kind, 7).await;
        let responses = join_all((0..64).map(|n| {
            let client = if n % 2 == 0 { &client } else { &other_client };
            let (user, id) = (&user, &id);
            async move {
                // A key makes it safe to repeat what timed out at the lock.
                let key = format!("{kind}-{n}");
                loop {
                    let response = reverse(client, user, id, &json!({}), Some(&key)).await;
                    if response.status != 503 {
                        break response;
                    }
                }
            }
        }))
        .await;
        let codes: Vec<_> = responses.iter().map(|response| (response.status.as_u16(), response.code())).collect();
        assert_eq!(codes.iter().filter(|code| **code == (201, "")).count(), 1, "{kind}: {codes:?}");
        assert_eq!(codes.iter().filter(|code| **code == (409, "ALREADY_REVERSED")).count(), 63, "{kind}: {codes:?}");
        assert_eq!(client.balance(&user).await, after, "{kind}");
    }
    assert_verified(&world).await;
}

#[tokio::test]
async fn equal_partial_reversals_are_not_duplicates_and_end_where_the_amount_does() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let id = posted(&client, &user, "credit", 10).await;
    for n in 1..=3 {
        let body = json!({"amountMinor": 3});
        let part = reverse(&client, &user, &id, &body, Some(&format!("part-{n}"))).await;
        assert_eq!((part.status.as_u16(), part.body["balanceAfterMinor"].as_i64()), (201, Some(10 - 3 * n)));
        assert_eq!(reversed_minor(&client, &user, &id).await, json!(3 * n));
    }
    assert_error(&reverse_cents(&client, &user, &id, 2).await, 409, "REVERSAL_EXCEEDS", "2 of 1");
    assert_eq!(reverse_cents(&client, &user, &id, 1).await.status, 201);
    assert_error(&reverse_cents(&client, &user, &id, 1).await, 409, "ALREADY_REVERSED", "1 of 0");
    assert_eq!(client.balance(&user).await, 0);
    assert_verified(&world).await;
}

#[tokio::test]
async fn a_reversal_without_an_amount_reverses_what_is_left() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let id = posted(&client, &user, "credit", 10).await;
    assert_eq!(reverse_cents(&client, &user, &id, 4).await.status, 201);
    let rest = reverse(&client, &user, &id, &json!({"amountMinor": null, "description": null}), None).await;
    assert_eq!((rest.status.as_u16(), rest.body["amountMinor"].as_i64()), (201, Some(6)), "{rest:?}");
}

#[tokio::test]
async fn a_reversal_cannot_be_reversed() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    client.post(&user, "credit", 10, None).await;
    for kind in ["credit", "debit"] {
        let original = posted(&client, &user, kind, 10).await;
        let reversal = id_of(&reverse_all(&client, &user, &original).await);
        assert_error(&reverse_all(&client, &user, &reversal).await, 409, "NOT_REVERSIBLE", kind);
    }
    assert_eq!(client.balance(&user).await, 10);
}

#[tokio::test]
async fn money_that_was_spent_cannot_be_taken_back_but_what_is_left_of_it_can() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let credit = posted(&client, &user, "credit", 100).await;
    client.post(&user, "debit", 60, None).await;
    assert_error(&reverse_all(&client, &user, &credit).await, 409, "INSUFFICIENT_FUNDS", "100 of 40");
    let part = reverse_cents(&client, &user, &credit, 40).await;
    assert_eq!((part.status.as_u16(), part.body["balanceAfterMinor"].as_i64()), (201, Some(0)), "{part:?}");
    assert_verified(&world).await;
}

#[tokio::test]
async fn a_reversal_of_a_debit_cannot_lift_the_balance_over_the_largest_one() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    client.post(&user, "credit", 10, None).await;
    let debit = posted(&client, &user, "debit", 10).await;
    client.post(&user, "credit", MINOR_MAX - 9, None).await;
    assert_error(&reverse_all(&client, &user, &debit).await, 409, "BALANCE_LIMIT", "10 more");
    assert_eq!(reverse_cents(&client, &user, &debit, 9).await.status, 201);
    assert_eq!(client.balance(&user).await, MINOR_MAX);
}

#[tokio::test]
async fn money_that_is_held_cannot_be_taken_back_by_64_reversals_through_two_processes() {
    let world = World::new().await;
    let (_first, client) = wallet_role(&world).await;
    let second = world.start(Role::Wallet).await;
    let other_client = Client::new("", &second.url());
    let (all_held, credit) = wallet_with_hold(&world, 100).await;
    let refused = reverse_all(&client, &all_held, &credit.to_string()).await;
    assert_error(&refused, 409, "INSUFFICIENT_FUNDS", "all of it is held");

    let (user, credit) = wallet_with_hold(&world, 60).await;
    let credit = credit.to_string();
    let responses = join_all((0..64).map(|n| {
        let client = if n % 2 == 0 { &client } else { &other_client };
        let (user, credit) = (&user, &credit);
        async move {
            let (body, key) = (json!({"amountMinor": 1}), n.to_string());
            loop {
                let response = reverse(client, user, credit, &body, Some(&key)).await;
                if response.status != 503 {
                    break response;
                }
            }
        }
    }))
    .await;
    let done = responses.iter().filter(|response| response.status == 201).count();
    let refused = responses.iter().filter(|response| response.code() == "INSUFFICIENT_FUNDS").count();
    assert_eq!((done, refused, client.balance(&user).await), (40, 24, 60));
    assert_eq!(reversed_minor(&client, &user, &credit).await, json!(40));
    assert_verified(&world).await;
}

#[tokio::test]
async fn a_capture_can_be_reversed_and_nothing_else_that_concerns_a_hold() {
    let world = World::new().await;
    let (_wallet, client) = wallet_role(&world).await;
    let mut ledger = HandLedger::new();
    let expires_at = Some(in_a_week());
    ledger.append(&HandRow::new(Credit, 100, 100, 0));
    let hold = |amount, balance| HandRow { expires_at, ..HandRow::new(Hold, amount, balance, amount) };
    let captured = ledger.append(&hold(50, 100));
    let capture = ledger.append(&HandRow::new(Debit, 30, 70, 0).on(2, 1, 0));
    let voided = ledger.append(&hold(10, 70));
    let void = ledger.append(&HandRow::new(Void, 10, 70, 0).on(4, 1, 0));
    ledger.append(&hold(10, 70));
    let expire = ledger.append(&HandRow::new(Expire, 10, 70, 0).on(6, 1, 0));
    ledger.write(&world).await;
    let user = owner(&ledger);
    for (id, about) in [(captured, "a hold"), (voided, "a voided hold"), (void, "a void"), (expire, "an expiry")] {
        let response = reverse_all(&client, &user, &id.to_string()).await;
        assert_error(&response, 409, "NOT_REVERSIBLE", about);
    }
    let capture = capture.to_string();
    let part = reverse_cents(&client, &user, &capture, 10).await;
    assert_eq!((part.status.as_u16(), part.body["balanceAfterMinor"].as_i64()), (201, Some(80)), "{part:?}");
    assert_eq!(part.body["reverses"], json!(capture));
    let rest = reverse_all(&client, &user, &capture).await;
    assert_eq!((rest.status.as_u16(), rest.body["balanceAfterMinor"].as_i64()), (201, Some(100)), "{rest:?}");
    assert_error(&reverse_all(&client, &user, &capture).await, 409, "ALREADY_REVERSED", "the capture");
    let shown = client.get(&user, &format!("/v1/transactions/{capture}")).await.body;
    assert_eq!((&shown["reversedMinor"], &shown["hold"]["final"]), (&json!(30), &json!(true)), "{shown}");
    let held =
        format!("SELECT held_after_minor FROM transactions WHERE user_id = '{}' ORDER BY seq DESC LIMIT 1", user.id);
    assert_eq!(world.sql(Role::Wallet, &held).await, "0", "the hold is not opened again");
    assert_verified(&world).await;
}

#[tokio::test]
async fn a_closed_wallet_reverses_nothing() {
    let world = World::new().await;
    let (_wallet, client) = wallet_role(&world).await;
    let mut ledger = HandLedger::new();
    let credit = ledger.append(&HandRow::new(Credit, 5, 5, 0));
    let debit = ledger.append(&HandRow::new(Debit, 5, 0, 0));
    let close = ledger.append(&HandRow::new(Close, 0, 0, 0));
    ledger.write(&world).await;
    for id in [credit, debit, close] {
        let response = reverse_all(&client, &owner(&ledger), &id.to_string()).await;
        assert_error(&response, 409, "WALLET_CLOSED", "a closed wallet");
    }
    assert_verified(&world).await;
}

#[tokio::test]
async fn only_ones_own_transactions_are_found_and_a_used_key_is_looked_up_first() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let (user, other) = (client.ready_user().await, client.ready_user().await);
    let foreign = posted(&client, &other, "credit", 5).await;
    let unknown = Uuid::now_v7().to_string();
    for id in [foreign.as_str(), unknown.as_str(), "1", "not-an-id"] {
        let response = reverse_all(&client, &user, id).await;
        assert_error(&response, 404, "TRANSACTION_NOT_FOUND", id);
    }
    assert_eq!(client.balance(&other).await, 5);

    assert_eq!(client.post(&user, "credit", 5, Some("credit")).await.status, 201);
    let own = posted(&client, &user, "credit", 5).await;
    for id in [&unknown, &own] {
        let response = reverse(&client, &user, id, &json!({}), Some("credit")).await;
        assert_error(&response, 422, "IDEMPOTENCY_KEY_REUSED", "the key of a credit");
    }
    let body = json!({"amountMinor": 5, "description": "once"});
    let first = reverse(&client, &user, &own, &body, Some("reversal")).await;
    assert_eq!(first.status, 201, "{first:?}");
    // Now it is reversed as a whole, and the key still returns the first response.
    let again = reverse(&client, &user, &own.to_uppercase(), &body, Some("reversal")).await;
    assert_eq!((again.status.as_u16(), again.header("idempotent-replayed")), (200, "true"));
    assert_eq!(again.body, first.body);
    for (id, body) in [
        (&own, json!({"amountMinor": 4, "description": "once"})),
        (&own, json!({"amountMinor": 5, "description": "twice"})),
        (&own, json!({"description": "once"})),
        (&unknown, body.clone()),
    ] {
        let response = reverse(&client, &user, id, &body, Some("reversal")).await;
        assert_error(&response, 422, "IDEMPOTENCY_KEY_REUSED", &format!("{id} {body}"));
    }
    assert_error(&client.post(&user, "debit", 5, Some("reversal")).await, 422, "IDEMPOTENCY_KEY_REUSED", "a debit");
}

#[tokio::test]
async fn an_invalid_reversal_is_rejected_with_every_problem() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let id = posted(&client, &user, "credit", 5).await;
    for (body, fields) in [
        (json!({"amountMinor": 0}), vec!["amountMinor"]),
        (json!({"amountMinor": "5"}), vec!["amountMinor"]),
        (json!({"amountMinor": 5.0, "description": 5, "colour": "red"}), vec!["amountMinor", "description", "colour"]),
        (json!({"amountMinor": -1}), vec!["amountMinor"]),
        (json!({"amountMinor": MINOR_MAX + 1}), vec!["amountMinor"]),
        (json!([]), vec!["body"]),
    ] {
        let response = reverse(&client, &user, &id, &body, None).await;
        assert_error(&response, 400, "VALIDATION_ERROR", &body.to_string());
        assert_eq!(response.fields(), fields, "{body}");
    }
    let unknown = reverse(&client, &user, "nothing", &json!({"colour": "red"}), None).await;
    assert_error(&unknown, 400, "VALIDATION_ERROR", "before the id is looked at");
    assert_eq!(client.balance(&user).await, 5);
}

#[tokio::test]
async fn a_received_transfer_goes_back_to_its_sender_in_parts_and_never_more_than_it_was() {
    let world = World::new().await;
    let (_wallet, client) = wallet_role(&world).await;
    let mut transferred = Transferred::of(100, 0, &[60]);
    transferred.write(&world).await;
    let (sender, recipient) = (owner(&transferred.sender), owner(&transferred.recipient));
    let (sent, received) = (transferred.sent[0].to_string(), transferred.received[0].to_string());

    assert_error(&reverse_all(&client, &sender, &sent).await, 409, "NOT_REVERSIBLE", "a sent transfer");
    let body = json!({"amountMinor": 20, "description": "too much"});
    let part = reverse(&client, &recipient, &received, &body, Some("part")).await;
    let id = id_of(&part);
    let expected = json!({
        "id": id, "type": "debit", "amountMinor": 20, "balanceAfterMinor": 40, "description": "too much",
        "createdAt": part.body["createdAt"], "reverses": received,
        "transfer": {"id": id, "direction": "out", "userId": sender.id},
    });
    assert_eq!((part.status.as_u16(), &part.body), (201, &expected));
    let replay = reverse(&client, &recipient, &received, &body, Some("part")).await;
    assert_eq!((replay.status.as_u16(), &replay.body), (200, &expected));

    let at_sender = client.get(&sender, "/v1/transactions?limit=1").await.body["items"][0].clone();
    let expected = json!({
        "id": at_sender["id"], "type": "credit", "amountMinor": 20, "balanceAfterMinor": 60, "description": "too much",
        "createdAt": at_sender["createdAt"], "reverses": sent,
        "transfer": {"id": id, "direction": "in", "userId": recipient.id},
    });
    assert_eq!(at_sender, expected);
    // What came back cannot be sent to and fro.
    let back = at_sender["id"].as_str().expect("an id");
    assert_error(&reverse_all(&client, &sender, back).await, 409, "NOT_REVERSIBLE", "what came back");
    assert_error(&reverse_all(&client, &recipient, &id).await, 409, "NOT_REVERSIBLE", "what was sent back");

    assert_eq!(reverse_all(&client, &recipient, &received).await.status, 201);
    assert_error(&reverse_all(&client, &recipient, &received).await, 409, "ALREADY_REVERSED", "both parts");
    assert_eq!(reversed_minor(&client, &recipient, &received).await, json!(60));
    assert_eq!(reversed_minor(&client, &sender, &sent).await, json!(60));
    let shown = client.get(&sender, &format!("/v1/transfers/{sent}")).await;
    assert_eq!(shown.body["reversedMinor"], json!(60), "{shown:?}");
    assert_eq!((client.balance(&sender).await, client.balance(&recipient).await), (100, 0));
    assert_verified(&world).await;
}

#[tokio::test]
async fn a_transfer_does_not_go_back_if_either_wallet_refuses_it_and_then_neither_changes() {
    let world = World::new().await;
    let (_wallet, client) = wallet_role(&world).await;

    let mut closed = Transferred::of(60, 0, &[60]);
    closed.sender.append(&HandRow::new(Close, 0, 0, 0));
    let mut full = Transferred::of(60, 0, &[60]);
    full.sender.append(&HandRow::new(Credit, MINOR_MAX, MINOR_MAX, 0));
    let mut spent = Transferred::of(60, 0, &[60]);
    spent.recipient.append(&HandRow::new(Debit, 1, 59, 0));
    for (transferred, status, code) in [
        (&mut closed, 404, "RECIPIENT_NOT_FOUND"),
        (&mut full, 409, "RECIPIENT_CANNOT_RECEIVE"),
        (&mut spent, 409, "INSUFFICIENT_FUNDS"),
    ] {
        transferred.write(&world).await;
        let (sender, recipient) = (owner(&transferred.sender), owner(&transferred.recipient));
        let before = (count(&world, &sender).await, count(&world, &recipient).await);
        let response = reverse_all(&client, &recipient, &transferred.received[0].to_string()).await;
        assert_error(&response, status, code, code);
        assert_eq!((count(&world, &sender).await, count(&world, &recipient).await), before, "{code}");
    }
    assert_verified(&world).await;
}

#[tokio::test]
async fn transfers_that_go_back_while_the_sender_transfers_more_keep_the_sum() {
    let world = World::new().await;
    let (_first, client) = wallet_role(&world).await;
    let second = world.start(Role::Wallet).await;
    let other_client = Client::new("", &second.url());
    let mut transferred = Transferred::of(1_000, 0, &[10; 20]);
    transferred.write(&world).await;
    let (sender, recipient) = (owner(&transferred.sender), owner(&transferred.recipient));
    let until_done = async |client: &Client, user: &User, path: String, body: Value, key: String| loop {
        let url = format!("{}{path}", client.wallet);
        let request = client.request(Method::POST, &url).bearer_auth(&user.token).header("idempotency-key", &key);
        let response = client.send(request.json(&body)).await;
        if response.status != 503 {
            break response;
        }
    };
    // Each transfer is sent back in two halves, by both processes, and a third time in vain.
    let reversals = transferred.received.iter().flat_map(|id| (0..3).map(move |n| (id, n))).map(|(id, n)| {
        let (client, path) = (if n == 0 { &client } else { &other_client }, format!("/v1/transactions/{id}/reverse"));
        until_done(client, &recipient, path, json!({"amountMinor": 5}), format!("{id}-{n}"))
    });
    let transfers = (0..40).map(|n| {
        let (client, body) =
            (if n % 2 == 0 { &other_client } else { &client }, json!({"toUserId": recipient.id, "amountMinor": 1}));
        until_done(client, &sender, "/v1/transfers".to_owned(), body, format!("transfer-{n}"))
    });
    let both = join(join_all(reversals), join_all(transfers));
    let (reversals, transfers) = with_constant_sum(&world, [&sender, &recipient], both).await;
    assert!(transfers.iter().all(|response| response.status == 201), "{transfers:?}");
    assert_eq!(reversals.iter().filter(|response| response.status == 201).count(), 40);
    assert_eq!(reversals.iter().filter(|response| response.code() == "ALREADY_REVERSED").count(), 20, "{reversals:?}");
    assert_eq!((client.balance(&sender).await, client.balance(&recipient).await), (960, 40));
    assert_verified(&world).await;
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(world.sql(Role::Wallet, deadlocks).await, "0");
}

#[tokio::test]
async fn reversals_count_against_the_limit_of_credits_and_debits() {
    let world = World::new().await;
    let limits = [("RATE_LIMIT_ENABLED", "true"), ("RL_TX_MAX", "2"), ("RL_TX_WINDOW", "1h")];
    let (users, wallet) = tokio::join!(world.start(Role::Users), world.start_with(Role::Wallet, &limits));
    let client = Client::new(&users.url(), &wallet.url());
    let user = client.ready_user().await;
    let id = posted(&client, &user, "credit", 10).await;
    let counted = reverse_cents(&client, &user, &id, 1).await;
    assert_eq!((counted.status.as_u16(), counted.header("ratelimit-remaining")), (201, "0"));
    assert_error(&reverse_cents(&client, &user, &id, 1).await, 429, "RATE_LIMITED", "the third request");
    let unsigned = client.request(Method::POST, &format!("{}/v1/transactions/{id}/reverse", client.wallet));
    assert_error(&client.send(unsigned.json(&json!({}))).await, 401, "UNAUTHORIZED", "without a token");
}
