//! Lanes and processes compared on one database.

use std::path::PathBuf;
use std::time::Duration;

use purse::kernel::Role;

use crate::figures::{Figures, rounds, seconds};
use crate::fixture::{Fixture, SLOW_COMMIT};
use crate::report::{Report, Target};
use crate::support::{Outages, RoleProcess};
use crate::tools::{blocking, wrk};

const LANES: [&str; 3] = ["1", "2", "4"];

pub async fn measure(servers: &Outages, report: &mut Report) {
    // A database without made-up entries, because `verify` rejects their hashes.
    let fixture = Fixture::start(servers).await;
    let mut processes = Vec::new();
    for lanes in LANES {
        processes.push(fixture.world.start_with(Role::Wallet, &[("LEDGER_LANES", lanes)]).await);
    }
    lanes(&fixture, &processes, report).await;
    let [one_lane, two_lanes, _] = &processes[..] else { panic!("three processes") };
    two_processes(&fixture, [one_lane, two_lanes], report).await;
    fixture.verify().await;
}

/// Credits per second.
async fn credits(process: &RoleProcess, connections: usize, tokens: PathBuf, run: String) -> f64 {
    let url = process.url();
    let load = blocking(move || {
        wrk(&url, connections, seconds(), "posts.lua", &[tokens.to_str().expect("a path"), &run, "credit"])
    });
    let load = load.await;
    assert_eq!(load.errors, 0, "every post succeeds");
    load.rate
}

struct Comparison<'a> {
    load: &'a str,
    connections: usize,
    tokens: &'a PathBuf,
    /// What each commit waits for.
    delay: Option<Duration>,
    one_lane: Figures,
    /// Each more lanes ÷ one lane, of the same round: the tables grow, so that a later round is a slower one.
    ratios: [Figures; LANES.len() - 1],
}

async fn lanes(fixture: &Fixture, processes: &[RoleProcess], report: &mut Report) {
    let loads = [
        ("credits spread over 1,000 wallets, 256 connections", 256, &fixture.all, None),
        ("the same, commits of 3 ms", 256, &fixture.all, Some(SLOW_COMMIT)),
        ("credits, one hot wallet, 256 connections", 256, &fixture.one, None),
        ("credits, one connection", 1, &fixture.all, None),
    ];
    let mut measured = loads.map(|(load, connections, tokens, delay)| Comparison {
        load,
        connections,
        tokens,
        delay,
        one_lane: Figures::default(),
        ratios: Default::default(),
    });
    for round in 1..=rounds() {
        for comparison in &mut measured {
            let mut rates = [0.0; LANES.len()];
            if let Some(delay) = comparison.delay {
                fixture.delay_commits(delay).await;
            }
            // The order changes, because each run finds larger tables than the one before it.
            let order = if round % 2 == 1 { [0, 1, 2] } else { [2, 1, 0] };
            for index in order {
                let run = format!("lanes-{round}-{index}-{}", comparison.load);
                let (connections, tokens) = (comparison.connections, comparison.tokens.clone());
                rates[index] = credits(&processes[index], connections, tokens, run.replace([' ', ','], "-")).await;
                println!("  round {round}: {}, {} lanes: {:.0}/s", comparison.load, LANES[index], rates[index]);
            }
            if comparison.delay.is_some() {
                fixture.stop_delaying_commits().await;
            }
            let [one_lane, more @ ..] = rates;
            comparison.one_lane.push(one_lane);
            for (ratio, rate) in comparison.ratios.iter_mut().zip(more) {
                ratio.push(rate / one_lane);
            }
        }
    }
    let [spread, slow, hot, single] = &measured;
    let of_two = |comparison: &Comparison<'_>| comparison.ratios[0].median();
    for (what, comparison, wanted) in [
        ("credits spread, 256 connections, two lanes ÷ one", spread, 1.2),
        ("credits spread, 256 connections, commits of 3 ms, two lanes ÷ one", slow, 1.2),
        ("credits, one hot wallet, 256 connections, two lanes ÷ one", hot, 0.95),
        ("credits, one connection, two lanes ÷ one", single, 0.95),
    ] {
        report.target(Target::at_least(what, of_two(comparison), wanted));
    }
    report.heading(
        "Lanes of one process: medians of the ratios of each round",
        &["load", "one lane, per second (min–max)", "two lanes ÷ one", "four lanes ÷ one"],
    );
    for comparison in &measured {
        let [two, four] = comparison.ratios.each_ref().map(Figures::shown);
        report.row(&[comparison.load.to_owned(), comparison.one_lane.shown(), two, four]);
    }
}

/// The same load over one process and over two.
async fn two_processes(fixture: &Fixture, [one_lane, two_lanes]: [&RoleProcess; 2], report: &mut Report) {
    let other_of_one = fixture.world.start_with(Role::Wallet, &[("LEDGER_LANES", "1")]).await;
    let (mut one, mut two, mut two_of_one_lane) = (Figures::default(), Figures::default(), Figures::default());
    for round in 1..=rounds() {
        let run = |process, connections, name: &str| {
            credits(process, connections, fixture.all.clone(), format!("{name}-{round}"))
        };
        one.push(run(two_lanes, 128, "one").await);
        let (left, right) = tokio::join!(run(two_lanes, 64, "left"), run(&fixture.wallet, 64, "right"));
        two.push(left + right);
        let (left, right) = tokio::join!(run(one_lane, 64, "third"), run(&other_of_one, 64, "fourth"));
        two_of_one_lane.push(left + right);
    }
    report.target(Target::at_least(
        "credits through two processes ÷ one process, two lanes each, 128 connections",
        two.median() / one.median(),
        0.9,
    ));
    report.target(Target::at_least(
        "credits through two processes with one lane each ÷ one process with two, 128 connections",
        two_of_one_lane.median() / one.median(),
        0.9,
    ));
    report.heading(
        "Wallet processes on one database, 128 connections",
        &["processes", "lanes of each", "credits per second (min–max)"],
    );
    for (processes, lanes, rate) in [("1", "2", one), ("2", "2", two), ("2", "1", two_of_one_lane)] {
        report.row(&[processes.to_owned(), lanes.to_owned(), rate.shown()]);
    }
}
