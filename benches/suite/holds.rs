//! Holds and captures over HTTP, and what open holds cost the credits of their wallets.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use purse::kernel::Role;
use reqwest::Method;
use serde_json::json;

use crate::figures::{Figures, rounds, seconds};
use crate::fixture::{Fixture, WALLETS, owner, tokens};
use crate::report::{Report, Target};
use crate::support::{Client, Outages, PATIENCE, User, eventually, token_of};
use crate::tools::{Load, blocking, wrk};

const CONNECTIONS: usize = 256;

/// Credits of wallets with this many open holds each.
const OPEN: [usize; 3] = [0, 1, OPEN_MAX];
const OPEN_MAX: usize = 100;

#[derive(Default)]
struct Series {
    rate: Figures,
    p50: Figures,
    p99: Figures,
}

async fn run(fixture: &Fixture, tokens: PathBuf, script: &'static str, name: String) -> Load {
    let url = fixture.wallet.url();
    let load = blocking(move || {
        let mut arguments = vec![tokens.to_str().expect("a path"), name.as_str()];
        arguments.extend((script == "posts.lua").then_some("credit"));
        wrk(&url, CONNECTIONS, seconds(), script, &arguments)
    });
    let load = load.await;
    assert_eq!(load.errors, 0, "every request succeeds");
    load
}

/// As many wallets again for each number of open holds.
async fn tokens_of_holders(fixture: &Fixture) -> Vec<(usize, PathBuf)> {
    let mut files = Vec::new();
    let client = Client::new("", &fixture.wallet.url());
    for (set, open) in (1..).zip(OPEN) {
        let owners: Vec<_> = (set * WALLETS + 1..=(set + 1) * WALLETS).map(owner).collect();
        let ids: Vec<String> = owners.iter().map(|owner| format!("('{owner}', gen_random_uuid())")).collect();
        let insert = format!("INSERT INTO wallets (user_id, id) VALUES {}", ids.join(","));
        fixture.world.sql(Role::Wallet, &insert).await;
        for some in owners.chunks(100) {
            join_all(some.iter().map(|owner| fill(&client, owner.to_string(), open))).await;
        }
        files.push((open, tokens(&format!("holders-{open}"), owners.into_iter())));
    }
    fixture.world.sql(Role::Wallet, "VACUUM ANALYZE").await;
    files
}

async fn fill(client: &Client, id: String, open: usize) {
    let user = User { token: token_of(&id), email: String::new(), id };
    assert_eq!(client.post(&user, "credit", 1_000, None).await.status, 201);
    // As many entries in each: the longer the histories, the more pages of the indexes the same credits change.
    for _ in open..OPEN_MAX {
        assert_eq!(client.post(&user, "credit", 1, None).await.status, 201);
    }
    for _ in 0..open {
        let hold = client.request(Method::POST, &format!("{}/v1/holds", client.wallet)).bearer_auth(&user.token);
        assert_eq!(client.send(hold.json(&json!({"amountMinor": 1}))).await.status, 201);
    }
}

/// Holds that are due at once, 50 per wallet.
const DUE: usize = 50_000;
/// How long before. The last one is placed at least a minute before, the shortest time that a hold may last.
const DUE_AFTER: Duration = Duration::from_mins(3);

/// Places holds that all are due in the same second, and returns that moment.
async fn place_due_holds(fixture: &Fixture) -> Instant {
    let client = Client::new("", &fixture.wallet.url());
    let due = Instant::now() + DUE_AFTER;
    for _ in 0..DUE / WALLETS {
        for some in (1..=WALLETS).map(owner).collect::<Vec<_>>().chunks(250) {
            let places = some.iter().map(|owner| {
                let lifetime = due.saturating_duration_since(Instant::now()).as_secs();
                let hold = client.request(Method::POST, &format!("{}/v1/holds", client.wallet));
                let hold = hold.bearer_auth(token_of(&owner.to_string()));
                client.send(hold.json(&json!({"amountMinor": 1, "expiresInS": lifetime})))
            });
            // Also refused if it took so long that a hold would last for less than a minute.
            assert!(join_all(places).await.iter().all(|placed| placed.status == 201), "all holds are placed in time");
        }
    }
    due
}

