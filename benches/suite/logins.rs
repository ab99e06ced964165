//! Logins per second compared with the raw hash rate, and the effect of a flood of logins on another route.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use purse::infra::security::password_hash::Argon2id;
use purse::kernel::Role;

use crate::figures::{Figures, percentile, rounds, seconds};
use crate::report::{Report, Target};
use crate::support::{Client, Outages, PASSWORD, User, World};
use crate::tools::{blocking, wrk};

const FLOOD: usize = 32;

pub async fn measure(servers: &Outages, report: &mut Report) {
    let world = World::on(servers.servers).await;
    let (users, _wallet, client) = world.both().await;
    let user = client.user().await;
    let (mut raw, mut logins, mut idle, mut flooded) = (Figures::default(), Figures::default(), Vec::new(), Vec::new());
    for round in 1..=rounds() {
        raw.push(blocking(raw_rate).await);
        idle.extend(profile_times(&client, &user, Duration::from_secs(seconds() as u64)).await);
        let flood = || {
            let (url, email) = (users.url(), user.email.clone());
            blocking(move || wrk(&url, FLOOD, seconds(), "logins.lua", &[&email, PASSWORD]))
        };
        // Once alone, and once while a client requests its profile.
        let alone = flood().await;
        let (load, times) = tokio::join!(flood(), profile_times(&client, &user, Duration::from_secs(seconds() as u64)));
        assert_eq!((alone.errors, load.errors), (0, 0));
        println!("  round {round}: raw {:.1} hashes/s, {:.1} logins/s", raw.median(), alone.rate);
        logins.push(alone.rate);
        flooded.extend(times);
    }
    idle.sort_by(f64::total_cmp);
    flooded.sort_by(f64::total_cmp);
    let (calm, busy) = (percentile(&idle, 95), percentile(&flooded, 95));
    report.target(Target::at_least(
        "logins per second ÷ raw hashes per second on all cores",
        logins.median() / raw.median(),
        0.9,
    ));
    report.target(Target::at_most("p95 of /v1/users/me in a flood of 32 connections ÷ its idle p95", busy / calm, 5.0));
    report.target(Target::at_most("the same p95, in ms", busy, 25.0));
    report.heading("Logins", &["what", "figure"]);
    report.row(&["raw argon2id hashes per second, one thread per core".to_owned(), raw.shown()]);
    report.row(&[format!("logins per second, {FLOOD} connections"), logins.shown()]);
    for (what, times) in [("idle", &idle), ("during the flood", &flooded)] {
        let at = |percent| percentile(times, percent);
        report.row(&[
            format!("/v1/users/me {what}: p50, p95, p99 in ms"),
            format!("{:.2}, {:.2}, {:.2}", at(50), at(95), at(99)),
        ]);
    }
    report.tails(
        "me.svg",
        "GET /v1/users/me, in ms: one in N takes at least",
        &[("idle", &idle), ("while 32 connections log in", &flooded)],
    );
    report.memory("users, after the flood", &users);
}

/// Hashes per second with one thread per core and no other load.
fn raw_rate() -> f64 {
    let cores = std::thread::available_parallelism().expect("cores").get();
    let (prototype, stop, began) =
        (Argon2id::try_new().expect("argon2"), Arc::new(AtomicBool::new(false)), Instant::now());
    let threads: Vec<_> = (0..cores)
        .map(|_| {
            let (mut argon2, stop) = (prototype.clone(), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut hashes = 0_u32;
                while !stop.load(Ordering::Relaxed) {
                    argon2.hash(PASSWORD).expect("a hash");
                    hashes += 1;
                }
                hashes
            })
        })
        .collect();
    std::thread::sleep(Duration::from_secs(seconds() as u64));
    stop.store(true, Ordering::Relaxed);
    let hashes: u32 = threads.into_iter().map(|thread| thread.join().expect("a thread")).sum();
    f64::from(hashes) / began.elapsed().as_secs_f64()
}

/// Response times of consecutive requests, in milliseconds.
async fn profile_times(client: &Client, user: &User, span: Duration) -> Vec<f64> {
    let (until, mut times) = (Instant::now() + span, Vec::new());
    while Instant::now() < until {
        let began = Instant::now();
        assert_eq!(client.me(&user.token).await.status, 200);
        times.push(began.elapsed().as_secs_f64() * 1e3);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    times
}
