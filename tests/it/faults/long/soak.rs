//! Minutes of random faults under load, with two processes per role. One of them is killed and restarted; the other one
//! must end with the memory, descriptors and threads that it had.

use std::time::{Duration, Instant};

use fastrand::Rng;
use purse::kernel::Role;
use purse_dev::{Action, Server};
use rustix::process::Signal;

use super::super::history::History;
use super::super::invariants::assert_invariants;
use super::super::load::{Load, seed};
use super::super::proxy::{Flow, Proxy};
use super::print_measurement;
use crate::support::{Client, Outages, PATIENCE, RoleProcess, User, World, eventually, free_port};

/// Permitted growth between warm-up and end.
const MEMORY_GROWTH_MIB_MAX: u64 = 24;

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
}

const FAULTS: [Fault; 16] = [
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
}

impl Soak {
    async fn begin() -> Self {
        let outages = Outages::begin().await;
        let world = World::on(outages.servers).await;
        let (postgres, rabbitmq) =
            (Proxy::start(world.addresses.postgres_port).await, Proxy::start(world.addresses.amqp_port).await);
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
        Self { outages, world, killed_users, killed_wallet, users, wallet, ports, postgres, rabbitmq }
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
        }
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
    eventually(PATIENCE, "the processes have their six connections and no more", || async {
        (soak.world.broker.connections().await == 6).then_some(())
    })
    .await;
}
