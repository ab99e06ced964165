//! Reversals, and bulk requests of 1, 10 and 100 items, spread over many wallets.

use std::path::{Path, PathBuf};

use purse::kernel::Role;

use crate::figures::{Figures, rounds, seconds};
use crate::fixture::{Fixture, WALLETS, lines, owner, tokens};
use crate::report::{Report, Target};
use crate::support::Outages;
use crate::tools::{Load, blocking, wrk};

/// Of single requests.
const CONNECTIONS: usize = 256;
/// Of bulk requests: 100 items of each have to find a place in the queue.
const BULK_CONNECTIONS: usize = 32;
/// Of single credits, alone and beside bulk requests.
const BESIDE_CONNECTIONS: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Debits,
    Reversals,
    Bulk { items: usize },
    Credits,
    CreditsBesideBulk,
}

impl Work {
    const ALL: [Self; 7] = [
        Self::Debits,
        Self::Reversals,
        Self::Bulk { items: 1 },
        Self::Bulk { items: 10 },
        Self::Bulk { items: 100 },
        Self::Credits,
        Self::CreditsBesideBulk,
    ];

    fn name(self) -> String {
        match self {
            Self::Debits => format!("debits, {CONNECTIONS} connections"),
            Self::Reversals => format!("reversals, {CONNECTIONS} connections"),
            Self::Bulk { items } => format!("items in bulk requests of {items}, {BULK_CONNECTIONS} connections"),
            Self::Credits => format!("credits, {BESIDE_CONNECTIONS} connections"),
            Self::CreditsBesideBulk => {
                format!("credits, {BESIDE_CONNECTIONS} connections, beside bulk requests of 100 by others")
            }
        }
    }
}

/// Files with one token per line.
struct Tokens {
    all: PathBuf,
    /// Of those who post single credits, and of the others: a post waits for an earlier group of its own user in any case.
    singles: PathBuf,
    others: PathBuf,
}

/// `kind` and what follows it are arguments of `bulk.lua`.
async fn load(fixture: &Fixture, tokens: &Path, connections: usize, run: String, kind: &[&str]) -> Load {
    let (url, tokens) = (fixture.wallet.url(), tokens.to_owned());
    let kind: Vec<String> = kind.iter().map(|word| (*word).to_owned()).collect();
    let load = blocking(move || {
        let mut arguments = vec![tokens.to_str().expect("a path"), run.as_str()];
        arguments.extend(kind.iter().map(String::as_str));
        let script = if kind[0] == "credit" { "posts.lua" } else { "bulk.lua" };
        wrk(&url, connections, seconds(), script, &arguments)
    });
    let load = load.await;
    assert_eq!(load.errors, 0, "every request succeeds");
    load
}

async fn run(fixture: &Fixture, tokens: &Tokens, credits: &Path, work: Work, run: String) -> Load {
    let Tokens { all, singles, others } = tokens;
    match work {
        Work::Debits => load(fixture, all, CONNECTIONS, run, &["debit"]).await,
        Work::Reversals => load(fixture, all, CONNECTIONS, run, &["reverse", credits.to_str().expect("a path")]).await,
        Work::Bulk { items } => {
            let bulk = load(fixture, all, BULK_CONNECTIONS, run, &["bulk", &items.to_string()]).await;
            Load { rate: bulk.rate * items as f64, ..bulk }
        }
        Work::Credits => load(fixture, singles, BESIDE_CONNECTIONS, run, &["credit"]).await,
        Work::CreditsBesideBulk => {
            let beside = format!("{run}-beside");
            let credits = load(fixture, singles, BESIDE_CONNECTIONS, run, &["credit"]);
            tokio::join!(credits, load(fixture, others, BULK_CONNECTIONS, beside, &["bulk", "100"])).0
        }
    }
}

pub async fn measure(servers: &Outages, report: &mut Report) {
    let fixture = Fixture::start(servers).await;
    // The large first credit of each wallet, of which any number of cents can be reversed; in the order of the tokens.
    let first = fixture.world.sql(Role::Wallet, "SELECT id FROM transactions WHERE seq = 1 ORDER BY user_id").await;
    let credits: PathBuf = lines("first-credits", first.lines().map(str::to_owned));
    let half = WALLETS / 2;
    let tokens = Tokens {
        all: fixture.all.clone(),
        singles: tokens("singles", (1..=half).map(owner)),
        others: tokens("others", (half + 1..=WALLETS).map(owner)),
    };
    let mut measured = Work::ALL.map(|work| (work, Figures::default(), Figures::default(), Figures::default()));
    for round in 1..=rounds() {
        fixture.world.sql(Role::Wallet, "CHECKPOINT").await;
        for (index, (work, rate, p50, p99)) in measured.iter_mut().enumerate() {
            let load = run(&fixture, &tokens, &credits, *work, format!("b{round}-{index}")).await;
            println!("  round {round}: {}: {:.0}/s, p99 {:.2} ms", work.name(), load.rate, load.p99);
            rate.push(load.rate);
            p50.push(load.p50);
            p99.push(load.p99);
        }
        fixture.verify().await;
    }
    let of = |work: Work| measured.iter().find(|(of, ..)| *of == work).expect("measured");
    let (debits, reversals) = (of(Work::Debits).1.median(), of(Work::Reversals).1.median());
    report.target(Target::at_least("reversals ÷ debits", reversals / debits, 0.8));
    let (alone, beside) = (of(Work::Credits).3.median(), of(Work::CreditsBesideBulk).3.median());
    report.target(Target::at_most("p99 of credits beside bulk requests ÷ alone", beside / alone, 2.0));
    report.heading("Reversals and bulk requests", &["request", "per second (min–max)", "p50 ms", "p99 ms"]);
    for (work, rate, p50, p99) in &measured {
        report.row(&[work.name(), rate.shown(), format!("{:.2}", p50.median()), format!("{:.2}", p99.median())]);
    }
}
