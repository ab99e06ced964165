//! A credit or a debit, broken off between any two steps (FM-01 to FM-08).

use std::time::{Duration, Instant};

use purse::kernel::Role;
use serde_json::json;
use socket2::SockRef;

use super::history::{History, Told};
use super::invariants::hold;
use super::proxy::{Commit, Flow, Proxy};
use super::start_with_failpoints;
use crate::support::{Client, PATIENCE, RoleProcess, User, WalletLock, World, eventually};

const HEALED: Duration = Duration::from_mins(1);

async fn entries(world: &World) -> String {
    world.sql(Role::Wallet, "SELECT count(*) FROM transactions").await
}

/// A wallet role whose database lies behind a network of the test's own.
struct Remote {
    world: World,
    history: History,
    network: Proxy,
    _users: RoleProcess,
    wallet: RoleProcess,
    client: Client,
    user: User,
}

async fn remote(changed: &[(&str, &str)]) -> Remote {
    let (world, history) = (World::new().await, History::default());
    let network = Proxy::before(world.addresses.postgres_port).await;
    let url = network.url(&world.databases.wallet.runtime_url);
    let changed = [changed, &[("WALLET_DATABASE_URL", url.as_str())]].concat();
    let (users, wallet) = tokio::join!(world.start(Role::Users), world.start_with(Role::Wallet, &changed));
    let client = Client::new(&users.url(), &wallet.url());
    let user = client.ready_user().await;
    Remote { world, history, network, _users: users, wallet, client, user }
}

#[tokio::test]
async fn fm_01_a_post_that_was_not_committed_is_not_there_and_its_key_is_free() {
    for point in ["ledger.begun", "ledger.locked", "ledger.decided"] {
        let (world, history) = (World::new().await, History::default());
        let (broken, users, client) =
            start_with_failpoints(&world, Role::Wallet, &format!("{point}=return"), &[]).await;
        let user = client.ready_user().await;
        assert_eq!(history.post(&client, &user, "credit", 5, "k").await, Told::Unknown, "{point}");
        broken.aborted().await;
        assert_eq!(entries(&world).await, "0", "{point}");
        let wallet = world.start(Role::Wallet).await;
        let client = Client::new(&users.url(), &wallet.url());
        assert_eq!(client.post(&user, "credit", 5, Some("k")).await.status, 201, "{point}");
        assert!(matches!(history.post(&client, &user, "credit", 5, "k").await, Told::Done(_)), "{point}");
        hold(&world, &history, &client, HEALED).await;
    }
}

#[tokio::test]
async fn fm_02_and_03_a_post_whose_answer_was_lost_is_answered_by_its_key() {
    let (world, history) = (World::new().await, History::default());
    let (broken, users, client) = start_with_failpoints(&world, Role::Wallet, "ledger.committed=return", &[]).await;
    let user = client.ready_user().await;
    assert_eq!(history.post(&client, &user, "credit", 5, "k").await, Told::Unknown);
    broken.aborted().await;
    assert_eq!(entries(&world).await, "1");
    let wallet = world.start(Role::Wallet).await;
    let client = Client::new(&users.url(), &wallet.url());
    let again = client.post(&user, "credit", 5, Some("k")).await;
    assert_eq!((again.status.as_u16(), again.header("idempotent-replayed")), (200, "true"));
    assert_eq!(
        history.post(&client, &user, "credit", 5, "k").await,
        Told::Done(again.body["id"].as_str().unwrap().into())
    );
    hold(&world, &history, &client, HEALED).await;
    assert_eq!(entries(&world).await, "1");
}

#[tokio::test]
async fn fm_02_a_process_that_dies_while_its_commit_is_under_way_leaves_one_entry_or_none() {
    for (commit, left) in [(Commit::IsNotAnswered, "1"), (Commit::IsLost, "0")] {
        // Nothing is looked up before the process is gone.
        let Remote { world, history, network, _users, wallet, client, user } =
            remote(&[("DB_STATEMENT_TIMEOUT_MS", "60000")]).await;
        network.next_commit(commit);
        network.down(Flow::latency(Duration::from_millis(200)));
        let (asking, asker, owner) = (history.clone(), client.clone(), user.clone());
        let asked = tokio::spawn(async move { asking.post(&asker, &owner, "credit", 5, "k").await });
        eventually(PATIENCE, "the commit is under way", || async { (network.commits_hit() == 1).then_some(()) }).await;
        wallet.kill().await;
        assert_eq!(asked.await.expect("asked"), Told::Unknown);
        let wallet = world.start(Role::Wallet).await;
        let client = Client::new(&client.users, &wallet.url());
        assert_eq!(entries(&world).await, left, "{commit:?}");
        let again = client.post(&user, "credit", 5, Some("k")).await;
        assert_eq!(again.status.as_u16(), if left == "1" { 200 } else { 201 }, "{commit:?}");
        hold(&world, &history, &client, HEALED).await;
    }
}

