//! Blocked standard output and standard error: requests, probes and shutdown depend on neither.
//! And libraries that write too much.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use purse::kernel::Role;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;

use crate::support::world::kill_with_us;
use crate::support::{Client, PATIENCE, Scrape, User, World, command, eventually, free_port};

/// Requests at a time.
const CLIENTS: usize = 32;
const DROPPED: &str = "purse_log_records_dropped_total";

/// A wallet process whose standard output is what the test says.
pub struct Wallet {
    child: Child,
    pub url: String,
}

impl Wallet {
    /// Starts it and waits until it is ready.
    pub async fn start(world: &World, output: Stdio, changed: &[(&str, &str)]) -> Self {
        let port = free_port();
        let mut settings = world.settings(Role::Wallet);
        settings.extend(changed.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        settings.insert("WALLET_PORT".to_owned(), port.to_string());
        let child = command(&["--role", "wallet"], &settings).stdout(output).stderr(Stdio::null()).spawn();
        let wallet = Self { child: child.expect("spawned"), url: format!("http://127.0.0.1:{port}") };
        kill_with_us(wallet.child.id());
        eventually(PATIENCE, "the wallet role is ready", || wallet.is_ready()).await;
        wallet
    }

    async fn is_ready(&self) -> Option<()> {
        let response = reqwest::get(format!("{}/health/ready", self.url)).await.ok()?;
        (response.status() == 200).then_some(())
    }

    async fn dropped(&self) -> f64 {
        Scrape::of(&self.url).await.number(DROPPED).expect("the counter")
    }

    /// Sends requests until records have been dropped; each request must be answered in time.
    pub async fn fill_the_log(&self) -> f64 {
        let http = reqwest::Client::builder().timeout(PATIENCE).build().expect("a client");
        let until = Instant::now() + PATIENCE * 2;
        loop {
            let requests = (0..2_000).map(|_| http.get(format!("{}/v1/balance", self.url)).send());
            let mut responses = stream::iter(requests).buffer_unordered(CLIENTS);
            while let Some(response) = responses.next().await {
                assert_eq!(response.expect("answered whatever standard output does").status(), 401);
            }
            let dropped = self.dropped().await;
            if dropped > 0.0 {
                return dropped;
            }
            assert!(Instant::now() < until, "nothing was dropped");
        }
    }

    fn memory_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("memory");
        line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("signalled");
    }

    /// Waits for the end, at most this long.
    async fn ends_within(&mut self, limit: Duration) -> ExitStatus {
        let child = tokio::sync::Mutex::new(&mut self.child);
        eventually(limit, "the process ends", || async { child.lock().await.try_wait().expect("waited") }).await
    }
}

