//! Two releases over the same databases and the same broker, whichever starts first.
//!
//! Each folder in `fixtures/releases` is what a release leaves behind: a dump of both databases with their schema,
//! privileges and rows, the topology that it declares, and one of its events. `before-0.1` is from a build before the first
//! release. `PURSE_FIXTURE=<folder>` makes [`this_release_leaves_behind_what_the_next_one_can_use`] write the files of
//! the current one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use purse::kernel::Role;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, NoTls};
use uuid::Uuid;

use crate::operate_handbook::follow_in;
use crate::support::{Client, PASSWORD, PATIENCE, RoleProcess, User, World, eventually, purse, repository, token_of};

/// The databases of a dump are called `release_users` and `release_wallet`, and their accounts likewise.
const PLACEHOLDER: &str = "release_";
const QUEUE: &str = "wallet.provision";
const DEAD: &str = "wallet.provision.dlq";
const NEWER: &str = "the database is newer than this version; privileges are left as they are";

/// What a release leaves behind.
struct Release(PathBuf);

impl Release {
    fn all() -> Vec<Self> {
        let folder = repository::root().join("tests/it/fixtures/releases");
        let mut releases: Vec<PathBuf> =
            fs::read_dir(folder).expect("releases").map(|entry| entry.expect("entry").path()).collect();
        releases.sort();
        assert!(!releases.is_empty());
        releases.into_iter().map(Self).collect()
    }

    fn text(&self, file: &str) -> String {
        let path = self.0.join(file);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    fn json(&self, file: &str) -> Value {
        serde_json::from_str(&self.text(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.0.join(file), text).unwrap_or_else(|e| panic!("{file}: {e}"));
    }

    /// A world whose databases are those of the release, and in which nothing runs.
    async fn restored(&self) -> World {
        let world = World::new().await;
        for role in Role::ALL {
            let dump = self.text(&format!("{role}.sql"));
            world.sql(role, &dump.replace(&format!("{PLACEHOLDER}{role}"), database(&world, role))).await;
        }
        world
    }
}

fn database(world: &World, role: Role) -> &str {
    match role {
        Role::Users => &world.databases.users.database,
        Role::Wallet => &world.databases.wallet.database,
    }
}

/// A database as a script, without what differs between two runs of `pg_dump`.
async fn dump(world: &World, role: Role, arguments: &[&str]) -> String {
    let url = world.addresses.superuser_url(database(world, role));
    let mut command = Command::new(world.addresses.postgres_bin_dir.join("pg_dump"));
    command.args(arguments).arg(url);
    let output = tokio::task::spawn_blocking(move || command.output().expect("pg_dump")).await.expect("thread");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let text = text.replace(database(world, role), &format!("{PLACEHOLDER}{role}"));
    let varies = |line: &&str| ["\\restrict", "\\unrestrict", "-- Dumped"].iter().any(|start| line.starts_with(start));
    text.lines().filter(|line| !varies(line)).fold(String::new(), |text, line| text + line + "\n")
}

/// Every privilege of an account other than the owner, one per line.
async fn privileges(world: &World, role: Role) -> Vec<String> {
    const QUERY: &str = "
        SELECT object || ' ' || CASE grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee) END || ' ' || privilege_type
        FROM (
            SELECT relname::text AS object, relowner AS owner, (aclexplode(relacl)).* FROM pg_class
            WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
            UNION ALL
            SELECT relname || '.' || attname, relowner, (aclexplode(attacl)).* FROM pg_attribute
            JOIN pg_class ON pg_class.oid = attrelid WHERE relnamespace = 'public'::regnamespace
            UNION ALL
            SELECT 'schema', nspowner, (aclexplode(nspacl)).* FROM pg_namespace WHERE nspname = 'public'
        ) AS privileges
        WHERE grantee <> owner ORDER BY 1";
    let listed = world.sql(role, QUERY).await.replace(database(world, role), &format!("{PLACEHOLDER}{role}"));
    listed.lines().map(str::to_owned).collect()
}

/// What the release wrote, by the columns that it knew; `DESCRIPTION` stands for the description of an entry.
const ROWS: [(Role, &str); 4] = [
    (Role::Users, "SELECT id, first_name, last_name, email, created_at, password_hash FROM users ORDER BY id"),
    (Role::Users, "SELECT id, type, payload_json, created_at, request_id, traceparent FROM outbox ORDER BY id"),
    (Role::Wallet, "SELECT user_id, id, created_at FROM wallets ORDER BY user_id"),
    (
        Role::Wallet,
        "SELECT user_id, seq, id, type, amount_minor, balance_after_minor, DESCRIPTION, idempotency_key, created_at
         FROM transactions ORDER BY user_id, seq",
    ),
];
/// Since the hash chain, descriptions are in a table of their own.
const DESCRIPTION: &str = "(SELECT description FROM entry_texts AS texts
                            WHERE texts.user_id = transactions.user_id AND texts.seq = transactions.seq)";

