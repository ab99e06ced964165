//! From registration to wallet, interrupted between any two steps (FR-01 to FR-15). docs/reliability.md lists the steps,
//! S1 to S13, R1 and R2.

use purse::kernel::Role;
use uuid::Uuid;

use super::history::{History, Outcome};
use super::invariants::{assert_invariants, assert_invariants_with_poison};
use super::proxy::{CommitFault, Flow, Proxy};
use super::{FAST_LADDER, start_with_failpoints};
use crate::support::{Client, PASSWORD, PATIENCE, RoleProcess, UncommittedWallet, World, eventually};

/// The shortest allowed lease: what a crashed process has claimed is free after it.
const SHORT_LEASE: &[(&str, &str)] = &[("OUTBOX_LEASE_MS", "6000")];

/// Crashes a users process at `point` of a registration, and starts another one.
async fn crash_users_at(point: &str) -> (World, History, RoleProcess, RoleProcess, Client) {
    let (world, history) = (World::new().await, History::default());
    let (crashing, wallet, client) =
        start_with_failpoints(&world, Role::Users, &format!("{point}=return"), SHORT_LEASE).await;
    history.register(&client).await;
    crashing.aborted().await;
    let users = world.start_with(Role::Users, SHORT_LEASE).await;
    let client = Client::new(&users.url(), &wallet.url());
    (world, history, users, wallet, client)
}

#[tokio::test]
async fn fr_01_and_02_an_uncommitted_registration_leaves_its_address_free() {
    for point in ["users.S1", "users.S2"] {
        let (world, history, _users, _wallet, client) = crash_users_at(point).await;
        let lost = &history.registrations()[0];
        assert_eq!(lost.outcome, Outcome::Unknown, "{point}");
        let rows = world.sql(Role::Users, "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM outbox)").await;
        assert_eq!(rows, "0|0", "{point}");
        assert_eq!(client.register(&lost.email).await.status, 201, "{point}");
        assert_invariants(&world, &history, &client).await;
    }
}

#[tokio::test]
async fn fr_03_a_commit_without_a_response_is_all_or_nothing() {
    for (commit, committed) in [(CommitFault::ResponseWithheld, true), (CommitFault::RequestLost, false)] {
        let (world, history) = (World::new().await, History::default());
        let proxy = Proxy::start(world.addresses.postgres_port).await;
        let wallet = world.start(Role::Wallet).await;
        let slow = proxy.url(&world.databases.users.runtime_url);
        let users = world.spawn(Role::Users, &[("USERS_DATABASE_URL", &slow)]).await;
        let client = Client::new(&users.url(), &wallet.url());
        proxy.fail_next_commit(commit);
        let (recorder, registrant) = (history.clone(), client.clone());
        let pending = tokio::spawn(async move { recorder.register(&registrant).await });
        eventually(PATIENCE, "the commit is under way", || async { (proxy.commits_intercepted() == 1).then_some(()) })
            .await;
        users.kill().await;
        let outcome = pending.await.expect("task").outcome;
        // A lost request breaks the connection at once. The look-up may have finished before the kill.
        let looked_up = outcome == Outcome::NotDone("DEPENDENCY_UNAVAILABLE".into()) && !committed;
        assert!(looked_up || outcome == Outcome::Unknown, "{commit:?}: {outcome:?}");
        let users = world.start(Role::Users).await;
        let client = Client::new(&users.url(), &wallet.url());
        let email = history.registrations()[0].email.clone();
        if committed {
            assert_eq!(client.register(&email).await.code(), "EMAIL_EXISTS");
        } else {
            assert!(matches!(history.register_as(&client, email.clone()).await.outcome, Outcome::Done(_)));
        }
        assert_eq!(client.log_in(&email, PASSWORD).await.status, 200, "{commit:?}");
        assert_invariants(&world, &history, &client).await;
        assert_eq!(world.sql(Role::Wallet, "SELECT count(*) FROM wallets").await, "1");
    }
}