/// Of those that [`place_due_holds`] has placed: the others of this benchmark are open for a week.
async fn open_holds(fixture: &Fixture) -> usize {
    let query = "SELECT count(*) FROM open_holds WHERE expires_at < now() + interval '1 day'";
    fixture.world.sql(Role::Wallet, query).await.parse().expect("a number")
}

/// Credits while 50,000 holds of the same wallets end, compared with the same credits before. One run, because the holds of a
/// second one would take as long to place again.
async fn measure_sweep(fixture: &Fixture, report: &mut Report) {
    let due = place_due_holds(fixture).await;
    assert_eq!(open_holds(fixture).await, DUE, "none is due yet");
    fixture.world.sql(Role::Wallet, "CHECKPOINT").await;
    let before = run(fixture, fixture.all.clone(), "posts.lua", "before-sweep".to_owned()).await;
    assert_eq!(open_holds(fixture).await, DUE, "none is due yet");
    fixture.world.sql(Role::Wallet, "CHECKPOINT").await;
    tokio::time::sleep_until(due.into()).await;
    let during = run(fixture, fixture.all.clone(), "posts.lua", "sweep".to_owned()).await;
    eventually(PATIENCE, "every due hold has ended", || async { (open_holds(fixture).await == 0).then_some(()) }).await;
    fixture.verify().await;
    report.target(Target::at_most("credits, p99 while 50,000 holds expire ÷ before", during.p99 / before.p99, 2.0));
    for (name, load) in
        [("credits, none of 50,000 open holds due", before), ("credits while all of them expire", during)]
    {
        let mut series = Series::default();
        push(&mut series, &load);
        row(report, name.to_owned(), &series);
    }
}

pub async fn measure(servers: &Outages, report: &mut Report) {
    let fixture = Fixture::start(servers).await;
    let holders = tokens_of_holders(&fixture).await;
    let mut credits: Vec<(usize, PathBuf, Series)> =
        holders.into_iter().map(|(open, tokens)| (open, tokens, Series::default())).collect();
    let mut captures = Series::default();
    for round in 1..=rounds() {
        fixture.world.sql(Role::Wallet, "CHECKPOINT").await;
        for (open, tokens, series) in &mut credits {
            let load = run(&fixture, tokens.clone(), "posts.lua", format!("h{round}-{open}")).await;
            println!("  round {round}: credits, {open} open holds per wallet: {:.0}/s", load.rate);
            push(series, &load);
        }
        let load = run(&fixture, fixture.all.clone(), "holds.lua", format!("h{round}")).await;
        println!("  round {round}: holds and captures: {:.0}/s", load.rate);
        push(&mut captures, &load);
        fixture.verify().await;
    }
    let rate = |open: usize| credits.iter().find(|(of, ..)| *of == open).expect("measured").2.rate.median();
    for open in [1, 100] {
        let measure = format!("credits, {open} open holds per wallet ÷ none");
        report.target(Target::at_least(&measure, rate(open) / rate(0), 0.97));
    }
    report.heading("Holds, 256 connections, 1,000 wallets", &["request", "per second (min–max)", "p50 ms", "p99 ms"]);
    let rows = credits.iter().map(|(open, _, series)| (format!("credits, {open} open holds per wallet"), series));
    for (name, series) in rows.chain([("holds and captures, half each".to_owned(), &captures)]) {
        row(report, name, series);
    }
    measure_sweep(&fixture, report).await;
}

fn row(report: &mut Report, name: String, series: &Series) {
    let Series { rate, p50, p99 } = series;
    report.row(&[name, rate.shown(), format!("{:.2}", p50.median()), format!("{:.2}", p99.median())]);
}

fn push(series: &mut Series, load: &Load) {
    series.rate.push(load.rate);
    series.p50.push(load.p50);
    series.p99.push(load.p99);
}
