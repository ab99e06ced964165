//! Concurrent requests: the ledger stays consistent, and of competing requests one succeeds.

use futures_util::future::join_all;
use purse::kernel::Role;

use crate::support::{Client, PATIENCE, User, WalletLock, World, eventually};

/// Every wallet has sequence numbers without a gap, and balances that are the sum of the entries and never negative.
async fn assert_consistent_ledger(world: &World) {
    let broken = world
        .sql(
            Role::Wallet,
            "SELECT count(*) FROM (
                 SELECT seq, row_number() OVER w AS position, balance_after_minor, created_at,
                        sum(CASE type WHEN 'credit' THEN amount_minor ELSE -amount_minor END) OVER w AS balance,
                        lag(created_at) OVER w AS before
                 FROM transactions WINDOW w AS (PARTITION BY user_id ORDER BY seq)
             ) AS entry
             WHERE seq <> position OR balance <> balance_after_minor OR balance < 0 OR created_at < before",
        )
        .await;
    assert_eq!(broken, "0");
}

#[tokio::test]
async fn exactly_100_of_a_thousand_concurrent_debits_of_one_succeed_on_a_balance_of_100() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    client.post(&user, "credit", 100, None).await;
    let responses = join_all((0..1000).map(|_| client.post(&user, "debit", 1, None))).await;
    let count = |status: u16, code: &str| responses.iter().filter(|a| a.status == status && a.code() == code).count();
    assert_eq!((count(201, ""), count(409, "INSUFFICIENT_FUNDS")), (100, 900));
    assert_eq!(client.balance(&user).await, 0);
    assert_consistent_ledger(&world).await;
}

#[tokio::test]
async fn sixty_four_concurrent_posts_with_one_key_create_one_entry() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let responses = join_all((0..64).map(|_| client.post(&user, "credit", 7, Some("once")))).await;
    assert_eq!(responses.iter().filter(|a| a.status == 201).count(), 1);
    assert_eq!(responses.iter().filter(|a| a.status == 200 && a.header("idempotent-replayed") == "true").count(), 63);
    assert!(responses.iter().all(|a| a.body == responses[0].body));
    assert_eq!(client.balance(&user).await, 7);

    let mixed = join_all((0..64).map(|n| client.post(&user, "credit", 1 + n % 2, Some("either")))).await;
    let (won, lost): (Vec<_>, Vec<_>) = mixed.into_iter().partition(|a| a.status.is_success());
    assert_eq!((won.len(), lost.len()), (32, 32));
    assert!(lost.iter().all(|a| a.code() == "IDEMPOTENCY_KEY_REUSED"));
    assert_consistent_ledger(&world).await;
}

#[tokio::test]
async fn two_wallet_processes_post_to_the_same_wallets_without_losing_or_duplicating_an_entry() {
    let world = World::new().await;
    let (_users, _first, client) = world.both().await;
    let second = world.start(Role::Wallet).await;
    let other_client = Client::new(&client.users, &second.url());
    let mut owners = Vec::new();
    for _ in 0..4 {
        owners.push(client.ready_user().await);
    }
    // Half of the posts go to one busy wallet. Each has its own key and is sent to both processes.
    let sent = (0..400).flat_map(|n| {
        let user = if n % 2 == 0 { &owners[0] } else { &owners[1 + n % 3] };
        let via = if n % 4 < 2 { [&client, &other_client] } else { [&other_client, &client] };
        via.map(|client| async move {
            let key = format!("k{n}");
            loop {
                let response = client.post(user, "credit", 1, Some(&key)).await;
                // 503 if the other process locks the wallet for too long; the key makes a retry safe.
                if response.status != 503 {
                    return response.status.as_u16();
                }
            }
        })
    });
    let statuses = join_all(sent).await;
    assert_eq!(
        (statuses.iter().filter(|s| **s == 201).count(), statuses.iter().filter(|s| **s == 200).count()),
        (400, 400)
    );
    let mut total = 0;
    for user in &owners {
        total += client.balance(user).await;
    }
    assert_eq!(total, 400);
    assert_consistent_ledger(&world).await;
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(world.sql(Role::Wallet, deadlocks).await, "0");
}