impl Drop for Wallet {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads to the end.
fn read_lines(reader: PipeReader) -> JoinHandle<Vec<String>> {
    std::thread::spawn(move || BufReader::new(reader).lines().map(|line| line.expect("text")).collect())
}

fn parsed(lines: &[String]) -> Vec<Value> {
    lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

async fn user(world: &World) -> User {
    let users = world.start(Role::Users).await;
    Client::new(&users.url(), &users.url()).user().await
}

#[tokio::test]
async fn requests_are_answered_while_nobody_reads_the_log_and_the_missing_records_are_counted() {
    let world = World::new().await;
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut wallet = Wallet::start(&world, writer.into(), &[]).await;
    let user = user(&world).await;
    let client = Client::new(&wallet.url, &wallet.url);
    assert_eq!(client.get(&user, "/v1/wallet/status?wait=30").await.status, 200);
    wallet.fill_the_log().await;
    let memory = wallet.memory_kib();
    let dropped_before = wallet.dropped().await;
    let more = || async {
        wallet.fill_the_log().await;
        (wallet.dropped().await > dropped_before + 10_000.0).then_some(())
    };
    eventually(PATIENCE, "many more records are dropped", more).await;
    assert!(wallet.memory_kib() <= memory + 16_384, "{} KiB, {memory} before", wallet.memory_kib());
    assert_eq!(wallet.is_ready().await, Some(()));
    assert_eq!(client.post(&user, "credit", 500, None).await.status, 201);
    assert_eq!(client.balance(&user).await, 500);
    let dropped = wallet.dropped().await;

    // Everything is written again, each line whole, and the gap is reported where it is.
    let lines = read_lines(reader);
    let missing = || async {
        assert_eq!(client.balance(&user).await, 500);
        let now = wallet.dropped().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        (wallet.dropped().await <= now).then_some(())
    };
    eventually(PATIENCE, "no more records are dropped", missing).await;
    let dropped_in_all = wallet.dropped().await;
    assert!(dropped_in_all >= dropped);
    wallet.signal(Signal::TERM);
    assert_eq!(wallet.ends_within(PATIENCE).await.code(), Some(0));
    let lines = parsed(&lines.join().expect("read"));
    let reports: Vec<&Value> = lines.iter().filter(|line| !line["dropped"].is_null()).collect();
    assert!(!reports.is_empty());
    let reported: f64 = reports.iter().map(|line| line["dropped"].as_f64().expect("a number")).sum();
    assert!(reported >= dropped_in_all, "{reported} reported, {dropped_in_all} counted");
    for report in reports {
        assert_eq!(report["msg"], "log records were dropped because standard output was blocked");
        assert_eq!((&report["level"], &report["role"]), (&"warn".into(), &"wallet".into()));
    }
    assert_eq!(lines.last().expect("a line")["msg"], "stopped");
}

/// A pipe that is full, and whose reader reads nothing.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    // The capacity of a pipe, so this does not block.
    writer.write_all(&vec![b'\n'; 65_536]).expect("filled");
    (reader, writer)
}

#[tokio::test]
async fn a_stop_ends_within_the_grace_period_while_nobody_reads_the_log_and_a_second_signal_ends_at_once() {
    let world = World::new().await;
    let (_reader, writer) = full_pipe();
    let mut wallet = Wallet::start(&world, writer.into(), &[("SHUTDOWN_GRACE_MS", "4000")]).await;
    wallet.signal(Signal::TERM);
    assert_eq!(wallet.ends_within(Duration::from_secs(8)).await.code(), Some(0));

    let (_reader, writer) = full_pipe();
    let mut wallet = Wallet::start(&world, writer.into(), &[("SHUTDOWN_GRACE_MS", "600000")]).await;
    wallet.signal(Signal::TERM);
    // The listener is closed, and what is left is to write the log.
    eventually(PATIENCE, "requests are refused", || async { wallet.is_ready().await.is_none().then_some(()) }).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(wallet.child.try_wait().expect("waited"), None, "the reader has the whole grace period");
    wallet.signal(Signal::TERM);
    assert_eq!(wallet.ends_within(PATIENCE).await.code(), Some(0));
}

#[tokio::test]
async fn a_process_that_waits_for_its_database_or_only_migrates_ends_while_nobody_reads_the_log() {
    let world = World::new().await;
    let port = free_port();
    let mut settings = world.settings(Role::Wallet);
    settings.insert("SHUTDOWN_GRACE_MS".to_owned(), "1000".to_owned());
    let (_reader, writer) = full_pipe();
    let mut migrate = command(&["migrate", "--role", "wallet"], &settings);
    let child = migrate.stdout(writer).stderr(Stdio::null()).spawn().expect("spawned");
    let mut migrate = Wallet { child, url: String::new() };
    assert_eq!(migrate.ends_within(PATIENCE).await.code(), Some(0));

    for name in ["WALLET_DATABASE_URL", "WALLET_MIGRATION_DATABASE_URL"] {
        settings.insert(name.to_owned(), "postgres://u:p@127.0.0.1:1/nowhere".to_owned());
    }
    settings.insert("WALLET_PORT".to_owned(), port.to_string());
    let (_reader, writer) = full_pipe();
    let mut waiting = command(&["--role", "wallet"], &settings);
    let child = waiting.stdout(writer).stderr(Stdio::null()).spawn().expect("spawned");
    let mut waiting = Wallet { child, url: String::new() };
    let bound = || async { std::net::TcpStream::connect(("127.0.0.1", port)).ok() };
    eventually(PATIENCE, "the port is bound", bound).await;
    waiting.signal(Signal::TERM);
    assert_eq!(waiting.ends_within(PATIENCE).await.code(), Some(0));
}

#[tokio::test]
async fn an_error_that_nobody_reads_does_not_keep_the_process() {
    let world = World::new().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let mut settings = world.settings(Role::Wallet);
    settings.insert("WALLET_PORT".to_owned(), taken.local_addr().expect("address").port().to_string());
    settings.insert("SHUTDOWN_GRACE_MS".to_owned(), "1000".to_owned());
    let ((_out_reader, out), (_err_reader, err)) = (full_pipe(), full_pipe());
    let child = command(&["--role", "wallet"], &settings).stdout(out).stderr(err).spawn().expect("spawned");
    let mut refused = Wallet { child, url: String::new() };
    assert_eq!(refused.ends_within(PATIENCE).await.code(), Some(69));
    let (_err_reader, err) = full_pipe();
    let child = command(&["--role", "wallet"], &BTreeMap::new()).stderr(err).spawn().expect("spawned");
    let mut unconfigured = Wallet { child, url: String::new() };
    assert_eq!(unconfigured.ends_within(PATIENCE).await.code(), Some(64));
}

/// Both ends of a terminal whose output is stopped, as by Ctrl-S.
fn stopped_terminal() -> (File, File) {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&terminal).expect("granted");
    unlockpt(&terminal).expect("unlocked");
    let name = ptsname(&terminal, Vec::new()).expect("its name");
    let path = PathBuf::from(std::ffi::OsStr::from_bytes(name.as_bytes()));
    let inside = File::options().read(true).write(true).open(path).expect("opened");
    let mut outside = File::from(terminal);
    outside.write_all(b"\x13").expect("stopped");
    (outside, inside)
}