/// A users role, connected to its database through a proxy, with the other role and a client.
async fn start_proxied_users(world: &World, changed: &[(&str, &str)]) -> (Proxy, RoleProcess, RoleProcess, Client) {
    let proxy = Proxy::start(world.addresses.postgres_port).await;
    let url = proxy.url(&world.databases.users.runtime_url);
    let changed = [changed, &[("USERS_DATABASE_URL", url.as_str())]].concat();
    let (users, wallet) = tokio::join!(world.start_with(Role::Users, &changed), world.start(Role::Wallet));
    let client = Client::new(&users.url(), &wallet.url());
    (proxy, users, wallet, client)
}

async fn rows(world: &World) -> String {
    world.sql(Role::Users, "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM outbox)").await
}

/// Until then the next commit may be that of the relay.
async fn everything_is_published(world: &World) {
    eventually(PATIENCE, "everything is published", || async {
        let pending = "SELECT count(*) FROM outbox WHERE status <> 'published'";
        (world.sql(Role::Users, pending).await == "0").then_some(())
    })
    .await;
}

#[tokio::test]
async fn fr_03_a_registration_in_doubt_is_looked_up_and_reported_correctly() {
    let (world, history) = (World::new().await, History::default());
    let (proxy, _users, _wallet, client) = start_proxied_users(&world, &[("DB_STATEMENT_TIMEOUT_MS", "1000")]).await;
    // Executed, but the response was lost, withheld or an error: the user exists.
    let executed = [CommitFault::ResponseLost, CommitFault::ResponseWithheld, CommitFault::ResponseIsAnError];
    for (done, commit) in (1..).zip(executed) {
        everything_is_published(&world).await;
        proxy.fail_next_commit(commit);
        let registration = history.register(&client).await;
        assert!(matches!(registration.outcome, Outcome::Done(_)), "{commit:?}: {registration:?}");
        assert_eq!((proxy.commits_intercepted(), rows(&world).await), (done, format!("{done}|{done}")));
    }
    // Never arrived: the user does not exist, and the address is free.
    everything_is_published(&world).await;
    proxy.fail_next_commit(CommitFault::RequestLost);
    let lost = history.register(&client).await;
    assert_eq!((lost.outcome, rows(&world).await), (Outcome::NotDone("DEPENDENCY_UNAVAILABLE".into()), "3|3".into()));
    assert_eq!(proxy.commits_intercepted(), 4);
    assert!(matches!(history.register_as(&client, lost.email).await.outcome, Outcome::Done(_)));
    assert_invariants(&world, &history, &client).await;
}

#[tokio::test]
async fn fr_03_a_registration_that_cannot_be_looked_up_is_reported_as_unknown() {
    let quick = [("DB_STATEMENT_TIMEOUT_MS", "500"), ("DB_ACQUIRE_TIMEOUT_MS", "200")];
    for (commit, exists) in [(CommitFault::ResponseWithheld, true), (CommitFault::RequestLost, false)] {
        let (world, history) = (World::new().await, History::default());
        let (proxy, _users, _wallet, client) = start_proxied_users(&world, &quick).await;
        // From the commit on the database is unreachable, so the outcome cannot be looked up.
        proxy.fail_next_commit_and_all_after_it(commit);
        let email = Client::fresh_email();
        let (registrant, address) = (client.clone(), email.clone());
        let pending = tokio::spawn(async move { registrant.register(&address).await });
        eventually(PATIENCE, "the commit is under way", || async { (proxy.commits_intercepted() == 1).then_some(()) })
            .await;
        let response = pending.await.expect("task");
        assert_eq!((response.status.as_u16(), response.code()), (503, "OUTCOME_UNKNOWN"), "{commit:?}");
        assert_eq!(response.header("retry-after"), "2");
        proxy.both(Flow::default());
        // Logging in or registering again shows which.
        let again = eventually(PATIENCE, "the database is reachable", || async {
            let again = client.register(&email).await;
            (again.status != 503).then_some(again)
        });
        assert_eq!(again.await.status.as_u16(), if exists { 409 } else { 201 }, "{commit:?}");
        assert_eq!(client.log_in(&email, PASSWORD).await.status, 200, "{commit:?}");
        assert_invariants(&world, &history, &client).await;
        assert_eq!(rows(&world).await, "1|1", "{commit:?}");
    }
}

