//! Kills under load (FR-24, FR-25): nothing lost, nothing doubled, one wallet a user, and quiet soon after.

use std::time::Duration;

use purse::kernel::Role;
use purse_dev::{Action, Server};

use super::super::history::History;
use super::super::invariants::hold;
use super::super::load::{Load, seed};
use super::measured;
use crate::support::{Client, Outages, RoleProcess, User, World, free_port};

/// After healing the backlog is to be gone within this.
const HEALED: Duration = Duration::from_secs(15);

/// Both roles on ports that stay theirs, some people with money, and clients at work.
struct Town {
    world: World,
    history: History,
    users: RoleProcess,
    wallet: RoleProcess,
    ports: (u16, u16),
    client: Client,
    load: Load,
}

async fn town(world: World) -> Town {
    let (history, ports) = (History::default(), (free_port(), free_port()));
    let users = world.start_on(Role::Users, ports.0, &[]).await;
    let wallet = world.start_on(Role::Wallet, ports.1, &[]).await;
    let client = Client::new(&users.url(), &wallet.url());
    let mut people: Vec<User> = Vec::new();
    for _ in 0..10 {
        people.push(client.ready_user().await);
    }
    let load = Load::begin(&history, std::slice::from_ref(&client), &people, 8, seed());
    Town { world, history, users, wallet, ports, client, load }
}

#[tokio::test]
async fn fr_24_twenty_kills_of_the_users_role_under_load() {
    let mut town = town(World::new().await).await;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        town.users.kill().await;
        town.users = town.world.start_on(Role::Users, town.ports.0, &[]).await;
    }
    town.load.end().await;
    let healed = hold(&town.world, &town.history, &town.client, HEALED).await;
    measured("20 kills of users in 20 s", &town.history, healed);
}

#[tokio::test]
async fn fr_24_twenty_kills_of_the_wallet_role_under_load() {
    let mut town = town(World::new().await).await;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        town.wallet.kill().await;
        town.wallet = town.world.start_on(Role::Wallet, town.ports.1, &[]).await;
    }
    town.load.end().await;
    let healed = hold(&town.world, &town.history, &town.client, HEALED).await;
    measured("20 kills of wallet in 20 s", &town.history, healed);
}

#[tokio::test]
async fn fm_06_four_kills_of_postgresql_under_load() {
    let outages = Outages::begin().await;
    let town = town(World::on(outages.servers).await).await;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        outages.act(Server::Postgres, Action::Kill).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        outages.act(Server::Postgres, Action::Start).await;
    }
    town.load.end().await;
    let healed = hold(&town.world, &town.history, &town.client, HEALED).await;
    measured("4 kills of PostgreSQL", &town.history, healed);
    no_panic(&[&town.users, &town.wallet]);
}

#[tokio::test]
async fn fr_19_and_20_four_kills_of_rabbitmq_under_load() {
    let outages = Outages::begin().await;
    let town = town(World::on(outages.servers).await).await;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        outages.act(Server::RabbitMq, Action::Kill).await;
        outages.act(Server::RabbitMq, Action::Start).await;
    }
    town.load.end().await;
    let healed = hold(&town.world, &town.history, &town.client, HEALED).await;
    measured("4 kills of RabbitMQ", &town.history, healed);
    no_panic(&[&town.users, &town.wallet]);
}

#[tokio::test]
async fn fr_25_everything_is_killed_at_once_under_load() {
    let outages = Outages::begin().await;
    let mut town = town(World::on(outages.servers).await).await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        tokio::join!(
            async {
                outages.act(Server::Postgres, Action::Kill).await;
                outages.act(Server::RabbitMq, Action::Kill).await;
            },
            town.users.kill(),
            town.wallet.kill(),
        );
        outages.act(Server::Postgres, Action::Start).await;
        town.users = town.world.start_on(Role::Users, town.ports.0, &[]).await;
        town.wallet = town.world.start_on(Role::Wallet, town.ports.1, &[]).await;
        outages.act(Server::RabbitMq, Action::Start).await;
    }
    town.load.end().await;
    let healed = hold(&town.world, &town.history, &town.client, HEALED).await;
    measured("3 kills of everything at once", &town.history, healed);
}

/// P1.
fn no_panic(processes: &[&RoleProcess]) {
    for process in processes {
        assert_eq!(process.said("panicked").len(), 0, "{}", process.everything());
    }
}
