//! Transfers over HTTP, spread over many wallets and to one, through one process and through two.

use std::path::PathBuf;

use purse::kernel::Role;

use crate::figures::{Figures, rounds, seconds};
use crate::fixture::{Fixture, WALLETS, ids, owner, tokens};
use crate::report::{Report, Target};
use crate::support::{Outages, RoleProcess, Scrape};
use crate::tools::{Load, blocking, wrk};

const CONNECTIONS: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// Credits through one process, to compare.
    Credits,
    Spread {
        processes: usize,
    },
    ToOne {
        processes: usize,
    },
}

impl Work {
    const ALL: [Self; 5] = [
        Self::Credits,
        Self::Spread { processes: 1 },
        Self::ToOne { processes: 1 },
        Self::Spread { processes: 2 },
        Self::ToOne { processes: 2 },
    ];

    fn name(self) -> String {
        match self {
            Self::Credits => "credits spread over 1,000 wallets, one process".to_owned(),
            Self::Spread { processes } => format!("transfers spread over 1,000 wallets, {}", of(processes)),
            Self::ToOne { processes } => format!("transfers to one wallet, {}", of(processes)),
        }
    }
}

fn of(processes: usize) -> &'static str {
    if processes == 1 { "one process" } else { "two processes" }
}

#[derive(Default)]
struct Series {
    rate: Figures,
    p50: Figures,
    p99: Figures,
    set_aside: Figures,
}

struct Files {
    /// Of the wallets that pay one wallet.
    senders: PathBuf,
    all: PathBuf,
    one: PathBuf,
}

async fn run(fixture: &Fixture, files: &Files, url: String, connections: usize, work: Work, name: String) -> Load {
    let (script, arguments) = match work {
        Work::Credits => ("posts.lua", vec![fixture.all.clone(), PathBuf::from(name), PathBuf::from("credit")]),
        Work::Spread { .. } => ("transfers.lua", vec![fixture.all.clone(), files.all.clone(), PathBuf::from(name)]),
        Work::ToOne { .. } => ("transfers.lua", vec![files.senders.clone(), files.one.clone(), PathBuf::from(name)]),
    };
    let load = blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(|path| path.to_str().expect("a path")).collect();
        wrk(&url, connections, seconds(), script, &arguments)
    });
    let load = load.await;
    assert_eq!(load.errors, 0, "every request succeeds");
    load
}

/// How often the processes have set a post aside.
async fn set_aside(processes: &[&RoleProcess]) -> f64 {
    let mut total = 0.0;
    for process in processes {
        total += Scrape::of(&process.url()).await.sum("purse_ledger_set_aside_total", "").unwrap_or_default();
    }
    total
}

pub async fn measure(servers: &Outages, report: &mut Report) {
    let fixture = Fixture::start(servers).await;
    let second = fixture.world.start(Role::Wallet).await;
    let files = Files {
        senders: tokens("senders", (2..=WALLETS).map(owner)),
        all: ids("all-ids", (1..=WALLETS).map(owner)),
        one: ids("one-id", std::iter::once(owner(1))),
    };
    let mut measured: Vec<(Work, Series)> = Work::ALL.map(|work| (work, Series::default())).into();
    for round in 1..=rounds() {
        fixture.world.sql(Role::Wallet, "CHECKPOINT").await;
        for (index, (work, series)) in measured.iter_mut().enumerate() {
            let both = [&fixture.wallet, &second];
            let before = set_aside(&both).await;
            let name = |side: &str| format!("t{round}-{index}-{side}");
            let (rate, p50, p99) = match work {
                Work::Spread { processes: 2 } | Work::ToOne { processes: 2 } => {
                    let half = CONNECTIONS / 2;
                    let (left, right) = tokio::join!(
                        run(&fixture, &files, fixture.wallet.url(), half, *work, name("left")),
                        run(&fixture, &files, second.url(), half, *work, name("right")),
                    );
                    (left.rate + right.rate, left.p50.max(right.p50), left.p99.max(right.p99))
                }
                _ => {
                    let load = run(&fixture, &files, fixture.wallet.url(), CONNECTIONS, *work, name("only")).await;
                    (load.rate, load.p50, load.p99)
                }
            };
            println!("  round {round}: {}: {rate:.0}/s, p99 {p99:.2} ms", work.name());
            series.rate.push(rate);
            series.p50.push(p50);
            series.p99.push(p99);
            series.set_aside.push((set_aside(&both).await - before) / (rate * seconds() as f64));
        }
        fixture.verify().await;
    }
    let rate = |of: Work| measured.iter().find(|(work, _)| *work == of).expect("measured").1.rate.median();
    let [credits, spread, to_one, spread_by_two, to_one_by_two] = Work::ALL.map(rate);
    report.target(Target::at_least("transfers ÷ credits, spread", spread / credits, 0.5));
    report.target(Target::at_least("transfers to one wallet ÷ spread, one process", to_one / spread, 0.9));
    report.target(Target::at_least(
        "transfers to one wallet ÷ spread, two processes",
        to_one_by_two / spread_by_two,
        0.5,
    ));
    report.heading(
        "Transfers, 256 connections",
        &["request", "per second (min–max)", "p50 ms", "p99 ms", "set aside, times per request"],
    );
    for (work, series) in &measured {
        report.row(&[
            work.name(),
            series.rate.shown(),
            format!("{:.2}", series.p50.median()),
            format!("{:.2}", series.p99.median()),
            format!("{:.3}", series.set_aside.median()),
        ]);
    }
}
