//! Credits and debits over HTTP beside pgbench doing the same post.

use std::process::Command;

use purse::kernel::Role;

use crate::figures::{Figures, rounds, seconds};
use crate::report::{Report, Target};
use crate::support::world::PURSE;
use crate::support::{Outages, World};
use crate::tools::{beside, pgbench, wrk};
use crate::town::{Town, WALLETS};

const CONNECTIONS: [usize; 4] = [1, 16, 64, 256];
/// pgbench's clients, where it is not one.
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

/// The figures of one way to post, over all rounds.
#[derive(Clone, Debug, Default)]
struct Series {
    rate: Figures,
    p50: Figures,
    p95: Figures,
    p99: Figures,
    batch: Figures,
}

/// The database of pgbench: the same migrations, the same number of wallets.
async fn comparison(servers: &Outages) -> (World, String) {
    let world = World::on(servers.servers).await;
    let settings = world.settings(Role::Wallet);
    let migrated = beside(move || {
        Command::new(PURSE).args(["migrate", "--role", "wallet"]).env_clear().envs(settings).output().expect("started")
    });
    assert!(migrated.await.status.success(), "the migrations of the comparison");
    world.sql(Role::Wallet, include_str!("pgbench.sql")).await;
    world.sql(Role::Wallet, "VACUUM ANALYZE").await;
    let database = world.databases.wallet.database.clone();
    (world, database)
}

async fn over_http(town: &Town, connections: usize, over: Over, mixed: bool, run: &str) -> (crate::tools::Load, f64) {
    let (url, run) = (town.wallet.url(), run.to_owned());
    let tokens = if over == Over::Hot { town.one.clone() } else { town.all.clone() };
    let (commits, entries) = (town.commits().await, town.entries().await);
    let load = beside(move || {
        let kind = if mixed { "mixed" } else { "credit" };
        wrk(&url, connections, seconds(), "posts.lua", &[tokens.to_str().expect("a path"), &run, kind])
    });
    let load = load.await;
    assert_eq!(load.refused, 0, "every post is made");
    // What the probe and the counting add is some transactions a second beside thousands.
    let batch = (town.entries().await - entries) / (town.commits().await - commits).max(1.0);
    (load, batch)
}

pub async fn measure(servers: &Outages, report: &mut Report) {
    let town = Town::begin(servers).await;
    let (peer, database) = comparison(servers).await;
    let mut http: Vec<(usize, Over, bool, Series)> = Vec::new();
    for over in Over::BOTH {
        for mixed in [false, true] {
            http.extend(CONNECTIONS.map(|connections| (connections, over, mixed, Series::default())));
        }
    }
    let mut plain: Vec<(usize, Over, &str, Figures, Figures)> = Vec::new();
    for over in Over::BOTH {
        for script in ["pgbench_locked.sql", "pgbench_statement.sql"] {
            for clients in [1, CLIENTS] {
                plain.push((clients, over, script, Figures::default(), Figures::default()));
            }
        }
    }
    for round in 1..=rounds() {
        // What the round before left to be written is not this one's, and nobody's first post is measured.
        town.world.sql(Role::Wallet, "CHECKPOINT").await;
        over_http(&town, CLIENTS, Over::Spread, true, &format!("w{round}")).await;
        for (index, (connections, over, mixed, series)) in http.iter_mut().enumerate() {
            let (load, batch) = over_http(&town, *connections, *over, *mixed, &format!("r{round}-{index}")).await;
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
        for (clients, over, script, rate, latency) in &mut plain {
            let (on, database, script, clients) = (peer.addresses.clone(), database.clone(), *script, *clients);
            let wallets = if *over == Over::Hot { 1 } else { WALLETS };
            let (tps, ms) = beside(move || pgbench(&on, &database, clients, seconds(), wallets, script)).await;
            println!("  round {round}: {script}, {clients} clients, {}: {tps:.0}/s", over.name());
            rate.push(tps);
            latency.push(ms);
        }
        town.verify().await;
    }
    tell(&town, report, &http, &plain);
}

fn tell(
    town: &Town,
    report: &mut Report,
    http: &[(usize, Over, bool, Series)],
    plain: &[(usize, Over, &str, Figures, Figures)],
) {
    let series = |connections: usize, over: Over, mixed: bool| {
        let found = http.iter().find(|(c, o, m, _)| (*c, *o, *m) == (connections, over, mixed));
        &found.expect("measured").3
    };
    let peer = |clients: usize, over: Over, script: &str| {
        plain.iter().find(|(c, o, s, ..)| (*c, *o, *s) == (clients, over, script)).expect("measured")
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
        1.5,
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
        "mean latency of a lone post ÷ pgbench, locked transaction, 1 client",
        1e3 / series(1, Over::Spread, false).rate.median() / lone.median(),
        1.3,
    ));

    report.heading("Posts", &["way", "a second (least–most)", "p50 ms", "p95 ms", "p99 ms", "posts a transaction"]);
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
    for (clients, over, script, rate, latency) in plain {
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
        "Durable posts a second, by connections",
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
        "Posts in a database transaction, by connections",
        &[("spread", batches(Over::Spread)), ("hot wallet", batches(Over::Hot))],
    );
    report.memory("wallet, after the posts", &town.wallet);
}
