//! What the benchmarks that compare processes share: rounds, the rate of clients, and medians.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

/// Length of one measurement.
pub const ROUND: Duration = Duration::from_secs(4);
/// Measurements of each variant, interleaved so that other load on the machine affects all alike.
pub const ROUNDS: usize = 5;

pub fn run(measurement: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
    runtime.block_on(measurement);
}

/// Requests per second that succeed, while each client sends one after the other.
pub async fn rate<A, F>(clients: impl Iterator<Item = A>) -> f64
where
    A: Fn(usize) -> F,
    F: Future<Output = bool>,
{
    let began = Instant::now();
    let counts = join_all(clients.map(|send| async move {
        let (mut turn, mut done) = (0, 0_usize);
        while began.elapsed() < ROUND {
            done += usize::from(send(turn).await);
            turn += 1;
        }
        done
    }));
    let done: usize = counts.await.into_iter().sum();
    done as f64 / began.elapsed().as_secs_f64()
}

/// The rates of one variant.
pub struct Rates {
    least: f64,
    pub median: f64,
    most: f64,
}

impl Rates {
    /// `rates` has one of each of the [`ROUNDS`].
    pub fn of(mut rates: Vec<f64>) -> Self {
        rates.sort_unstable_by(f64::total_cmp);
        Self { least: rates[0], median: rates[ROUNDS / 2], most: rates[ROUNDS - 1] }
    }
}

impl std::fmt::Display for Rates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>8.0} per second  ({:.0} to {:.0})", self.median, self.least, self.most)
    }
}