#[tokio::test]
async fn fr_03_a_registration_that_no_standby_has_yet_is_reported_as_unknown() {
    let (world, history) = (World::new().await, History::default());
    let wallet = world.start(Role::Wallet).await;
    let users = world.start_with(Role::Users, &[("DB_STATEMENT_TIMEOUT_MS", "500")]).await;
    let client = Client::new(&users.url(), &wallet.url());
    // Commits of this database wait for a standby that does not exist. Other databases of the server do not wait.
    world.wait_for_standby(Role::Users).await;
    let email = Client::fresh_email();
    let response = client.register(&email).await;
    assert_eq!((response.status.as_u16(), response.code()), (503, "OUTCOME_UNKNOWN"));
    world.wait_for_no_standby(Role::Users).await;
    eventually(PATIENCE, "the registration is visible", || async {
        (client.log_in(&email, PASSWORD).await.status == 200).then_some(())
    })
    .await;
    assert_eq!(client.register(&email).await.code(), "EMAIL_EXISTS");
    assert_invariants(&world, &history, &client).await;
}

#[tokio::test]
async fn fr_04_a_registration_whose_response_was_lost_exists_and_gets_its_wallet() {
    let (world, history, _users, _wallet, client) = crash_users_at("users.S4").await;
    let lost = &history.registrations()[0];
    assert_eq!(lost.outcome, Outcome::Unknown);
    assert_eq!(client.register(&lost.email).await.code(), "EMAIL_EXISTS");
    assert_eq!(client.log_in(&lost.email, PASSWORD).await.status, 200);
    assert_invariants(&world, &history, &client).await;
    assert_eq!(world.sql(Role::Wallet, "SELECT count(*) FROM wallets").await, "1");
}

#[tokio::test]
async fn fr_05_the_claim_of_a_crashed_process_expires_with_its_lease() {
    let (world, history, _users, _wallet, client) = crash_users_at("users.S5").await;
    assert_invariants(&world, &history, &client).await;
}

#[tokio::test]
async fn fr_06_an_unconfirmed_event_is_published_again() {
    let (world, history, _users, _wallet, client) = crash_users_at("amqp.written").await;
    assert_invariants(&world, &history, &client).await;
}

#[tokio::test]
async fn fr_07_a_confirmed_but_unmarked_event_is_published_twice_with_one_id() {
    let (world, history) = (World::new().await, History::default());
    let (crashing, wallet, client) =
        start_with_failpoints(&world, Role::Users, "amqp.confirmed=1*off->return", SHORT_LEASE).await;
    history.register(&client).await;
    assert_invariants(&world, &history, &client).await;
    world.broker.tap("spy", "domain.events", "user.registered").await;
    history.register(&client).await;
    crashing.aborted().await;
    let users = world.start_with(Role::Users, SHORT_LEASE).await;
    let client = Client::new(&users.url(), &wallet.url());
    assert_invariants(&world, &history, &client).await;
    assert_eq!((world.broker.depth("spy").await, world.broker.ids_in("spy").await.len()), (Some(2), 1));
}

#[tokio::test]
async fn fr_08_a_marked_event_is_not_published_again() {
    let (world, history) = (World::new().await, History::default());
    let (crashing, wallet, client) =
        start_with_failpoints(&world, Role::Users, "users.S8=1*off->return", SHORT_LEASE).await;
    history.register(&client).await;
    assert_invariants(&world, &history, &client).await;
    world.broker.tap("spy", "domain.events", "user.registered").await;
    history.register(&client).await;
    crashing.aborted().await;
    let users = world.start_with(Role::Users, SHORT_LEASE).await;
    let client = Client::new(&users.url(), &wallet.url());
    assert_invariants(&world, &history, &client).await;
    assert_eq!(world.broker.depth("spy").await, Some(1));
}

