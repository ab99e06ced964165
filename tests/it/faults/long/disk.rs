//! PostgreSQL on a full disk (FP-11). Linux only, as root: it mounts a small file system.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use purse_dev::{Action, Durability, Server, TestServers};

use super::super::history::{History, Outcome};
use super::super::invariants::assert_invariants;
use super::print_measurement;
use crate::support::{PATIENCE, World, eventually};

/// A new cluster and a new broker need about 150 MiB of it.
const SIZE_MIB: u64 = 320;

/// An in-memory file system, unmounted on drop.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount() -> Self {
        let folder = PathBuf::from(format!("/var/tmp/purse-small-disk-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let size = format!("size={SIZE_MIB}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&folder).status();
        assert!(
            mounted.is_ok_and(|status| status.success()),
            "this test mounts a tmpfs and needs root: sudo -E just test-faults, or skip it: just test-faults -- --skip fp_11"
        );
        Self(folder)
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    fn fill(&self) {
        let zeros = vec![0; 1 << 20];
        let mut file = std::fs::File::create(self.ballast()).expect("a file");
        while std::io::Write::write_all(&mut file, &zeros).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.ballast()).expect("removed");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[tokio::test]
async fn fp_11_a_full_disk_rejects_posts_whole_and_recovers_when_there_is_space() {
    let disk = SmallDisk::mount();
    let folder = disk.0.join("purse");
    let servers = tokio::task::spawn_blocking(move || TestServers::start_in(Durability::Stock, &folder));
    // Dropped before the disk is unmounted: the servers stop while their folder is there.
    let servers = Arc::new(servers.await.expect("thread").unwrap_or_else(|e| panic!("{e}")));
    let (world, history) = (World::on(&servers).await, History::default());
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    disk.fill();
    // Some posts still fit into space that PostgreSQL has reserved.
    let mut number = 0;
    let rejected = eventually(PATIENCE, "the disk is full", || {
        number += 1;
        let (history, client, user) = (history.clone(), client.clone(), user.clone());
        async move {
            let outcome = history.post(&client, &user, "credit", 1, &format!("k{number}")).await;
            (!matches!(outcome, Outcome::Done(_))).then_some(outcome)
        }
    });
    let rejected = rejected.await;
    assert!(
        matches!(&rejected, Outcome::NotDone(code) if code == "DEPENDENCY_UNAVAILABLE") || rejected == Outcome::Unknown,
        "{rejected:?}"
    );
    disk.free();
    // PostgreSQL stops when it cannot write its WAL.
    let running = Arc::clone(&servers);
    tokio::task::spawn_blocking(move || running.command(Server::Postgres, Action::Start))
        .await
        .expect("thread")
        .expect("started");
    history.post_until_known(&client, &user, "credit", 1, "after").await;
    let quiet = assert_invariants(&world, &history, &client).await;
    print_measurement("FP-11 full disk", &history, quiet);
}