#[tokio::test]
async fn fm_05_a_commit_in_doubt_is_looked_up_and_answered_truly() {
    let quick = [("DB_STATEMENT_TIMEOUT_MS", "1000")];
    let Remote { world, history, network, _users, wallet, client, user } = remote(&quick).await;
    // Carried out, and its answer lost or late: the truth is that it is there.
    for (n, commit) in [Commit::LosesItsAnswer, Commit::IsNotAnswered].into_iter().enumerate() {
        network.next_commit(commit);
        let told = history.post(&client, &user, "credit", 5, &format!("there-{n}")).await;
        assert!(matches!(told, Told::Done(_)), "{commit:?}: {told:?}");
        assert_eq!(network.commits_hit(), n + 1);
    }
    // Never arrived: the truth is that it is not there.
    network.next_commit(Commit::IsLost);
    let told = history.post(&client, &user, "credit", 5, "lost").await;
    assert_eq!((told, network.commits_hit()), (Told::NotDone("DEPENDENCY_UNAVAILABLE".into()), 3));
    assert_eq!(entries(&world).await, "2");
    assert!(matches!(history.post_until_known(&client, &user, "credit", 5, "lost").await, Told::Done(_)));
    hold(&world, &history, &client, HEALED).await;
    assert_eq!(wallet.logged("outcome of a batch is unknown").len(), 0);
}

#[tokio::test]
async fn fm_05_a_commit_that_cannot_be_looked_up_is_told_as_unknown_and_its_key_finds_out() {
    let quick = [("DB_STATEMENT_TIMEOUT_MS", "500"), ("DB_ACQUIRE_TIMEOUT_MS", "200")];
    for (commit, left) in [(Commit::LosesItsAnswer, "1"), (Commit::IsLost, "0")] {
        let Remote { world, history, network, _users, wallet: _wallet, client, user } = remote(&quick).await;
        network.next_commit(commit);
        let (asking, asker, owner) = (history.clone(), client.clone(), user.clone());
        let asked = tokio::spawn(async move { asking.post(&asker, &owner, "credit", 5, "k").await });
        eventually(PATIENCE, "the commit is under way", || async { (network.commits_hit() == 1).then_some(()) }).await;
        // From here on nobody reaches the database, and nobody can know.
        network.both(Flow::SILENT);
        let told = asked.await.expect("asked");
        let answered_before_the_silence = told != Told::Unknown;
        network.both(Flow::default());
        let known = history.post_until_known(&client, &user, "credit", 5, "k").await;
        assert!(matches!(known, Told::Done(_)), "{known:?}");
        hold(&world, &history, &client, HEALED).await;
        assert_eq!(entries(&world).await, "1", "{commit:?}, {left} before");
        assert!(!answered_before_the_silence || matches!(told, Told::Done(_) | Told::NotDone(_)));
    }
}

#[tokio::test]
async fn fm_07_a_client_that_hangs_up_in_the_middle_leaves_no_lock_and_no_poisoned_connection() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let holder = WalletLock::acquire(&world, &user).await;
    let body = r#"{"amountMinor":5}"#;
    for n in 0..20 {
        // Sent whole, and the connection reset while the post waits for its wallet.
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
    holder.release().await;
    // Each was written once or not at all, and whoever comes next is served.
    let made = eventually(PATIENCE, "served", || async {
        let answer = client.post(&user, "credit", 5, Some("next")).await;
        answer.status.is_success().then_some(answer)
    });
    made.await;
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
async fn fm_08_a_retry_while_the_first_try_still_runs_is_one_entry() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let holder = WalletLock::acquire(&world, &user).await;
    let request = client.post_request(&user, "credit", &json!({"amountMinor": 5}), Some("k"));
    let gave_up = request.timeout(Duration::from_millis(200)).send().await;
    assert!(gave_up.is_err_and(|e| e.is_timeout()));
    let (retrier, owner) = (client.clone(), user.clone());
    let retry = tokio::spawn(async move { retrier.post(&owner, "credit", 5, Some("k")).await });
    holder.release().await;
    let retry = retry.await.expect("asked");
    let known = if retry.status == 503 { client.post(&user, "credit", 5, Some("k")).await } else { retry };
    assert!(known.status.is_success(), "{known:?}");
    assert_eq!((entries(&world).await.as_str(), client.balance(&user).await), ("1", 5));
}

#[tokio::test]
async fn a_panic_before_the_commit_leaves_nothing_and_one_after_it_is_answered_truly() {
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
    let known = eventually(PATIENCE, "the writer is built again", || async {
        let answer = client.post(&user, "credit", 5, Some("b")).await;
        (answer.status == 201).then_some(answer)
    });
    assert_eq!(known.await.body["balanceAfterMinor"], 10);
}

#[tokio::test]
async fn fp_15_a_held_wallet_is_refused_at_the_lock_timeout_and_the_others_go_on() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let (held, free) = (client.ready_user().await, client.ready_user().await);
    let holder = WalletLock::acquire(&world, &held).await;
    let began = Instant::now();
    let refused = client.post(&held, "credit", 5, Some("held")).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (503, "DEPENDENCY_UNAVAILABLE"));
    assert!(began.elapsed() >= Duration::from_secs(1), "not before the lock timeout");
    assert_eq!(client.post(&free, "credit", 5, None).await.status, 201);
    holder.release().await;
    assert_eq!(client.post(&held, "credit", 5, Some("held")).await.status, 201);
}
