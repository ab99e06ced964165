//! Credits and debits over HTTP, compared with pgbench writing the same posts.

use std::process::Command;

use purse::kernel::Role;

use crate::figures::{Figures, rounds, seconds};
use crate::fixture::{Fixture, SLOW_COMMIT, WALLETS};
use crate::report::{Report, Target};
use crate::support::world::PURSE;
use crate::support::{Outages, World};
use crate::tools::{blocking, pgbench, wrk};

const CONNECTIONS: [usize; 4] = [1, 16, 64, 256];
/// Clients of pgbench in the concurrent case.
const CLIENTS: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    Spread,
    Hot,
}

impl Over {
    const BOTH: [Self; 2] = [Self::Spread, Self::Hot];

    const fn name(self) -> &'static str {
        match self {
            Self::Spread => "spread over 1,000 wallets",
            Self::Hot => "one hot wallet",
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Series {
    rate: Figures,
    p50: Figures,
    p95: Figures,
    p99: Figures,
    batch: Figures,
}

/// A database for pgbench with the same migrations and number of wallets.
async fn comparison(servers: &Outages) -> (World, String) {
    let world = World::on(servers.servers).await;
    let settings = world.settings(Role::Wallet);
    let migrated = blocking(move || {
        Command::new(PURSE).args(["migrate", "--role", "wallet"]).env_clear().envs(settings).output().expect("started")
    });
    assert!(migrated.await.status.success(), "purse migrate");
    world.sql(Role::Wallet, include_str!("pgbench.sql")).await;
    world.sql(Role::Wallet, "VACUUM ANALYZE").await;
    let database = world.databases.wallet.database.clone();
    (world, database)
}

async fn over_http(
    fixture: &Fixture,
    connections: usize,
    over: Over,
    mixed: bool,
    run: &str,
) -> (crate::tools::Load, f64) {
    let (url, run) = (fixture.wallet.url(), run.to_owned());
    let tokens = if over == Over::Hot { fixture.one.clone() } else { fixture.all.clone() };
    let before = fixture.posts_and_batches().await;
    let load = blocking(move || {
        let kind = if mixed { "mixed" } else { "credit" };
        wrk(&url, connections, seconds(), "posts.lua", &[tokens.to_str().expect("a path"), &run, kind])
    });
    let load = load.await;
    assert_eq!(load.errors, 0, "every post succeeds");
    let after = fixture.posts_and_batches().await;
    (load, (after.0 - before.0) / (after.1 - before.1).max(1.0))
}

pub async fn measure(servers: &Outages, report: &mut Report) {
    let fixture = Fixture::start(servers).await;
    let (peer, database) = comparison(servers).await;
    let mut http: Vec<(usize, Over, bool, Series)> = Vec::new();
    for over in Over::BOTH {
        for mixed in [false, true] {
            http.extend(CONNECTIONS.map(|connections| (connections, over, mixed, Series::default())));
        }
    }
    let mut pgbench_runs: Vec<(usize, Over, &str, Figures, Figures)> = Vec::new();
    for over in Over::BOTH {
        for script in ["pgbench_locked.sql", "pgbench_statement.sql"] {
            for clients in [1, CLIENTS] {
                pgbench_runs.push((clients, over, script, Figures::default(), Figures::default()));
            }
        }
    }
    for round in 1..=rounds() {
        // Flushes what the previous round left to write, and warms up.
        fixture.world.sql(Role::Wallet, "CHECKPOINT").await;
        over_http(&fixture, CLIENTS, Over::Spread, true, &format!("w{round}")).await;
        for (index, (connections, over, mixed, series)) in http.iter_mut().enumerate() {
            let (load, batch) = over_http(&fixture, *connections, *over, *mixed, &format!("r{round}-{index}")).await;
            println!(
                "  round {round}: {connections} connections, {}, mixed {mixed}: {:.0}/s, p95 {:.2} ms",
                over.name(),
                load.rate,
                load.p95
            );
            series.rate.push(load.rate);
            series.p50.push(load.p50);
            series.p95.push(load.p95);
            series.p99.push(load.p99);
            series.batch.push(batch);
        }
        for (clients, over, script, rate, latency) in &mut pgbench_runs {
            let (on, database, script, clients) = (peer.addresses.clone(), database.clone(), *script, *clients);
            let wallets = if *over == Over::Hot { 1 } else { WALLETS };
            let (tps, ms) = blocking(move || pgbench(&on, &database, clients, seconds(), wallets, script)).await;
            println!("  round {round}: {script}, {clients} clients, {}: {tps:.0}/s", over.name());
            rate.push(tps);
            latency.push(ms);
        }
        fixture.verify().await;
    }
    report_posts(&fixture, report, &http, &pgbench_runs);
    slow_commits(&fixture, &peer, &database, report).await;
}

/// The same comparison where each commit waits for a slow disk.
async fn slow_commits(fixture: &Fixture, peer: &World, database: &str, report: &mut Report) {
    fixture.delay_commits(SLOW_COMMIT).await;
    let (mut http, mut statement) = (Figures::default(), Figures::default());
    for round in 1..=rounds() {
        http.push(over_http(fixture, 256, Over::Spread, false, &format!("slow{round}")).await.0.rate);
        let (on, database) = (peer.addresses.clone(), database.to_owned());
        let run = move || pgbench(&on, &database, CLIENTS, seconds(), WALLETS, "pgbench_statement.sql");
        statement.push(blocking(run).await.0);
    }
    fixture.stop_delaying_commits().await;
    report.target(Target::at_least(
        "credits over HTTP, 256 connections, spread ÷ pgbench, one statement, 16 clients, commits that wait 3 ms",
        http.median() / statement.median(),
        2.5,
    ));
    report.heading("Posts where each commit waits 3 ms (commit_delay)", &["method", "per second (min–max)"]);
    report.row(&[format!("credits over HTTP, 256 connections, {}", Over::Spread.name()), http.shown()]);
    report.row(&[format!("pgbench, one statement, {CLIENTS} clients, {}", Over::Spread.name()), statement.shown()]);
}

fn report_posts(
    fixture: &Fixture,
    report: &mut Report,
    http: &[(usize, Over, bool, Series)],
    pgbench_runs: &[(usize, Over, &str, Figures, Figures)],
) {
    let series = |connections: usize, over: Over, mixed: bool| {
        let found = http.iter().find(|(c, o, m, _)| (*c, *o, *m) == (connections, over, mixed));
        &found.expect("measured").3
    };
    let peer = |clients: usize, over: Over, script: &str| {
        pgbench_runs.iter().find(|(c, o, s, ..)| (*c, *o, *s) == (clients, over, script)).expect("measured")
    };
    let (spread, hot) = (series(256, Over::Spread, false), series(256, Over::Hot, false));
    let statement = &peer(CLIENTS, Over::Spread, "pgbench_statement.sql").3;
    let locked = &peer(CLIENTS, Over::Spread, "pgbench_locked.sql").3;
    let locked_hot = &peer(CLIENTS, Over::Hot, "pgbench_locked.sql").3;
    let lone = &peer(1, Over::Spread, "pgbench_locked.sql").4;
    let ratio = |a: &Figures, b: &Figures| a.median() / b.median();
    report.target(Target::at_least(
        "credits over HTTP, 256 connections, spread ÷ pgbench, one statement, 16 clients",
        ratio(&spread.rate, statement),
        2.0,
    ));
    report.target(Target::at_least(
        "the same ÷ pgbench, locked transaction, 16 clients",
        ratio(&spread.rate, locked),
        4.0,
    ));
    report.target(Target::at_least("hot wallet ÷ spread, 256 connections", ratio(&hot.rate, &spread.rate), 0.9));
    report.target(Target::at_least(
        "hot wallet ÷ pgbench, locked transaction on one row, 16 clients",
        ratio(&hot.rate, locked_hot),
        10.0,
    ));
    report.target(Target::at_most(
        "mean latency of a single post ÷ pgbench, locked transaction, 1 client",
        1e3 / series(1, Over::Spread, false).rate.median() / lone.median(),
        1.3,
    ));

    report.heading("Posts", &["method", "per second (min–max)", "p50 ms", "p95 ms", "p99 ms", "posts per transaction"]);
    for (connections, over, mixed, series) in http {
        let what = if *mixed { "credits and debits" } else { "credits" };
        report.row(&[
            format!("{what} over HTTP, {connections} connections, {}", over.name()),
            series.rate.shown(),
            format!("{:.2}", series.p50.median()),
            format!("{:.2}", series.p95.median()),
            format!("{:.2}", series.p99.median()),
            format!("{:.1}", series.batch.median()),
        ]);
    }
    for (clients, over, script, rate, latency) in pgbench_runs {
        let what = if script.contains("locked") { "locked transaction" } else { "one statement" };
        let row = [
            format!("pgbench, {what}, {clients} clients, {}", over.name()),
            rate.shown(),
            format!("mean {:.2}", latency.median()),
        ];
        report.row(&[&row[..], &[String::new(), String::new(), "1".to_owned()]].concat());
    }
    let points = |over: Over, mixed: bool| -> Vec<(f64, f64)> {
        CONNECTIONS.iter().map(|c| (*c as f64, series(*c, over, mixed).rate.median())).collect()
    };
    let level = |rate: &Figures| CONNECTIONS.iter().map(|c| (*c as f64, rate.median())).collect::<Vec<_>>();
    report.lines(
        "posts.svg",
        "Durable posts per second, by connections",
        &[
            ("credits, spread", points(Over::Spread, false)),
            ("credits, hot wallet", points(Over::Hot, false)),
            ("credits and debits, spread", points(Over::Spread, true)),
            ("credits and debits, hot wallet", points(Over::Hot, true)),
            ("pgbench, 16 clients, one statement, spread", level(statement)),
            ("pgbench, 16 clients, locked, spread", level(locked)),
            ("pgbench, 16 clients, locked, hot row", level(locked_hot)),
        ],
    );
    let batches = |over: Over| -> Vec<(f64, f64)> {
        CONNECTIONS.iter().map(|c| (*c as f64, series(*c, over, false).batch.median())).collect()
    };
    report.lines(
        "batches.svg",
        "Posts per database transaction, by connections",
        &[("spread", batches(Over::Spread)), ("hot wallet", batches(Over::Hot))],
    );
    report.memory("wallet, after the posts", &fixture.wallet);
}
