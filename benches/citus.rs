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

#[path = "../tests/it/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use purse::kernel::Role;
use support::{Citus, Client, PATIENCE, PrivatePostgres, User, World, eventually, token_of};
use uuid::Uuid;

/// Length of one measurement.
const ROUND: Duration = Duration::from_secs(4);
/// Measurements of each variant, interleaved so that other load on the machine affects all alike.
const ROUNDS: usize = 5;
/// Concurrent clients, each with one request at a time and a wallet of its own.
const POSTERS: usize = 128;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
    runtime.block_on(measure());
}

async fn measure() {
    let mut plain = World::new().await;
    let server = PrivatePostgres::start(&["fsync=on", "max_connections=300"]).await;
    plain.move_to(&server).await;
    let one = plain.start_with(Role::Wallet, &[("WALLET_SHARDS", "1")]).await;
    let mut divided = World::new().await;
    let citus = Citus::start(&mut divided, &["fsync = on"]).await;
    let [first, second] = &citus.workers;
    citus.add_workers(&divided, [first.port(), second.port()]).await;
    let all = divided.start(Role::Wallet).await;
    let shards: u8 = std::env::var("WALLET_SHARDS").expect("WALLET_SHARDS").parse().expect("a number");
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
    let medians: Vec<f64> = rates
        .iter_mut()
        .map(|rates| {
            rates.sort_unstable_by(f64::total_cmp);
            rates[ROUNDS / 2]
        })
        .collect();
    for (place, (name, _)) in variants.iter().enumerate() {
        let (least, most) = (rates[place][0], rates[place][ROUNDS - 1]);
        let ratio = medians[place] / medians[0];
        println!("  {name:<18} {:>8.0} per second  ({least:.0} to {most:.0})  ratio {ratio:.2}", medians[place]);
    }
}

/// Owners whose wallets are in the first `used` shards, evenly.
async fn owners(world: &World, client: &Client, used: u8) -> Vec<User> {
    let mut owners = Vec::new();
    for n in 0..POSTERS {
        let mut id = *Uuid::now_v7().as_bytes();
        id[15] = u8::try_from(n % usize::from(used)).expect("a shard");
        let id = Uuid::from_bytes(id);
        world.publish_event(id, &id.to_string()).await;
        owners.push(User { id: id.to_string(), token: token_of(&id.to_string()), email: String::new() });
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
    let began = Instant::now();
    let counts = join_all(owners.iter().map(|owner| async move {
        let mut done = 0_usize;
        while began.elapsed() < ROUND {
            let response = client.post(owner, "credit", 1, None).await;
            assert_eq!(response.status, 201, "{response:?}");
            done += 1;
        }
        done
    }));
    let done: usize = counts.await.into_iter().sum();
    done as f64 / began.elapsed().as_secs_f64()
}
