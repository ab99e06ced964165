//! A credit or a debit, interrupted between any two steps (FM-01 to FM-08).

use std::time::{Duration, Instant};

use purse::kernel::Role;
use serde_json::json;
use socket2::SockRef;

use super::history::{History, Outcome};
use super::invariants::assert_invariants;
use super::proxy::{CommitFault, Flow, Proxy};
use super::start_with_failpoints;
use crate::support::{Client, PATIENCE, RoleProcess, User, WalletLock, World, eventually};

async fn entries(world: &World) -> String {
    world.sql(Role::Wallet, "SELECT count(*) FROM transactions").await
}

/// A wallet role, connected to its database through a proxy.
struct ProxiedWallet {
    world: World,
    history: History,
    proxy: Proxy,
    _users: RoleProcess,
    wallet: RoleProcess,
    client: Client,
    user: User,
}

async fn start_proxied_wallet(changed: &[(&str, &str)]) -> ProxiedWallet {
    let (world, history) = (World::new().await, History::default());
    let proxy = Proxy::start(world.addresses.postgres_port).await;
    let url = proxy.url(&world.databases.wallet.runtime_url);
    let changed = [changed, &[("WALLET_DATABASE_URL", url.as_str())]].concat();
    let (users, wallet) = tokio::join!(world.start(Role::Users), world.start_with(Role::Wallet, &changed));
    let client = Client::new(&users.url(), &wallet.url());
    let user = client.ready_user().await;
    ProxiedWallet { world, history, proxy, _users: users, wallet, client, user }
}

#[tokio::test]
async fn fm_01_an_uncommitted_post_writes_nothing_and_does_not_consume_its_key() {
    for point in ["ledger.begun", "ledger.locked", "ledger.decided"] {
        let (world, history) = (World::new().await, History::default());
        let (crashing, users, client) =
            start_with_failpoints(&world, Role::Wallet, &format!("{point}=return"), &[]).await;
        let user = client.ready_user().await;
        assert_eq!(history.post(&client, &user, "credit", 5, "k").await, Outcome::Unknown, "{point}");
        crashing.aborted().await;
        assert_eq!(entries(&world).await, "0", "{point}");
        let wallet = world.start(Role::Wallet).await;
        let client = Client::new(&users.url(), &wallet.url());
        assert_eq!(client.post(&user, "credit", 5, Some("k")).await.status, 201, "{point}");
        assert!(matches!(history.post(&client, &user, "credit", 5, "k").await, Outcome::Done(_)), "{point}");
        assert_invariants(&world, &history, &client).await;
    }
}

#[tokio::test]
async fn fm_02_and_03_a_retry_after_a_lost_response_returns_the_entry() {
    let (world, history) = (World::new().await, History::default());
    let (crashing, users, client) = start_with_failpoints(&world, Role::Wallet, "ledger.committed=return", &[]).await;
    let user = client.ready_user().await;
    assert_eq!(history.post(&client, &user, "credit", 5, "k").await, Outcome::Unknown);
    crashing.aborted().await;
    assert_eq!(entries(&world).await, "1");
    let wallet = world.start(Role::Wallet).await;
    let client = Client::new(&users.url(), &wallet.url());
    let again = client.post(&user, "credit", 5, Some("k")).await;
    assert_eq!((again.status.as_u16(), again.header("idempotent-replayed")), (200, "true"));
    assert_eq!(
        history.post(&client, &user, "credit", 5, "k").await,
        Outcome::Done(again.body["id"].as_str().unwrap().into())
    );
    assert_invariants(&world, &history, &client).await;
    assert_eq!(entries(&world).await, "1");
}

#[tokio::test]
async fn fm_02_a_crash_during_the_commit_leaves_one_entry_or_none() {
    for (commit, left) in [(CommitFault::ResponseWithheld, "1"), (CommitFault::RequestLost, "0")] {
        // The look-up of the outcome starts only after this timeout.
        let ProxiedWallet { world, history, proxy, _users, wallet, client, user } =
            start_proxied_wallet(&[("DB_STATEMENT_TIMEOUT_MS", "60000")]).await;
        proxy.fail_next_commit(commit);
        proxy.down(Flow::latency(Duration::from_millis(200)));
        let (recorder, poster, owner) = (history.clone(), client.clone(), user.clone());
        let pending = tokio::spawn(async move { recorder.post(&poster, &owner, "credit", 5, "k").await });
        eventually(PATIENCE, "the commit is under way", || async { (proxy.commits_intercepted() == 1).then_some(()) })
            .await;
        wallet.kill().await;
        assert_eq!(pending.await.expect("task"), Outcome::Unknown);
        let wallet = world.start(Role::Wallet).await;
        let client = Client::new(&client.users, &wallet.url());
        assert_eq!(entries(&world).await, left, "{commit:?}");
        let again = client.post(&user, "credit", 5, Some("k")).await;
        assert_eq!(again.status.as_u16(), if left == "1" { 200 } else { 201 }, "{commit:?}");
        assert_invariants(&world, &history, &client).await;
    }
}

