//! What the administrators of PostgreSQL and RabbitMQ do under running roles, beyond what `database_sessions` and
//! `broker_faults` cover: restarts under load, time limits for all sessions, another search path, a standby, a virtual host
//! or permissions that are gone for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use purse::kernel::Role;
use serde_json::Value;

use crate::support::{Client, PASSWORD, PATIENCE, PrivatePostgres, RoleProcess, User, World, eventually, purse};

/// Runs SQL in the maintenance database, where the settings of the role databases do not apply.
async fn administer(world: &World, script: &str) {
    let (addresses, script) = (world.addresses.clone(), script.to_owned());
    let done = tokio::task::spawn_blocking(move || addresses.psql("postgres", &script)).await.expect("thread");
    done.unwrap_or_else(|e| panic!("psql: {e}"));
}

fn database(world: &World, role: Role) -> &str {
    match role {
        Role::Users => &world.databases.users.database,
        Role::Wallet => &world.databases.wallet.database,
    }
}

/// Runs this statement for both databases, whose name replaces `{}`, and ends their sessions, so that it applies to all.
async fn for_both(world: &World, statement: &str) {
    for role in Role::ALL {
        let database = database(world, role);
        let script = format!(
            "{};
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}' AND pid <> pg_backend_pid()",
            statement.replace("{}", database)
        );
        administer(world, &script).await;
    }
}

async fn becomes(role: &RoleProcess, status: u16, state: &str) {
    let what = format!("/health/ready returns {status} {state}\n{}", role.output());
    eventually(PATIENCE, &what, || async {
        let (code, body) = role.readiness().await;
        (code == status && body["status"] == state).then_some(())
    })
    .await;
}

/// The statuses of requests of every kind.
async fn one_of_each(client: &Client, user: &User) -> Vec<u16> {
    let responses = [
        client.post(user, "credit", 1, None).await,
        client.get(user, "/v1/balance").await,
        client.get(user, "/v1/transactions").await,
        client.get(user, "/v1/wallet/status").await,
        client.me(&user.token).await,
        client.log_in(&user.email, PASSWORD).await,
        client.register(&Client::fresh_email()).await,
    ];
    responses.iter().map(|response| response.status.as_u16()).collect()
}

const ALL_SERVED: [u16; 7] = [201, 200, 200, 200, 200, 200, 201];

fn errors(role: &RoleProcess) -> Vec<Value> {
    role.log().into_iter().filter(|line| line["level"] == "error").collect()
}

async fn all_users_have_wallets(world: &World) {
    let registered = world.sql(Role::Users, "SELECT count(*) FROM users").await;
    eventually(PATIENCE, "every user has a wallet", || async {
        (world.sql(Role::Wallet, "SELECT count(*) FROM wallets").await == registered).then_some(())
    })
    .await;
    assert_eq!(world.broker.depth("wallet.provision.dlq").await, Some(0));
}

/// `just test-versions` prints what this prints.
#[tokio::test]
async fn the_versions_of_the_servers_are_supported() {
    let world = World::new().await;
    let postgres = world.sql(Role::Wallet, "SHOW server_version").await;
    let broker = world.broker.version().await;
    eprintln!("servers: PostgreSQL {}, RabbitMQ {broker}", postgres.split(' ').next().unwrap_or_default());
    let major = |version: &str| version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    assert!(major(&postgres).is_some_and(|major| (15..=18).contains(&major)), "PostgreSQL {postgres}");
    assert!(major(&broker).is_some_and(|major| (3..=4).contains(&major)), "RabbitMQ {broker}");
}

