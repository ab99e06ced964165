//! One process of a role beside two, and limits counted alone beside limits counted together: `just bench-instances`.
//!
//! All of it is on one machine, with the servers and whoever asks: what the figures say is what a second process costs or
//! brings there, not what a second machine would bring.
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
    reason = "a benchmark prints, and panics when it cannot go on; it uses a part of the tests' support"
)]

#[path = "../tests/it/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use purse::kernel::Role;
use support::{Client, Outages, User, World};

/// How long one measurement takes.
const ROUND: Duration = Duration::from_secs(4);
/// Measurements of each kind; they take turns, so that what else the machine does meets both alike.
const ROUNDS: usize = 5;
/// Who posts, each one request after the other.
const POSTERS: usize = 64;
/// Who registers, each one request after the other.
const REGISTERING: usize = 8;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
    runtime.block_on(measure());
}

async fn measure() {
    println!("starting PostgreSQL and RabbitMQ, durable (about ten seconds) …");
    let servers = Outages::begin().await;
    let world = World::on(servers.servers).await;
    let [first, second] = [world.start(Role::Users).await, world.start(Role::Users).await];
    let [one, other] = [world.start(Role::Wallet).await, world.start(Role::Wallet).await];
    let limit = [("RATE_LIMIT_ENABLED", "true"), ("RL_TX_MAX", "1000000")];
    let alone = world.start_with(Role::Wallet, &limit).await;
    let together = world.start_with(Role::Wallet, &[&limit[..], &[("RATE_LIMIT_STORE", "postgres")]].concat()).await;

    let via = |users: &str, wallet: &str| Client::new(users, wallet);
    let single = [via(&first.url(), &one.url())];
    let both = [via(&first.url(), &one.url()), via(&second.url(), &other.url())];
    let mut people = Vec::new();
    for _ in 0..POSTERS {
        people.push(single[0].ready_user().await);
    }
    let counted = [[via(&first.url(), &alone.url())], [via(&first.url(), &together.url())]];

    compare("credits, each person by both processes in turn", "one process", "two processes", async |two| {
        posts(if two { &both } else { &single }, &people).await
    })
    .await;
    compare("registrations", "one process", "two processes", async |two| {
        registrations(if two { &both } else { &single }).await
    })
    .await;
    compare("credits under a limit that nobody reaches", "counted alone", "counted together", async |shared| {
        posts(&counted[usize::from(shared)], &people).await
    })
    .await;
    let wrong = "SELECT count(*) FROM (SELECT seq, balance_after_minor, row_number() OVER w AS place,
                     sum(CASE type WHEN 'credit' THEN amount_minor ELSE -amount_minor END) OVER w AS balance
                     FROM transactions WINDOW w AS (PARTITION BY user_id ORDER BY seq)) AS entry
                 WHERE seq <> place OR balance <> balance_after_minor";
    println!("\nentries that break a law of the ledger: {}", world.sql(Role::Wallet, wrong).await);
}

/// Measures both kinds in turn, and shows the medians and their ratio.
async fn compare(what: &str, plain: &str, changed: &str, measure: impl AsyncFn(bool) -> f64) {
    let mut rates = [Vec::new(), Vec::new()];
    let _ = (measure(false).await, measure(true).await); // for caches and prepared statements
    for _ in 0..ROUNDS {
        for kind in [false, true] {
            rates[usize::from(kind)].push(measure(kind).await);
        }
    }
    println!("\n{what}");
    let medians = rates.map(|mut rates| {
        rates.sort_unstable_by(f64::total_cmp);
        (rates[0], rates[ROUNDS / 2], rates[ROUNDS - 1])
    });
    for (name, (least, median, most)) in [plain, changed].into_iter().zip(medians) {
        println!("  {name:<18} {median:>8.0} a second  ({least:.0} to {most:.0})");
    }
    println!("  ratio {:.2}", medians[1].1 / medians[0].1);
}

async fn posts(via: &[Client], people: &[User]) -> f64 {
    rate(people.iter().enumerate().map(|(n, user)| {
        move |turn: usize| async move {
            let answer = via[(n + turn) % via.len()].post(user, "credit", 1, None).await;
            // A wallet that the other process holds for too long is an honest 503, and no entry.
            assert!([201, 503].contains(&answer.status.as_u16()), "{answer:?}");
            answer.status == 201
        }
    }))
    .await
}

async fn registrations(via: &[Client]) -> f64 {
    rate((0..REGISTERING).map(|n| {
        move |turn: usize| async move {
            let answer = via[(n + turn) % via.len()].register(&Client::fresh_email()).await;
            assert!([201, 503].contains(&answer.status.as_u16()), "{answer:?}");
            answer.status == 201
        }
    }))
    .await
}

/// How many requests a second are answered with yes, while each asker asks one after the other.
async fn rate<A, F>(askers: impl Iterator<Item = A>) -> f64
where
    A: Fn(usize) -> F,
    F: Future<Output = bool>,
{
    let began = Instant::now();
    let counts = join_all(askers.map(|asker| async move {
        let (mut turn, mut done) = (0, 0_usize);
        while began.elapsed() < ROUND {
            done += usize::from(asker(turn).await);
            turn += 1;
        }
        done
    }));
    let done: usize = counts.await.into_iter().sum();
    done as f64 / began.elapsed().as_secs_f64()
}
