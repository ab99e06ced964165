//! Fault injection: after each fault every invariant must hold. `docs/reliability.md` lists the faults by the ids in the
//! test names (FR-01, FP-12, …), with the measured recovery.
//!
//! The tests in `long` take minutes or stop whole servers; `just test-faults` runs them too.

#![allow(clippy::print_stdout, reason = "tests print measurements and seeds")]

mod ablation;
mod acts;
mod groups;
mod history;
mod holds;
mod instances;
mod invariants;
mod load;
mod long;
mod network;
mod posting;
mod proxy;
mod registration;
mod resources;
mod shutdown;
mod standby;
mod supervision;
mod topology;
mod transfers;
mod watcher;

use purse::kernel::Role;

use crate::support::{Client, PATIENCE, RoleProcess, World, eventually};

/// A retry ladder of less than two seconds, and a short lock timeout.
const FAST_LADDER: &[(&str, &str)] =
    &[("RETRY_TTL_1_MS", "200"), ("RETRY_TTL_2_MS", "400"), ("RETRY_TTL_3_MS", "800"), ("DB_LOCK_TIMEOUT_MS", "50")];

/// Starts both roles, one of them with fault points. Returns the faulty process, the other one, and a client.
async fn start_with_failpoints(
    world: &World,
    faulty: Role,
    points: &str,
    changed: &[(&str, &str)],
) -> (RoleProcess, RoleProcess, Client) {
    let other = if faulty == Role::Users { Role::Wallet } else { Role::Users };
    let (faulty_process, healthy_process) =
        tokio::join!(world.spawn_with_failpoints(faulty, points, changed), world.start(other));
    // A role listens before its queues are declared.
    let declared = || async { world.broker.depth("wallet.provision").await.map(drop) };
    eventually(PATIENCE, "the queues are declared", declared).await;
    let (users, wallet) = match faulty {
        Role::Users => (&faulty_process, &healthy_process),
        Role::Wallet => (&healthy_process, &faulty_process),
    };
    let client = Client::new(&users.url(), &wallet.url());
    (faulty_process, healthy_process, client)
}
