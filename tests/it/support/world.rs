//! The isolated environment of one test: two databases and a virtual host on servers that all tests share.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use purse::kernel::Role;
use purse_dev::{Action, Durability, RoleDatabases, Server, ServerAddresses, TestServers};
use uuid::Uuid;

use super::process::RoleProcess;
use super::{Broker, Client, PrivatePostgres, shards};

pub const PURSE: &str = env!("CARGO_BIN_EXE_purse");

/// False in a benchmark, which uses this module too and runs with the deployed log level.
pub const TEST: bool = matches!(env!("CARGO_CRATE_NAME").as_bytes(), b"it");
const LOG_LEVEL: &str = if TEST { "trace" } else { "info" };

/// The servers of this run. They stop when this process ends, however it ends.
static SHARED: OnceLock<TestServers> = OnceLock::new();
/// Servers for the tests that stop them, one such test at a time. Durable: a commit must survive a kill.
static OUTAGES: OnceLock<TestServers> = OnceLock::new();
static OUTAGE_TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
static COUNTER: AtomicU32 = AtomicU32::new(0);

fn started(servers: &'static OnceLock<TestServers>, durability: Durability) -> &'static TestServers {
    servers.get_or_init(|| {
        // The message includes the command that installs what is missing.
        TestServers::start(durability).unwrap_or_else(|e| panic!("the tests need PostgreSQL and RabbitMQ: {e}"))
    })
}

/// Kills a role too when this process is killed.
pub fn kill_with_us(pid: u32) {
    if let Some(servers) = SHARED.get().or_else(|| OUTAGES.get()) {
        servers.kill_with_us(pid, PURSE).expect("recorded");
    }
}

/// Servers that a test may stop. While one test has them, no other test that stops servers runs.
pub struct Outages {
    pub servers: &'static TestServers,
    _turn: tokio::sync::MutexGuard<'static, ()>,
}

impl Outages {
    /// Waits until no other test has the servers, and starts them if necessary.
    pub async fn begin() -> Self {
        let turn = OUTAGE_TURN.lock().await;
        let servers = tokio::task::spawn_blocking(|| started(&OUTAGES, Durability::Stock)).await.expect("servers");
        Self { servers, _turn: turn }
    }

    pub async fn rabbitmqctl(&self, arguments: &'static [&'static str]) {
        let servers = self.servers;
        let done = tokio::task::spawn_blocking(move || servers.rabbitmqctl(arguments)).await.expect("thread");
        done.unwrap_or_else(|e| panic!("{arguments:?}: {e}"));
    }

    pub async fn act(&self, server: Server, action: Action) {
        let servers = self.servers;
        let done = tokio::task::spawn_blocking(move || servers.command(server, action)).await.expect("thread");
        done.unwrap_or_else(|e| panic!("{server:?} {action:?}: {e}"));
    }
}

/// A free port below the ephemeral range, so that no outgoing connection takes it while a role restarts on it.
pub fn free_port() -> u16 {
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(|| fastrand::u16(20_000..32_000)).find(free).expect("endless")
}

pub struct World {
    pub addresses: ServerAddresses,
    pub databases: RoleDatabases,
    pub broker: Broker,
    /// Whether the shards are on workers of Citus, where their tables cannot have a parent: the tests' own SQL reads copies.
    pub copies_shards: bool,
}

impl World {
    pub async fn new() -> Self {
        let servers = tokio::task::spawn_blocking(|| started(&SHARED, Durability::Off)).await.expect("servers");
        Self::on(servers).await
    }

