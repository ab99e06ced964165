use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, World, eventually, free_port};

/// Ends a server whose test was killed.
const LIFETIME_S: &str = "600";

/// A PostgreSQL server of one test, for tests that need other settings than the shared server has. It has the superuser
/// of the shared one, and is killed when dropped.
pub struct PrivatePostgres {
    folder: PathBuf,
    bin: PathBuf,
    port: u16,
    superuser: &'static str,
    password: &'static str,
    server: Option<Child>,
}

/// The account of PostgreSQL, which does not run as root.
fn account() -> Option<(u32, u32)> {
    if !rustix::process::getuid().is_root() {
        return None;
    }
    let known = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let line = known.lines().find(|line| line.starts_with("postgres:"));
    let number = |line: &str, field: usize| line.split(':').nth(field).and_then(|id| id.parse().ok());
    Some(line.and_then(|line| Some((number(line, 2)?, number(line, 3)?))).unwrap_or((65534, 65534)))
}

fn own(path: &Path) {
    if let Some((uid, gid)) = account() {
        std::os::unix::fs::chown(path, Some(uid), Some(gid)).expect("owned");
    }
}

/// Adds lines to the configuration file of the server in this folder. The last value of a setting is the one that counts.
pub fn append_settings(folder: &Path, settings: &[&str]) {
    let file = fs::File::options().append(true).open(folder.join("data/postgresql.conf"));
    writeln!(file.expect("opened"), "{}", settings.join("\n")).expect("written");
}

impl PrivatePostgres {
    /// A new cluster with these settings.
    pub async fn start(settings: &[&str]) -> Self {
        let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        Self::start_prepared(|_| settings, |_| {}).await
    }

    /// The same, after `prepare` has written what the settings name into the folder of the server.
    pub async fn start_prepared<S: AsRef<[String]>>(
        settings: impl FnOnce(&Path) -> S,
        prepare: impl FnOnce(&Path),
    ) -> Self {
        // Its programs, its superuser and that one's password are those of the shared server.
        let addresses = World::new().await.addresses;
        let port = free_port();
        let folder = PathBuf::from(format!("/var/tmp/purse-it-{}-{port}", std::process::id()));
        fs::create_dir(&folder).expect("folder");
        own(&folder);
        let mut server = Self {
            folder,
            bin: addresses.postgres_bin_dir,
            port,
            superuser: addresses.postgres_superuser,
            password: addresses.postgres_password,
            server: None,
        };
        let password = server.folder.join("password");
        fs::write(&password, server.password).expect("password");
        own(&password);
        let pwfile = format!("--pwfile={}", password.display());
        let data = server.data();
        let arguments = [
            "-D",
            &data,
            "-U",
            server.superuser,
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            &pwfile,
        ];
        server.run("initdb", &arguments);
        // In the file, so that every other setting wins.
        append_settings(&server.folder, &["fsync = off"]);
        prepare(&server.folder);
        server.own_files();
        let settings = settings(&server.folder);
        server.launch(settings.as_ref()).await;
        server
    }

    /// A streaming standby of this server.
    pub async fn standby(&self) -> Self {
        let port = free_port();
        let folder = PathBuf::from(format!("/var/tmp/purse-it-{}-{port}", std::process::id()));
        fs::create_dir(&folder).expect("folder");
        own(&folder);
        let mut standby = Self {
            folder,
            bin: self.bin.clone(),
            port,
            superuser: self.superuser,
            password: self.password,
            server: None,
        };
        let data = standby.data();
        let source = format!("host=127.0.0.1 port={} user={} password={}", self.port, self.superuser, self.password);
        standby.run("pg_basebackup", &["-D", &data, "-d", &source, "-R", "-X", "stream", "-c", "fast", "--no-sync"]);
        standby.launch(&[]).await;
        standby
    }

