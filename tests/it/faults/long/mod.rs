//! What takes minutes, or stops a whole server: `just test-faults` and `just soak`.

mod clock;
mod disk;
mod postgres;
mod rabbitmq;
mod soak;
mod storms;

use std::time::Duration;

use super::history::History;

/// One line of what a test has seen, for docs/reliability.md.
fn measured(test: &str, history: &History, healed: Duration) {
    let (done, doubt) = history.counts();
    println!(
        "measured: {test}: longest silence {:.1} s, quiet {:.1} s after healing, {done} answered, {doubt} in doubt, 0 lost, 0 doubled",
        history.longest_silence().as_secs_f64(),
        healed.as_secs_f64()
    );
}