#[tokio::test]
async fn fm_05_a_commit_in_doubt_is_looked_up_and_reported_correctly() {
    let quick = [("DB_STATEMENT_TIMEOUT_MS", "1000")];
    let ProxiedWallet { world, history, proxy, _users, wallet, client, user } = start_proxied_wallet(&quick).await;
    // Executed, but the response was lost or withheld: the entry exists.
    for (n, commit) in [CommitFault::ResponseLost, CommitFault::ResponseWithheld].into_iter().enumerate() {
        proxy.fail_next_commit(commit);
        let outcome = history.post(&client, &user, "credit", 5, &format!("there-{n}")).await;
        assert!(matches!(outcome, Outcome::Done(_)), "{commit:?}: {outcome:?}");
        assert_eq!(proxy.commits_intercepted(), n + 1);
    }
    // Executed, but reported as an ordinary error, which after any other statement proves that nothing was written.
    proxy.fail_next_commit(CommitFault::ResponseIsAnError);
    let outcome = history.post(&client, &user, "credit", 5, "an-error").await;
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    // Never arrived: the entry does not exist.
    proxy.fail_next_commit(CommitFault::RequestLost);
    let outcome = history.post(&client, &user, "credit", 5, "lost").await;
    assert_eq!((outcome, proxy.commits_intercepted()), (Outcome::NotDone("DEPENDENCY_UNAVAILABLE".into()), 4));
    assert_eq!(entries(&world).await, "3");
    assert!(matches!(history.post_until_known(&client, &user, "credit", 5, "lost").await, Outcome::Done(_)));
    assert_invariants(&world, &history, &client).await;
    assert_eq!(wallet.logged("outcome of a batch is unknown").len(), 0);
}

#[tokio::test]
async fn fm_05_a_commit_that_cannot_be_looked_up_is_resolved_by_its_key() {
    let quick = [("DB_STATEMENT_TIMEOUT_MS", "500"), ("DB_ACQUIRE_TIMEOUT_MS", "200")];
    for commit in [CommitFault::ResponseLost, CommitFault::RequestLost] {
        let ProxiedWallet { world, history, proxy, _users, wallet: _wallet, client, user } =
            start_proxied_wallet(&quick).await;
        // From the commit on the database is unreachable, so the outcome cannot be looked up.
        proxy.fail_next_commit_and_all_after_it(commit);
        let (recorder, poster, owner) = (history.clone(), client.clone(), user.clone());
        let pending = tokio::spawn(async move { recorder.post(&poster, &owner, "credit", 5, "k").await });
        eventually(PATIENCE, "the commit is under way", || async { (proxy.commits_intercepted() == 1).then_some(()) })
            .await;
        pending.await.expect("task");
        proxy.both(Flow::default());
        let known = history.post_until_known(&client, &user, "credit", 5, "k").await;
        assert!(matches!(known, Outcome::Done(_)), "{known:?}");
        assert_invariants(&world, &history, &client).await;
        assert_eq!(entries(&world).await, "1", "{commit:?}");
    }
}

#[tokio::test]
async fn fm_05_a_post_that_no_standby_has_yet_is_reported_as_unknown() {
    let world = World::new().await;
    let quick = [("DB_STATEMENT_TIMEOUT_MS", "500")];
    let (users, wallet) = tokio::join!(world.start(Role::Users), world.start_with(Role::Wallet, &quick));
    let (client, history) = (Client::new(&users.url(), &wallet.url()), History::default());
    let user = client.ready_user().await;
    // Commits of this database wait for a standby that does not exist.
    world.wait_for_standby(Role::Wallet).await;
    eventually(PATIENCE, "the wallet role has connected again", || async {
        (client.get(&user, "/v1/balance").await.status == 200).then_some(())
    })
    .await;
    for attempt in ["the post", "its replay"] {
        // The server ends the session that waits for the standby, which makes its commit visible, as a restart would.
        let ended = end_waiting_commit(&world);
        let (outcome, ()) = tokio::join!(history.post(&client, &user, "credit", 5, "k"), ended);
        assert_eq!(outcome, Outcome::Unknown, "{attempt}");
    }
    assert_eq!(entries(&world).await, "1", "it exists on the primary");
    world.wait_for_no_standby(Role::Wallet).await;
    assert!(matches!(history.post_until_known(&client, &user, "credit", 5, "k").await, Outcome::Done(_)));
    assert_invariants(&world, &history, &client).await;
    assert_eq!(entries(&world).await, "1");
}