async fn rows(world: &World) -> Vec<String> {
    let texts_are_apart = world.sql(Role::Wallet, "SELECT to_regclass('entry_texts') IS NOT NULL").await == "t";
    let description = if texts_are_apart { DESCRIPTION } else { "description" };
    let mut all = Vec::new();
    for (role, query) in ROWS {
        all.push(world.sql(role, &query.replace("DESCRIPTION", description)).await);
    }
    all
}

/// The users of a database, in the order in which they registered.
async fn users_of(world: &World) -> Vec<User> {
    let rows = world.sql(Role::Users, "SELECT id, email FROM users ORDER BY id").await;
    let user = |row: &str| {
        let (id, email) = row.split_once('|').expect("two columns");
        User { id: id.to_owned(), email: email.to_owned(), token: token_of(id) }
    };
    rows.lines().map(user).collect()
}

async fn migrate(world: &World, role: Role) -> RoleProcess {
    let mut process = RoleProcess::spawn(&["migrate", "--role", role.as_str()], &world.settings(role));
    let status = process.exited().await;
    assert_eq!(status.code(), Some(0), "{}", process.output());
    process
}

fn assert_no_error_is_logged<const N: usize>(processes: [&RoleProcess; N]) {
    for process in processes {
        let errors: Vec<Value> = process.log().into_iter().filter(|line| line["level"] == "error").collect();
        assert!(errors.is_empty(), "{errors:?}");
    }
}

async fn assert_ledger_is_consistent(world: &World) {
    let verified = purse(&["ledger", "verify"], &world.settings(Role::Wallet)).await;
    assert!(verified.code == Some(0) && verified.out.contains("all consistent"), "{verified:?}");
}

async fn all_events_are_published(world: &World) {
    eventually(PATIENCE, "every event is published", || async {
        let pending = world.sql(Role::Users, "SELECT count(*) FROM outbox WHERE status = 'pending'").await;
        (pending == "0").then_some(())
    })
    .await;
}

async fn all_users_have_wallets(world: &World) {
    let registered = world.sql(Role::Users, "SELECT count(*) FROM users").await;
    eventually(PATIENCE, "every user has a wallet", || async {
        (world.sql(Role::Wallet, "SELECT count(*) FROM wallets").await == registered).then_some(())
    })
    .await;
    assert_eq!(world.broker.depth(DEAD).await, Some(0));
}

/// Checks everything that the users of a release have, and uses it.
async fn serves_what_the_release_left(world: &World, client: &Client) {
    let users = users_of(world).await;
    assert_eq!(users.len(), 3, "{users:?}");
    let mut balances = Vec::new();
    for user in &users {
        let logged_in = client.log_in(&user.email, PASSWORD).await;
        assert_eq!(logged_in.status, 200, "{}: {logged_in:?}", user.email);
        let me = client.me(&user.token).await;
        assert_eq!((me.status.as_u16(), &me.body["email"]), (200, &user.email.as_str().into()), "{me:?}");
        // The event of the last one was pending.
        let status = client.get(user, "/v1/wallet/status?wait=30").await;
        assert_eq!(status.status, 200, "{}: {status:?}", user.email);
        balances.push(client.balance(user).await);
    }
    assert_eq!(balances, [70, 0, 0]);
    let history = client.get(&users[0], "/v1/transactions").await;
    let entries = history.body["items"].as_array().expect("entries");
    assert_eq!(entries.len(), 2, "{history:?}");
    let keyed = json!({"amountMinor": 100, "description": "first"});
    let replayed = client.send(client.post_request(&users[0], "credit", &keyed, Some("order-1"))).await;
    assert_eq!((replayed.status.as_u16(), &replayed.body), (200, &entries[1]), "an idempotency key is remembered");
    for (user, balance) in users.iter().zip(balances) {
        let credited = client.post(user, "credit", 5, None).await;
        assert_eq!((credited.status.as_u16(), &credited.body["balanceAfterMinor"]), (201, &(balance + 5).into()));
    }
    client.ready_user().await;
    all_events_are_published(world).await;
    all_users_have_wallets(world).await;
    assert_ledger_is_consistent(world).await;
}

