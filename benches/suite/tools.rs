//! The load generators: wrk for HTTP, pgbench for PostgreSQL.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use purse_dev::ServerAddresses;

/// Results of a wrk run.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Responses per second.
    pub rate: f64,
    /// Latencies in milliseconds.
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    /// Responses with an error status.
    pub errors: u64,
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/suite")
}

/// Writes a temporary file with the script and `result.lua`. Another wrk may be reading it.
fn script(name: &str) -> PathBuf {
    static WRITTEN: AtomicUsize = AtomicUsize::new(0);
    let read = |name: &str| std::fs::read_to_string(scripts().join(name)).expect("a script");
    let whole = std::env::temp_dir().join(format!("purse-bench-{}-{name}", std::process::id()));
    let new = whole.with_extension(WRITTEN.fetch_add(1, Ordering::Relaxed).to_string());
    std::fs::write(&new, read(name) + &read("result.lua")).expect("written");
    std::fs::rename(new, &whole).expect("renamed");
    whole
}

/// Blocks the thread.
pub fn wrk(url: &str, connections: usize, seconds: usize, name: &str, arguments: &[&str]) -> Load {
    let output = Command::new("wrk")
        .args(["-t1", "-c", &connections.to_string(), "-d", &format!("{seconds}s"), "--timeout", "30s", "-s"])
        .arg(script(name))
        .args([url, "--"])
        .args(arguments)
        .output()
        .expect("wrk starts; on Debian: apt-get install wrk");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("RESULT ")).unwrap_or_else(|| {
        panic!("wrk: {text}{}", String::from_utf8_lossy(&output.stderr));
    });
    let numbers: Vec<f64> = line.split_whitespace().map(|word| word.parse().expect("a number")).collect();
    let [requests, micros, errors, broken, p50, p95, p99] = numbers[..] else { panic!("wrk: {line}") };
    assert!(broken < 0.5, "{broken} connections broke: {text}");
    Load { rate: requests / (micros / 1e6), p50: p50 / 1e3, p95: p95 / 1e3, p99: p99 / 1e3, errors: errors as u64 }
}

/// Transactions per second and their mean latency in milliseconds. Blocks the thread.
pub fn pgbench(
    on: &ServerAddresses,
    database: &str,
    clients: usize,
    seconds: usize,
    wallets: usize,
    name: &str,
) -> (f64, f64) {
    let output = Command::new(on.postgres_bin_dir.join("pgbench"))
        .env("PGPASSWORD", on.postgres_password)
        .args(["-h", on.host, "-p", &on.postgres_port.to_string(), "-U", on.postgres_superuser, "-n", "-M", "prepared"])
        .args(["-c", &clients.to_string(), "-j", &clients.min(2).to_string(), "-T", &seconds.to_string()])
        .arg("-D")
        .arg(format!("wallets={wallets}"))
        .arg("-f")
        .arg(scripts().join(name))
        .arg(database)
        .output()
        .expect("pgbench starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let after = |prefix: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(prefix))?;
        rest.split_whitespace().next()?.parse::<f64>().ok()
    };
    match (output.status.success(), after("tps = "), after("latency average = ")) {
        (true, Some(rate), Some(latency)) => (rate, latency),
        _ => panic!("pgbench: {text}{}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// Runs blocking work without blocking the benchmark's clients.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("thread")
}
