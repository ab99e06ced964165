//! What the operator of PostgreSQL changes under running roles: read-only databases, standbys, refused sessions, time
//! limits, search paths and privileges.

use std::time::Duration;

use purse::kernel::Role;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::NoTls;

use crate::support::{Client, PATIENCE, PrivatePostgres, RoleProcess, User, World, eventually, purse};

/// More than a pool has sessions.
const MANY: usize = 12;

async fn becomes_ready(role: &RoleProcess, expected: u16) {
    let what = format!("/health/ready returns {expected}\n{}", role.output());
    eventually(PATIENCE, &what, || async { (role.readiness().await.0 == expected).then_some(()) }).await;
}

/// Responses to requests of every kind, by what they use: both databases, reads and writes.
async fn one_of_each(client: &Client, user: &User) -> Vec<(u16, String)> {
    let responses = [
        client.post(user, "credit", 1, None).await,
        client.get(user, "/v1/balance").await,
        client.get(user, "/v1/transactions").await,
        client.me(&user.token).await,
        client.log_in(&user.email, crate::support::PASSWORD).await,
        client.register(&Client::fresh_email()).await,
    ];
    responses.iter().map(|response| (response.status.as_u16(), response.code().to_owned())).collect()
}

fn all_unavailable(responses: &[(u16, String)]) -> bool {
    responses.iter().all(|(status, code)| (*status, code.as_str()) == (503, "DEPENDENCY_UNAVAILABLE"))
}

/// Waits until many requests of each kind at once, so that every session of the pools is used, are all served. (A loaded
/// machine opens that many sessions too slowly for the first of them.) Returns the number of credits that were acknowledged.
async fn serves_on_every_session(client: &Client, user: &User) -> i64 {
    let credited = std::sync::atomic::AtomicI64::new(0);
    eventually(PATIENCE, "every session serves", || async {
        let credits = (0..MANY).map(|_| client.post(user, "credit", 1, None));
        let reads = (0..MANY).map(|_| client.get(user, "/v1/balance"));
        let registrations = (0..MANY).map(|_| async { client.register(&Client::fresh_email()).await });
        let (credits, reads, registrations) = tokio::join!(
            futures_util::future::join_all(credits),
            futures_util::future::join_all(reads),
            futures_util::future::join_all(registrations),
        );
        let served =
            |responses: &[crate::support::Response]| responses.iter().filter(|r| r.status.is_success()).count();
        credited.fetch_add(i64::try_from(served(&credits)).expect("small"), std::sync::atomic::Ordering::SeqCst);
        (served(&credits) + served(&reads) + served(&registrations) == 3 * MANY).then_some(())
    })
    .await;
    credited.into_inner()
}

/// Waits until every pool has reached its database again: each has a pause of its own, of up to a second.
async fn recovers(client: &Client, user: &User) {
    eventually(PATIENCE, "requests of every kind are served", || async {
        let responses = one_of_each(client, user).await;
        responses.iter().all(|(status, _)| *status < 300).then_some(())
    })
    .await;
}

async fn publish_newcomer(world: &World) -> uuid::Uuid {
    let user = uuid::Uuid::now_v7();
    world.publish_event(user, &user.to_string()).await;
    user
}

async fn has_wallet(world: &World, user: uuid::Uuid) {
    let count = format!("SELECT count(*) FROM wallets WHERE user_id = '{user}'");
    eventually(PATIENCE, "the wallet exists", || async {
        (world.sql(Role::Wallet, &count).await == "1").then_some(())
    })
    .await;
}

async fn outbox_drains(world: &World) {
    let pending = "SELECT count(*) FROM outbox WHERE status = 'pending'";
    eventually(PATIENCE, "the outbox is empty", || async {
        (world.sql(Role::Users, pending).await == "0").then_some(())
    })
    .await;
}

