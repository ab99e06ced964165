//! Rate limits that the processes of a role share, also during a database outage.

use futures_util::future::join_all;
use purse::kernel::Role;
use purse_dev::{Action, Server};
use reqwest::Method;

use crate::support::{Client, Outages, PATIENCE, Response, RoleProcess, World, assert_error, eventually};

const LOGIN: &str = "/v1/auth/login";

/// Two processes of a role whose limits are counted together.
async fn two_processes(world: &World, role: Role, limits: &[(&str, &str)]) -> [RoleProcess; 2] {
    let settings = [&[("RATE_LIMIT_ENABLED", "true"), ("RATE_LIMIT_STORE", "postgres")], limits].concat();
    [world.start_with(role, &settings).await, world.start_with(role, &settings).await]
}

/// Sends a request of this client address that is rejected before its body is read: 415 unless it is limited. The
/// process must trust 127.0.0.1 as a proxy.
async fn cheap_request(process: &RoleProcess, path: &str, address: &str) -> Response {
    let client = Client::new(&process.url(), &process.url());
    let request = client.request(Method::POST, &format!("{}{path}", process.url()));
    client.send(request.header("x-forwarded-for", address)).await
}

fn assert_limited(response: &Response, max: &str, window_s: u64) -> u64 {
    assert_error(response, 429, "RATE_LIMITED", "beyond the limit");
    let wait_s: u64 = response.header("retry-after").parse().expect("seconds");
    assert!((1..=window_s).contains(&wait_s), "{response:?}");
    let headers = ["limit", "remaining", "reset", "policy"].map(|name| response.header(&format!("ratelimit-{name}")));
    let name = headers[3].split(';').next().expect("a name");
    assert_eq!(headers, [max, "0", &wait_s.to_string(), &format!("{name};q={max};w={window_s}")]);
    assert_eq!(response.header("ratelimit"), format!("{name};r=0;t={wait_s}"));
    wait_s
}

const TRUST: (&str, &str) = ("TRUSTED_PROXIES", "127.0.0.1/32");

#[tokio::test]
async fn requests_counted_by_one_process_also_count_at_the_other() {
    let world = World::new().await;
    let limits = [("RL_LOGIN_MAX", "4"), ("RL_LOGIN_WINDOW", "1h"), ("RL_REGISTER_MAX", "1"), TRUST];
    let [one, other] = two_processes(&world, Role::Users, &limits).await;
    for (n, process) in [&one, &other, &one, &other].into_iter().enumerate() {
        let response = cheap_request(process, LOGIN, "203.0.113.1").await;
        let seen =
            (response.status.as_u16(), response.header("ratelimit-limit"), response.header("ratelimit-remaining"));
        assert_eq!(seen, (415, "4", ["3", "2", "1", "0"][n]), "request {n}");
    }
    for process in [&one, &other, &one, &other] {
        // Above the limit a process queries the shared count once and caches the result.
        assert_limited(&cheap_request(process, LOGIN, "203.0.113.1").await, "4", 3600);
    }
    // Other clients and other limits have separate counts; the addresses of a /64 share one.
    assert_eq!(cheap_request(&one, LOGIN, "203.0.113.2").await.header("ratelimit-remaining"), "3");
    assert_eq!(cheap_request(&other, "/v1/auth/register", "203.0.113.1").await.status, 415);
    assert_limited(&cheap_request(&one, "/v1/auth/register", "203.0.113.1").await, "1", 60);
    assert_eq!(cheap_request(&one, LOGIN, "2001:db8::1").await.header("ratelimit-remaining"), "3");
    assert_eq!(cheap_request(&other, LOGIN, "2001:db8::2").await.header("ratelimit-remaining"), "2");
    // Only digests are stored, no addresses.
    let rows = "SELECT count(*), count(*) FILTER (WHERE octet_length(key) = 32) FROM rate_limits";
    assert_eq!(world.sql(Role::Users, rows).await, "4|4");
}

