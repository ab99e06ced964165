//! From the answer to a registration until the wallet is ready, on durable servers: `just bench-latency`.
#![allow(
    clippy::expect_used,
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

use purse::kernel::Role;
use support::{Client, Outages, World};

/// Registrations before the measured ones, for caches and prepared statements.
const WARM_UP: usize = 20;
/// Measured registrations, one after the other.
const MEASURED: usize = 300;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
    runtime.block_on(measure());
}

async fn measure() {
    println!("starting PostgreSQL and RabbitMQ (about ten seconds) …");
    let servers = Outages::begin().await;
    let world = World::on(servers.servers).await;
    // So that nothing but the wake can be the cause.
    let rare = [("OUTBOX_POLL_INTERVAL_MS", "60000")];
    let (users, wallet) = tokio::join!(world.start_with(Role::Users, &rare), world.start(Role::Wallet));
    let client = Client::new(&users.url(), &wallet.url());
    let (mut registering, mut provisioning) = (Vec::new(), Vec::new());
    for n in 0..WARM_UP + MEASURED {
        let began = Instant::now();
        let user = client.user().await;
        let registered = Instant::now();
        let status = client.get(&user, "/v1/wallet/status?wait=30").await;
        let ready = Instant::now();
        assert_eq!(status.status, 200, "{status:?}");
        if n >= WARM_UP {
            registering.push(registered - began);
            provisioning.push(ready - registered);
        }
    }
    println!("{MEASURED} registrations, one after the other; the poll interval is a minute, so the wake does it");
    report("POST /v1/auth/register", &mut registering);
    report("answered → wallet ready", &mut provisioning);
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    let ms = |d: Duration| format!("{}.{:02} ms", d.as_millis(), d.as_micros() % 1000 / 10);
    println!("\n{what}");
    for (name, time) in [("min", at(0)), ("p50", at(50)), ("p90", at(90)), ("p99", at(99)), ("max", at(100))] {
        println!("  {name}  {:>10}", ms(time));
    }
    let bounds = [2_u64, 4, 6, 8, 10, 15, 20, 30, 50, 100, u64::MAX];
    let mut from = 0;
    for bound in bounds {
        let count = times.iter().filter(|t| (from..bound).contains(&u64::try_from(t.as_millis()).expect("ms"))).count();
        let to = if bound == u64::MAX { "  ∞".to_owned() } else { format!("{bound:>3}") };
        println!("  {from:>3}–{to} ms {:>4} {}", count, "#".repeat(count * 60 / times.len()));
        from = bound;
    }
}