    /// On servers that the test may stop.
    pub async fn on(servers: &TestServers) -> Self {
        let name = format!("t{}_{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let addresses = servers.addresses().clone();
        let (for_databases, prefix) = (addresses.clone(), name.clone());
        let databases = tokio::task::spawn_blocking(move || for_databases.create_role_databases(&prefix));
        let databases = databases.await.expect("thread").unwrap_or_else(|e| panic!("databases: {e}"));
        let broker = Broker::with_virtual_host(&addresses, &name).await;
        let world = Self { addresses, databases, broker, copies_shards: false };
        world.search_all_shards().await;
        world
    }

    async fn search_all_shards(&self) {
        if shards::shards() > 1 && !self.copies_shards {
            self.administer(&shards::search_path(self)).await;
        }
    }

    /// Once the wallet database is set up, the tests' own SQL sees all shards.
    async fn unite_shards(&self) {
        if shards::shards() > 1 && !self.copies_shards {
            let (addresses, database) = (self.addresses.clone(), self.databases.wallet.database.clone());
            let united = tokio::task::spawn_blocking(move || addresses.psql(&database, &shards::unite()));
            united.await.expect("thread").unwrap_or_else(|e| panic!("psql: {e}"));
        }
    }

    /// Uses new databases on another PostgreSQL server instead.
    pub async fn move_to(&mut self, server: &PrivatePostgres) {
        self.addresses.postgres_port = server.port();
        let (addresses, prefix) = (self.addresses.clone(), "private".to_owned());
        let databases = tokio::task::spawn_blocking(move || addresses.create_role_databases(&prefix));
        self.databases = databases.await.expect("thread").unwrap_or_else(|e| panic!("databases: {e}"));
        self.search_all_shards().await;
    }

    /// The role's settings. Rate limits are disabled because they have tests of their own; everything is logged because
    /// every log is scanned for secrets.
    pub fn settings(&self, role: Role) -> BTreeMap<String, String> {
        let database = match role {
            Role::Users => &self.databases.users,
            Role::Wallet => &self.databases.wallet,
        };
        let prefix = role.as_str().to_uppercase();
        [
            (format!("{prefix}_DATABASE_URL"), database.runtime_url.clone()),
            (format!("{prefix}_MIGRATION_DATABASE_URL"), database.migration_url.clone()),
            (format!("{prefix}_PORT"), "0".to_owned()),
            ("HOST".to_owned(), "127.0.0.1".to_owned()),
            ("RABBITMQ_URL".to_owned(), self.broker.url()),
            ("JWT_PRIVATE_KEY".to_owned(), "ILIACHALLENGE".to_owned()),
            ("INTERNAL_JWT_PRIVATE_KEY".to_owned(), "ILIACHALLENGE_INTERNAL".to_owned()),
            ("RATE_LIMIT_ENABLED".to_owned(), "false".to_owned()),
            ("LOG_FORMAT".to_owned(), "json".to_owned()),
            ("LOG_LEVEL".to_owned(), LOG_LEVEL.to_owned()),
        ]
        .into()
    }

    /// Starts a role and waits until it is ready.
    pub async fn start(&self, role: Role) -> RoleProcess {
        self.start_with(role, &[]).await
    }

    /// The same, with some settings changed.
    pub async fn start_with(&self, role: Role, changed: &[(&str, &str)]) -> RoleProcess {
        let process = self.spawn(role, changed).await;
        process.ready().await;
        process
    }

    /// Starts a role and waits until it listens.
    pub async fn spawn(&self, role: Role, changed: &[(&str, &str)]) -> RoleProcess {
        let mut settings = self.settings(role);
        settings.extend(changed.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        let mut process = RoleProcess::spawn(&["--role", role.as_str()], &settings);
        process.listening().await;
        if role == Role::Wallet {
            self.unite_shards().await;
        }
        process
    }

    /// Starts a role on this port, so that a later process can take it over.
    pub async fn start_on(&self, role: Role, port: u16, changed: &[(&str, &str)]) -> RoleProcess {
        let variable = format!("{}_PORT", role.as_str().to_uppercase());
        self.spawn(role, &[changed, &[(variable.as_str(), port.to_string().as_str())]].concat()).await
    }

    /// Starts a role with these fault points, and waits until it listens.
    pub async fn spawn_with_failpoints(&self, role: Role, points: &str, changed: &[(&str, &str)]) -> RoleProcess {
        self.spawn(role, &[changed, &[("FAILPOINTS", points)]].concat()).await
    }

    /// Starts both roles and returns them with a client.
    pub async fn both(&self) -> (RoleProcess, RoleProcess, Client) {
        let (users, wallet) = tokio::join!(self.start(Role::Users), self.start(Role::Wallet));
        let client = Client::new(&users.url(), &wallet.url());
        (users, wallet, client)
    }

    /// Publishes an unsigned `UserRegistered` event for `user`.
    pub async fn publish_event(&self, user: Uuid, message_id: &str) {
        let body = format!(r#"{{"userId":"{user}"}}"#);
        self.broker.publish("domain.events", "user.registered", body.as_bytes(), Some(message_id), &[]).await;
    }

    /// From now on, commits to a role's database wait for a synchronous standby, which does not exist. Open sessions are
    /// ended, so that the setting applies to the next ones.
    pub async fn wait_for_standby(&self, role: Role) {
        // For the whole server, but its default is `synchronous_commit = off`, which waits for nothing.
        self.sql(role, "ALTER SYSTEM SET synchronous_standby_names = 'missing'").await;
        self.sql(role, "SELECT pg_reload_conf()").await;
        self.change_database(role, "SET synchronous_commit = on").await;
    }

    /// Ends the waiting commits, which then succeed, and those to come.
    pub async fn wait_for_no_standby(&self, role: Role) {
        self.change_database(role, "RESET synchronous_commit").await;
    }

    async fn change_database(&self, role: Role, change: &str) {
        let script = format!(
            "SET synchronous_commit = off;
             DO $$ BEGIN EXECUTE format('ALTER DATABASE %I {change}', current_database()); END $$;
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        );
        self.sql(role, &script).await;
    }

    /// Runs SQL on a role's database as the superuser. Columns are separated by `|`, rows by line breaks.
    pub async fn sql(&self, role: Role, script: &str) -> String {
        let database = match role {
            Role::Users => self.databases.users.database.clone(),
            Role::Wallet => self.databases.wallet.database.clone(),
        };
        let script = match role {
            Role::Wallet if self.copies_shards => format!("{}{script}", shards::copy()),
            Role::Wallet if shards::shards() > 1 => format!("{}{}", shards::unite(), shards::in_each_shard(script)),
            _ => script.to_owned(),
        };
        let addresses = self.addresses.clone();
        let printed = tokio::task::spawn_blocking(move || addresses.psql(&database, &script)).await.expect("thread");
        printed.unwrap_or_else(|e| panic!("psql: {e}")).trim().to_owned()
    }

    /// Runs SQL in the maintenance database, where the settings of the role databases do not apply.
    pub async fn administer(&self, script: &str) {
        let (addresses, script) = (self.addresses.clone(), script.to_owned());
        let done = tokio::task::spawn_blocking(move || addresses.psql("postgres", &script)).await.expect("thread");
        done.unwrap_or_else(|e| panic!("psql: {e}"));
    }

    pub fn database_names(&self) -> [&str; 2] {
        [&self.databases.users.database, &self.databases.wallet.database]
    }

    /// Runs this statement for both databases; `{}` is the name of the database.
    pub async fn for_both_databases(&self, statement: &str) {
        for database in self.database_names() {
            self.administer(&statement.replace("{}", database)).await;
        }
    }

    /// Terminates all sessions of both databases.
    pub async fn terminate_sessions(&self) {
        let [users, wallet] = self.database_names();
        let terminate = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname IN ('{users}', '{wallet}') AND pid <> pg_backend_pid()"
        );
        self.administer(&terminate).await;
    }
}