#[tokio::test]
async fn both_processes_together_accept_as_many_requests_of_a_flood_as_the_limit_allows() {
    let world = World::new().await;
    let [one, other] =
        two_processes(&world, Role::Users, &[("RL_LOGIN_MAX", "10"), ("RL_LOGIN_WINDOW", "1h"), TRUST]).await;
    let flood = (0..80).map(|n| cheap_request(if n % 2 == 0 { &one } else { &other }, LOGIN, "203.0.113.1"));
    let statuses: Vec<u16> = join_all(flood).await.iter().map(|response| response.status.as_u16()).collect();
    let count = |status: u16| statuses.iter().filter(|seen| **seen == status).count();
    assert_eq!((count(415), count(429)), (10, 70), "{}", one.output());
}

#[tokio::test]
async fn a_retry_after_of_one_process_includes_requests_at_the_other() {
    let world = World::new().await;
    let [one, other] =
        two_processes(&world, Role::Users, &[("RL_LOGIN_MAX", "1"), ("RL_LOGIN_WINDOW", "2s"), TRUST]).await;
    for (accepts, rejects) in [(&one, &other), (&other, &one), (&one, &other)] {
        let refused = eventually(PATIENCE, "a 429 right after an accepted request", || async {
            let _ = cheap_request(accepts, LOGIN, "203.0.113.1").await;
            Some(cheap_request(rejects, LOGIN, "203.0.113.1").await).filter(|response| response.status == 429)
        });
        let wait_s = assert_limited(&refused.await, "1", 2);
        tokio::time::sleep(std::time::Duration::from_secs(wait_s)).await;
        assert_eq!(cheap_request(rejects, LOGIN, "203.0.113.1").await.status, 415, "at the process that rejected it");
    }
}

#[tokio::test]
async fn logins_to_one_account_are_counted_together_over_all_processes() {
    let world = World::new().await;
    let limits = [("RL_LOGIN_ACCOUNT_MAX", "2"), ("RL_LOGIN_WINDOW", "1h")];
    let [one, other] = two_processes(&world, Role::Users, &limits).await;
    let clients = [&one, &other].map(|users| Client::new(&users.url(), &users.url()));
    let email = clients[0].user().await.email;
    for client in &clients {
        assert_eq!(client.log_in(&email, "a guess").await.status, 401);
    }
    for client in &clients {
        assert_limited(&client.log_in(&email.to_uppercase(), "a guess").await, "2", 3600);
    }
    assert_eq!(clients[0].log_in(&Client::fresh_email(), "a guess").await.status, 401, "another account");
}

#[tokio::test]
async fn posts_of_one_user_are_counted_together_over_all_processes() {
    let world = World::new().await;
    let users = world.start(Role::Users).await;
    let [one, other] = two_processes(&world, Role::Wallet, &[("RL_TX_MAX", "3"), ("RL_TX_WINDOW", "1h")]).await;
    let clients = [&one, &other].map(|wallet| Client::new(&users.url(), &wallet.url()));
    let (user, other_user) = (clients[0].ready_user().await, clients[1].ready_user().await);
    for (n, remaining) in ["2", "1", "0"].into_iter().enumerate() {
        let response = clients[n % 2].post(&user, "credit", 5, None).await;
        assert_eq!((response.status.as_u16(), response.header("ratelimit-remaining")), (201, remaining));
    }
    for client in &clients {
        assert_limited(&client.post(&user, "debit", 1, None).await, "3", 3600);
        assert_eq!(client.balance(&user).await, 15);
    }
    assert_eq!(clients[0].post(&other_user, "credit", 5, None).await.status, 201);
}