    /// Gives the content of the folder to the account of the server.
    pub fn own_files(&self) {
        for entry in fs::read_dir(&self.folder).expect("folder") {
            own(&entry.expect("entry").path());
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn data(&self) -> String {
        self.folder.join("data").display().to_string()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--signal=QUIT", LIFETIME_S]).arg(self.bin.join(program)).current_dir(&self.folder);
        command.env("PGPASSWORD", self.password).env("LC_MESSAGES", "C").env("HOME", &self.folder);
        if let Some((uid, gid)) = account() {
            command.uid(uid).gid(gid);
        }
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.command(program).args(arguments).output().expect(program);
        assert!(output.status.success(), "{program}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    async fn launch(&mut self, settings: &[String]) {
        let mut command = self.command("postgres");
        command.args(["-D", &self.data(), "-p", &self.port.to_string()]);
        for setting in ["listen_addresses=127.0.0.1", "unix_socket_directories="] {
            command.args(["-c", setting]);
        }
        for setting in settings {
            command.args(["-c", setting]);
        }
        let log = fs::File::create(self.folder.join("log")).expect("log");
        self.server = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("postgres"));
        eventually(PATIENCE, "PostgreSQL accepts sessions", || async { self.try_sql("SELECT 1").map(drop) }).await;
    }

    fn try_sql(&self, script: &str) -> Option<String> {
        let port = self.port.to_string();
        let output = self
            .command("psql")
            .args([
                "-X",
                "-q",
                "-A",
                "-t",
                "-h",
                "127.0.0.1",
                "-p",
                &port,
                "-U",
                self.superuser,
                "-d",
                "postgres",
                "-c",
                script,
            ])
            .env("PGCONNECT_TIMEOUT", "5")
            .output()
            .expect("psql");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    pub fn sql(&self, script: &str) -> String {
        self.try_sql(script).unwrap_or_else(|| panic!("{script}: {}", self.log()))
    }

    /// The log of the server.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Waits until this standby has everything that its primary has written so far.
    pub async fn has_replayed(&self, primary: &Self) {
        let written = primary.sql("SELECT pg_current_wal_lsn()");
        let caught_up = format!("SELECT pg_last_wal_replay_lsn() >= '{written}'");
        eventually(PATIENCE, "the standby has replayed", || async { (self.sql(&caught_up) == "t").then_some(()) })
            .await;
    }

    pub async fn promote(&self) {
        self.sql("SELECT pg_promote()");
        eventually(PATIENCE, "promoted", || async { (self.sql("SELECT pg_is_in_recovery()") == "f").then_some(()) })
            .await;
    }

    /// Ends all sessions, stops, and starts again without further settings.
    pub async fn restart(&mut self) {
        self.shut_down();
        self.launch(&[]).await;
    }

    /// Starts again without further settings.
    pub async fn start_again(&mut self) {
        self.launch(&[]).await;
    }

    /// Ends all sessions and stops in order: a standby that is connected has everything then.
    pub fn shut_down(&mut self) {
        if let Some(mut server) = self.server.take() {
            // A fast shutdown; `timeout` passes it on.
            kill_process(Pid::from_child(&server), Signal::INT).expect("signalled");
            server.wait().expect("stopped");
        }
    }

    /// From now on, commits wait for a standby.
    pub async fn wait_for_a_standby(&self) {
        self.sql("ALTER SYSTEM SET synchronous_standby_names = '*'");
        self.sql("SELECT pg_reload_conf()");
        let is_synchronous = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        eventually(PATIENCE, "the standby is synchronous", || async {
            (self.sql(is_synchronous) == "1").then_some(())
        })
        .await;
    }

    /// Stops every process of the server where it is, until [`Self::wake`]. Its kernel still accepts connections and data.
    pub fn freeze(&self) {
        self.signal_all(Signal::STOP);
    }

    pub fn wake(&self) {
        self.signal_all(Signal::CONT);
    }

    /// The server first, so that it starts no further process.
    fn signal_all(&self, signal: Signal) {
        let file = fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap_or_default();
        let Some(server) = file.lines().next().and_then(|pid| Pid::from_raw(pid.parse().ok()?)) else { return };
        // Each may have ended meanwhile.
        let _ = kill_process(server, signal);
        let server = server.as_raw_nonzero();
        let children = fs::read_to_string(format!("/proc/{server}/task/{server}/children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
            let _ = kill_process(child, signal);
        }
    }

    /// Ends the server immediately, without a checkpoint.
    pub async fn kill(mut self) {
        self.stop();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    /// The same, and it may start again.
    pub fn stop(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        // Immediate shutdown, which leaves no shared memory behind; `timeout` passes it on.
        let _ = kill_process(Pid::from_child(&server), Signal::QUIT);
        self.wake();
        let _ = server.wait();
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}
