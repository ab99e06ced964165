//! Clients that register and write to wallets continuously, each with its own random numbers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use tokio::task::JoinHandle;

use super::history::{Ask, History, Outcome};
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
    // What this client may still capture, void or reverse.
    let mut holds: Vec<(&User, String)> = Vec::new();
    let mut entries: Vec<(&User, String, &'static str)> = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        number += 1;
        let mut user = &users[rng.usize(..users.len())];
        let cents = rng.i64(1..50);
        let ask = match rng.u8(..20) {
            0..8 => Ask::post("credit", cents),
            8..11 => Ask::post("debit", cents),
            11..14 => {
                let other = &users[rng.usize(..users.len())];
                if other.id == user.id { Ask::post("credit", cents) } else { Ask::transfer(other, cents) }
            }
            14..16 => Ask::hold(cents, if rng.bool() { 60 } else { 3_600 }),
            16..18 if !holds.is_empty() => {
                let place = rng.usize(..holds.len());
                let (owner, id) = holds[place].clone();
                user = owner;
                match rng.u8(..4) {
                    0 => Ask::void(&id),
                    1 => Ask::capture(&id, None),
                    _ => Ask::capture(&id, Some(rng.i64(1..10))),
                }
            }
            18 if !entries.is_empty() => {
                let (owner, id, kind) = entries.swap_remove(rng.usize(..entries.len()));
                user = owner;
                Ask::reverse(&id, if kind == "credit" { "debit" } else { "credit" })
            }
            _ => Ask::bulk(cents, rng.usize(1..6)),
        };
        // A service repeats the key of the user's request before, because keys are scoped to the poster. It sends no bulk requests.
        let is_for_service = number % 4 == 0 && ask.path != "transactions/bulk";
        let (ask, key) = if is_for_service { (ask.by("payments"), number - 1) } else { (ask, number) };
        let key = format!("{name}-{key}");
        // Half of the requests with an unknown outcome are retried with the same key.
        let outcome = loop {
            let outcome = history.ask(&clients[rng.usize(..clients.len())], user, &ask, &key).await;
            if outcome != Outcome::Unknown || rng.bool() {
                break outcome;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        if let Outcome::Done(id) = outcome {
            match (ask.kind, ask.path.starts_with("transactions/")) {
                ("hold", _) => holds.push((user, id)),
                (kind, true) if !ask.path.ends_with("/reverse") => entries.push((user, id, kind)),
                _ => {}
            }
        }
        holds.drain(..holds.len().saturating_sub(20));
        entries.drain(..entries.len().saturating_sub(20));
        tokio::time::sleep(Duration::from_millis(rng.u64(0..10))).await;
    }
}