/// Neither an attempt of the retry ladder was used, nor anything taken for a bug.
async fn nothing_was_spent(world: &World, roles: [&RoleProcess; 2]) {
    assert_eq!(world.broker.depth("wallet.provision.dlq").await, Some(0));
    assert_eq!(world.sql(Role::Users, "SELECT coalesce(max(attempts), 0) FROM outbox").await, "0");
    for role in roles {
        let log = role.log();
        assert!(log.iter().all(|line| line["tier"].is_null()), "{}", role.output());
        let errors: Vec<&Value> = log.iter().filter(|line| line["level"] == "error").collect();
        assert!(errors.is_empty(), "{errors:?}");
    }
}

#[tokio::test]
async fn sessions_of_a_database_that_was_read_only_are_replaced_once_it_accepts_writes() {
    let world = World::new().await;
    let (users, wallet, client) = world.both().await;
    let user = client.ready_user().await;
    serves_on_every_session(&client, &user).await;

    world.for_both_databases(r#"ALTER DATABASE "{}" SET default_transaction_read_only = on"#).await;
    world.terminate_sessions().await;
    let newcomer = publish_newcomer(&world).await;
    for role in [&users, &wallet] {
        becomes_ready(role, 503).await;
    }
    // Concurrent, so that every pool opens as many sessions as it may.
    let responses = futures_util::future::join_all((0..12).map(|_| one_of_each(&client, &user))).await;
    assert!(responses.iter().all(|responses| all_unavailable(responses)), "{responses:?}");

    world.for_both_databases(r#"ALTER DATABASE "{}" RESET default_transaction_read_only"#).await;
    for role in [&users, &wallet] {
        becomes_ready(role, 200).await;
    }
    has_wallet(&world, newcomer).await;
    outbox_drains(&world).await;
    recovers(&client, &user).await;
    serves_on_every_session(&client, &user).await;
    nothing_was_spent(&world, [&users, &wallet]).await;
}

#[tokio::test]
async fn sessions_that_met_a_read_only_database_are_not_kept() {
    let world = World::new().await;
    let (users, wallet, client) = world.both().await;
    let user = client.ready_user().await;
    serves_on_every_session(&client, &user).await;

    // Sessions become read-only one by one here: those that are open keep their setting until it is changed.
    let read_only = "SELECT set_config('default_transaction_read_only', 'on', false)";
    for (role, statement) in [(Role::Users, "users"), (Role::Wallet, "wallets")] {
        // A trigger simulates a pooler that moves the sessions to a standby.
        let trigger = format!(
            "CREATE FUNCTION become_read_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM ({read_only}); RETURN NEW; END $$;
             CREATE TRIGGER become_read_only AFTER INSERT ON {statement} FOR EACH ROW EXECUTE FUNCTION become_read_only()"
        );
        world.sql(role, &trigger).await;
    }
    futures_util::future::join_all((0..MANY).map(|_| async { client.register(&Client::fresh_email()).await })).await;
    for (role, table) in [(Role::Users, "users"), (Role::Wallet, "wallets")] {
        world.sql(role, &format!("DROP TRIGGER become_read_only ON {table}")).await;
    }
    eventually(PATIENCE, "registrations are served again", || async {
        (client.register(&Client::fresh_email()).await.status == 201).then_some(())
    })
    .await;
    outbox_drains(&world).await;
    serves_on_every_session(&client, &user).await;
    nothing_was_spent(&world, [&users, &wallet]).await;
}

/// One address for several servers, as a virtual IP or a DNS name is.
struct Address {
    port: u16,
    server: std::sync::Arc<std::sync::atomic::AtomicU16>,
}

impl Address {
    async fn of(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("address").port();
        let server = std::sync::Arc::new(std::sync::atomic::AtomicU16::new(server));
        let target = std::sync::Arc::clone(&server);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let target = target.load(std::sync::atomic::Ordering::SeqCst);
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(("127.0.0.1", target)).await?;
                    tokio::io::copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        Self { port, server }
    }

    fn points_to(&self, server: u16) {
        self.server.store(server, std::sync::atomic::Ordering::SeqCst);
    }

    /// The same URL by this address.
    fn url(&self, direct: &str) -> String {
        let (before, after) = direct.split_once("@127.0.0.1:").expect("a URL of this machine");
        format!("{before}@127.0.0.1:{}{}", self.port, after.trim_start_matches(|c: char| c.is_ascii_digit()))
    }
}

async fn start_at(world: &World, role: Role, address: &Address) -> RoleProcess {
    let (prefix, database) = match role {
        Role::Users => ("USERS", &world.databases.users),
        Role::Wallet => ("WALLET", &world.databases.wallet),
    };
    let (runtime, owner) = (address.url(&database.runtime_url), address.url(&database.migration_url));
    let (runtime_name, owner_name) = (format!("{prefix}_DATABASE_URL"), format!("{prefix}_MIGRATION_DATABASE_URL"));
    world.start_with(role, &[(runtime_name.as_str(), runtime.as_str()), (&owner_name, &owner)]).await
}

#[tokio::test]
async fn a_standby_behind_the_address_is_neither_read_nor_written_until_it_is_promoted() {
    let mut world = World::new().await;
    let primary = PrivatePostgres::start(&[]).await;
    world.move_to(&primary).await;
    let standby = primary.standby().await;
    let address = Address::of(primary.port()).await;
    let (users, wallet) =
        tokio::join!(start_at(&world, Role::Users, &address), start_at(&world, Role::Wallet, &address));
    let client = Client::new(&users.url(), &wallet.url());
    let user = client.ready_user().await;
    let acknowledged = serves_on_every_session(&client, &user).await;
    standby.has_replayed(&primary).await;

    address.points_to(standby.port());
    primary.kill().await;
    becomes_ready(&wallet, 503).await;
    becomes_ready(&users, 503).await;
    for _ in 0..5 {
        let responses = one_of_each(&client, &user).await;
        assert!(all_unavailable(&responses), "{responses:?}");
    }

    standby.promote().await;
    world.addresses.postgres_port = standby.port();
    for role in [&users, &wallet] {
        becomes_ready(role, 200).await;
    }
    recovers(&client, &user).await;
    // Every credit that was acknowledged before is there.
    let before = client.balance(&user).await;
    assert!(before >= acknowledged, "{before} instead of at least {acknowledged}");
    let acknowledged = serves_on_every_session(&client, &user).await;
    outbox_drains(&world).await;
    assert_eq!(client.balance(&user).await, before + acknowledged);
    nothing_was_spent(&world, [&users, &wallet]).await;
}

#[tokio::test]
async fn a_database_that_refuses_sessions_is_unavailable_whatever_its_reason() {
    let world = World::new().await;
    let (users, wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let [users_database, wallet_database] = world.database_names().map(str::to_owned);
    let accounts =
        |verb: &str| format!(r#"ALTER ROLE "{users_database}_app" {verb}; ALTER ROLE "{wallet_database}_app" {verb}"#);
    for (refuse, admit) in [
        // 55000, 42501 and 28000, each as FATAL.
        (
            r#"ALTER DATABASE "{}" WITH ALLOW_CONNECTIONS false"#.to_owned(),
            r#"ALTER DATABASE "{}" WITH ALLOW_CONNECTIONS true"#.to_owned(),
        ),
        (
            r#"REVOKE CONNECT ON DATABASE "{}" FROM PUBLIC, "{}_app""#.to_owned(),
            r#"GRANT CONNECT ON DATABASE "{}" TO "{}_app""#.to_owned(),
        ),
        (accounts("NOLOGIN"), accounts("LOGIN")),
        // 53300.
        (
            r#"ALTER DATABASE "{}" CONNECTION LIMIT 0"#.to_owned(),
            r#"ALTER DATABASE "{}" CONNECTION LIMIT -1"#.to_owned(),
        ),
    ] {
        world.for_both_databases(&refuse).await;
        world.terminate_sessions().await;
        let newcomer = publish_newcomer(&world).await;
        for _ in 0..4 {
            let responses = one_of_each(&client, &user).await;
            assert!(all_unavailable(&responses), "{refuse}: {responses:?}");
        }
        world.for_both_databases(&admit).await;
        for role in [&users, &wallet] {
            becomes_ready(role, 200).await;
        }
        has_wallet(&world, newcomer).await;
        recovers(&client, &user).await;
    }
    outbox_drains(&world).await;
    nothing_was_spent(&world, [&users, &wallet]).await;
}

#[tokio::test]
async fn a_role_that_starts_while_the_database_refuses_sessions_waits_for_it() {
    let world = World::new().await;
    world.for_both_databases(r#"ALTER DATABASE "{}" WITH ALLOW_CONNECTIONS false"#).await;
    let mut wallet = RoleProcess::spawn(&["--role", "wallet"], &world.settings(Role::Wallet));
    eventually(PATIENCE, "it retries", || async {
        (wallet.logged("the database cannot be used yet; retrying").len() >= 2).then_some(())
    })
    .await;
    assert!(!wallet.has_exited(), "{}", wallet.output());
    let once = purse(&["migrate", "--role", "wallet"], &world.settings(Role::Wallet)).await;
    assert_eq!(once.code, Some(69), "{once:?}");
    world.for_both_databases(r#"ALTER DATABASE "{}" WITH ALLOW_CONNECTIONS true"#).await;
    wallet.listening().await;
    wallet.ready().await;
}

#[tokio::test]
async fn a_changed_type_of_a_column_costs_one_response_and_no_session_keeps_failing() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    // Every session has prepared the statement.
    futures_util::future::join_all((0..MANY).map(|_| client.me(&user.token))).await;
    world.sql(Role::Users, "ALTER TABLE users ALTER COLUMN first_name TYPE varchar(200)").await;
    let mut failed = 0;
    for _ in 0..MANY {
        let response = client.me(&user.token).await;
        assert!(matches!(response.status.as_u16(), 200 | 503), "{response:?}");
        failed += usize::from(response.status == 503);
    }
    assert!(failed <= 1, "{failed}");
}

#[tokio::test]
async fn a_session_is_replaced_after_its_lifetime_without_a_failed_request() {
    let world = World::new().await;
    let short = [("DB_CONNECTION_LIFETIME", "500ms")];
    let users = world.start(Role::Users).await;
    let wallet = world.start_with(Role::Wallet, &short).await;
    let client = Client::new(&users.url(), &wallet.url());
    let user = client.ready_user().await;
    let ledger = "SELECT string_agg(pid::text, ',' ORDER BY pid) FROM pg_stat_activity
                  WHERE datname = current_database() AND application_name = 'purse wallet'";
    client.balance(&user).await;
    let first = world.sql(Role::Wallet, ledger).await;
    eventually(PATIENCE, "other sessions", || async {
        client.balance(&user).await;
        (world.sql(Role::Wallet, ledger).await != first).then_some(())
    })
    .await;
    // A lifetime that ends while no session can be opened ends nothing that works.
    let database = &world.databases.wallet.database;
    world.administer(&format!(r#"ALTER DATABASE "{database}" WITH ALLOW_CONNECTIONS false"#)).await;
    let until = std::time::Instant::now() + Duration::from_secs(2);
    while std::time::Instant::now() < until {
        assert_eq!(client.get(&user, "/v1/balance").await.status, 200);
    }
}

#[tokio::test]
async fn the_schema_in_use_is_the_one_that_privileges_are_granted_on() {
    let world = World::new().await;
    for (role, database) in [(Role::Users, &world.databases.users), (Role::Wallet, &world.databases.wallet)] {
        let name = &database.database;
        let own_schema = format!(
            r#"CREATE SCHEMA "the App" AUTHORIZATION "{name}_owner"; ALTER DATABASE "{name}" SET search_path = "the App""#
        );
        world.sql(role, &own_schema).await;
    }
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    serves_on_every_session(&client, &user).await;
    let tables = "SELECT DISTINCT schemaname FROM pg_tables WHERE tablename IN ('wallets', 'refinery_schema_history')";
    assert_eq!(world.sql(Role::Wallet, tables).await, "the App");
}

#[tokio::test]
async fn a_role_whose_account_does_not_find_the_tables_never_becomes_ready_and_says_why() {
    let world = World::new().await;
    let name = &world.databases.wallet.database;
    let only_owner =
        format!(r#"CREATE SCHEMA app AUTHORIZATION "{name}_owner"; ALTER ROLE "{name}_owner" SET search_path = app"#);
    world.sql(Role::Wallet, &only_owner).await;
    for arguments in [["--role", "wallet"].as_slice(), &["migrate", "--role", "wallet"]] {
        let ended = purse(arguments, &world.settings(Role::Wallet)).await;
        assert_eq!(ended.code, Some(69), "{ended:?}");
        assert!(ended.err.contains("search_path") && ended.err.contains("schema app"), "{ended:?}");
    }
    world.sql(Role::Wallet, &format!(r#"ALTER ROLE "{name}_app" SET search_path = app"#)).await;
    drop(world.start(Role::Wallet).await);
}

#[tokio::test]
async fn without_a_schema_nothing_is_created_and_the_exit_code_is_69() {
    let world = World::new().await;
    world.sql(Role::Wallet, "DROP SCHEMA public").await;
    for arguments in [["--role", "wallet"].as_slice(), &["migrate", "--role", "wallet"]] {
        let ended = purse(arguments, &world.settings(Role::Wallet)).await;
        assert_eq!(ended.code, Some(69), "{ended:?}");
        assert!(ended.err.contains("search_path"), "{ended:?}");
    }
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')";
    assert_eq!(world.sql(Role::Wallet, tables).await, "0");
}

#[tokio::test]
async fn readiness_fails_while_requests_would_be_refused_a_privilege() {
    let world = World::new().await;
    let (users, wallet, _client) = world.both().await;
    let [users_app, wallet_app] = world.database_names().map(|name| format!("{name}_app"));
    for (role, process, app, privilege, table) in [
        (Role::Wallet, &wallet, &wallet_app, "INSERT", "transactions"),
        (Role::Wallet, &wallet, &wallet_app, "SELECT", "wallets"),
        (Role::Users, &users, &users_app, "INSERT", "outbox"),
        (Role::Users, &users, &users_app, "UPDATE (password_hash)", "users"),
    ] {
        world.sql(role, &format!(r#"REVOKE {privilege} ON {table} FROM "{app}""#)).await;
        becomes_ready(process, 503).await;
        world.sql(role, &format!(r#"GRANT {privilege} ON {table} TO "{app}""#)).await;
        becomes_ready(process, 200).await;
    }
}

#[tokio::test]
async fn limits_for_requests_do_not_end_a_migration_that_waits_for_another() {
    let world = World::new().await;
    let database = &world.databases.wallet.database;
    let limits =
        ["statement_timeout = '300ms'", "lock_timeout = '300ms'", "idle_in_transaction_session_timeout = '50ms'"];
    for limit in limits {
        world.administer(&format!(r#"ALTER DATABASE "{database}" SET {limit}"#)).await;
    }
    let (other, connection) =
        tokio_postgres::connect(&world.databases.wallet.migration_url, NoTls).await.expect("connected");
    tokio::spawn(connection);
    // The key of the lock around migrations.
    other.batch_execute("SET statement_timeout = 0; SELECT pg_advisory_lock(483006772069)").await.expect("locked");
    let settings = world.settings(Role::Wallet);
    let migrating = tokio::spawn(async move { purse(&["migrate", "--role", "wallet"], &settings).await });
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!migrating.is_finished());
    other.batch_execute("SELECT pg_advisory_unlock_all()").await.expect("unlocked");
    let migrated = migrating.await.expect("task");
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
}

#[tokio::test]
async fn a_migration_behind_a_long_read_delays_no_request_and_is_retried() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    client.post(&user, "credit", 5, None).await;
    // The migration that drops a column of the ledger is pending again.
    let undo = "DELETE FROM refinery_schema_history WHERE version >= 8; DROP TABLE ledger_shards;
                ALTER TABLE transactions ADD COLUMN description text";
    world.sql(Role::Wallet, undo).await;
    // As a report, a dump or a long transaction has it. A column cannot be dropped beside it, and requests queue behind the
    // lock that the migration waits for.
    let superuser = world.addresses.superuser_url(&world.databases.wallet.database);
    let (other, connection) = tokio_postgres::connect(&superuser, NoTls).await.expect("connected");
    tokio::spawn(connection);
    other.batch_execute("BEGIN; LOCK TABLE transactions IN ROW EXCLUSIVE MODE").await.expect("locked");
    let settings = world.settings(Role::Wallet);
    let migrating = tokio::spawn(async move { purse(&["migrate", "--role", "wallet"], &settings).await });
    let until = std::time::Instant::now() + Duration::from_secs(6);
    while std::time::Instant::now() < until {
        let post = client.post(&user, "credit", 1, None).await;
        assert_eq!(post.status, 201, "{post:?}");
        let read = client.get(&user, "/v1/balance").await;
        assert_eq!(read.status, 200, "{read:?}");
    }
    assert!(!migrating.is_finished());
    other.batch_execute("ROLLBACK").await.expect("unlocked");
    let migrated = migrating.await.expect("task");
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
}

/// A pooler in front of PostgreSQL that drops the options of a session, as pgBouncer does when it is configured to ignore them.
struct Pooler {
    port: u16,
}

impl Pooler {
    async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("address").port();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(("127.0.0.1", server)).await?;
                    let length = client.read_u32().await?;
                    let mut start = vec![0; usize::try_from(length).expect("small") - 4];
                    client.read_exact(&mut start).await?;
                    let start = without_options(&start);
                    server.write_u32(u32::try_from(start.len()).expect("small") + 4).await?;
                    server.write_all(&start).await?;
                    tokio::io::copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        Self { port }
    }
}

/// The body of a start-up message: the version of the protocol, then names and values that end in a zero each.
fn without_options(start: &[u8]) -> Vec<u8> {
    let (version, parameters) = start.split_at(4);
    let texts: Vec<&[u8]> = parameters.split(|byte| *byte == 0).collect();
    let mut kept = version.to_vec();
    for pair in texts.chunks(2).filter(|pair| pair.len() == 2 && !pair[0].is_empty() && pair[0] != b"options") {
        for text in pair {
            kept.extend_from_slice(text);
            kept.push(0);
        }
    }
    kept.push(0);
    kept
}

#[tokio::test]
async fn the_ledger_is_right_where_a_pooler_drops_the_isolation_level_of_the_sessions() {
    let world = World::new().await;
    let database = &world.databases.wallet.database;
    let isolation = format!(r#"ALTER DATABASE "{database}" SET default_transaction_isolation = 'repeatable read'"#);
    world.administer(&isolation).await;
    let pooler = Pooler::start(world.addresses.postgres_port).await;
    let (before, after) = world.databases.wallet.runtime_url.split_once("@127.0.0.1:").expect("a URL of this machine");
    let path = after.trim_start_matches(|c: char| c.is_ascii_digit());
    let through = format!("{before}@127.0.0.1:{}{path}?sslmode=disable", pooler.port);
    let pooled = [("WALLET_DATABASE_URL", through.as_str())];
    let users = world.start(Role::Users).await;
    let (one, other) = (world.start_with(Role::Wallet, &pooled).await, world.start_with(Role::Wallet, &pooled).await);
    let clients = [Client::new(&users.url(), &one.url()), Client::new(&users.url(), &other.url())];
    let user = clients[0].ready_user().await;
    // Few at once: they compete for the wallet, and not for the connections of the pools.
    for _ in 0..25 {
        let credits = (0..4).map(|number: usize| clients[number % 2].post(&user, "credit", 1, None));
        for response in futures_util::future::join_all(credits).await {
            assert_eq!(response.status, 201, "{response:?}");
        }
    }
    assert_eq!(clients[0].balance(&user).await, 100);
}

#[test]
fn every_transaction_of_a_request_names_its_isolation_level() {
    let mut sources = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(path) = sources.pop() {
        if path.is_dir() {
            sources.extend(std::fs::read_dir(&path).expect("folder").map(|entry| entry.expect("entry").path()));
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("source");
        // Migrations run one at a time, at the level that their scripts name.
        let of_migrations = path.ends_with("infra/postgres/migrate.rs");
        assert!(of_migrations || !text.contains(".transaction()"), "{}", path.display());
        for begun in text.match_indices("\"BEGIN") {
            assert!(text[begun.0..].starts_with("\"BEGIN ISOLATION LEVEL READ COMMITTED\""), "{}", path.display());
        }
    }
}
