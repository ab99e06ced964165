//! Cold start and idle memory of one process.

use std::time::Instant;

use purse::kernel::Role;

use crate::figures::{Figures, rounds};
use crate::report::Report;
use crate::support::{Outages, World};

pub async fn measure(servers: &Outages, report: &mut Report) {
    let world = World::on(servers.servers).await;
    drop(world.both().await);
    let mut rows = Vec::new();
    for role in Role::ALL {
        let (mut started, mut memory) = (Figures::default(), Figures::default());
        for _ in 0..rounds() {
            let began = Instant::now();
            let process = world.start(role).await;
            started.push(began.elapsed().as_secs_f64() * 1e3);
            memory.push(process.memory_kib() as f64 / 1024.0);
        }
        rows.push([format!("{role}"), started.shown(), memory.shown()]);
    }
    report.heading("One process, already migrated", &["role", "cold start to ready, ms", "idle memory, MiB"]);
    for row in rows {
        report.row(&row);
    }
}