#[tokio::test]
async fn this_version_starts_on_the_databases_of_each_release_and_serves_what_is_in_them() {
    for release in Release::all() {
        let world = release.restored().await;
        let before = rows(&world).await;
        assert!(before.iter().all(|rows| !rows.is_empty()), "the release has rows in every table");
        let events = "SELECT status, count(*) FROM outbox GROUP BY status ORDER BY status";
        assert_eq!(world.sql(Role::Users, events).await, "pending|1\npublished|2");
        world.broker.import_topology(&release.json("topology.json")).await;
        for role in Role::ALL {
            migrate(&world, role).await;
        }
        assert_eq!(rows(&world).await, before, "{}: a migration changed rows", release.0.display());
        let (users, wallet, client) = world.both().await;
        serves_what_the_release_left(&world, &client).await;
        assert_no_error_is_logged([&users, &wallet]);
    }
}

/// Also if the release had granted more, or less.
#[tokio::test]
async fn an_upgraded_database_has_the_schema_and_the_privileges_of_a_new_one() {
    let new = World::new().await;
    for role in Role::ALL {
        migrate(&new, role).await;
    }
    for release in Release::all() {
        for with_other_privileges in [false, true] {
            let world = release.restored().await;
            for (role, table) in [(Role::Users, "outbox"), (Role::Wallet, "transactions")] {
                if with_other_privileges {
                    let app = format!("{}_app", database(&world, role));
                    let others = format!(
                        "REVOKE INSERT ON {table} FROM {app}; REVOKE SELECT ON refinery_schema_history FROM {app};
                         GRANT DELETE ON {table} TO {app}; GRANT CREATE ON SCHEMA public TO {app};"
                    );
                    world.sql(role, &others).await;
                }
                migrate(&world, role).await;
                let about = format!("{role} of {}", release.0.display());
                assert_eq!(privileges(&world, role).await, privileges(&new, role).await, "{about}");
                let schema = ["--schema-only", "--no-privileges"];
                assert_eq!(dump(&world, role, &schema).await, dump(&new, role, &schema).await, "{about}");
            }
        }
    }
}

/// Changes both schemas as a later version may: a table with privileges, a column, and one privilege less.
async fn migrate_to_a_later_version(world: &World) {
    for (role, table, changed) in [(Role::Users, "sessions", "users"), (Role::Wallet, "transfers", "wallets")] {
        let (owner, app) = (format!("{}_owner", database(world, role)), format!("{}_app", database(world, role)));
        let later = format!(
            "SET ROLE {owner};
             CREATE TABLE {table} (id uuid PRIMARY KEY);
             GRANT SELECT, INSERT ON {table} TO {app};
             ALTER TABLE {changed} ADD COLUMN note text NOT NULL DEFAULT '';
             GRANT UPDATE (note) ON {changed} TO {app};
             -- This version grants it.
             REVOKE DELETE ON rate_limits FROM {app};
             INSERT INTO refinery_schema_history VALUES (99, '{table}', '2027-01-01T00:00:00Z', '1')"
        );
        world.sql(role, &later).await;
    }
}