#[tokio::test]
async fn without_the_shared_counts_each_process_counts_for_itself_until_they_are_available_again() {
    let world = World::new().await;
    let [one, other] =
        two_processes(&world, Role::Users, &[("RL_LOGIN_MAX", "2"), ("RL_LOGIN_WINDOW", "1h"), TRUST]).await;
    assert_eq!(cheap_request(&one, LOGIN, "203.0.113.1").await.header("ratelimit-remaining"), "1");
    world.sql(Role::Users, "ALTER TABLE rate_limits RENAME TO elsewhere").await;
    let mut seen = Vec::new();
    for process in [&one, &one, &other, &other, &other] {
        seen.push(cheap_request(process, LOGIN, "203.0.113.1").await.status.as_u16());
    }
    // The first process has already accepted one request and has counted it itself.
    assert_eq!(seen, [415, 429, 415, 415, 429]);
    let message = "shared rate limits are unavailable; using the counts of this process";
    for process in [&one, &other] {
        // The log arrives through a pipe.
        let lines =
            eventually(PATIENCE, message, || async { Some(process.logged(message)).filter(|lines| !lines.is_empty()) });
        let lines = lines.await;
        assert!(lines.len() == 1 && lines[0]["level"] == "warn", "not logged exactly once: {lines:?}");
    }

    world.sql(Role::Users, "ALTER TABLE elsewhere RENAME TO rate_limits").await;
    for (n, process) in [&one, &other].into_iter().enumerate() {
        let address = format!("198.51.100.{n}");
        eventually(PATIENCE, "the shared count is used again", || async {
            let _ = cheap_request(process, LOGIN, &address).await;
            (!process.logged("shared rate limits are available again").is_empty()).then_some(())
        })
        .await;
    }
    let statuses = [cheap_request(&one, LOGIN, "203.0.113.9").await, cheap_request(&other, LOGIN, "203.0.113.9").await];
    assert_eq!(statuses.map(|response| response.header("ratelimit-remaining").to_owned()), ["1", "0"]);
}

#[tokio::test]
async fn during_a_database_outage_each_process_enforces_the_limit_and_a_crash_resets_the_shared_counts() {
    let outages = Outages::begin().await;
    let world = World::on(outages.servers).await;
    let [one, other] =
        two_processes(&world, Role::Users, &[("RL_LOGIN_MAX", "2"), ("RL_LOGIN_WINDOW", "1h"), TRUST]).await;
    for process in [&one, &other] {
        assert_eq!(cheap_request(process, LOGIN, "203.0.113.1").await.status, 415);
    }
    assert_eq!(cheap_request(&one, LOGIN, "203.0.113.1").await.status, 429);
    outages.act(Server::Postgres, Action::Kill).await;
    let mut seen = Vec::new();
    for process in [&one, &one, &one, &other, &other, &other] {
        seen.push(cheap_request(process, LOGIN, "203.0.113.2").await.status.as_u16());
    }
    assert_eq!(seen, [415, 415, 429, 415, 415, 429]);
    // A cached 429 stays in force without the database.
    assert_limited(&cheap_request(&one, LOGIN, "203.0.113.1").await, "2", 3600);

    outages.act(Server::Postgres, Action::Start).await;
    one.ready().await;
    assert_eq!(
        world.sql(Role::Users, "SELECT count(*) FROM rate_limits").await,
        "0",
        "the unlogged table is empty after a crash"
    );
    eventually(PATIENCE, "the shared count is used again", || async {
        let _ = cheap_request(&one, LOGIN, "203.0.113.3").await;
        (world.sql(Role::Users, "SELECT count(*) FROM rate_limits").await == "1").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_sweep_removes_only_the_shared_counts_that_no_longer_limit_a_client() {
    let world = World::new().await;
    let [_one, _other] = two_processes(&world, Role::Users, &[TRUST]).await;
    world
        .sql(
            Role::Users,
            "INSERT INTO rate_limits (key, spent_until)
             SELECT sha256(n::text::bytea), now() + CASE WHEN n > 12000 THEN interval '1 h' ELSE interval '-1 s' END
             FROM generate_series(1, 12345) AS n",
        )
        .await;
    // The sweep runs once per minute.
    let swept = std::time::Duration::from_mins(2);
    eventually(swept, "345 of them are left", || async {
        (world.sql(Role::Users, "SELECT count(*) FROM rate_limits").await == "345").then_some(())
    })
    .await;
}
