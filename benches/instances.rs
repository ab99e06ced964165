//! One process of a role compared with two, and local rate limits compared with shared ones: `just bench-instances`.
//!
//! Clients, servers and processes share one machine. The figures show what a second process costs or gains there, not what
//! a second machine would gain.
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
use rounds::{ROUNDS, Rates, rate};
use support::{Client, Outages, User, World};

/// Concurrent clients, each with one request at a time.
const POSTERS: usize = 64;
const REGISTERING: usize = 8;

fn main() {
    rounds::run(measure());
}

async fn measure() {
    println!("starting PostgreSQL and RabbitMQ, durable (about ten seconds) …");
    let servers = Outages::begin().await;
    let world = World::on(servers.servers).await;
    let [first, second] = [world.start(Role::Users).await, world.start(Role::Users).await];
    let [one, other] = [world.start(Role::Wallet).await, world.start(Role::Wallet).await];
    let limit = [("RATE_LIMIT_ENABLED", "true"), ("RL_TX_MAX", "1000000")];
    let local = world.start_with(Role::Wallet, &limit).await;
    let shared = world.start_with(Role::Wallet, &[&limit[..], &[("RATE_LIMIT_STORE", "postgres")]].concat()).await;

    let via = |users: &str, wallet: &str| Client::new(users, wallet);
    let single = [via(&first.url(), &one.url())];
    let both = [via(&first.url(), &one.url()), via(&second.url(), &other.url())];
    let mut owners = Vec::new();
    for _ in 0..POSTERS {
        owners.push(single[0].ready_user().await);
    }
    let limited = [[via(&first.url(), &local.url())], [via(&first.url(), &shared.url())]];

    compare("credits, each user through both processes in turn", "one process", "two processes", async |two| {
        posts(if two { &both } else { &single }, &owners).await
    })
    .await;
    compare("registrations", "one process", "two processes", async |two| {
        registrations(if two { &both } else { &single }).await
    })
    .await;
    compare("credits under a limit that is never reached", "local limit", "shared limit", async |shared| {
        posts(&limited[usize::from(shared)], &owners).await
    })
    .await;
    let violations = "SELECT count(*) FROM (SELECT seq, balance_after_minor, row_number() OVER w AS expected_seq,
                     sum(CASE type WHEN 'credit' THEN amount_minor ELSE -amount_minor END) OVER w AS balance
                     FROM transactions WINDOW w AS (PARTITION BY user_id ORDER BY seq)) AS entry
                 WHERE seq <> expected_seq OR balance <> balance_after_minor";
    println!("\nentries that violate a ledger invariant: {}", world.sql(Role::Wallet, violations).await);
}

/// Measures both variants in turn, and prints the medians and their ratio.
async fn compare(what: &str, baseline: &str, changed: &str, measure: impl AsyncFn(bool) -> f64) {
    let mut rates = [Vec::new(), Vec::new()];
    let _ = (measure(false).await, measure(true).await); // warms up caches and prepared statements
    for _ in 0..ROUNDS {
        for variant in [false, true] {
            rates[usize::from(variant)].push(measure(variant).await);
        }
    }
    println!("\n{what}");
    let rates = rates.map(Rates::of);
    for (name, rates) in [baseline, changed].into_iter().zip(&rates) {
        println!("  {name:<18} {rates}");
    }
    println!("  ratio {:.2}", rates[1].median / rates[0].median);
}

async fn posts(via: &[Client], owners: &[User]) -> f64 {
    rate(owners.iter().enumerate().map(|(n, user)| {
        move |turn: usize| async move {
            let response = via[(n + turn) % via.len()].post(user, "credit", 1, None).await;
            // 503 if the other process locks the wallet for longer than the lock timeout.
            assert!([201, 503].contains(&response.status.as_u16()), "{response:?}");
            response.status == 201
        }
    }))
    .await
}

async fn registrations(via: &[Client]) -> f64 {
    rate((0..REGISTERING).map(|n| {
        move |turn: usize| async move {
            let response = via[(n + turn) % via.len()].register(&Client::fresh_email()).await;
            assert!([201, 503].contains(&response.status.as_u16()), "{response:?}");
            response.status == 201
        }
    }))
    .await
}
