//! Credits through one, two and all shards on Citus, compared with a plain PostgreSQL: `just bench-citus`.
//!
//! Coordinator, workers, the plain server, both wallet processes and the clients share one machine. The figures show what Citus
//! costs there, not what more machines would gain.
#![allow(
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::float_arithmetic,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    dead_code,
    unused_imports,
    reason = "a benchmark prints and panics on errors; it uses only part of the test support"
)]

mod rounds;
#[path = "../tests/it/support/mod.rs"]
mod support;

use purse::kernel::Role;
use rounds::{ROUND, ROUNDS, Rates, rate};
use support::shards::{shards, user_ending_with};
use support::{Citus, Client, PATIENCE, PrivatePostgres, User, World, eventually};

/// Concurrent clients, each with one request at a time and a wallet of its own.
const POSTERS: usize = 128;

fn main() {
    rounds::run(measure());
}

async fn measure() {
    let mut plain = World::new().await;
    let server = PrivatePostgres::start(&["fsync=on", "max_connections=300"]).await;
    plain.move_to(&server).await;
    let one = plain.start_with(Role::Wallet, &[("WALLET_SHARDS", "1")]).await;
    let mut divided = World::new().await;
    let citus = Citus::start(&mut divided, &["fsync = on"]).await;
    let [first, second] = &citus.workers;
    for node in [&server, &citus.coordinator, first, second] {
        assert_eq!(node.sql("SHOW fsync"), "on");
    }
    citus.add_workers(&divided, [first.port(), second.port()]).await;
    let all = divided.start(Role::Wallet).await;
    let shards = shards();
    println!("{POSTERS} clients, {shards} shards on two workers, {ROUNDS} rounds of {} s", ROUND.as_secs());

    let mut variants = vec![("plain PostgreSQL", owners(&plain, &Client::new("", &one.url()), 1).await)];
    let client = Client::new("", &all.url());
    for (name, used) in [("Citus, one shard", 1), ("Citus, two shards", 2), ("Citus, all shards", shards)] {
        variants.push((name, owners(&divided, &client, used).await));
    }
    let clients = [Client::new("", &one.url()), client];
    let mut rates = vec![Vec::new(); variants.len()];
    for round in 0..=ROUNDS {
        for (place, (_, owners)) in variants.iter().enumerate() {
            let rate = credits(&clients[usize::from(place > 0)], owners).await;
            // The first round warms up caches and prepared statements.
            if round > 0 {
                rates[place].push(rate);
            }
        }
    }
    let rates: Vec<Rates> = rates.into_iter().map(Rates::of).collect();
    for ((name, _), of_variant) in variants.iter().zip(&rates) {
        println!("  {name:<18} {of_variant}  ratio {:.2}", of_variant.median / rates[0].median);
    }
}

/// Owners whose wallets are in the first `used` shards, evenly.
async fn owners(world: &World, client: &Client, used: u8) -> Vec<User> {
    let mut owners = Vec::new();
    for n in 0..POSTERS {
        let owner = user_ending_with(u8::try_from(n % usize::from(used)).expect("a shard"));
        world.publish_event(owner.id.parse().expect("an ID"), &owner.id).await;
        owners.push(owner);
    }
    for owner in &owners {
        eventually(PATIENCE, "a wallet", || async {
            (client.get(owner, "/v1/wallet/status?wait=30").await.body["status"] == "ready").then_some(())
        })
        .await;
    }
    owners
}

/// Credits per second.
async fn credits(client: &Client, owners: &[User]) -> f64 {
    rate(owners.iter().map(|owner| {
        move |_| async move {
            let response = client.post(owner, "credit", 1, None).await;
            assert_eq!(response.status, 201, "{response:?}");
            true
        }
    }))
    .await
}
