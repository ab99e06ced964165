//! Faults that take minutes or stop a whole server: `just test-faults` and `just soak`.

mod citus;
mod clock;
mod cluster;
mod disk;
mod failover;
mod kills;
mod postgres;
mod rabbitmq;
mod soak;
mod transfers;

use std::time::Duration;

use super::history::History;

/// Prints a line for the table in docs/reliability.md.
fn print_measurement(test: &str, history: &History, quiet: Duration) {
    let (done, doubt) = history.counts();
    println!(
        "measured: {test}: longest silence {:.1} s, quiet {:.1} s after recovery, {done} done, {doubt} in doubt, 0 lost, 0 duplicated",
        history.longest_silence().as_secs_f64(),
        quiet.as_secs_f64()
    );
}