#[tokio::test]
async fn a_database_that_is_restarted_under_load_costs_503s_and_loses_no_entry() {
    let mut world = World::new().await;
    let mut server = PrivatePostgres::start(&[]).await;
    world.move_to(&server).await;
    let (users, wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let (running, posted) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
    let posting: Vec<_> = (0..4)
        .map(|client_number| {
            let (client, user, running, posted) =
                (client.clone(), user.clone(), Arc::clone(&running), Arc::clone(&posted));
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for n in 0.. {
                    if !running.load(Ordering::Relaxed) {
                        break;
                    }
                    let key = format!("{client_number}-{n}");
                    // Every outcome is resolved by its key.
                    let entry = eventually(PATIENCE, "the post is written", || async {
                        let response = client.post(&user, "credit", 1, Some(&key)).await;
                        let known = matches!(response.status.as_u16(), 200 | 201);
                        let unavailable = ["DEPENDENCY_UNAVAILABLE", "OUTCOME_UNKNOWN"].contains(&response.code());
                        assert!(known || unavailable, "{response:?}");
                        known.then(|| response.body["id"].to_string())
                    });
                    acknowledged.push(entry.await);
                    posted.fetch_add(1, Ordering::Relaxed);
                }
                acknowledged
            })
        })
        .collect();
    let some_more = async || {
        let before = posted.load(Ordering::Relaxed);
        let enough = || async { (posted.load(Ordering::Relaxed) >= before + 20).then_some(()) };
        eventually(PATIENCE, "posts are written", enough).await;
    };
    some_more().await;
    for _ in 0..3 {
        server.restart().await;
        some_more().await;
    }
    running.store(false, Ordering::Relaxed);
    let mut acknowledged = Vec::new();
    for task in posting {
        acknowledged.extend(task.await.expect("a client"));
    }
    let written = acknowledged.len();
    acknowledged.sort();
    acknowledged.dedup();
    assert_eq!(acknowledged.len(), written, "an entry was acknowledged for two keys");
    assert_eq!(client.balance(&user).await, i64::try_from(written).expect("small"));
    let verified = purse(&["ledger", "verify"], &world.settings(Role::Wallet)).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
    for role in [&users, &wallet] {
        becomes(role, 200, "ok").await;
        assert_eq!(errors(role), [Value::Null; 0]);
    }
}