#[tokio::test]
async fn a_post_that_waited_for_a_lock_sees_newer_entries_under_any_default_isolation_level() {
    let world = World::new().await;
    let database = &world.databases.wallet.database;
    let wrong = format!("ALTER DATABASE {database} SET default_transaction_isolation = 'repeatable read'");
    world.sql(Role::Wallet, &wrong).await;
    let patient = [("DB_LOCK_TIMEOUT_MS", "20000"), ("DB_STATEMENT_TIMEOUT_MS", "30000")];
    let (users, wallet) = tokio::join!(world.start(Role::Users), world.start_with(Role::Wallet, &patient));
    let client = Client::new(&users.url(), &wallet.url());
    let user = client.ready_user().await;
    let holder = WalletLock::acquire(&world, &user).await;
    let posting = tokio::spawn({
        let (client, user) = (client.clone(), user.clone());
        async move { client.post(&user, "credit", 5, None).await }
    });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually(PATIENCE, "the post waits", || async { (world.sql(Role::Wallet, waits).await == "1").then_some(()) })
        .await;
    let write = format!(
        "INSERT INTO transactions (user_id, seq, id, type, amount_minor, balance_after_minor, held_after_minor, created_at, hash)
         VALUES ('{}', 1, gen_random_uuid(), 'credit', 2, 2, 0, clock_timestamp(), sha256(''))",
        user.id
    );
    holder.write(&write).await;
    let created = posting.await.expect("posted");
    assert_eq!(
        (created.status.as_u16(), &created.body["balanceAfterMinor"]),
        (201, &serde_json::json!(7)),
        "{created:?}"
    );
    // Its time is from after the wait. The transaction had begun before the other entry was written.
    let times = "SELECT string_agg(created_at::text, ' ' ORDER BY seq), count(DISTINCT created_at) FROM transactions";
    assert!(world.sql(Role::Wallet, times).await.ends_with("|2"), "{}", world.sql(Role::Wallet, times).await);
    assert_consistent_ledger(&world).await;
}

#[tokio::test]
async fn a_post_to_a_locked_wallet_times_out_and_other_wallets_do_not_wait() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let (locked, other) = (client.ready_user().await, client.ready_user().await);
    let holder = WalletLock::acquire(&world, &locked).await;

    // The post to the locked wallet is sent before the others and waits meanwhile.
    let (waiting_client, waiting_user) = (client.clone(), locked.clone());
    let waiting = tokio::spawn(async move { waiting_client.post(&waiting_user, "credit", 5, Some("locked")).await });
    for n in 1..=20 {
        assert_eq!(client.post(&other, "credit", 1, None).await.body["balanceAfterMinor"], n);
    }
    let refused = waiting.await.expect("sent");
    assert_eq!((refused.status.as_u16(), refused.code()), (503, "DEPENDENCY_UNAVAILABLE"), "{refused:?}");
    holder.release().await;
    let created = client.post(&locked, "credit", 5, Some("locked")).await;
    assert_eq!((created.status.as_u16(), client.balance(&locked).await), (201, 5));
    assert_consistent_ledger(&world).await;
}

#[tokio::test]
async fn forty_concurrent_registrations_of_one_address_create_one_user() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let email = Client::fresh_email();
    let spellings = [email.clone(), email.to_uppercase(), email.replace("example", "Example")];
    let responses = join_all((0..40).map(|n| client.register(&spellings[n % 3]))).await;
    assert_eq!(responses.iter().filter(|a| a.status == 201).count(), 1);
    assert_eq!(responses.iter().filter(|a| a.status == 409 && a.code() == "EMAIL_EXISTS").count(), 39);
    assert_eq!(
        world.sql(Role::Users, "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM outbox)").await,
        "1|1"
    );
}

#[tokio::test]
async fn three_processes_of_each_role_can_start_together_on_empty_databases() {
    let world = World::new().await;
    let roles = [Role::Users, Role::Wallet, Role::Users, Role::Wallet, Role::Users, Role::Wallet];
    let processes = join_all(roles.map(|role| world.start(role))).await;
    assert_eq!(processes.len(), 6);
    let applied = "SELECT count(*) = count(DISTINCT version) FROM refinery_schema_history";
    assert_eq!(
        (world.sql(Role::Users, applied).await, world.sql(Role::Wallet, applied).await),
        ("t".into(), "t".into())
    );
    let client = Client::new(&processes[2].url(), &processes[3].url());
    client.ready_user().await;
}

