//! Scarce resources: connections, file descriptors, memory (FP-13, FP-14, FP-29, FP-30).

use std::time::Duration;

use futures_util::future::join_all;
use purse::kernel::Role;
use rustix::process::{Resource, Rlimit, getrlimit};

use super::history::History;
use super::invariants::assert_invariants;
use crate::support::{Client, PATIENCE, World, eventually};

async fn live(url: &str) -> u16 {
    reqwest::get(format!("{url}/health/live")).await.expect("a response").status().as_u16()
}

#[tokio::test]
async fn fp_13_an_exhausted_pool_is_a_503_with_retry_after_and_recovers_at_once() {
    let (world, history) = (World::new().await, History::default());
    let few = [("DB_POOL_MAX", "2"), ("DB_ACQUIRE_TIMEOUT_MS", "200"), ("DB_LOCK_TIMEOUT_MS", "50000")];
    let users = world.start(Role::Users).await;
    let wallet = world.start_with(Role::Wallet, &[&few[..], &[("DB_STATEMENT_TIMEOUT_MS", "60000")]].concat()).await;
    let client = Client::new(&users.url(), &wallet.url());
    let user = client.ready_user().await;
    let url = world.addresses.superuser_url(&world.databases.wallet.database);
    let (session, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("connected");
    tokio::spawn(connection);
    // Each read waits for this lock and keeps its connection of the pool.
    session.batch_execute("BEGIN; LOCK TABLE transactions IN ACCESS EXCLUSIVE MODE").await.expect("locked");
    let stuck: Vec<_> = (0..2)
        .map(|_| {
            let (client, user) = (client.clone(), user.clone());
            tokio::spawn(async move { client.get(&user, "/v1/balance").await.status.as_u16() })
        })
        .collect();
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    eventually(PATIENCE, "both reads wait", || async { (world.sql(Role::Wallet, waits).await == "2").then_some(()) })
        .await;
    let rejected = eventually(PATIENCE, "no connection is left", || async {
        let response = client.get(&user, "/v1/transactions").await;
        (response.status == 503).then_some(response)
    });
    let rejected = rejected.await;
    assert_eq!((rejected.code(), rejected.header("retry-after").is_empty()), ("DEPENDENCY_UNAVAILABLE", false));
    assert_eq!(live(&wallet.url()).await, 200);
    session.batch_execute("ROLLBACK").await.expect("released");
    for read in stuck {
        assert_eq!(read.await.expect("task"), 200);
    }
    assert_eq!(client.get(&user, "/v1/transactions").await.status, 200);
    assert_invariants(&world, &history, &client).await;
}

#[tokio::test]
async fn fp_14_a_server_without_a_free_connection_slot_is_a_503_and_gets_few_attempts() {
    let (world, history) = (World::new().await, History::default());
    let proxy = super::proxy::Proxy::start(world.addresses.postgres_port).await;
    let url = proxy.url(&world.databases.wallet.runtime_url);
    let users = world.start(Role::Users).await;
    let wallet = world.start_with(Role::Wallet, &[("WALLET_DATABASE_URL", &url)]).await;
    let client = Client::new(&users.url(), &wallet.url());
    let user = client.ready_user().await;
    let role = world
        .sql(Role::Wallet, "SELECT usename FROM pg_stat_activity WHERE application_name = 'purse wallet: probe' AND datname = current_database()")
        .await;
    let end_all = format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '{role}'");
    world.sql(Role::Wallet, &format!("ALTER ROLE {role} CONNECTION LIMIT 0")).await;
    world.sql(Role::Wallet, &end_all).await;
    eventually(PATIENCE, "the limit takes effect", || async {
        (client.get(&user, "/v1/balance").await.code() == "DEPENDENCY_UNAVAILABLE").then_some(())
    })
    .await;
    let (began, before) = (std::time::Instant::now(), proxy.connections());
    while began.elapsed() < Duration::from_secs(3) {
        for response in join_all((0..20).map(|_| client.get(&user, "/v1/balance"))).await {
            assert_eq!((response.code(), response.header("retry-after")), ("DEPENDENCY_UNAVAILABLE", "2"));
        }
    }
    let attempts = proxy.connections() - before;
    let per_second =
        u32::try_from(attempts).expect("count") / u32::try_from(began.elapsed().as_secs().max(1)).expect("seconds");
    // The request pool, the probe, the ledger and provisioning limit their attempts independently.
    assert!(per_second <= 20, "{attempts} attempts in {:?}", began.elapsed());
    assert_eq!(live(&wallet.url()).await, 200);
    world.sql(Role::Wallet, &format!("ALTER ROLE {role} CONNECTION LIMIT -1")).await;
    eventually(PATIENCE, "requests succeed again", || async {
        (client.get(&user, "/v1/balance").await.status == 200).then_some(())
    })
    .await;
    assert_invariants(&world, &history, &client).await;
}

#[tokio::test]
async fn fp_29_a_process_out_of_file_descriptors_does_not_busy_loop_and_recovers() {
    let world = World::new().await;
    let (users, _wallet, client) = world.both().await;
    let user = client.user().await;
    let used = u64::try_from(users.descriptors()).expect("count");
    let limit = |most: u64| Rlimit { current: Some(most), ..getrlimit(Resource::Nofile) };
    rustix::process::prlimit(Some(users.pid()), Resource::Nofile, limit(used + 8)).expect("limited");
    // More connections than the limit allows: some are accepted, the others stay in the backlog.
    let mut open = Vec::new();
    for _ in 0..64 {
        open.push(std::net::TcpStream::connect(users.url().trim_start_matches("http://")).expect("in the backlog"));
    }
    let before = users.cpu_time();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let spent = users.cpu_time().saturating_sub(before);
    assert!(spent < Duration::from_secs(1), "{spent:?} of CPU time in two idle seconds");
    drop(open);
    rustix::process::prlimit(Some(users.pid()), Resource::Nofile, limit(used + 1024)).expect("limited");
    let fresh = Client::new(&client.users, &client.wallet);
    eventually(PATIENCE, "requests succeed again", || async {
        let me = fresh.request(reqwest::Method::GET, &format!("{}/v1/users/me", fresh.users)).bearer_auth(&user.token);
        (fresh.try_send(me).await?.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn fp_30_a_flood_of_logins_is_shed_within_bounded_memory() {
    let world = World::new().await;
    // No login is shed because it waits for a connection to the database.
    let users = world.start_with(Role::Users, &[("DB_ACQUIRE_TIMEOUT_MS", "60000")]).await;
    let client = Client::new(&users.url(), &users.url());
    let user = client.user().await;
    let responses = join_all((0..200).map(|_| client.log_in(&user.email, "a wrong password"))).await;
    let count = |status: u16| responses.iter().filter(|response| response.status == status).count();
    assert_eq!(count(401) + count(503), 200, "{responses:?}");
    assert!(count(401) >= 64 && count(503) > 0, "{} hashed, {} shed", count(401), count(503));
    assert!(
        responses
            .iter()
            .filter(|r| r.status == 503)
            .all(|r| r.code() == "OVERLOADED" && r.header("retry-after") == "1")
    );
    let peak_mib = users.peak_memory_kib() / 1024;
    // A hash takes 19 MiB and each core computes one at a time: 104 MiB on two cores.
    let cores = u64::try_from(std::thread::available_parallelism().expect("cores").get()).expect("count");
    assert!(peak_mib <= 64 + 20 * cores, "peak memory {peak_mib} MiB on {cores} cores");
    assert_eq!(live(&users.url()).await, 200);
}