#[tokio::test]
async fn a_stopped_terminal_stops_neither_requests_nor_the_process() {
    let world = World::new().await;
    let (mut outside, inside) = stopped_terminal();
    let mut wallet = Wallet::start(&world, inside.into(), &[("LOG_FORMAT", "pretty")]).await;
    wallet.fill_the_log().await;
    assert_eq!(wallet.is_ready().await, Some(()));
    // Ctrl-Q: it flows again, with one line about the gap.
    outside.write_all(b"\x11").expect("continued");
    let reported = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&reported);
    let reading = std::thread::spawn(move || {
        let (mut text, mut part) = (String::new(), vec![0; 65_536]);
        // On Linux the read fails once the last writer has closed.
        while let Ok(length @ 1..) = outside.read(&mut part) {
            text.push_str(&String::from_utf8_lossy(&part[..length]));
            if text.contains("log records were dropped because standard output was blocked") {
                seen.store(true, Ordering::SeqCst);
            }
        }
        text
    });
    eventually(PATIENCE, "the gap is reported", || async { reported.load(Ordering::SeqCst).then_some(()) }).await;
    wallet.signal(Signal::TERM);
    assert_eq!(wallet.ends_within(PATIENCE).await.code(), Some(0));
    drop(wallet);
    let text = reading.join().expect("read");
    assert!(text.lines().last().is_some_and(|line| line.contains("stopped")), "{:?}", text.lines().last());

    let (_outside, inside) = stopped_terminal();
    let patient = [("LOG_FORMAT", "pretty"), ("SHUTDOWN_GRACE_MS", "4000")];
    let mut wallet = Wallet::start(&world, inside.into(), &patient).await;
    wallet.signal(Signal::TERM);
    assert_eq!(wallet.ends_within(Duration::from_secs(8)).await.code(), Some(0));
}

