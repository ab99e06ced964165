//! All benchmarks in one run, on private servers with default settings and fsync on: `just bench`.
//!
//! Rounds are interleaved, so that a change in the machine's speed affects all of them alike. Writes the results and
//! their targets to docs/benchmarks/README.md.
#![allow(
    clippy::expect_used,
    clippy::float_arithmetic,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    dead_code,
    unused_imports,
    reason = "a benchmark computes, prints and panics on errors; it uses only part of the test support"
)]

#[path = "../../tests/it/support/mod.rs"]
mod support;

mod bulk;
mod drain;
mod figures;
mod fixture;
mod holds;
mod lanes;
mod logins;
mod machine;
mod plot;
mod posts;
mod process;
mod reads;
mod report;
mod tools;
mod transfers;

use std::process::ExitCode;

use report::Report;
use support::Outages;

/// The recipe `bench` reads this line too.
const PARTS: [&str; 9] = ["process", "posts", "lanes", "transfers", "bulk", "holds", "reads", "drain", "logins"];

fn main() -> ExitCode {
    // Cargo passes its own arguments through.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    if let Some(unknown) = wanted.iter().find(|word| !PARTS.contains(&word.as_str())) {
        eprintln!("there is no part `{unknown}`; choose from: {}", PARTS.join(" "));
        return ExitCode::from(64);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
    runtime.block_on(measure(&wanted));
    ExitCode::SUCCESS
}

async fn measure(wanted: &[String]) {
    let wants = |part: &str| wanted.is_empty() || wanted.iter().any(|word| word == part);
    println!("starting PostgreSQL and RabbitMQ (about ten seconds) …");
    let servers = Outages::begin().await;
    let mut report = Report::new(&servers);
    if wants("process") {
        process::measure(&servers, &mut report).await;
    }
    if wants("posts") {
        posts::measure(&servers, &mut report).await;
    }
    if wants("lanes") {
        lanes::measure(&servers, &mut report).await;
    }
    if wants("transfers") {
        transfers::measure(&servers, &mut report).await;
    }
    if wants("holds") {
        holds::measure(&servers, &mut report).await;
    }
    if wants("bulk") {
        bulk::measure(&servers, &mut report).await;
    }
    if wants("reads") {
        reads::measure(&servers, &mut report).await;
    }
    if wants("drain") {
        drain::measure(&servers, &mut report).await;
    }
    if wants("logins") {
        logins::measure(&servers, &mut report).await;
    }
    report.print();
    if wanted.is_empty() {
        report.write();
    }
}
