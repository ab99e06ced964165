//! Commits that wait for a synchronous standby that is down (FM-22 to FM-24): what is reported, and how many sessions they
//! cost.

use std::time::{Duration, Instant};

use purse::kernel::Role;
use tokio_postgres::NoTls;

use super::history::{History, Outcome};
use super::invariants::assert_invariants;
use super::load::{Load, seed};
use super::watcher::Watcher;
use crate::support::{Client, PATIENCE, RoleProcess, World, eventually, repository};

/// Short limits, so that many commits are abandoned while the test runs.
const QUICK: &[(&str, &str)] = &[("DB_STATEMENT_TIMEOUT_MS", "500"), ("DB_ACQUIRE_TIMEOUT_MS", "300")];

/// The most connections that one process of each role opens, as the documentation says: users, wallet.
fn documented_connections() -> [i64; 2] {
    let page = repository::text("docs/scaling.md");
    let row = page.lines().find(|line| line.starts_with("| sum |")).expect("a row with the sums");
    let mut numbers = row.split('|').filter_map(|cell| cell.trim().parse().ok());
    [(); 2].map(|()| numbers.next().expect("a number"))
}

/// Finds the largest number of sessions that the account of a role has.
async fn count_sessions(world: &World, role: Role) -> Watcher<i64> {
    let database = match role {
        Role::Users => world.databases.users.database.clone(),
        Role::Wallet => world.databases.wallet.database.clone(),
    };
    // From elsewhere, because the test ends all sessions of the role's database.
    let url = world.addresses.superuser_url("postgres");
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.expect("connected");
    tokio::spawn(connection);
    Watcher::start(|end| async move {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND usename LIKE '%_app'";
        let mut most = 0;
        while !end.has_come() {
            most = client.query_one(count, &[&database]).await.expect("counted").get::<_, i64>(0).max(most);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        most
    })
}

/// The status of `/health/ready`, and what it says about the database.
async fn readiness(role: &RoleProcess, check: &str) -> (u16, String) {
    let (status, body) = role.readiness().await;
    let checks = body["checks"].as_array().expect("checks");
    let found = checks.iter().find(|found| found["name"] == check).expect("the check");
    (status, found["details"].as_str().unwrap_or_default().to_owned())
}

async fn becomes(role: &RoleProcess, check: &str, expected: (u16, &str)) {
    eventually(PATIENCE, &format!("{check}: {expected:?}"), || async {
        let (status, details) = readiness(role, check).await;
        ((status, details.as_str()) == expected).then_some(())
    })
    .await;
}

#[tokio::test]
async fn fm_22_commits_that_wait_for_a_standby_leave_no_sessions_behind_and_make_the_roles_unready() {
    let (world, history) = (World::new().await, History::default());
    let (users, wallet) = tokio::join!(world.start_with(Role::Users, QUICK), world.start_with(Role::Wallet, QUICK));
    let client = Client::new(&users.url(), &wallet.url());
    let mut owners = Vec::new();
    for _ in 0..12 {
        owners.push(client.ready_user().await);
    }
    let sessions = [count_sessions(&world, Role::Users).await, count_sessions(&world, Role::Wallet).await];
    for role in [Role::Users, Role::Wallet] {
        world.wait_for_standby(role).await;
    }
    // Many registrations at once, because each waits on a session of its own.
    let seed = seed();
    let loads: Vec<Load> = (0..10)
        .map(|n| Load::start(&history, std::slice::from_ref(&client), &owners, 3, seed.wrapping_add(1000 * n)))
        .collect();
    let began = Instant::now();
    becomes(&users, "users-db", (503, "confirms no commits")).await;
    becomes(&wallet, "wallet-db", (503, "confirms no commits")).await;
    let acknowledged = history.counts().0;
    // Long enough to abandon every session of a pool several times.
    eventually(PATIENCE, "many outcomes are unknown", || async {
        (began.elapsed() > Duration::from_secs(5) && history.counts().1 >= 20).then_some(())
    })
    .await;
    assert_eq!(history.counts().0, acknowledged, "acknowledged without a standby");
    assert_eq!(client.get(&owners[0], "/v1/balance").await.status, 200, "reads are served");
    for role in [Role::Users, Role::Wallet] {
        world.wait_for_no_standby(role).await;
    }
    becomes(&users, "users-db", (200, "")).await;
    becomes(&wallet, "wallet-db", (200, "")).await;
    for load in loads {
        load.stop().await;
    }
    assert_invariants(&world, &history, &client).await;
    for (sessions, documented) in sessions.into_iter().zip(documented_connections()) {
        let most = sessions.stop().await;
        println!("measured: FM-22: {most} sessions, {documented} documented");
        assert!(most <= documented, "{most} sessions instead of at most {documented}");
    }
}

#[tokio::test]
async fn fm_23_a_commit_whose_wait_for_the_standby_is_cancelled_is_reported_as_unknown() {
    let (world, history) = (World::new().await, History::default());
    let (users, wallet) = tokio::join!(world.start_with(Role::Users, QUICK), world.start_with(Role::Wallet, QUICK));
    let client = Client::new(&users.url(), &wallet.url());
    let user = client.ready_user().await;
    for role in [Role::Users, Role::Wallet] {
        world.wait_for_standby(role).await;
    }
    eventually(PATIENCE, "both roles have connected again", || async {
        let read = client.get(&user, "/v1/balance").await.status;
        (read == 200 && client.me(&user.token).await.status == 200).then_some(())
    })
    .await;
    // The server then reports the commit as a success, with a warning.
    let posted = tokio::join!(history.post(&client, &user, "credit", 5, "k"), cancel_waiting(&world, Role::Wallet)).0;
    assert_eq!(posted, Outcome::Unknown);
    let registered = tokio::join!(history.register(&client), cancel_waiting(&world, Role::Users)).0;
    assert_eq!(registered.outcome, Outcome::Unknown);
    for role in [Role::Users, Role::Wallet] {
        world.wait_for_no_standby(role).await;
    }
    assert!(matches!(history.post_until_known(&client, &user, "credit", 5, "k").await, Outcome::Done(_)));
    assert_invariants(&world, &history, &client).await;
}

#[tokio::test]
async fn fm_24_a_role_that_starts_without_the_standby_says_what_it_waits_for_and_then_serves() {
    let world = World::new().await;
    drop(world.start(Role::Wallet).await);
    world.wait_for_standby(Role::Wallet).await;
    // It grants privileges, and that commit waits.
    let mut wallet = RoleProcess::spawn(&["--role", "wallet"], &world.settings(Role::Wallet));
    eventually(PATIENCE, "the log says what it waits for", || async {
        (!wallet.logged("still waiting for the migration of the database").is_empty()).then_some(())
    })
    .await;
    assert!(!wallet.has_exited(), "{}", wallet.output());
    world.wait_for_no_standby(Role::Wallet).await;
    wallet.listening().await;
    wallet.ready().await;
}

#[tokio::test]
async fn fm_24_a_command_says_that_its_change_is_not_confirmed() {
    let world = World::new().await;
    let users = world.start(Role::Users).await;
    let client = Client::new(&users.url(), &users.url());
    client.user().await;
    drop(users);
    world.sql(Role::Users, "UPDATE outbox SET status = 'published', published_at = now()").await;
    world.wait_for_standby(Role::Users).await;
    let settings = [("USERS_DATABASE_URL".to_owned(), world.databases.users.runtime_url.clone())].into();
    let mut command = RoleProcess::spawn(&["outbox", "republish", "--all"], &settings);
    eventually(PATIENCE, "the command says what it waits for", || async {
        command.output().contains("the users database has not yet confirmed a change").then_some(())
    })
    .await;
    assert!(!command.has_exited(), "{}", command.output());
    cancel_waiting(&world, Role::Users).await;
    assert_eq!(command.exited().await.code(), Some(0), "{}", command.output());
    assert!(command.output().contains("1 event marked for republishing"), "{}", command.output());
    world.wait_for_no_standby(Role::Users).await;
}

/// Cancels every commit that waits for a standby, until there was one of a request.
async fn cancel_waiting(world: &World, role: Role) {
    let cancel = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity
                  WHERE datname = current_database() AND wait_event = 'SyncRep' AND application_name NOT LIKE '%probe'";
    eventually(PATIENCE, "a commit waits for the standby", || async {
        (world.sql(role, cancel).await != "0").then_some(())
    })
    .await;
}