#[tokio::test]
async fn a_full_disk_under_the_log_and_a_reader_that_has_gone_delay_neither_requests_nor_a_stop() {
    let world = World::new().await;
    let full = File::options().write(true).open("/dev/full").expect("opened");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    for (output, counted) in [(Stdio::from(full), true), (Stdio::from(writer), false)] {
        let mut wallet = Wallet::start(&world, output, &[("SHUTDOWN_GRACE_MS", "600000")]).await;
        if counted {
            wallet.fill_the_log().await;
        }
        assert_eq!(wallet.is_ready().await, Some(()));
        wallet.signal(Signal::TERM);
        assert_eq!(wallet.ends_within(PATIENCE).await.code(), Some(0));
    }
}

#[tokio::test]
async fn no_record_is_lost_at_a_stop_while_the_log_is_read_slowly() {
    let world = World::new().await;
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let mut wallet = Wallet::start(&world, writer.into(), &[("LOG_LEVEL", "info")]).await;
    let http = reqwest::Client::new();
    let ids = 0..4_000;
    let url = format!("{}/v1/balance", wallet.url);
    let requests = ids.clone().map(|n| http.get(&url).header("x-request-id", format!("slow-{n}")).send());
    let mut responses = stream::iter(requests).buffer_unordered(CLIENTS);
    while let Some(response) = responses.next().await {
        assert_eq!(response.expect("a response").status(), 401);
    }
    wallet.signal(Signal::TERM);
    let reading = std::thread::spawn(move || {
        let (mut text, mut part) = (Vec::new(), [0; 16_384]);
        while let Ok(length @ 1..) = reader.read(&mut part) {
            text.extend_from_slice(&part[..length]);
            std::thread::sleep(Duration::from_millis(20));
        }
        String::from_utf8(text).expect("text")
    });
    assert_eq!(wallet.ends_within(PATIENCE).await.code(), Some(0));
    drop(wallet);
    let lines: Vec<String> = reading.join().expect("read").lines().map(str::to_owned).collect();
    let lines = parsed(&lines);
    let logged: std::collections::BTreeSet<&str> =
        lines.iter().filter_map(|line| line["request_id"].as_str()).collect();
    let missing: Vec<String> = ids.map(|n| format!("slow-{n}")).filter(|id| !logged.contains(id.as_str())).collect();
    assert_eq!(missing, Vec::<String>::new());
    assert_eq!(lines.last().expect("a line")["msg"], "stopped");
}

#[tokio::test]
async fn a_message_that_a_library_repeats_is_logged_once_per_minute() {
    let world = World::new().await;
    let wrong = world.broker.url().replace("guest:guest@", "guest:wrong@");
    let changed = [("RABBITMQ_URL", wrong.as_str()), ("LOG_LEVEL", "info")];
    let roles = [world.spawn(Role::Users, &changed).await, world.spawn(Role::Wallet, &changed).await];
    tokio::time::sleep(Duration::from_secs(75)).await;
    for process in roles {
        let log = process.log();
        let is_ours = |line: &&Value| line["target"].as_str().is_some_and(|target| target.starts_with("purse::"));
        let (ours, theirs): (Vec<&Value>, Vec<&Value>) = log.iter().partition(is_ours);
        let mut repeats: BTreeMap<&str, usize> = BTreeMap::new();
        for line in &theirs {
            *repeats.entry(line["msg"].as_str().unwrap_or_default()).or_default() += 1;
        }
        // Once in each of the two minutes.
        assert!(repeats.values().all(|count| *count <= 2) && repeats.len() <= 16, "{repeats:#?}");
        // The reason is logged, and again in the second minute, with the number of those between.
        let refused = |line: &&&Value| line["msg"].as_str().is_some_and(|message| message.contains("ACCESS_REFUSED"));
        assert!(theirs.iter().any(|line| refused(&line)), "{theirs:#?}");
        let suppressed: u64 = theirs.iter().filter_map(|line| line["suppressed"].as_u64()).sum();
        let counted = Scrape::of(&process.url()).await.number("purse_log_records_suppressed_total");
        assert!(suppressed > 0 && counted >= Some(f64::from(u32::try_from(suppressed).expect("small"))), "{counted:?}");
        let away = "a dependency is unavailable; retrying until it is back";
        assert!(ours.iter().any(|line| line["msg"] == away), "{ours:#?}");
    }
}