/// Ends the first session whose commit waits for a standby.
async fn end_waiting_commit(world: &World) {
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND wait_event = 'SyncRep'";
    eventually(PATIENCE, "a commit waits for the standby", || async {
        (!world.sql(Role::Wallet, end).await.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn fm_07_a_client_that_disconnects_mid_post_leaves_no_lock_and_no_poisoned_connection() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let lock = WalletLock::acquire(&world, &user).await;
    let body = r#"{"amountMinor":5}"#;
    for n in 0..20 {
        // Sends the whole request and resets the connection while the post waits for its wallet.
        let mut stream = std::net::TcpStream::connect(client.wallet.trim_start_matches("http://")).expect("connected");
        let head = format!(
            "POST /v1/transactions/credit HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nidempotency-key: k{n}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            user.token,
            body.len()
        );
        std::io::Write::write_all(&mut stream, head.as_bytes()).expect("sent");
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a reset");
    }
    lock.release().await;
    // Each was written once or not at all, and the next request is served.
    eventually(PATIENCE, "the next post succeeds", || async {
        client.post(&user, "credit", 5, Some("next")).await.status.is_success().then_some(())
    })
    .await;
    for n in 0..20 {
        let again = client.post(&user, "credit", 5, Some(&format!("k{n}"))).await;
        assert!(again.status.is_success(), "{again:?}");
    }
    assert_eq!(entries(&world).await, "21");
    assert_eq!(client.balance(&user).await, 105);
    let left = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'";
    assert_eq!(world.sql(Role::Wallet, left).await, "0");
}

#[tokio::test]
async fn fm_08_a_retry_during_the_first_attempt_creates_one_entry() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let lock = WalletLock::acquire(&world, &user).await;
    let request = client.post_request(&user, "credit", &json!({"amountMinor": 5}), Some("k"));
    let gave_up = request.timeout(Duration::from_millis(200)).send().await;
    assert!(gave_up.is_err_and(|e| e.is_timeout()));
    let (retrier, owner) = (client.clone(), user.clone());
    let retry = tokio::spawn(async move { retrier.post(&owner, "credit", 5, Some("k")).await });
    lock.release().await;
    let retry = retry.await.expect("task");
    let known = if retry.status == 503 { client.post(&user, "credit", 5, Some("k")).await } else { retry };
    assert!(known.status.is_success(), "{known:?}");
    assert_eq!((entries(&world).await.as_str(), client.balance(&user).await), ("1", 5));
}

#[tokio::test]
async fn a_panic_before_the_commit_writes_nothing_and_one_after_it_is_reported_correctly() {
    let world = World::new().await;
    let points = "ledger.decided=1*panic;ledger.committed=1*panic;ledger_writer.batch=2*off->1*panic";
    let (_wallet, _users, client) = start_with_failpoints(&world, Role::Wallet, points, &[]).await;
    let user = client.ready_user().await;
    let first = client.post(&user, "credit", 5, Some("a")).await;
    assert_eq!((first.status.as_u16(), first.code()), (500, "INTERNAL_ERROR"));
    assert_eq!(entries(&world).await, "0");
    let second = client.post(&user, "credit", 5, Some("a")).await;
    assert_eq!((second.status.as_u16(), &second.body["balanceAfterMinor"]), (201, &json!(5)));
    let third = client.post(&user, "credit", 5, Some("b")).await;
    assert_eq!((third.status.as_u16(), third.code()), (503, "OUTCOME_UNKNOWN"));
    let known = eventually(PATIENCE, "the ledger writer is restarted", || async {
        let response = client.post(&user, "credit", 5, Some("b")).await;
        (response.status == 201).then_some(response)
    });
    assert_eq!(known.await.body["balanceAfterMinor"], 10);
}

#[tokio::test]
async fn fp_15_a_post_to_a_locked_wallet_is_a_503_at_the_lock_timeout_and_other_wallets_continue() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let (locked, free) = (client.ready_user().await, client.ready_user().await);
    let lock = WalletLock::acquire(&world, &locked).await;
    let began = Instant::now();
    let rejected = client.post(&locked, "credit", 5, Some("k")).await;
    assert_eq!((rejected.status.as_u16(), rejected.code()), (503, "DEPENDENCY_UNAVAILABLE"));
    assert!(began.elapsed() >= Duration::from_secs(1), "not before the lock timeout");
    assert_eq!(client.post(&free, "credit", 5, None).await.status, 201);
    lock.release().await;
    assert_eq!(client.post(&locked, "credit", 5, Some("k")).await.status, 201);
}
