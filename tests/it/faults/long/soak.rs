//! Minutes of random faults under load, with two processes per role. One of them is killed and restarted; the other one
//! must end with the memory, descriptors and threads that it had.

use std::time::{Duration, Instant};

use fastrand::Rng;
use purse::kernel::Role;
use purse_dev::{Action, Server};
use rustix::process::Signal;
use tokio::time::timeout;

use super::super::history::History;
use super::super::invariants::assert_invariants;
use super::super::load::{Load, seed};
use super::super::proxy::{Flow, Proxy};
use super::print_measurement;
use crate::support::amqp_proxy::{CONFIRM_SELECT_OK, CONSUME_OK, QUEUE_DECLARE_OK};
use crate::support::{AmqpProxy, Client, Outages, PATIENCE, Raw, RoleProcess, User, World, eventually, free_port};

/// Permitted growth between warm-up and end.
const MEMORY_GROWTH_MIB_MAX: u64 = 24;

const DEAD_LETTERS: &str = "wallet.provision.dlq";
/// Longer than a role waits for a reply.
const REPLY_WITHHELD: Duration = Duration::from_secs(6);
/// Clients of each role that do not read.
const CLIENTS: usize = 100;
const UNREAD: &str = "GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n";

fn length() -> Duration {
    let seconds = std::env::var("SOAK_S").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(300);
    Duration::from_secs(seconds)
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    KillUsers,
    KillWallet,
    FreezeUsers,
    FreezeWallet,
    KillPostgres,
    KillRabbitMq,
    HangPostgres,
    HangRabbitMq,
    SilentPostgres,
    SilentRabbitMq,
    ResetPostgres,
    ResetRabbitMq,
    SlowNetworks,
    DeletedQueue,
    DeletedExchange,
    DeletedBinding,
    OtherDeadLetterQueue,
    FullQueue,
    WithheldReplies,
    ReadOnlyDatabases,
    ClosedDatabases,
    ShortStatements,
    LockedTables,
    FullLog,
    UnreadResponses,
    IdleConnections,
}

const FAULTS: [Fault; 26] = [
    Fault::KillUsers,
    Fault::KillWallet,
    Fault::FreezeUsers,
    Fault::FreezeWallet,
    Fault::KillPostgres,
    Fault::KillRabbitMq,
    Fault::HangPostgres,
    Fault::HangRabbitMq,
    Fault::SilentPostgres,
    Fault::SilentRabbitMq,
    Fault::ResetPostgres,
    Fault::ResetRabbitMq,
    Fault::SlowNetworks,
    Fault::DeletedQueue,
    Fault::DeletedExchange,
    Fault::DeletedBinding,
    Fault::OtherDeadLetterQueue,
    Fault::FullQueue,
    Fault::WithheldReplies,
    Fault::ReadOnlyDatabases,
    Fault::ClosedDatabases,
    Fault::ShortStatements,
    Fault::LockedTables,
    Fault::FullLog,
    Fault::UnreadResponses,
    Fault::IdleConnections,
];

/// The processes that are killed, the ones that are not, and the proxies between these and the servers.
struct Soak {
    outages: Outages,
    world: World,
    killed_users: RoleProcess,
    killed_wallet: RoleProcess,
    users: RoleProcess,
    wallet: RoleProcess,
    ports: (u16, u16),
    postgres: Proxy,
    rabbitmq: Proxy,
    /// Between `rabbitmq` and the broker.
    replies: AmqpProxy,
}

impl Soak {
    async fn begin() -> Self {
        let outages = Outages::begin().await;
        let world = World::on(outages.servers).await;
        let replies = AmqpProxy::start(world.addresses.amqp_port).await;
        let (postgres, rabbitmq) =
            (Proxy::start(world.addresses.postgres_port).await, Proxy::start(replies.port()).await);
        let ports = (free_port(), free_port());
        let killed_users = world.start_on(Role::Users, ports.0, &[]).await;
        let killed_wallet = world.start_on(Role::Wallet, ports.1, &[]).await;
        let broker = rabbitmq.url(&world.broker.url());
        let database = postgres.url(&world.databases.users.runtime_url);
        let users =
            world.start_with(Role::Users, &[("RABBITMQ_URL", &broker), ("USERS_DATABASE_URL", &database)]).await;
        let database = postgres.url(&world.databases.wallet.runtime_url);
        let wallet =
            world.start_with(Role::Wallet, &[("RABBITMQ_URL", &broker), ("WALLET_DATABASE_URL", &database)]).await;
        Self { outages, world, killed_users, killed_wallet, users, wallet, ports, postgres, rabbitmq, replies }
    }