#[tokio::test]
async fn an_older_version_leaves_the_privileges_of_a_newer_one_alone() {
    let world = World::new().await;
    for role in Role::ALL {
        migrate(&world, role).await;
    }
    migrate_to_a_later_version(&world).await;
    let before = [privileges(&world, Role::Users).await, privileges(&world, Role::Wallet).await];
    assert!(before[1].contains(&"transfers release_wallet_app INSERT".to_owned()), "{before:?}");
    for (role, migration) in [(Role::Users, "V99 sessions"), (Role::Wallet, "V99 transfers")] {
        let migrated = migrate(&world, role).await;
        let reported: Vec<Value> = migrated.logged(NEWER).iter().map(|line| line["migration"].clone()).collect();
        assert_eq!(reported, [migration], "{}", migrated.output());
        assert_no_error_is_logged([&migrated]);
    }
    let (users, wallet, client) = world.both().await;
    let user = client.ready_user().await;
    assert_eq!(client.post(&user, "credit", 5, None).await.status, 201);
    assert_eq!(client.post(&user, "debit", 5, Some("key")).await.status, 201);
    assert_eq!(client.log_in(&user.email, PASSWORD).await.status, 200);
    assert_eq!([users.logged(NEWER).len(), wallet.logged(NEWER).len()], [1, 1]);
    assert_no_error_is_logged([&users, &wallet]);
    assert_ledger_is_consistent(&world).await;
    // Nor does a process that has no owner's password change any.
    let mut settings = world.settings(Role::Wallet);
    settings.retain(|name, _| !name.ends_with("_MIGRATION_DATABASE_URL"));
    let mut process = RoleProcess::spawn(&["--role", "wallet"], &settings);
    process.listening().await;
    process.ready().await;
    let after = [privileges(&world, Role::Users).await, privileges(&world, Role::Wallet).await];
    assert_eq!(after, before);
}

/// "Upgrade and roll back" of docs/operations.md. The role that a process plays is decided by the database: on that of an
/// earlier release this version is the new one, and on that of a later release it is the old one.
#[tokio::test]
async fn an_upgrade_and_a_roll_back_as_the_handbook_says_cost_no_registration_and_no_wallet() {
    for release in Release::all() {
        let world = Arc::new(release.restored().await);
        world.broker.import_topology(&release.json("topology.json")).await;
        let mut settings = world.settings(Role::Wallet);
        settings.extend(world.settings(Role::Users));
        // Long enough for no warning; the check connects to nothing.
        let key = "a key of the handbook, of more than thirty-two bytes";
        settings.insert("JWT_PRIVATE_KEY".into(), key.to_owned());
        settings.insert("INTERNAL_JWT_PRIVATE_KEY".into(), format!("another: {key}"));
        let user = users_of(&world).await.remove(0);

        let older_wallet = OlderProcesses::wallet(&world, &user).await;
        let older = OlderProcesses::users(&world).await;
        follow(&settings, "upgrade-check").await;
        older_wallet.go_on("the previous wallet role serves before the migration").await;
        // The migration that introduces the hash chain is the exception: no older wallet process may run.
        older_wallet.stop().await;
        follow(&settings, "upgrade-migrate").await;
        older.go_on("the previous users role serves after the migration").await;
        let wallet = world.start(Role::Wallet).await;
        older.go_on("the previous users role serves beside the new wallet role").await;
        let users = world.start(Role::Users).await;
        older.stop().await;
        all_events_are_published(&world).await;
        all_users_have_wallets(&world).await;
        follow(&with_ports(&settings, &users, &wallet), "upgrade-ready").await;
        Client::new(&users.url(), &wallet.url()).ready_user().await;

        migrate_to_a_later_version(&world).await;
        drop(users);
        let users = world.start(Role::Users).await;
        Client::new(&users.url(), &wallet.url()).ready_user().await;
        drop(wallet);
        let wallet = world.start(Role::Wallet).await;
        follow(&with_ports(&settings, &users, &wallet), "roll-back").await;
        let client = Client::new(&users.url(), &wallet.url());
        client.ready_user().await;
        assert_eq!(client.post(&user, "credit", 1, None).await.status, 201);
        all_users_have_wallets(&world).await;
    }
}

/// Runs a section of the handbook.
async fn follow(settings: &BTreeMap<String, String>, mark: &str) {
    follow_in(Path::new("."), mark, settings, &[]).await;
}

