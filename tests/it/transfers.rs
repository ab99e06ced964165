//! Transfers between users: both legs or neither, for any number of processes, and what others learn of them.

use std::future::Future;

use futures_util::future::join_all;
use purse::kernel::Role;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::shards::lock_order;
use crate::support::{
    Client, PATIENCE, Response, RoleProcess, Scrape, User, WalletLock, World, assert_error, assert_invalid, eventually,
    purse, token_of, unknown_user_id,
};

/// Waits that a lost deadlock would end, but a busy machine does not.
const PATIENT: [(&str, &str); 3] =
    [("DB_LOCK_TIMEOUT_MS", "50000"), ("DB_STATEMENT_TIMEOUT_MS", "60000"), ("DB_ACQUIRE_TIMEOUT_MS", "30000")];

/// Repeats a request with a key while the database is unavailable: on a busy machine a new session may take too long.
async fn until_available<F: Future<Output = Response>>(request: impl Fn() -> F) -> Response {
    eventually(PATIENCE, "the database is available", || async {
        let response = request().await;
        (response.code() != "DEPENDENCY_UNAVAILABLE").then_some(response)
    })
    .await
}

/// Creates wallets without a registration. They begin with a credit of `cents`, unless that is 0.
pub async fn owners(world: &World, client: &Client, number: usize, cents: i64) -> Vec<User> {
    let ids: Vec<String> = (0..number).map(|_| Uuid::now_v7().to_string()).collect();
    let rows: Vec<String> = ids.iter().map(|id| format!("('{id}', gen_random_uuid())")).collect();
    world.sql(Role::Wallet, &format!("INSERT INTO wallets (user_id, id) VALUES {}", rows.join(", "))).await;
    let users: Vec<User> = ids.into_iter().map(|id| User { token: token_of(&id), email: String::new(), id }).collect();
    if cents > 0 {
        let credits = users.iter().map(|user| until_available(|| client.post(user, "credit", cents, Some("first"))));
        for response in join_all(credits).await {
            assert!(response.status.is_success(), "{response:?}");
        }
    }
    users
}

/// A wallet role with two users, who have `cents` each.
async fn two_owners(world: &World, cents: i64) -> (RoleProcess, Client, [User; 2]) {
    let wallet = world.start(Role::Wallet).await;
    let client = Client::new("", &wallet.url());
    let users = owners(world, &client, 2, cents).await;
    (wallet, client, users.try_into().expect("two"))
}

pub fn transfer_request(client: &Client, from: &User, body: &Value, key: Option<&str>) -> RequestBuilder {
    let request = client.request(Method::POST, &format!("{}/v1/transfers", client.wallet)).bearer_auth(&from.token);
    key.into_iter().fold(request.json(body), |request, key| request.header("idempotency-key", key))
}

async fn send(client: &Client, from: &User, body: &Value, key: Option<&str>) -> Response {
    client.send(transfer_request(client, from, body, key)).await
}

pub async fn transfer(client: &Client, from: &User, to: &User, cents: i64, key: Option<&str>) -> Response {
    send(client, from, &json!({"toUserId": to.id, "amountMinor": cents}), key).await
}

async fn rows(world: &World) -> String {
    world.sql(Role::Wallet, "SELECT count(*) FROM transactions").await
}

/// A deadlock is a 503, which these tests repeat, so the logs have to be free of them.
async fn assert_no_deadlock(world: &World, processes: &[&RoleProcess]) {
    let count = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(world.sql(Role::Wallet, count).await, "0");
    for process in processes {
        assert!(!process.output().contains("deadlock detected"));
    }
}

pub async fn assert_verified(world: &World) {
    let database = world.databases.wallet.runtime_url.clone();
    let report = purse(&["ledger", "verify"], &[("WALLET_DATABASE_URL".to_owned(), database)].into()).await;
    assert_eq!(report.code, Some(0), "{report:?}");
}

