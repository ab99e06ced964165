//! Kills under load (FR-19, FR-20, FR-24, FR-25, FM-06): nothing is lost or duplicated, and recovery is quick.

use std::time::Duration;

use purse::kernel::Role;
use purse_dev::{Action, Server};

use super::super::history::History;
use super::super::invariants::assert_invariants_within;
use super::super::load::{Load, seed};
use super::print_measurement;
use crate::support::{Client, Outages, RoleProcess, User, World, free_port};

/// Within this time after the last kill nothing is in flight.
const QUIET_MAX: Duration = Duration::from_secs(15);

/// Both roles on fixed ports, so that they can be restarted, with clients that register and post.
struct LoadedSystem {
    world: World,
    history: History,
    users: RoleProcess,
    wallet: RoleProcess,
    ports: (u16, u16),
    client: Client,
    load: Load,
}

impl LoadedSystem {
    async fn start(world: World) -> Self {
        let (history, ports) = (History::default(), (free_port(), free_port()));
        let users = world.start_on(Role::Users, ports.0, &[]).await;
        let wallet = world.start_on(Role::Wallet, ports.1, &[]).await;
        let client = Client::new(&users.url(), &wallet.url());
        let mut owners: Vec<User> = Vec::new();
        for _ in 0..10 {
            owners.push(client.ready_user().await);
        }
        let load = Load::start(&history, std::slice::from_ref(&client), &owners, 8, seed());
        Self { world, history, users, wallet, ports, client, load }
    }

    /// Stops the load and checks the invariants. Returns both processes.
    async fn finish(self, faults: &str) -> [RoleProcess; 2] {
        self.load.stop().await;
        let quiet = assert_invariants_within(QUIET_MAX, &self.world, &self.history, &self.client).await;
        print_measurement(faults, &self.history, quiet);
        [self.users, self.wallet]
    }
}

#[tokio::test]
async fn fr_24_twenty_kills_of_the_users_role_under_load_lose_nothing() {
    let mut system = LoadedSystem::start(World::new().await).await;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        system.users.kill().await;
        system.users = system.world.start_on(Role::Users, system.ports.0, &[]).await;
    }
    system.finish("20 kills of users in 20 s").await;
}

#[tokio::test]
async fn fr_24_twenty_kills_of_the_wallet_role_under_load_lose_nothing() {
    let mut system = LoadedSystem::start(World::new().await).await;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        system.wallet.kill().await;
        system.wallet = system.world.start_on(Role::Wallet, system.ports.1, &[]).await;
    }
    system.finish("20 kills of wallet in 20 s").await;
}

#[tokio::test]
async fn fm_06_four_kills_of_postgresql_under_load_lose_nothing() {
    let outages = Outages::begin().await;
    let system = LoadedSystem::start(World::on(outages.servers).await).await;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        outages.act(Server::Postgres, Action::Kill).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        outages.act(Server::Postgres, Action::Start).await;
    }
    assert_no_panic(&system.finish("4 kills of PostgreSQL").await);
}

#[tokio::test]
async fn fr_19_and_20_four_kills_of_rabbitmq_under_load_lose_nothing() {
    let outages = Outages::begin().await;
    let system = LoadedSystem::start(World::on(outages.servers).await).await;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        outages.act(Server::RabbitMq, Action::Kill).await;
        outages.act(Server::RabbitMq, Action::Start).await;
    }
    assert_no_panic(&system.finish("4 kills of RabbitMQ").await);
}

#[tokio::test]
async fn fr_25_killing_everything_at_once_under_load_loses_nothing() {
    let outages = Outages::begin().await;
    let mut system = LoadedSystem::start(World::on(outages.servers).await).await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        tokio::join!(
            async {
                outages.act(Server::Postgres, Action::Kill).await;
                outages.act(Server::RabbitMq, Action::Kill).await;
            },
            system.users.kill(),
            system.wallet.kill(),
        );
        outages.act(Server::Postgres, Action::Start).await;
        system.users = system.world.start_on(Role::Users, system.ports.0, &[]).await;
        system.wallet = system.world.start_on(Role::Wallet, system.ports.1, &[]).await;
        outages.act(Server::RabbitMq, Action::Start).await;
    }
    system.finish("3 kills of everything at once").await;
}

/// P1.
fn assert_no_panic(processes: &[RoleProcess]) {
    for process in processes {
        assert_eq!(process.logged("panicked").len(), 0, "{}", process.output());
    }
}