#[tokio::test]
async fn fr_09_11_and_12_a_delivery_interrupted_by_a_crash_is_redelivered_without_a_retry_tier() {
    for point in ["wallet.S10", "wallet.S12", "wallet.S13"] {
        let (world, history) = (World::new().await, History::default());
        let (crashing, users, client) =
            start_with_failpoints(&world, Role::Wallet, &format!("{point}=return"), &[]).await;
        history.register(&client).await;
        crashing.aborted().await;
        let wallet = world.start(Role::Wallet).await;
        let client = Client::new(&users.url(), &wallet.url());
        assert_invariants(&world, &history, &client).await;
        let log = wallet.log();
        assert!(log.iter().all(|line| line["tier"].is_null() && line["level"] != "error"), "{point}: {log:?}");
    }
}

#[tokio::test]
async fn fr_10_an_uncommitted_wallet_is_created_by_the_redelivery() {
    let (world, history) = (World::new().await, History::default());
    let (users, wallet, client) = world.both().await;
    history.register(&client).await;
    assert_invariants(&world, &history, &client).await;
    // The insert of a second wallet is waiting in the database when the process is killed.
    let user = Uuid::now_v7();
    let uncommitted = UncommittedWallet::insert(&world, user).await;
    world.publish_event(user, "held").await;
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    eventually(PATIENCE, "the insert waits", || async { (world.sql(Role::Wallet, waits).await == "1").then_some(()) })
        .await;
    wallet.kill().await;
    uncommitted.roll_back().await;
    let wallet = world.start(Role::Wallet).await;
    let client = Client::new(&users.url(), &wallet.url());
    wait_for_wallet(&world, user).await;
    assert_invariants(&world, &history, &client).await;
}

#[tokio::test]
async fn fr_13_and_14_a_crash_while_copying_to_a_retry_tier_loses_nothing() {
    for point in ["amqp.written", "amqp.confirmed"] {
        let (world, history) = (World::new().await, History::default());
        let (crashing, users, _) =
            start_with_failpoints(&world, Role::Wallet, &format!("{point}=return"), FAST_LADDER).await;
        let user = Uuid::now_v7();
        let uncommitted = UncommittedWallet::insert(&world, user).await;
        world.publish_event(user, "copied").await;
        crashing.aborted().await;
        uncommitted.roll_back().await;
        let wallet = world.start_with(Role::Wallet, FAST_LADDER).await;
        wait_for_wallet(&world, user).await;
        let client = Client::new(&users.url(), &wallet.url());
        assert_invariants(&world, &history, &client).await;
    }
}

#[tokio::test]
async fn fr_15_a_crash_before_the_ack_may_duplicate_a_dead_letter_but_never_loses_it() {
    let (world, history) = (World::new().await, History::default());
    let (crashing, users, _client) =
        start_with_failpoints(&world, Role::Wallet, "amqp.confirmed=return", FAST_LADDER).await;
    world.broker.publish("domain.events", "user.registered", b"poison", Some("poison"), &[]).await;
    crashing.aborted().await;
    let wallet = world.start_with(Role::Wallet, FAST_LADDER).await;
    let client = Client::new(&users.url(), &wallet.url());
    eventually(PATIENCE, "the main queue is empty", || async {
        (world.broker.depth("wallet.provision").await == Some(0)).then_some(())
    })
    .await;
    assert_invariants_with_poison(&world, &history, &client, &["poison"]).await;
    assert!(matches!(world.broker.depth("wallet.provision.dlq").await, Some(1 | 2)));
}

async fn wait_for_wallet(world: &World, user: Uuid) {
    let count = format!("SELECT count(*) FROM wallets WHERE user_id = '{user}'");
    eventually(PATIENCE, "the wallet exists", || async {
        (world.sql(Role::Wallet, &count).await == "1").then_some(())
    })
    .await;
}
