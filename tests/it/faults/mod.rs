//! Faults, and what is left of the world after each: everything. `docs/reliability.md` lists them by the names that
//! stand at the tests (FR-01, FP-12, …), with what was measured.
//!
//! What stands in `long` takes minutes and has servers of its own; `just test-faults` runs it too.

#![allow(clippy::print_stdout, reason = "what a test has measured, and its seed, are printed")]

mod history;
mod invariants;
mod load;
mod long;
mod proxy;

mod measures;
mod network;
mod posting;
mod registration;
mod resources;
mod shutdown;
mod supervision;
mod topology;
mod twins;

use purse::kernel::Role;

use crate::support::{Client, PATIENCE, RoleProcess, World, eventually};

/// A ladder that is climbed within two seconds, and locks that are given up soon.
const FAST_LADDER: &[(&str, &str)] =
    &[("RETRY_TTL_1_MS", "200"), ("RETRY_TTL_2_MS", "400"), ("RETRY_TTL_3_MS", "800"), ("DB_LOCK_TIMEOUT_MS", "50")];

/// Both roles, one of them broken at fault points, and a client of them.
async fn start_with_failpoints(
    world: &World,
    fragile: Role,
    points: &str,
    changed: &[(&str, &str)],
) -> (RoleProcess, RoleProcess, Client) {
    let other = if fragile == Role::Users { Role::Wallet } else { Role::Users };
    let (broken, sound) = tokio::join!(world.spawn_with_failpoints(fragile, points, changed), world.start(other));
    // Both listen before the broker knows of their queues.
    let declared = || async { world.broker.depth("wallet.provision").await.map(drop) };
    eventually(PATIENCE, "the queues are declared", declared).await;
    let (users, wallet) = if fragile == Role::Users { (&broken, &sound) } else { (&sound, &broken) };
    let client = Client::new(&users.url(), &wallet.url());
    (broken, sound, client)
}
