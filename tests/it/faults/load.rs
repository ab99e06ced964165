//! Clients that register and post continuously, each with its own random numbers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use tokio::task::JoinHandle;

use super::history::{History, Outcome};
use crate::support::{Client, User};

/// `SEED`, to repeat the choices of an earlier run, or a new seed. Printed for the case that the run fails.
pub fn seed() -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    seed
}

pub struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts one task that registers users and `posters` tasks that post to the wallets of `users`, each request through
    /// a random one of `clients`.
    pub fn start(history: &History, clients: &[Client], users: &[User], posters: u64, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = vec![tokio::spawn(register(history.clone(), clients.to_vec(), Arc::clone(&stop), seed))];
        tasks.extend((0..posters).map(|poster| {
            let name = format!("{seed:x}-{poster}");
            let rng = Rng::with_seed(seed.wrapping_add(poster).wrapping_add(1));
            tokio::spawn(post(history.clone(), clients.to_vec(), users.to_vec(), Arc::clone(&stop), rng, name))
        }));
        Self { stop, tasks }
    }

    /// Stops once every request has an outcome.
    pub async fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.expect("a client");
        }
    }
}

async fn register(history: History, clients: Vec<Client>, stop: Arc<AtomicBool>, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    while !stop.load(Ordering::SeqCst) {
        history.register(&clients[rng.usize(..clients.len())]).await;
        tokio::time::sleep(Duration::from_millis(rng.u64(10..60))).await;
    }
}

async fn post(
    history: History,
    clients: Vec<Client>,
    users: Vec<User>,
    stop: Arc<AtomicBool>,
    mut rng: Rng,
    name: String,
) {
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        number += 1;
        let (key, user) = (format!("{name}-{number}"), &users[rng.usize(..users.len())]);
        let (kind, cents) = if rng.u8(..3) == 0 { ("debit", rng.i64(1..50)) } else { ("credit", rng.i64(1..50)) };
        // Half of the posts with an unknown outcome are retried with the same key.
        while history.post(&clients[rng.usize(..clients.len())], user, kind, cents, &key).await == Outcome::Unknown
            && rng.bool()
        {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tokio::time::sleep(Duration::from_millis(rng.u64(0..10))).await;
    }
}