/// The settings of roles that run, for a command that asks them.
fn with_ports(
    settings: &BTreeMap<String, String>,
    users: &RoleProcess,
    wallet: &RoleProcess,
) -> BTreeMap<String, String> {
    let mut settings = settings.clone();
    for (variable, process) in [("USERS_PORT", users), ("WALLET_PORT", wallet)] {
        let url = process.url();
        let (_, port) = url.rsplit_once(':').expect("a port");
        settings.insert(variable.to_owned(), port.to_owned());
    }
    settings
}

/// How much the sessions of one kind have done.
type Count = Arc<AtomicU64>;

/// A database session of a process of `before-0.1`, with its statements.
struct OlderSession {
    client: tokio_postgres::Client,
    running: Arc<AtomicBool>,
    done: Count,
}

impl OlderSession {
    async fn open(url: &str, running: &Arc<AtomicBool>, done: &Count) -> Self {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a session");
        tokio::spawn(async move { drop(connection.await) });
        Self { client, running: Arc::clone(running), done: Arc::clone(done) }
    }

    fn is_running(&self) -> bool {
        self.running.load(Ordering::Relaxed)
    }

    /// Credits of one cent, as the ledger writer writes them. Statements are prepared once per session.
    async fn credits(self, user: Uuid) -> Result<(), Error> {
        let client = &self.client;
        let lock =
            client.prepare("SELECT user_id FROM wallets WHERE user_id = ANY($1) ORDER BY user_id FOR UPDATE").await?;
        let heads = client
            .prepare(
                "SELECT wallet.user_id, last.seq, last.balance_after_minor, last.created_at, clock_timestamp() AS now
                 FROM unnest($1::uuid[]) AS wallet (user_id)
                 LEFT JOIN LATERAL (
                     SELECT seq, balance_after_minor, created_at FROM transactions
                     WHERE transactions.user_id = wallet.user_id ORDER BY seq DESC LIMIT 1
                 ) AS last ON true",
            )
            .await?;
        let insert = client
            .prepare(
                "INSERT INTO transactions (user_id, seq, id, type, amount_minor, balance_after_minor, description,
                                           idempotency_key, created_at)
                 SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::text[], $5::bigint[], $6::bigint[],
                                      $7::text[], $8::text[], $9::timestamptz[])",
            )
            .await?;
        while self.is_running() {
            client.batch_execute("BEGIN").await?;
            client.query(&lock, &[&vec![user]]).await?;
            let head = client.query_one(&heads, &[&vec![user]]).await?;
            let (seq, balance): (Option<i64>, Option<i64>) = (head.get("seq"), head.get("balance_after_minor"));
            let now: jiff::Timestamp = head.get("now");
            let columns: [&(dyn ToSql + Sync); 9] = [
                &vec![user],
                &vec![seq.unwrap_or(0) + 1],
                &vec![Uuid::now_v7()],
                &vec!["credit"],
                &vec![1_i64],
                &vec![balance.unwrap_or(0) + 1],
                &vec![None::<&str>],
                &vec![None::<&str>],
                &vec![now],
            ];
            client.execute(&insert, &columns).await?;
            client.batch_execute("COMMIT").await?;
            self.done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Registrations, without a client.
    async fn registrations(self) -> Result<(), Error> {
        let client = &self.client;
        let user = client
            .prepare(
                "INSERT INTO users (id, first_name, last_name, email, password_hash, created_at)
                 VALUES ($1, $2, $3, $4, $5, $6)",
            )
            .await?;
        let event = client
            .prepare(
                "INSERT INTO outbox (id, type, payload_json, request_id, traceparent)
                 VALUES ($1, $2, $3::text::json, $4, $5)",
            )
            .await?;
        let hash = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA";
        while self.is_running() {
            let id = Uuid::now_v7();
            let (email, body) = (format!("{id}@example.com"), format!(r#"{{"userId":"{id}"}}"#));
            let row: [&(dyn ToSql + Sync); 6] = [&id, &"Ada", &"Lovelace", &email, &hash, &jiff::Timestamp::now()];
            client.batch_execute("BEGIN").await?;
            client.execute(&user, &row).await?;
            client.execute(&event, &[&Uuid::now_v7(), &"UserRegistered", &body, &"older", &None::<&str>]).await?;
            client.batch_execute("COMMIT").await?;
            self.done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The relay: claims, publishes, and marks what was confirmed.
    async fn relay(self, world: Arc<World>) -> Result<(), Error> {
        let claim = self
            .client
            .prepare(
                "WITH due AS MATERIALIZED (
                     SELECT id FROM outbox
                     WHERE status = 'pending' AND next_attempt_at <= clock_timestamp()
                       AND (claimed_until IS NULL OR claimed_until < clock_timestamp())
                     ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED
                 )
                 UPDATE outbox SET claim_token = $1, claimed_until = clock_timestamp() + make_interval(secs => $2)
                 FROM due WHERE outbox.id = due.id
                 RETURNING outbox.id, type, payload_json::text AS payload, attempts, request_id, traceparent",
            )
            .await?;
        let publish = self
            .client
            .prepare(
                "UPDATE outbox SET status = 'published', published_at = clock_timestamp(),
                        claim_token = NULL, claimed_until = NULL
                 WHERE id = ANY($2) AND claim_token = $1",
            )
            .await?;
        while self.is_running() {
            let token = Uuid::now_v7();
            let rows = self.client.query(&claim, &[&token, &10.0_f64, &3_i64]).await?;
            let mut ids: Vec<Uuid> = Vec::new();
            for row in &rows {
                let (id, body): (Uuid, String) = (row.get("id"), row.get("payload"));
                let (exchange, key) = ("domain.events", "user.registered");
                world.broker.publish(exchange, key, body.as_bytes(), Some(&id.to_string()), &[]).await;
                ids.push(id);
            }
            let settled = self.client.execute(&publish, &[&token, &ids]).await?;
            self.done.fetch_add(settled, Ordering::Relaxed);
            if rows.is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }
}

/// Processes of one role of `before-0.1` that work until they are stopped: those of the wallet role credit, those of the users
/// role register and relay.
struct OlderProcesses {
    running: Arc<AtomicBool>,
    counts: Vec<Count>,
    tasks: Vec<JoinHandle<Result<(), Error>>>,
}

impl OlderProcesses {
    async fn wallet(world: &Arc<World>, user: &User) -> Self {
        let (running, count) = (Arc::new(AtomicBool::new(true)), Count::default());
        let ledger = OlderSession::open(&world.databases.wallet.runtime_url, &running, &count).await;
        let credits = tokio::spawn(ledger.credits(user.id.parse().expect("id")));
        Self { running, counts: vec![count], tasks: vec![credits] }
    }

    async fn users(world: &Arc<World>) -> Self {
        let (running, registered, relayed) = (Arc::new(AtomicBool::new(true)), Count::default(), Count::default());
        let database = &world.databases.users.runtime_url;
        let store = OlderSession::open(database, &running, &registered).await;
        let outbox = OlderSession::open(database, &running, &relayed).await;
        let tasks = vec![tokio::spawn(store.registrations()), tokio::spawn(outbox.relay(Arc::clone(world)))];
        Self { running, counts: vec![registered, relayed], tasks }
    }

    fn done(&self) -> Vec<u64> {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// Waits until each kind has done some more, or has failed.
    async fn go_on(&self, about: &str) {
        let before = self.done();
        eventually(PATIENCE, about, || async {
            let failed = self.tasks.iter().any(JoinHandle::is_finished);
            let more = self.done().iter().zip(&before).all(|(done, before)| *done >= before + 5);
            (more || failed).then_some(())
        })
        .await;
    }

    /// The number of credits or of registrations.
    async fn stop(mut self) -> u64 {
        self.running.store(false, Ordering::Relaxed);
        for task in self.tasks.drain(..) {
            task.await.expect("a task").expect("a statement of the older release");
        }
        self.done()[0]
    }

    /// Waits until a statement fails, and returns what was done before and the error.
    async fn fail(mut self) -> (u64, Error) {
        let task = self.tasks.remove(0);
        let ended = tokio::time::timeout(PATIENCE, task).await.expect("a statement fails").expect("a task");
        (self.done()[0], ended.expect_err("a statement fails"))
    }
}

/// Whether the error is that of a row without what the hash chain needs, or with the column that has moved.
fn is_about_the_columns(error: &Error) -> bool {
    [Some(&SqlState::NOT_NULL_VIOLATION), Some(&SqlState::UNDEFINED_COLUMN)].contains(&error.code())
}

#[tokio::test]
async fn users_processes_of_the_older_release_go_on_while_this_version_migrates_and_wallet_processes_write_nothing_more()
 {
    for release in Release::all() {
        let world = Arc::new(release.restored().await);
        world.broker.import_topology(&release.json("topology.json")).await;
        let user = users_of(&world).await.remove(0);
        let older = OlderProcesses::users(&world).await;
        let older_wallet = OlderProcesses::wallet(&world, &user).await;
        older.go_on("the older users role serves").await;
        older_wallet.go_on("the older wallet role serves").await;
        let (_users, _wallet, client) = world.both().await;
        let (older_credits, refused) = older_wallet.fail().await;
        assert!(is_about_the_columns(&refused), "{refused:?}");
        older.go_on("the older users role serves while this version does").await;
        for n in 0..20 {
            let credited = client.post(&user, "credit", 1, Some(&format!("key-{n}"))).await;
            assert_eq!(credited.status, 201, "{credited:?}");
        }
        client.ready_user().await;
        // Older processes may also start later, on the migrated database.
        let late = OlderProcesses::users(&world).await;
        late.go_on("an older users role starts on the migrated database").await;
        let (late_credits, refused) = OlderProcesses::wallet(&world, &user).await.fail().await;
        assert!(late_credits == 0 && is_about_the_columns(&refused), "{late_credits}, {refused:?}");
        let (late_users, older_users) = (late.stop().await, older.stop().await);
        all_events_are_published(&world).await;
        all_users_have_wallets(&world).await;
        let credits = older_credits + 20;
        assert_eq!(client.balance(&user).await, i64::try_from(70 + credits).expect("small"));
        assert_eq!(world.sql(Role::Wallet, "SELECT count(*) FROM transactions").await, (2 + credits).to_string());
        let registered = (3 + older_users + late_users + 1).to_string();
        assert_eq!(world.sql(Role::Users, "SELECT count(*) FROM users").await, registered);
        assert_ledger_is_consistent(&world).await;
    }
}

/// Without the type of classic queues: to the broker it is the same whether that was declared.
fn without_classic_types(mut topology: Value) -> Value {
    for queue in topology["queues"].as_array_mut().expect("queues") {
        let arguments = queue["arguments"].as_object_mut().expect("arguments");
        arguments.retain(|name, value| name != "x-queue-type" || value != "classic");
    }
    topology
}

/// Whichever release declares first: the broker would refuse a difference.
#[tokio::test]
async fn this_version_declares_the_topology_of_each_release() {
    let world = World::new().await;
    let (_users, _wallet, _client) = world.both().await;
    for release in Release::all() {
        let older = release.json("topology.json");
        assert_eq!(
            without_classic_types(world.broker.topology().await),
            without_classic_types(older.clone()),
            "{}",
            release.0.display()
        );
        // This version starts on what the release has declared, and is not degraded.
        let other = World::new().await;
        other.broker.import_topology(&older).await;
        let (_users, _wallet, client) = other.both().await;
        client.ready_user().await;
        assert_eq!(other.broker.topology().await, older, "{}", release.0.display());
    }
}

/// Header and claims of the signature of an event.
fn signature(event: &Value) -> (Value, Value) {
    let text = event["headers"]["x-signature"].as_str().expect("a signature");
    let mut parts = text.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).expect("base64"));
    let mut json = || serde_json::from_slice(&parts.next().expect("a part")).expect("JSON");
    (json(), json())
}

/// The names of everything that a reader finds in an event.
fn form(event: &Value) -> Vec<Vec<String>> {
    let names = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    let body: Value = serde_json::from_str(event["body"].as_str().expect("text")).expect("JSON");
    let (header, claims) = signature(event);
    vec![names(&event["headers"]), names(&body), names(&header), names(&claims)]
}

/// The next event from the queue `tap`.
async fn tapped_event(world: &World) -> Value {
    let message = eventually(PATIENCE, "the event", || async { world.broker.take("tap").await }).await;
    json!({"id": message.id, "headers": message.headers, "body": String::from_utf8(message.body).expect("text")})
}

#[tokio::test]
async fn events_of_each_release_are_provisioned_and_those_of_this_version_have_no_other_form() {
    for release in Release::all() {
        let world = World::new().await;
        let _wallet = world.start_with(Role::Wallet, &[("REQUIRE_SIGNED_EVENTS", "true")]).await;
        let older = release.json("event.json");
        let headers: BTreeMap<String, String> = serde_json::from_value(older["headers"].clone()).expect("headers");
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let (body, id) = (older["body"].as_str().expect("text"), older["id"].as_str());
        world.broker.publish("domain.events", "user.registered", body.as_bytes(), id, &headers).await;
        let user = signature(&older).1["sub"].clone();
        eventually(PATIENCE, "a wallet", || async {
            (world.sql(Role::Wallet, "SELECT user_id FROM wallets").await == user).then_some(())
        })
        .await;
        assert_eq!(world.broker.depth(DEAD).await, Some(0));

        world.broker.tap("tap", "domain.events", "user.registered").await;
        let users = world.start(Role::Users).await;
        Client::new(&users.url(), &users.url()).user().await;
        let event = tapped_event(&world).await;
        assert_eq!(form(&event), form(&older), "a wallet role of the release would read another event");
        let constants = |event: &Value| {
            let (header, claims) = signature(event);
            (header, claims["iss"].clone(), claims["aud"].clone())
        };
        assert_eq!(constants(&event), constants(&older));
    }
}

async fn register(client: &Client, name: &str) -> User {
    let registered = client.register(&format!("{name}@example.com")).await;
    Client::registered_user(&registered).unwrap_or_else(|| panic!("{registered:?}"))
}

/// Runs both roles, and writes what they leave behind.
async fn capture(release: &Release) {
    let world = World::new().await;
    let (users, wallet, client) = world.both().await;
    release.write("topology.json", &format!("{:#}\n", world.broker.topology().await));
    world.broker.tap("tap", "domain.events", "user.registered").await;
    let ada = register(&client, "ada").await;
    release.write("event.json", &format!("{:#}\n", tapped_event(&world).await));
    let grace = register(&client, "grace").await;
    for user in [&ada, &grace] {
        assert_eq!(client.get(user, "/v1/wallet/status?wait=30").await.status, 200);
    }
    let keyed = json!({"amountMinor": 100, "description": "first"});
    assert_eq!(client.send(client.post_request(&ada, "credit", &keyed, Some("order-1"))).await.status, 201);
    assert_eq!(client.post(&ada, "debit", 30, None).await.status, 201);
    all_events_are_published(&world).await;
    // The event of the last user is returned as unroutable, and stays pending.
    drop(wallet);
    for queue in ["tap", QUEUE] {
        world.broker.delete_queue(queue).await;
    }
    register(&client, "alan").await;
    eventually(PATIENCE, "the event is refused", || async {
        let refused = "SELECT count(*) FROM outbox WHERE status = 'pending' AND attempts > 0 AND claim_token IS NULL";
        (world.sql(Role::Users, refused).await == "1").then_some(())
    })
    .await;
    drop(users);
    for role in Role::ALL {
        release.write(&format!("{role}.sql"), &dump(&world, role, &[]).await);
    }
}

#[tokio::test]
async fn this_release_leaves_behind_what_the_next_one_can_use() {
    let given = std::env::var_os("PURSE_FIXTURE").map(PathBuf::from);
    let temporary = std::env::temp_dir().join(format!("purse-release-{}", std::process::id()));
    let release = Release(given.clone().unwrap_or(temporary));
    fs::create_dir_all(&release.0).expect("a folder");
    capture(&release).await;
    let world = release.restored().await;
    world.broker.import_topology(&release.json("topology.json")).await;
    let (_users, _wallet, client) = world.both().await;
    serves_what_the_release_left(&world, &client).await;
    if given.is_none() {
        fs::remove_dir_all(&release.0).expect("removed");
    }
}