#[tokio::test]
async fn exactly_three_of_twenty_concurrent_debits_of_30_succeed_on_a_balance_of_100() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    client.post(&user, "credit", 100, None).await;
    let responses = join_all((0..20).map(|_| client.post(&user, "debit", 30, None))).await;
    assert_eq!(responses.iter().filter(|a| a.status == 201).count(), 3);
    assert_eq!(responses.iter().filter(|a| a.status == 409).count(), 17);
    assert_eq!(client.balance(&user).await, 10);
    assert_consistent_ledger(&world).await;
}

#[tokio::test]
async fn a_thousand_concurrent_posts_on_one_wallet_add_up() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let mut rng = fastrand::Rng::with_seed(7);
    let posts: Vec<(&str, i64)> =
        (0..1000).map(|n| (if n % 2 == 0 { "credit" } else { "debit" }, rng.i64(1..1000))).collect();
    let responses = join_all(posts.iter().map(|(kind, cents)| client.post(&user, kind, *cents, None))).await;
    let mut balance = 0;
    for ((kind, cents), response) in posts.iter().zip(&responses) {
        match (response.status.as_u16(), *kind) {
            (201, "credit") => balance += cents,
            (201, _) => balance -= cents,
            (409, "debit") => {}
            other => panic!("{other:?}: {response:?}"),
        }
    }
    assert_eq!(client.balance(&user).await, balance);
    assert_consistent_ledger(&world).await;
}

#[tokio::test]
async fn two_users_may_use_the_same_idempotency_key() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let (one, other) = (client.ready_user().await, client.ready_user().await);
    let responses =
        tokio::join!(client.post(&one, "credit", 5, Some("k")), client.post(&other, "credit", 6, Some("k")));
    assert_eq!((responses.0.status.as_u16(), responses.1.status.as_u16()), (201, 201));
    assert_eq!((client.balance(&one).await, client.balance(&other).await), (5, 6));
}

/// All entries of a wallet by pages of seven, newest first, as `(id, type, amount, balance after)`.
async fn pages_of_seven(client: &Client, user: &User) -> Vec<(String, String, i64, i64)> {
    let (mut entries, mut path) = (Vec::new(), "/v1/transactions?limit=7".to_owned());
    loop {
        let page = client.get(user, &path).await;
        assert_eq!(page.status, 200, "{page:?}");
        entries.extend(page.body["items"].as_array().expect("items").iter().map(|item| {
            let text = |name: &str| item[name].as_str().expect("text").to_owned();
            let number = |name: &str| item[name].as_i64().expect("number");
            (text("id"), text("type"), number("amountMinor"), number("balanceAfterMinor"))
        }));
        let Some(cursor) = page.body["nextCursor"].as_str() else { return entries };
        path = format!("/v1/transactions?limit=7&cursor={cursor}");
    }
}

#[tokio::test]
async fn pages_and_balances_read_during_writes_are_consistent() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    for _ in 0..30 {
        client.post(&user, "credit", 10, None).await;
    }
    let before: Vec<String> = pages_of_seven(&client, &user).await.into_iter().map(|entry| entry.0).collect();
    let writers: Vec<_> = (0..20)
        .map(|_| {
            let (client, user) = (client.clone(), user.clone());
            tokio::spawn(async move {
                for n in 0..10 {
                    client.post(&user, if n % 3 == 0 { "debit" } else { "credit" }, 1 + n, None).await;
                }
            })
        })
        .collect();
    let mut newest = before[0].clone();
    while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
        let entries = pages_of_seven(&client, &user).await;
        let balance = client.balance(&user).await;
        let ids: Vec<&String> = entries.iter().map(|entry| &entry.0).collect();
        // Complete, without duplicates, and with everything that an earlier read returned.
        assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), ids.len(), "duplicate entries");
        assert!(ids.ends_with(&before.iter().collect::<Vec<_>>()), "an old entry is missing");
        assert!(ids.contains(&&newest), "the newest entry of an earlier read is missing");
        // Each balance follows from the one before it, down to the first.
        for (later, earlier) in entries.iter().zip(&entries[1..]) {
            let change = if later.1 == "credit" { later.2 } else { -later.2 };
            assert_eq!(later.3, earlier.3 + change, "{later:?} after {earlier:?}");
        }
        assert_eq!(entries.last().map(|first| first.3), Some(10));
        assert!(balance >= 0);
        newest.clone_from(&entries[0].0);
    }
    for writer in writers {
        writer.await.expect("written");
    }
    let entries = pages_of_seven(&client, &user).await;
    assert_eq!((entries.len(), entries[0].3), (230, client.balance(&user).await));
    assert_consistent_ledger(&world).await;
}