#[tokio::test]
async fn time_limits_that_an_administrator_sets_for_all_sessions_do_not_shorten_requests() {
    let world = World::new().await;
    let (users, wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let limits = ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout"];
    for limit in limits {
        for owner in [r#"DATABASE "{}""#, r#"ROLE "{}_app""#] {
            for_both(&world, &format!("ALTER {owner} SET {limit} = '1ms'")).await;
        }
    }
    for role in [&users, &wallet] {
        becomes(role, 200, "ok").await;
    }
    // A pause of its own may lie between two attempts of a pool to open a session.
    eventually(PATIENCE, "requests are served", || async {
        (one_of_each(&client, &user).await == ALL_SERVED).then_some(())
    })
    .await;
    for _ in 0..10 {
        assert_eq!(one_of_each(&client, &user).await, ALL_SERVED);
    }
    client.ready_user().await;
    // Roles that start now migrate and serve likewise.
    let (other_users, other_wallet, other) = world.both().await;
    assert_eq!(one_of_each(&other, &user).await, ALL_SERVED);
    // They apply to the sessions of the test too.
    for_both(&world, r#"ALTER DATABASE "{}" RESET ALL"#).await;
    all_users_have_wallets(&world).await;
    for role in [&users, &wallet, &other_users, &other_wallet] {
        assert_eq!(errors(role), [Value::Null; 0]);
    }
}

#[tokio::test]
async fn a_search_path_that_changes_under_a_running_role_fails_its_readiness_until_it_is_changed_back() {
    let world = World::new().await;
    let (users, wallet, client) = world.both().await;
    let user = client.ready_user().await;
    for_both(&world, r#"ALTER ROLE "{}_app" SET search_path = elsewhere"#).await;
    for role in [&users, &wallet] {
        eventually(PATIENCE, "readiness fails", || async { (role.readiness().await.0 == 503).then_some(()) }).await;
    }
    // Events wait, and attempts to process them are not counted.
    let newcomer = uuid::Uuid::now_v7();
    world.publish_event(newcomer, &newcomer.to_string()).await;
    for_both(&world, r#"ALTER ROLE "{}_app" RESET search_path"#).await;
    for role in [&users, &wallet] {
        becomes(role, 200, "ok").await;
    }
    eventually(PATIENCE, "requests are served", || async {
        (one_of_each(&client, &user).await == ALL_SERVED).then_some(())
    })
    .await;
    let count = format!("SELECT count(*) FROM wallets WHERE user_id = '{newcomer}'");
    eventually(PATIENCE, "the wallet exists", || async {
        (world.sql(Role::Wallet, &count).await == "1").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_role_that_starts_on_a_standby_waits_for_its_promotion_and_commands_read_it_before() {
    let mut world = World::new().await;
    let primary = PrivatePostgres::start(&[]).await;
    world.move_to(&primary).await;
    {
        let (_users, _wallet, client) = world.both().await;
        let user = client.ready_user().await;
        assert_eq!(client.post(&user, "credit", 7, None).await.status, 201);
        let settings = world.settings(Role::Users);
        eventually(PATIENCE, "the event is published", || async {
            let status = purse(&["outbox", "status"], &settings).await;
            status.out.starts_with("Nothing pending").then_some(())
        })
        .await;
    }
    let standby = primary.standby().await;
    standby.has_replayed(&primary).await;
    primary.kill().await;
    let moved = |role: Role| {
        let mut settings = world.settings(role);
        for url in settings.values_mut().filter(|value| value.starts_with("postgres")) {
            *url = url.replace(&format!(":{}/", world.addresses.postgres_port), &format!(":{}/", standby.port()));
        }
        settings
    };
    for (role, command, printed) in [
        (
            Role::Wallet,
            ["ledger", "verify"],
            "1 wallet with 1 entry (1 chained, 0 sealed, 0 unchained; 1 posted by users): all consistent.",
        ),
        (Role::Users, ["outbox", "status"], "Nothing pending: all events are published."),
    ] {
        let read = purse(&command, &moved(role)).await;
        assert_eq!((read.code, read.out.trim()), (Some(0), printed), "{read:?}");
        let migrated = purse(&["migrate", "--role", role.as_str()], &moved(role)).await;
        assert_eq!(migrated.code, Some(69), "{migrated:?}");
        assert!(migrated.err.contains("database does not allow writes"), "{migrated:?}");
    }
    let mut wallet = RoleProcess::spawn(&["--role", "wallet"], &moved(Role::Wallet));
    eventually(PATIENCE, "it retries", || async {
        (wallet.logged("the database cannot be used yet; retrying").len() >= 2).then_some(())
    })
    .await;
    assert!(!wallet.has_exited(), "{}", wallet.output());
    standby.promote().await;
    wallet.listening().await;
    wallet.ready().await;
    assert_eq!(errors(&wallet), [Value::Null; 0]);
}

#[tokio::test]
async fn a_virtual_host_that_is_deleted_and_created_again_costs_no_registration() {
    let world = World::new().await;
    let (users, wallet, client) = world.both().await;
    let user = client.ready_user().await;
    world.broker.delete_virtual_host().await;
    for role in [&users, &wallet] {
        becomes(role, 200, "degraded").await;
    }
    let statuses = one_of_each(&client, &user).await;
    assert_eq!(statuses, ALL_SERVED, "nothing that a request needs is at the broker");
    for _ in 0..3 {
        client.user().await;
    }
    world.broker.create_virtual_host().await;
    for role in [&users, &wallet] {
        becomes(role, 200, "ok").await;
    }
    all_users_have_wallets(&world).await;
}

#[tokio::test]
async fn permissions_that_are_revoked_at_the_broker_degrade_both_roles_until_they_are_granted_again() {
    let world = World::new().await;
    let (name, password) = (format!("{}_role", world.broker.virtual_host()), "a password of the test");
    world.broker.account(&name, password, ".*").await;
    let url = world.broker.url_for(&name, password);
    let broker = [("RABBITMQ_URL", url.as_str())];
    let (users, wallet) = tokio::join!(world.start_with(Role::Users, &broker), world.start_with(Role::Wallet, &broker));
    let client = Client::new(&users.url(), &wallet.url());
    let user = client.ready_user().await;
    // Connections remember what they were permitted; new ones do not.
    eventually(PATIENCE, "the broker lists all connections", || async {
        (world.broker.connections().await == 4).then_some(())
    })
    .await;
    world.broker.permit(&name, "").await;
    world.broker.close_connections().await;
    for role in [&users, &wallet] {
        becomes(role, 200, "degraded").await;
    }
    assert_eq!(one_of_each(&client, &user).await, ALL_SERVED);
    world.broker.permit(&name, ".*").await;
    for role in [&users, &wallet] {
        becomes(role, 200, "ok").await;
    }
    all_users_have_wallets(&world).await;
    assert_eq!(world.sql(Role::Users, "SELECT coalesce(max(attempts), 0) FROM outbox").await, "0");
}