/// Writes the entry that closes a wallet whose balance is 0.
pub async fn close(world: &World, user: &User) {
    let close = format!(
        "INSERT INTO transactions (user_id, seq, id, type, amount_minor, balance_after_minor, held_after_minor, created_at, hash)
         SELECT '{0}', coalesce(max(seq), 0) + 1, gen_random_uuid(), 'close', 0, 0, 0, clock_timestamp(), sha256('')
         FROM transactions WHERE user_id = '{0}'",
        user.id
    );
    world.sql(Role::Wallet, &close).await;
}

/// A registered user whose event is not delivered. `users` is the role that would deliver it; the one that takes its place does not.
pub async fn newcomer(world: &World, users: RoleProcess, wallet: &RoleProcess) -> (RoleProcess, Client, User) {
    drop(users);
    let users = world.spawn(Role::Users, &[("RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:1/%2f")]).await;
    eventually(PATIENCE, "users can register", || async { (users.readiness().await.0 == 200).then_some(()) }).await;
    let client = Client::new(&users.url(), &wallet.url());
    let newcomer = client.user().await;
    (users, client, newcomer)
}

#[tokio::test]
async fn a_transfer_debits_the_sender_and_credits_the_recipient_and_each_sees_their_own_leg() {
    let world = World::new().await;
    let (_wallet, client, [sender, recipient]) = two_owners(&world, 2000).await;
    let body = json!({
        "toUserId": recipient.id, "amountMinor": 500, "description": "lunch", "reference": "order-17",
        "metadata": {"table": "4"},
    });
    let created = send(&client, &sender, &body, Some("lunch")).await;
    let id = created.body["id"].as_str().expect("an id").to_owned();
    assert_eq!(
        (created.status.as_u16(), &created.body),
        (
            201,
            &json!({
                "id": id, "type": "debit", "amountMinor": 500, "balanceAfterMinor": 1500, "description": "lunch",
                "reference": "order-17", "metadata": {"table": "4"}, "createdAt": created.body["createdAt"],
                "transfer": {"id": id, "direction": "out", "userId": recipient.id},
            })
        )
    );
    assert!(created.header("location").ends_with(&format!("/v1/transfers/{id}")), "{created:?}");

    let credit = client.get(&recipient, &format!("/v1/transfers/{id}")).await;
    assert_ne!(credit.body["id"], created.body["id"]);
    assert_eq!(
        (credit.status.as_u16(), &credit.body),
        (
            200,
            &json!({
                "id": credit.body["id"], "type": "credit", "amountMinor": 500, "balanceAfterMinor": 2500,
                "description": "lunch", "createdAt": created.body["createdAt"],
                "transfer": {"id": id, "direction": "in", "userId": sender.id},
            })
        )
    );
    let debit = client.get(&sender, &format!("/v1/transfers/{id}")).await;
    assert_eq!((debit.status.as_u16(), &debit.body), (200, &created.body));

    for (user, leg) in [(&sender, &debit.body), (&recipient, &credit.body)] {
        let history = client.get(user, "/v1/transactions").await;
        assert_eq!(&history.body["items"][0], leg);
        let plain = history.body["items"][1].as_object().expect("the first credit");
        let fields = ["amountMinor", "balanceAfterMinor", "createdAt", "description", "id", "type"];
        assert!(plain.keys().map(String::as_str).eq(fields), "{plain:?}");
        let entry = client.get(user, &format!("/v1/transactions/{}", leg["id"].as_str().expect("an id"))).await;
        assert_eq!(&entry.body, leg);
    }
    assert_verified(&world).await;
}

#[tokio::test]
async fn a_transfer_to_oneself_is_400_and_writes_nothing() {
    let world = World::new().await;
    let (_wallet, client, [user, _]) = two_owners(&world, 100).await;
    for own in [user.id.clone(), user.id.to_uppercase()] {
        let response = send(&client, &user, &json!({"toUserId": own, "amountMinor": 5}), None).await;
        assert_invalid(&response, &["toUserId"], &own);
        assert_eq!(response.body["details"][0]["message"], "must be another user");
    }
    assert_eq!((rows(&world).await.as_str(), client.balance(&user).await), ("2", 100));
}

