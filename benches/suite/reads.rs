//! Reads of wallets with short and long histories, and statements.

use std::time::Instant;

use purse::kernel::{Role, Timestamp};
use reqwest::Method;

use crate::figures::{Figures, grouped, rounds, seconds};
use crate::fixture::{Fixture, owner, tokens};
use crate::report::{Report, Target};
use crate::support::{Client, Outages, seconds_from_now, token_of};
use crate::tools::{blocking, wrk};

const LENGTHS: [usize; 3] = [10, 1_000, 100_000];
const CONNECTIONS: usize = 64;
const PATHS: [(&str, &str); 2] = [("balance", "/v1/balance"), ("first page of the history", "/v1/transactions")];

/// The owner of the wallet with this many entries.
fn wallet_of(length: usize) -> uuid::Uuid {
    owner(10_000_000 + length)
}

pub async fn measure(servers: &Outages, report: &mut Report) {
    let fixture = Fixture::start(servers).await;
    for length in LENGTHS {
        let user = wallet_of(length);
        fixture
            .world
            .sql(Role::Wallet, &format!("INSERT INTO wallets (user_id, id) VALUES ('{user}', gen_random_uuid())"))
            .await;
        let script = format!(
            "INSERT INTO transactions (user_id, seq, id, type, amount_minor, balance_after_minor, held_after_minor, created_at, hash)
             SELECT '{user}', n, gen_random_uuid(), 'credit', 1, n, 0, clock_timestamp(), sha256('') FROM generate_series(1, {length}) AS n"
        );
        fixture.world.sql(Role::Wallet, &script).await;
    }
    fixture.world.sql(Role::Wallet, "VACUUM ANALYZE transactions").await;
    let mut measured: Vec<(usize, &str, &str, Figures, Figures)> = Vec::new();
    for (name, path) in PATHS {
        measured.extend(LENGTHS.map(|length| (length, name, path, Figures::default(), Figures::default())));
    }
    for round in 1..=rounds() {
        for (length, name, path, rate, p95) in &mut measured {
            let (url, path, file) =
                (fixture.wallet.url(), *path, tokens("reader", std::iter::once(wallet_of(*length))));
            let load = blocking(move || {
                wrk(&url, CONNECTIONS, seconds(), "reads.lua", &[file.to_str().expect("a path"), path])
            });
            let load = load.await;
            assert_eq!(load.errors, 0);
            println!("  round {round}: {name} at {length} entries: {:.0}/s", load.rate);
            rate.push(load.rate);
            p95.push(load.p95);
        }
    }
    let rate = |length: usize, of: &str| {
        &measured.iter().find(|(l, name, ..)| (*l, *name) == (length, of)).expect("measured").3
    };
    report.target(Target::at_least(
        "balance reads at 100,000 entries ÷ at 10",
        rate(100_000, "balance").median() / rate(10, "balance").median(),
        0.9,
    ));
    report.heading("Reads, 64 connections", &["request", "entries", "per second (min–max)", "p95 ms"]);
    for (length, name, _, rate, p95) in &measured {
        report.row(&[(*name).to_owned(), length.to_string(), rate.shown(), format!("{:.2}", p95.median())]);
    }
    let points = |of: &str| LENGTHS.iter().map(|l| (*l as f64, rate(*l, of).median())).collect::<Vec<_>>();
    report.lines(
        "reads.svg",
        "Reads per second, by entries in the wallet",
        &[("balance", points("balance")), ("first page of the history", points("first page of the history"))],
    );
    statements(&fixture, report).await;
}

/// Statements of the longest history, one after the other.
async fn statements(fixture: &Fixture, report: &mut Report) {
    let length = LENGTHS[LENGTHS.len() - 1];
    let token = token_of(&wallet_of(length).to_string());
    let client = Client::new("", &fixture.wallet.url());
    let day = |seconds| Timestamp::from_second(seconds_from_now(seconds)).expect("a time");
    let (from, to) = (day(-86_400), day(86_400));
    // The CSV also has a header, and the balances before and after.
    let formats = [("csv", length + 3), ("ndjson", length)];
    let mut measured = formats.map(|(format, lines)| (format, lines, Figures::default(), 0_usize));
    for round in 1..=rounds() {
        for (format, lines, seconds, bytes) in &mut measured {
            let url = format!("{}/v1/statements?from={from}&to={to}&format={format}", client.wallet);
            let began = Instant::now();
            let statement = client.send(client.request(Method::GET, &url).bearer_auth(&token)).await;
            let took = began.elapsed().as_secs_f64();
            let text = statement.body.as_str().expect("a text");
            assert_eq!((statement.status.as_u16(), text.lines().count()), (200, *lines), "the whole statement");
            *bytes = text.len();
            println!("  round {round}: statement of {length} transactions as {format}: {took:.2} s");
            seconds.push(took);
        }
    }
    report.heading(
        &format!("Statements of {} transactions", grouped(length as f64)),
        &["format", "seconds (min–max)", "transactions per second", "MiB"],
    );
    for (format, _, seconds, bytes) in &measured {
        let (rate, mib) = (length as f64 / seconds.median(), *bytes as f64 / f64::from(1 << 20));
        report.row(&[(*format).to_owned(), seconds.shown(), grouped(rate), format!("{mib:.1}")]);
    }
    report.memory("wallet, after statements", &fixture.wallet);
}
