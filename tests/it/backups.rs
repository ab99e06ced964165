//! The backup and restore scripts of the container stack, on real databases.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use purse::kernel::Role;

use crate::support::repository::root;
use crate::support::{Client, PATIENCE, World, eventually, purse};

/// A volume for backups, and the settings of both roles.
struct Backups {
    folder: PathBuf,
    settings: BTreeMap<String, String>,
}

impl Backups {
    fn of(world: &World) -> Self {
        let folder = std::env::temp_dir().join(format!("purse-backups-{}", world.databases.wallet.database));
        fs::create_dir_all(&folder).expect("folder");
        let mut settings = world.settings(Role::Wallet);
        settings.extend(world.settings(Role::Users));
        let programs = std::env::var("PATH").expect("PATH");
        settings.insert("PATH".into(), format!("{}:{programs}", world.addresses.postgres_bin_dir.display()));
        settings.insert("BACKUP_FOLDER".into(), folder.display().to_string());
        Self { folder, settings }
    }

    fn run(&self, script: &str, arguments: &[&str], changed: &[(&str, &str)]) -> Output {
        let mut command = Command::new("sh");
        command.arg(root().join("docker/backup").join(script)).args(arguments);
        command.env_clear().envs(&self.settings).envs(changed.iter().copied()).output().expect("sh")
    }

    /// Backs up; returns what was printed.
    fn back_up(&self, changed: &[(&str, &str)]) -> String {
        let output = self.run("backup.sh", &[], changed);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// The folders of the volume, also hidden ones.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).expect("folder").flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

impl Drop for Backups {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[tokio::test]
async fn a_restored_backup_has_the_balances_and_users_of_its_time_and_users_of_later_can_register_again() {
    let world = World::new().await;
    let (users, wallet, client) = world.both().await;
    let backups = Backups::of(&world);
    let old = client.ready_user().await;
    client.post(&old, "credit", 70, None).await;
    assert!(backups.back_up(&[]).starts_with("backup: 20"));
    client.post(&old, "debit", 30, None).await;
    let late = client.ready_user().await;
    drop((users, wallet));

    let restored = backups.run("restore.sh", &["latest"], &[]);
    assert!(restored.status.success(), "{restored:?}");
    let printed = String::from_utf8(restored.stdout).expect("text");
    let since = printed.lines().find_map(|line| line.strip_prefix("since: ")).expect("the time").to_owned();
    let (_users, _wallet, client): (_, _, Client) = world.both().await;
    let republished = purse(&["outbox", "republish", "--since", &since], &backups.settings).await;
    assert!(republished.code == Some(0) && republished.out.starts_with("1 event"), "{republished:?}");
    assert_eq!(client.balance(&old).await, 70);
    assert_eq!(client.log_in(&late.email, crate::support::PASSWORD).await.code(), "INVALID_CREDENTIALS");
    assert_eq!(client.register(&late.email).await.status, 201);
    eventually(PATIENCE, "the events are published again", || async {
        let pending = world.sql(Role::Users, "SELECT count(*) FROM outbox WHERE status <> 'published'").await;
        (pending == "0").then_some(())
    })
    .await;
    let verified = purse(&["ledger", "verify"], &backups.settings).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
}

#[tokio::test]
async fn the_newest_backups_are_kept_and_one_that_fails_leaves_nothing_and_deletes_nothing() {
    let world = World::new().await;
    let (users, wallet, _client) = world.both().await;
    drop((users, wallet));
    let backups = Backups::of(&world);
    for old in ["2026-01-01T00-00-00Z", "2026-01-02T00-00-00Z", "2026-01-03T00-00-00Z"] {
        fs::create_dir(backups.folder.join(old)).expect("folder");
    }
    fs::write(backups.folder.join("notes.txt"), "of the operator").expect("written");
    let before = backups.names();
    // The second database cannot be dumped.
    let failed = backups.run("backup.sh", &[], &[("USERS_MIGRATION_DATABASE_URL", "postgres://u:p@127.0.0.1:1/x")]);
    assert!(!failed.status.success(), "{failed:?}");
    assert_eq!(backups.names(), before);
    let invalid = backups.run("backup.sh", &[], &[("BACKUP_KEEP", "0")]);
    assert_eq!((invalid.status.code(), backups.names()), (Some(64), before), "{invalid:?}");

    let printed = backups.back_up(&[("BACKUP_KEEP", "2")]);
    let names = backups.names();
    assert_eq!(names.len(), 3, "{names:?}");
    assert_eq!((names[0].as_str(), names[2].as_str()), ("2026-01-03T00-00-00Z", "notes.txt"), "{printed}");
    assert_eq!(printed.matches("deleted 2026-01-0").count(), 2, "{printed}");

    for (name, words) in
        [("", "usage: "), ("../etc", "usage: "), ("2020-01-01T00-00-00Z", "there is no backup 2020-01-01")]
    {
        let refused = backups.run("restore.sh", &[name], &[]);
        let complaint = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(64) && complaint.contains(words), "{name}: {refused:?}");
        assert!(complaint.contains(&names[1]), "the backups that exist are listed: {complaint}");
    }
}