#[tokio::test]
async fn invalid_transfers_are_400_with_all_of_their_fields() {
    let world = World::new().await;
    let (_wallet, client, [user, recipient]) = two_owners(&world, 100).await;
    let simple = recipient.id.replace('-', "");
    for (body, fields) in [
        (json!({}), vec!["toUserId", "amountMinor"]),
        (json!({"toUserId": "ada", "amountMinor": 0}), vec!["toUserId", "amountMinor"]),
        (json!({"toUserId": simple, "amountMinor": 5}), vec!["toUserId"]),
        (json!({"toUserId": format!("{{{}}}", recipient.id), "amountMinor": 5}), vec!["toUserId"]),
        (json!({"toUserId": null, "amountMinor": 5}), vec!["toUserId"]),
        (json!({"toUserId": [recipient.id], "amountMinor": 5}), vec!["toUserId"]),
        (json!({"toUserId": recipient.id, "amountMinor": "5"}), vec!["amountMinor"]),
        (json!({"toUserId": recipient.id, "amountMinor": 5, "fromUserId": recipient.id}), vec!["fromUserId"]),
        (json!({"toUserId": recipient.id, "amountMinor": 5, "description": "x".repeat(256)}), vec!["description"]),
    ] {
        assert_invalid(&send(&client, &user, &body, None).await, &fields, &body.to_string());
    }
    let upper = json!({"toUserId": recipient.id.to_uppercase(), "amountMinor": 5});
    assert_eq!(send(&client, &user, &upper, None).await.status, 201, "upper case is as good as lower case");
}

#[tokio::test]
async fn a_transfer_that_the_sender_cannot_pay_or_the_recipient_cannot_hold_changes_neither() {
    let world = World::new().await;
    let (_wallet, client, [sender, recipient]) = two_owners(&world, 100).await;
    assert_error(&transfer(&client, &sender, &recipient, 101, Some("k")).await, 409, "INSUFFICIENT_FUNDS", "101");
    let most = 9_007_199_254_740_991;
    assert_eq!(client.post(&recipient, "credit", most - 100, None).await.status, 201);
    let refused = transfer(&client, &sender, &recipient, 1, Some("k")).await;
    assert_error(&refused, 409, "RECIPIENT_CANNOT_RECEIVE", "a full wallet");
    assert_eq!((client.balance(&sender).await, client.balance(&recipient).await), (100, most));
    assert_eq!(rows(&world).await, "3");
    assert_eq!(client.post(&recipient, "debit", 100, None).await.status, 201);
    assert_eq!(transfer(&client, &sender, &recipient, 100, Some("k")).await.status, 201, "the key is still free");
    assert_eq!((client.balance(&sender).await, client.balance(&recipient).await), (0, most));
    assert_verified(&world).await;
}

