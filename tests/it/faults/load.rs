//! Clients that register and post without a pause, each with random numbers of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use tokio::task::JoinHandle;

use super::history::{History, Told};
use crate::support::{Client, User};

/// The seed of a run: `SEED`, to see the same choices again, or a new one. Printed, so that a failure tells it.
pub fn seed() -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    seed
}

/// Clients at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    /// One client that registers and `posters` that post to the wallets of `users`, through any of `clients`.
    pub fn begin(history: &History, clients: &[Client], users: &[User], posters: u64, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = vec![tokio::spawn(register(history.clone(), clients.to_vec(), Arc::clone(&stop), seed))];
        tasks.extend((0..posters).map(|poster| {
            let name = format!("{seed:x}-{poster}");
            let rng = Rng::with_seed(seed.wrapping_add(poster).wrapping_add(1));
            tokio::spawn(post(history.clone(), clients.to_vec(), users.to_vec(), Arc::clone(&stop), rng, name))
        }));
        Self { stop, tasks }
    }

    /// Ends it when each client has heard what became of its last request.
    pub async fn end(self) {
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
        // Half of those who do not know ask again under the key.
        while history.post(&clients[rng.usize(..clients.len())], user, kind, cents, &key).await == Told::Unknown
            && rng.bool()
        {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tokio::time::sleep(Duration::from_millis(rng.u64(0..10))).await;
    }
}