    fn clients(&self) -> [Client; 2] {
        [(&self.killed_users, &self.killed_wallet), (&self.users, &self.wallet)]
            .map(|(users, wallet)| Client::new(&users.url(), &wallet.url()))
    }

    /// Restarts what it kills and resumes what it pauses; what it deletes stays deleted.
    async fn inject(&mut self, fault: Fault, rng: &mut Rng) {
        let span = Duration::from_millis(rng.u64(500..4000));
        match fault {
            Fault::KillUsers => {
                self.killed_users.signal(Signal::KILL);
                // Its port is free only after its exit.
                self.killed_users.exited().await;
                self.killed_users = self.world.start_on(Role::Users, self.ports.0, &[]).await;
            }
            Fault::KillWallet => {
                self.killed_wallet.signal(Signal::KILL);
                // Its port is free only after its exit.
                self.killed_wallet.exited().await;
                self.killed_wallet = self.world.start_on(Role::Wallet, self.ports.1, &[]).await;
            }
            Fault::FreezeUsers => freeze(&self.users, span).await,
            Fault::FreezeWallet => freeze(&self.wallet, span).await,
            Fault::KillPostgres => self.outage(Server::Postgres, Action::Kill, Action::Start, span).await,
            Fault::KillRabbitMq => self.outage(Server::RabbitMq, Action::Kill, Action::Start, span).await,
            Fault::HangPostgres => self.outage(Server::Postgres, Action::Pause, Action::Resume, span).await,
            Fault::HangRabbitMq => self.outage(Server::RabbitMq, Action::Pause, Action::Resume, span).await,
            Fault::SilentPostgres => degrade(&self.postgres, Flow::SILENT, span).await,
            Fault::SilentRabbitMq => degrade(&self.rabbitmq, Flow::SILENT, span).await,
            Fault::ResetPostgres => self.postgres.reset_connections(),
            Fault::ResetRabbitMq => self.rabbitmq.reset_connections(),
            Fault::SlowNetworks => {
                let slow = Flow::latency(Duration::from_millis(rng.u64(1..50)));
                tokio::join!(degrade(&self.postgres, slow, span), degrade(&self.rabbitmq, Flow::chunks(7), span));
            }
            Fault::DeletedQueue => self.world.broker.delete_queue_if_empty("wallet.provision").await,
            Fault::DeletedExchange => self.world.broker.delete_exchange("domain.events").await,
            Fault::DeletedBinding => {
                self.world.broker.unbind("wallet.provision", "domain.events", "user.registered").await;
            }
            Fault::OtherDeadLetterQueue => {
                // Dead letters are not lost: no event of this test becomes one.
                self.world.broker.recreate_with_other_arguments(DEAD_LETTERS).await;
                tokio::time::sleep(span).await;
                self.world.broker.delete_queue_if_empty(DEAD_LETTERS).await;
            }
            Fault::FullQueue => {
                self.world.broker.limit_length("wallet.provision", 0).await;
                tokio::time::sleep(span).await;
                self.world.broker.unlimit_length().await;
            }
            Fault::WithheldReplies => {
                for reply in [CONSUME_OK, QUEUE_DECLARE_OK, CONFIRM_SELECT_OK] {
                    self.replies.hold(reply, 1, REPLY_WITHHELD);
                }
                self.replies.reset();
                tokio::time::sleep(REPLY_WITHHELD + span).await;
                self.replies.hold_nothing();
            }
            Fault::ReadOnlyDatabases => {
                self.database_setting("SET default_transaction_read_only = on", span).await;
                self.world.for_both_databases(r#"ALTER DATABASE "{}" RESET default_transaction_read_only"#).await;
            }
            Fault::ClosedDatabases => {
                self.database_setting("WITH ALLOW_CONNECTIONS false", span).await;
                self.world.for_both_databases(r#"ALTER DATABASE "{}" WITH ALLOW_CONNECTIONS true"#).await;
            }
            Fault::ShortStatements => {
                self.database_setting("SET statement_timeout = '5ms'", span).await;
                self.world.for_both_databases(r#"ALTER DATABASE "{}" RESET statement_timeout"#).await;
            }
            Fault::LockedTables => {
                let lock =
                    |table| format!("BEGIN; LOCK TABLE {table}; SELECT pg_sleep({}); COMMIT", span.as_secs_f64());
                let (events, entries) = (lock("outbox"), lock("transactions"));
                tokio::join!(self.world.sql(Role::Users, &events), self.world.sql(Role::Wallet, &entries));
            }
            Fault::FullLog => {
                for process in [&self.users, &self.wallet] {
                    process.pause_reading(true);
                }
                tokio::time::sleep(span).await;
                for process in [&self.users, &self.wallet] {
                    process.pause_reading(false);
                }
            }
            Fault::UnreadResponses => self.connect_clients(&UNREAD.repeat(200), span).await,
            Fault::IdleConnections => self.connect_clients("GET ", span).await,
        }
    }

    /// Applies a setting, with sessions that were opened under it.
    async fn database_setting(&self, setting: &str, span: Duration) {
        self.world.for_both_databases(&format!(r#"ALTER DATABASE "{{}}" {setting}"#)).await;
        self.world.terminate_sessions().await;
        tokio::time::sleep(span).await;
    }

    /// Clients that send this and read nothing.
    async fn connect_clients(&self, request: &str, span: Duration) {
        let mut open = Vec::new();
        for process in [&self.users, &self.wallet] {
            for _ in 0..CLIENTS {
                let mut raw = Raw::connect(&process.url()).await;
                // The server stops reading before it has everything.
                drop(timeout(Duration::from_millis(20), raw.send(request)).await);
                open.push(raw);
            }
        }
        tokio::time::sleep(span).await;
    }

    async fn outage(&self, server: Server, begin: Action, end: Action, span: Duration) {
        self.outages.act(server, begin).await;
        tokio::time::sleep(span).await;
        self.outages.act(server, end).await;
    }
}

async fn freeze(process: &RoleProcess, span: Duration) {
    process.signal(Signal::STOP);
    tokio::time::sleep(span).await;
    process.signal(Signal::CONT);
}

async fn degrade(proxy: &Proxy, flow: Flow, span: Duration) {
    proxy.both(flow);
    tokio::time::sleep(span).await;
    proxy.both(Flow::default());
}

#[tokio::test]
async fn soak() {
    let (mut soak, history, seed) = (Soak::begin().await, History::default(), seed());
    let mut rng = Rng::with_seed(seed);
    let clients = soak.clients();
    let mut owners: Vec<User> = Vec::new();
    for _ in 0..20 {
        owners.push(clients[0].ready_user().await);
    }
    let load = Load::start(&history, &clients, &owners, 8, seed);
    // Warm-up: fills buffers and caches.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let before = [&soak.users, &soak.wallet].map(|role| (role.memory_kib(), role.descriptors(), role.threads()));
    let (began, mut faults) = (Instant::now(), 0);
    while began.elapsed() < length() {
        let fault = FAULTS[rng.usize(..FAULTS.len())];
        println!("{:>6.1} s {fault:?}", began.elapsed().as_secs_f64());
        soak.inject(fault, &mut rng).await;
        faults += 1;
        tokio::time::sleep(Duration::from_millis(rng.u64(500..5000))).await;
    }
    load.stop().await;
    let client = Client::new(&soak.users.url(), &soak.wallet.url());
    let quiet = assert_invariants(&soak.world, &history, &client).await;
    print_measurement(&format!("soak of {} s, {faults} faults", length().as_secs()), &history, quiet);
    for (role, (memory, descriptors, threads)) in [&soak.users, &soak.wallet].into_iter().zip(before) {
        role.ready().await;
        eventually(PATIENCE, "descriptors and threads are as before", || async {
            (role.descriptors() <= descriptors + 16 && role.threads() <= threads + 2).then_some(())
        })
        .await;
        let grown = role.memory_kib().saturating_sub(memory) / 1024;
        println!("measured: memory {} MiB, {grown} MiB more than after the warm-up", role.memory_kib() / 1024);
        assert!(grown <= MEMORY_GROWTH_MIB_MAX, "{grown} MiB more than after the warm-up");
        assert_eq!(role.logged("panicked").len(), 0, "{}", role.output());
    }
    eventually(PATIENCE, "nothing is unacknowledged", || async {
        (soak.world.broker.unacked().await == 0).then_some(())
    })
    .await;
    eventually(PATIENCE, "the processes have their eight connections and no more", || async {
        (soak.world.broker.connections().await == 8).then_some(())
    })
    .await;
}