#[tokio::test]
async fn unknown_unprovisioned_and_closed_recipients_get_the_same_404() {
    let world = World::new().await;
    let (users, wallet, client) = world.both().await;
    let [sender, closed]: [User; 2] = owners(&world, &client, 2, 0).await.try_into().expect("two");
    assert_eq!(client.post(&sender, "credit", 100, None).await.status, 201);
    close(&world, &closed).await;
    let (_users, client, newcomer) = newcomer(&world, users, &wallet).await;
    let mut bodies = Vec::new();
    for to in [&unknown_user_id(), &newcomer.id, &closed.id] {
        let response = send(&client, &sender, &json!({"toUserId": to, "amountMinor": 5}), None).await;
        assert_error(&response, 404, "RECIPIENT_NOT_FOUND", to);
        bodies.push(response.body);
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
    assert_eq!(client.balance(&sender).await, 100);
}

#[tokio::test]
async fn a_closed_wallet_sends_nothing() {
    let world = World::new().await;
    let (_wallet, client, [sender, recipient]) = two_owners(&world, 100).await;
    assert_eq!(client.post(&sender, "debit", 100, None).await.status, 201);
    close(&world, &sender).await;
    assert_error(&transfer(&client, &sender, &recipient, 5, None).await, 409, "WALLET_CLOSED", "a closed wallet");
}

#[tokio::test]
async fn a_replay_returns_the_first_response_even_after_the_recipient_closed_the_wallet() {
    let world = World::new().await;
    let (_wallet, client, [sender, recipient]) = two_owners(&world, 100).await;
    let first = transfer(&client, &sender, &recipient, 30, Some("once")).await;
    assert_eq!(first.status, 201);
    for _ in 0..2 {
        let again = transfer(&client, &sender, &recipient, 30, Some("once")).await;
        assert_eq!((again.status.as_u16(), again.header("idempotent-replayed")), (200, "true"));
        assert_eq!(again.body, first.body);
        if client.balance(&recipient).await > 0 {
            assert_eq!(client.post(&recipient, "debit", 130, None).await.status, 201);
            close(&world, &recipient).await;
        }
    }
    assert_error(&transfer(&client, &sender, &recipient, 30, Some("new")).await, 404, "RECIPIENT_NOT_FOUND", "closed");
    assert_eq!(client.balance(&sender).await, 70);
}

#[tokio::test]
async fn a_key_belongs_to_one_request_of_the_sender_whatever_its_route() {
    let world = World::new().await;
    let wallet = world.start(Role::Wallet).await;
    let client = Client::new("", &wallet.url());
    let [a, b, c]: [User; 3] = owners(&world, &client, 3, 100).await.try_into().expect("three");
    assert_eq!(client.post(&a, "credit", 5, Some("credit")).await.status, 201);
    assert_eq!(transfer(&client, &a, &b, 5, Some("transfer")).await.status, 201);
    let described = json!({"toUserId": b.id, "amountMinor": 5, "description": "x"});
    let reused = [
        transfer(&client, &a, &b, 5, Some("credit")).await,
        transfer(&client, &a, &c, 5, Some("transfer")).await,
        transfer(&client, &a, &b, 6, Some("transfer")).await,
        send(&client, &a, &described, Some("transfer")).await,
        client.post(&a, "debit", 5, Some("transfer")).await,
        client.post(&a, "credit", 5, Some("transfer")).await,
    ];
    for (n, response) in reused.iter().enumerate() {
        assert_error(response, 422, "IDEMPOTENCY_KEY_REUSED", &n.to_string());
    }
    assert_eq!(transfer(&client, &b, &a, 5, Some("transfer")).await.status, 201, "the recipient has other keys");
    assert_eq!(rows(&world).await, (3 + 1 + 2 + 2).to_string());
}

#[tokio::test]
async fn a_transfer_is_found_by_its_sender_and_its_recipient_only() {
    let world = World::new().await;
    let wallet = world.start(Role::Wallet).await;
    let client = Client::new("", &wallet.url());
    let [sender, recipient, other]: [User; 3] = owners(&world, &client, 3, 100).await.try_into().expect("three");
    let created = transfer(&client, &sender, &recipient, 5, None).await;
    let id = created.body["id"].as_str().expect("an id").to_owned();
    let leg =
        client.get(&recipient, &format!("/v1/transfers/{id}")).await.body["id"].as_str().expect("an id").to_owned();
    let plain =
        client.get(&sender, "/v1/transactions").await.body["items"][1]["id"].as_str().expect("an id").to_owned();
    for (user, path) in [
        (&other, id.clone()),
        (&recipient, leg),
        (&sender, plain),
        (&sender, Uuid::now_v7().to_string()),
        (&sender, "not-an-id".to_owned()),
    ] {
        let response = client.get(user, &format!("/v1/transfers/{path}")).await;
        assert_error(&response, 404, "TRANSFER_NOT_FOUND", &path);
    }
    let entry = client.get(&recipient, &format!("/v1/transactions/{id}")).await;
    assert_error(&entry, 404, "TRANSACTION_NOT_FOUND", "the sender's transaction");
}

#[tokio::test]
async fn a_transfer_that_was_answered_is_there_for_both_users_at_any_process() {
    let world = World::new().await;
    let (_wallet, client, [sender, recipient]) = two_owners(&world, 100).await;
    let second = world.start(Role::Wallet).await;
    let other_client = Client::new("", &second.url());
    for n in 0..20 {
        let created = transfer(&client, &sender, &recipient, 1, None).await;
        let path = format!("/v1/transfers/{}", created.body["id"].as_str().expect("an id"));
        let (out, into) = tokio::join!(other_client.get(&sender, &path), other_client.get(&recipient, &path));
        assert_eq!((out.status.as_u16(), into.status.as_u16()), (200, 200), "{n}");
        assert_eq!(
            (&out.body["transfer"]["direction"], &into.body["transfer"]["direction"]),
            (&json!("out"), &json!("in"))
        );
    }
}

#[tokio::test]
async fn transfers_of_64_senders_to_one_recipient_through_two_processes_are_64_credits() {
    let world = World::new().await;
    let (first, second) =
        tokio::join!(world.start_with(Role::Wallet, &PATIENT), world.start_with(Role::Wallet, &PATIENT));
    let clients = [Client::new("", &first.url()), Client::new("", &second.url())];
    let senders = owners(&world, &clients[0], 64, 10).await;
    let recipient = owners(&world, &clients[0], 1, 0).await.remove(0);
    let sent = senders.iter().enumerate().map(|(n, sender)| {
        let (client, recipient) = (&clients[n % 2], &recipient);
        until_available(move || transfer(client, sender, recipient, 10, Some("k")))
    });
    for response in join_all(sent).await {
        assert!(response.status.is_success(), "{response:?}");
        assert_eq!(response.body["balanceAfterMinor"], 0);
    }
    let credits = format!(
        "SELECT count(*), max(seq), count(DISTINCT counterparty_user_id), max(balance_after_minor)
         FROM transactions WHERE user_id = '{}'",
        recipient.id
    );
    assert_eq!(world.sql(Role::Wallet, &credits).await, "64|64|64|640");
    assert_no_deadlock(&world, &[&first, &second]).await;
    assert_verified(&world).await;
}

/// Runs `work`. Meanwhile the sum of both balances never changes.
pub async fn with_constant_sum<T>(world: &World, users: [&User; 2], work: impl Future<Output = T>) -> T {
    let [first, second] = users.map(|user| {
        format!("SELECT balance_after_minor FROM transactions WHERE user_id = '{}' ORDER BY seq DESC LIMIT 1;", user.id)
    });
    // The second balance is read later, but of the same moment.
    let script = format!("BEGIN ISOLATION LEVEL REPEATABLE READ; {first} SELECT pg_sleep(0.02); {second} COMMIT");
    let sum = async || {
        let seen = world.sql(Role::Wallet, &script).await;
        let balances: Vec<i64> = seen.lines().filter_map(|line| line.trim().parse().ok()).collect();
        assert_eq!(balances.len(), 2, "{seen}");
        balances.into_iter().sum::<i64>()
    };
    let before = sum().await;
    let mut looks = 0;
    let watch = async {
        loop {
            assert_eq!(sum().await, before, "look {looks}");
            looks += 1;
        }
    };
    let done = tokio::select! {
        done = work => done,
        () = watch => unreachable!("it never ends"),
    };
    assert!(looks > 0, "nobody looked at the sum");
    assert_eq!(sum().await, before, "after all");
    done
}

/// Transfers back and forth between two users through two processes, from 64 loops at once, each until `goes_on` is false
/// for its number of transfers. Meanwhile the sum of both balances never changes. Returns the number of transfers.
pub async fn back_and_forth(goes_on: impl Fn(usize) -> bool) -> usize {
    let world = World::new().await;
    let (first, second) =
        tokio::join!(world.start_with(Role::Wallet, &PATIENT), world.start_with(Role::Wallet, &PATIENT));
    let clients = [Client::new("", &first.url()), Client::new("", &second.url())];
    // So much that neither of them runs out of it in a minute, even if one of them transfers more.
    let users = owners(&world, &clients[0], 2, 1_000_000).await;
    let loops = (0..64_usize).map(|number| {
        let client = &clients[number / 2 % 2];
        let (from, to) = (&users[number % 2], &users[1 - number % 2]);
        let goes_on = &goes_on;
        async move {
            let mut sent = 0;
            while goes_on(sent) {
                let key = format!("{number}-{sent}");
                let response = until_available(|| transfer(client, from, to, 1, Some(&key))).await;
                assert!(response.status.is_success(), "{number}: {response:?}");
                sent += 1;
            }
            sent
        }
    });
    let sent: usize = with_constant_sum(&world, [&users[0], &users[1]], join_all(loops)).await.into_iter().sum();
    let total = clients[0].balance(&users[0]).await + clients[1].balance(&users[1]).await;
    assert_eq!((total, rows(&world).await), (2_000_000, (2 + 2 * sent).to_string()));
    assert_no_deadlock(&world, &[&first, &second]).await;
    assert_verified(&world).await;
    sent
}

#[tokio::test]
async fn two_batches_that_wait_for_the_wallets_of_each_other_do_not_deadlock() {
    let world = World::new().await;
    let wallet = world.start_with(Role::Wallet, &PATIENT).await;
    let client = Client::new("", &wallet.url());
    let [first, second]: [User; 2] = owners(&world, &client, 2, 100).await.try_into().expect("two");
    let of_first = WalletLock::acquire(&world, &first).await;
    let of_second = WalletLock::acquire(&world, &second).await;
    let transfers = [(&first, &second), (&second, &first)].map(|(from, to)| {
        let (client, from, to) = (client.clone(), from.clone(), to.clone());
        tokio::spawn(async move { transfer(&client, &from, &to, 5, None).await })
    });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually(PATIENCE, "a batch waits for each wallet", || async {
        (world.sql(Role::Wallet, waits).await == "2").then_some(())
    })
    .await;
    // If the first batch now waited for the second wallet, the second batch would get that wallet and wait for the first one.
    of_first.release().await;
    of_second.release().await;
    for transfer in transfers {
        let response = transfer.await.expect("sent");
        assert_eq!(response.status, 201, "{response:?}");
    }
    assert_no_deadlock(&world, &[&wallet]).await;
    assert_verified(&world).await;
}

#[tokio::test]
async fn transfers_back_and_forth_through_two_processes_neither_deadlock_nor_change_the_sum() {
    assert_eq!(back_and_forth(|sent| sent < 7).await, 448);
}

#[tokio::test]
async fn a_later_post_never_overtakes_a_transfer_that_waits_for_its_recipient_and_nobody_else_waits() {
    let world = World::new().await;
    let wallet = world.start_with(Role::Wallet, &PATIENT).await;
    let client = Client::new("", &wallet.url());
    let [sender, recipient, other]: [User; 3] = owners(&world, &client, 3, 100).await.try_into().expect("three");
    let holder = WalletLock::acquire(&world, &recipient).await;
    let transferring = tokio::spawn({
        let (client, sender, recipient) = (client.clone(), sender.clone(), recipient.clone());
        async move { transfer(&client, &sender, &recipient, 100, None).await }
    });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually(PATIENCE, "the transfer waits", || async {
        (world.sql(Role::Wallet, waits).await == "1").then_some(())
    })
    .await;
    let crediting = tokio::spawn({
        let (client, sender) = (client.clone(), sender.clone());
        async move { client.post(&sender, "credit", 7, None).await }
    });
    for n in 1..=20 {
        let created = transfer(&client, &other, &sender, 1, None).await;
        assert_eq!(
            (created.status.as_u16(), &created.body["balanceAfterMinor"]),
            (201, &json!(100 - n)),
            "{created:?}"
        );
    }
    assert!(!transferring.is_finished() && !crediting.is_finished());
    holder.release().await;
    let (debit, credit) = (transferring.await.expect("sent"), crediting.await.expect("sent"));
    assert_eq!((debit.status.as_u16(), credit.status.as_u16()), (201, 201));
    let order = format!(
        "SELECT string_agg(type || amount_minor, ' ' ORDER BY seq) FROM transactions
         WHERE user_id = '{}' AND amount_minor <> 1",
        sender.id
    );
    assert_eq!(world.sql(Role::Wallet, &order).await, "credit100 debit100 credit7");
    assert_eq!(credit.body["balanceAfterMinor"], 27);
    assert_verified(&world).await;
}

#[tokio::test]
async fn of_64_transfers_of_the_whole_balance_through_two_processes_one_succeeds() {
    let world = World::new().await;
    let (first, second) =
        tokio::join!(world.start_with(Role::Wallet, &PATIENT), world.start_with(Role::Wallet, &PATIENT));
    let clients = [Client::new("", &first.url()), Client::new("", &second.url())];
    let sender = owners(&world, &clients[0], 1, 100).await.remove(0);
    let recipients = owners(&world, &clients[0], 64, 0).await;
    let sent = recipients.iter().enumerate().map(|(n, to)| {
        let (client, sender) = (&clients[n % 2], &sender);
        until_available(move || transfer(client, sender, to, 100, Some(&to.id)))
    });
    let responses = join_all(sent).await;
    let count = |status: u16, code: &str| responses.iter().filter(|r| r.status == status && r.code() == code).count();
    assert_eq!((count(201, "") + count(200, ""), count(409, "INSUFFICIENT_FUNDS")), (1, 63));
    assert_eq!((clients[0].balance(&sender).await, rows(&world).await.as_str()), (0, "3"));
    assert_verified(&world).await;
}

#[tokio::test]
async fn sixty_four_transfers_with_one_key_move_the_money_once() {
    let world = World::new().await;
    let (_first, client, [sender, recipient]) = two_owners(&world, 100).await;
    let second = world.start(Role::Wallet).await;
    let clients = [client, Client::new("", &second.url())];
    let sent = (0..64).map(|n| {
        let (client, sender, recipient) = (&clients[n % 2], &sender, &recipient);
        until_available(move || transfer(client, sender, recipient, 60, Some("once")))
    });
    let responses = join_all(sent).await;
    let count = |status: u16| responses.iter().filter(|response| response.status == status).count();
    assert_eq!((count(201), count(200)), (1, 63), "{responses:?}");
    assert!(responses.iter().all(|response| response.body == responses[0].body));
    assert_eq!((clients[0].balance(&sender).await, clients[1].balance(&recipient).await), (40, 160));
}

#[tokio::test]
async fn a_leg_whose_twin_was_removed_is_reported_by_verify() {
    let world = World::new().await;
    let (_wallet, client, [sender, recipient]) = two_owners(&world, 100).await;
    assert_eq!(transfer(&client, &sender, &recipient, 5, None).await.status, 201);
    let remove = format!(
        "SET session_replication_role = replica; DELETE FROM transactions WHERE user_id = '{}' AND seq = 2",
        recipient.id
    );
    world.sql(Role::Wallet, &remove).await;
    let database = world.databases.wallet.runtime_url.clone();
    let settings = [("WALLET_DATABASE_URL".to_owned(), database)].into();
    let report = purse(&["ledger", "verify", "--format", "json"], &settings).await;
    assert_eq!(report.code, Some(1), "{report:?}");
    let differing = report.json()["differing"].clone();
    let found = differing.as_array().expect("a list").iter().map(|wallet| {
        (
            wallet["userId"].as_str().expect("an id"),
            wallet["faults"][0]["law"].as_str(),
            wallet["faults"][0]["seq"].as_i64(),
        )
    });
    assert_eq!(found.collect::<Vec<_>>(), [(sender.id.as_str(), Some("transfer"), Some(2))]);
}

#[tokio::test]
async fn transfers_count_against_the_limit_of_transactions() {
    let world = World::new().await;
    let limited = [("RATE_LIMIT_ENABLED", "true"), ("RL_TX_MAX", "3"), ("RL_TX_WINDOW", "1h")];
    let wallet = world.start_with(Role::Wallet, &limited).await;
    let client = Client::new("", &wallet.url());
    let [user, other]: [User; 2] = owners(&world, &client, 2, 0).await.try_into().expect("two");
    assert_eq!(client.post(&user, "credit", 100, None).await.status, 201);
    assert_eq!(transfer(&client, &user, &other, 1, None).await.status, 201);
    let unknown = json!({"toUserId": unknown_user_id(), "amountMinor": 1});
    assert_eq!(send(&client, &user, &unknown, None).await.status, 404, "a try counts too");
    assert_error(&transfer(&client, &user, &other, 1, None).await, 429, "RATE_LIMITED", "the fourth");
}

/// Waits until posts have been set aside this often in total, and the batch that retries the last one waits for a lock.
async fn set_aside(world: &World, wallet: &RoleProcess, times: f64) {
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually(PATIENCE, "a post is set aside", || async {
        let total = Scrape::of(&wallet.url()).await.sum("purse_ledger_set_aside_total", "");
        (total == Some(times) && world.sql(Role::Wallet, waits).await == "1").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_transfer_that_finds_one_of_its_wallets_locked_three_times_waits_for_both() {
    let world = World::new().await;
    let wallet = world.start_with(Role::Wallet, &PATIENT).await;
    let client = Client::new("", &wallet.url());
    let mut users = owners(&world, &client, 2, 100).await;
    users.sort_by_key(lock_order);
    let [first, second]: [User; 2] = users.try_into().expect("two");
    let of_first = WalletLock::acquire(&world, &first).await;
    let of_second = WalletLock::acquire(&world, &second).await;
    let transferring = tokio::spawn({
        let (client, first, second) = (client.clone(), first.clone(), second.clone());
        async move { transfer(&client, &first, &second, 5, None).await }
    });
    // Each time the batch gets the wallet that it waits for, and finds the other one locked.
    set_aside(&world, &wallet, 1.0).await;
    of_first.release().await;
    set_aside(&world, &wallet, 2.0).await;
    let of_first = WalletLock::acquire(&world, &first).await;
    of_second.release().await;
    set_aside(&world, &wallet, 3.0).await;
    let of_second = WalletLock::acquire(&world, &second).await;
    of_first.release().await;
    set_aside(&world, &wallet, 4.0).await;
    // Now it holds the first wallet while it waits for the second.
    let free = format!(
        "SELECT count(*) FROM (SELECT FROM wallets WHERE user_id = '{}' FOR UPDATE SKIP LOCKED) AS free",
        first.id
    );
    assert_eq!(world.sql(Role::Wallet, &free).await, "0");
    of_second.release().await;
    assert_eq!(transferring.await.expect("sent").status, 201);
    let scrape = Scrape::of(&wallet.url()).await;
    let commits = |kind: &str| scrape.sum("purse_ledger_commit_duration_seconds_count", &format!("batch=\"{kind}\""));
    assert_eq!((commits("set_aside"), commits("last_resort")), (Some(3.0), Some(1.0)));
    assert_verified(&world).await;
}

#[tokio::test]
async fn a_transfer_takes_two_slots_of_the_queue_and_is_accepted_by_a_queue_of_one() {
    let world = World::new().await;
    let wallet = world.start_with(Role::Wallet, &[PATIENT.as_slice(), &[("LEDGER_QUEUE_MAX", "2")]].concat()).await;
    let client = Client::new("", &wallet.url());
    let mut users = owners(&world, &client, 3, 0).await;
    let (other, [sender, recipient]) = (users.pop().expect("three"), <[User; 2]>::try_from(users).expect("two"));
    assert_eq!(client.post(&sender, "credit", 100, None).await.status, 201);
    let holder = WalletLock::acquire(&world, &recipient).await;
    let transferring = tokio::spawn({
        let (client, sender, recipient) = (client.clone(), sender.clone(), recipient.clone());
        async move { transfer(&client, &sender, &recipient, 5, None).await }
    });
    eventually(PATIENCE, "the queue is full", || async {
        (Scrape::of(&wallet.url()).await.number("purse_ledger_queue_posts") == Some(2.0)).then_some(())
    })
    .await;
    assert_error(&client.post(&other, "credit", 1, None).await, 503, "OVERLOADED", "two entries of a transfer wait");
    holder.release().await;
    assert_eq!(transferring.await.expect("sent").status, 201);

    let small = world.start_with(Role::Wallet, &[("LEDGER_QUEUE_MAX", "1"), ("LEDGER_BATCH_MAX", "1")]).await;
    let created = transfer(&Client::new("", &small.url()), &sender, &recipient, 5, None).await;
    assert_eq!((created.status.as_u16(), &created.body["balanceAfterMinor"]), (201, &json!(90)), "{created:?}");
}
