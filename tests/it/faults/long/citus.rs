//! A ledger whose shards are on two workers of Citus (FM-31 to FM-37): the product as it is without faults, and then with a worker
//! that is killed at its `COMMIT`, a coordinator that is killed between the two phases of a commit, shards that move, and a worker
//! that falls silent.
//! `just test-citus` runs these alone, with four shards and a PostgreSQL that has Citus.

use std::ops::Range;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use purse::kernel::Role;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::super::history::{Ask, History, Outcome, Post};
use super::super::invariants::assert_invariants;
use super::super::load::{Load, seed};
use super::super::proxy::{COMMIT, COMMIT_PREPARED, CommitFault, PREPARE, Proxy};
use crate::support::shards::shard_of;
use crate::support::{Citus, Client, PATIENCE, Response, RoleProcess, Scrape, User, World, eventually, purse};

/// How long there is load before a fault, and after it.
const CALM: Duration = Duration::from_secs(2);

/// Both roles, with the wallets on two workers, which the coordinator reaches through proxies.
struct Cluster {
    world: World,
    citus: Citus,
    links: [Proxy; 2],
    history: History,
    client: Client,
    users: RoleProcess,
    wallet: RoleProcess,
    /// One per shard.
    owners: Vec<User>,
}

/// Transfers that go on until they are stopped.
struct Payments {
    stop: watch::Sender<bool>,
    paying: JoinHandle<usize>,
}

impl Payments {
    /// How many were refused.
    async fn stop(self) -> usize {
        self.stop.send(true).expect("it runs");
        self.paying.await.expect("payments")
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

impl Cluster {
    async fn start() -> Self {
        let mut world = World::new().await;
        let citus = Citus::start(&mut world, &[]).await;
        let [first, second] = &citus.workers;
        let links = [Proxy::start(first.port()).await, Proxy::start(second.port()).await];
        citus.add_workers(&world, [links[0].port(), links[1].port()]).await;
        let (users, wallet, client) = world.both().await;
        let history = History::default();
        let mut cluster = Self { world, citus, links, history, client, users, wallet, owners: Vec::new() };
        let workers = "SELECT count(DISTINCT groupid) FROM pg_dist_shard JOIN pg_dist_placement USING (shardid)
                       WHERE logicalrelid::text LIKE 'shard_%.wallets'";
        assert_eq!(cluster.citus.sql(&cluster.world, workers).await, "2", "the shards are on both workers");
        cluster.owners = cluster.one_user_per_shard().await;
        cluster
    }

    /// Registered users with a wallet and 1,000 cents, in the order of their shards.
    async fn one_user_per_shard(&self) -> Vec<User> {
        let mut owners: Vec<Option<User>> = vec![None; 4];
        while owners.iter().any(Option::is_none) {
            let registration = self.history.register(&self.client).await;
            let user = registration.user.expect("registered");
            let shard = shard_of(&user);
            owners[shard].get_or_insert(user);
        }
        let owners: Vec<User> = owners.into_iter().flatten().collect();
        for owner in &owners {
            let ready = self.client.get(owner, "/v1/wallet/status?wait=30").await;
            assert_eq!(ready.body["status"], "ready", "{ready:?}");
            assert!(matches!(self.ask(owner, &Ask::post("credit", 1_000), "first").await, Outcome::Done(_)));
        }
        owners
    }

    async fn ask(&self, user: &User, ask: &Ask, key: &str) -> Outcome {
        self.history.ask(&self.client, user, ask, key).await
    }

    async fn ask_until_known(&self, user: &User, ask: &Ask, key: &str) -> Outcome {
        self.history.ask_until_known(&self.client, user, ask, key).await
    }

    async fn send(&self, user: &User, path: &str, body: &Value, key: &str) -> Response {
        let url = format!("{}/v1/{path}", self.client.wallet);
        let request = self.client.request(Method::POST, &url).bearer_auth(&user.token).json(body);
        self.client.send(request.header("idempotency-key", key)).await
    }

    /// The response to a request that is 201, and whose repetition gets the same one.
    async fn created(&self, user: &User, path: &str, body: &Value) -> Value {
        let key = format!("k-{path}");
        let first = self.send(user, path, body, &key).await;
        let second = self.send(user, path, body, &key).await;
        assert_eq!((first.status.as_u16(), second.status.as_u16()), (201, 200), "{path}: {first:?}, {second:?}");
        assert_eq!(first.body, second.body);
        first.body
    }

    async fn balances(&self, users: &[User; 2]) -> [i64; 2] {
        [self.client.balance(&users[0]).await, self.client.balance(&users[1]).await]
    }

    async fn get(&self, user: &User, path: &str) -> Value {
        let response = self.client.get(user, path).await;
        assert_eq!(response.status, 200, "{path}: {response:?}");
        response.body
    }

    /// Each of the four shards is on a worker; 0 or 1.
    async fn worker_of(&self, shard: usize) -> usize {
        let node = format!(
            "SELECT nodeport FROM pg_dist_shard JOIN pg_dist_placement USING (shardid) JOIN pg_dist_node USING (groupid)
             WHERE logicalrelid = 'shard_0{shard}.wallets'::regclass"
        );
        let port = self.citus.sql(&self.world, &node).await;
        self.links.iter().position(|link| link.port().to_string() == port).expect("a worker")
    }

    /// Two users whose wallets are on the first and on the second worker.
    async fn users_of_both_workers(&self) -> [User; 2] {
        let mut of_workers = [None, None];
        for owner in &self.owners {
            of_workers[self.worker_of(shard_of(owner)).await] = Some(owner.clone());
        }
        of_workers.map(|user| user.expect("a user per worker"))
    }

    fn prepared(&self, worker: usize) -> String {
        let database = &self.world.databases.wallet.database;
        self.citus.workers[worker].sql(&format!("SELECT count(*) FROM pg_prepared_xacts WHERE database = '{database}'"))
    }

    async fn nothing_is_prepared(&self) {
        eventually(PATIENCE, "no transaction is prepared", || async {
            (self.prepared(0) == "0" && self.prepared(1) == "0").then_some(())
        })
        .await;
    }

    fn start_load(&self) -> Load {
        Load::start(&self.history, std::slice::from_ref(&self.client), &self.owners, 8, seed())
    }

    /// The triggers are on the workers too.
    async fn rejects_changes(&self) {
        for shard in 0..4 {
            for change in [
                "UPDATE {}.transactions SET amount_minor = 1",
                "DELETE FROM {}.transactions",
                "TRUNCATE {}.transactions",
                "TRUNCATE {}.entry_texts",
                "DELETE FROM {}.wallets",
                "TRUNCATE {}.wallets",
                "UPDATE {}.hash_chain SET unhashed_entries = 1",
                "INSERT INTO {}.hash_chain VALUES (1)",
            ] {
                let change = change.replace("{}", &format!("shard_0{shard}"));
                let refused = self.citus.try_sql_on(&self.citus.coordinator, &self.world, &change).await;
                let why = refused.expect_err(&change);
                assert!(why.contains("is refused") || why.contains("hash_chain_one_row"), "{change}: {why}");
            }
        }
    }

    /// While this worker is down the role stays in service, and new users get wallets on the other one.
    async fn serves_the_other_worker(&self, down: usize) {
        assert_eq!(self.wallet.readiness().await.0, 200);
        let user = loop {
            let user = self.history.register(&self.client).await.user.expect("registered");
            if self.worker_of(shard_of(&user)).await != down {
                break user;
            }
        };
        let began = Instant::now();
        let ready = self.client.get(&user, "/v1/wallet/status?wait=30").await;
        assert_eq!(ready.body["status"], "ready", "{ready:?}");
        println!("measured: a wallet on the other worker after {:.1} s", began.elapsed().as_secs_f64());
    }

    /// While this worker is down, under load with transfers to it, no post and no read of the other worker fails. Returns the longest
    /// time that both took.
    async fn posts_of_the_other_worker(&self, owners: &[User], down: usize, keys: Range<usize>) -> Duration {
        let mut longest = Duration::ZERO;
        for owner in owners {
            if self.worker_of(shard_of(owner)).await == down {
                continue;
            }
            for number in keys.clone() {
                let began = Instant::now();
                let posted = self.ask(owner, &Ask::post("credit", 1), &format!("beside-{down}-{number}")).await;
                assert!(matches!(posted, Outcome::Done(_)), "{posted:?}");
                let read = self.client.get(owner, "/v1/balance").await;
                assert_eq!(read.status, 200, "{read:?}");
                longest = longest.max(began.elapsed());
            }
        }
        longest
    }

    async fn unreachable_shards(&self) -> Option<f64> {
        Scrape::of(&self.wallet.url()).await.number("purse_ledger_shards_unreachable")
    }

    /// From now on, those of `users` whose wallets are on this worker transfer to the others, one after the other.
    async fn pay_from(&self, users: &[User], worker: usize) -> Payments {
        let (mut payers, mut recipients) = (Vec::new(), Vec::new());
        for user in users {
            let side = if self.worker_of(shard_of(user)).await == worker { &mut payers } else { &mut recipients };
            side.push(user.clone());
        }
        let (stop, stopped) = watch::channel(false);
        let (history, client) = (self.history.clone(), self.client.clone());
        let paying = tokio::spawn(async move {
            let mut not_done = 0;
            while !*stopped.borrow() {
                for (number, payer) in payers.iter().enumerate() {
                    let key = format!("payment-{worker}-{not_done}-{number}");
                    let asked = Ask::transfer(&recipients[not_done % recipients.len()], 1);
                    let outcome = history.ask(&client, payer, &asked, &key).await;
                    assert!(!matches!(outcome, Outcome::Done(_)), "{outcome:?}");
                }
                not_done += 1;
            }
            not_done
        });
        Payments { stop, paying }
    }

    /// While a worker is down, commands that need it name its server.
    async fn commands_fail(&self) {
        for command in ["verify", "holds"] {
            let failed = purse(&["ledger", command], &self.world.settings(Role::Wallet)).await;
            let end = ". Check that this server is running, then try again.\n";
            assert!(failed.code == Some(69) && failed.err.ends_with(end), "{failed:?}");
            assert!(failed.err.contains("cannot use one of its servers: database error: "), "{failed:?}");
        }
    }

    /// From now on, more readers than there are connections ask for the balances of those of `users` on this worker.
    async fn read_from(&self, users: &[User], worker: usize) -> JoinSet<()> {
        let mut readers = JoinSet::new();
        for user in users {
            if self.worker_of(shard_of(user)).await == worker {
                for _ in 0..12 {
                    let (client, user) = (self.client.clone(), user.clone());
                    readers.spawn(async move {
                        loop {
                            client.get(&user, "/v1/balance").await;
                            tokio::time::sleep(Duration::from_millis(100)).await;
                        }
                    });
                }
            }
        }
        readers
    }

    /// While this worker is down a wallet process starts, also without the owner's password, and `purse migrate` has nothing to do.
    /// It ends the holds of the other worker.
    async fn starts_without(&self, down: usize) {
        let mut settings = self.world.settings(Role::Wallet);
        settings.insert("WALLET_PORT".to_owned(), "0".to_owned());
        for has_owner in [true, false] {
            if !has_owner {
                settings.remove("WALLET_MIGRATION_DATABASE_URL");
            }
            let migrated = purse(&["migrate", "--role", "wallet"], &settings).await;
            assert!(migrated.code == Some(0), "{migrated:?}");
            let mut second = RoleProcess::spawn(&["--role", "wallet"], &settings);
            second.listening().await;
            second.ready().await;
            assert_eq!(second.logged("shard is unreachable and was not checked").len(), 2);
            let client = Client::new("", &second.url());
            for owner in &self.owners {
                let is_served = self.worker_of(shard_of(owner)).await != down;
                assert_eq!(client.get(owner, "/v1/balance").await.status == 200, is_served);
            }
            eventually(PATIENCE, "the shards of the worker are counted", || async {
                let unreachable = Scrape::of(&second.url()).await.number("purse_ledger_shards_unreachable");
                (unreachable == Some(2.0)).then_some(())
            })
            .await;
            // The links to the workers are tasks of this thread, and waiting for the end of the process would stop them.
            tokio::task::spawn_blocking(move || drop(second)).await.expect("stopped");
        }
    }

    /// While this worker is down the holds of the other one end by themselves once they are due. Nobody else posts to these wallets.
    async fn ends_holds_of_the_other_worker(&self, owners: &[User], down: usize) {
        let mut holders = Vec::new();
        for owner in owners {
            if self.worker_of(shard_of(owner)).await != down {
                let placed = self.ask(owner, &Ask::hold(1, 60), "hold").await;
                assert!(matches!(placed, Outcome::Done(_)), "{placed:?}");
                holders.push(owner);
            }
        }
        assert_eq!(holders.len(), 2);
        tokio::time::sleep(Duration::from_mins(1)).await;
        for owner in holders {
            let shard = shard_of(owner);
            let open = format!("SELECT count(*) FROM shard_0{shard}.open_holds WHERE user_id = '{}'", owner.id);
            eventually(PATIENCE, "the hold is ended", || async {
                (self.citus.sql(&self.world, &open).await == "0").then_some(())
            })
            .await;
        }
    }

    /// Waits until every request has an outcome, and checks every invariant.
    async fn finish(mut self, fault: &str, loads: Vec<Load>) {
        for load in loads {
            load.stop().await;
        }
        self.nothing_is_prepared().await;
        let quiet = assert_invariants(&self.world, &self.history, &self.client).await;
        let (done, doubt) = self.history.counts();
        println!(
            "measured: {fault}: no post for {:.1} s, quiet {:.1} s after the load, {done} done, {doubt} in doubt, 0 lost, \
             0 duplicated",
            self.history.longest_silence_of_posts().as_secs_f64(),
            quiet.as_secs_f64(),
        );
        for role in [&mut self.users, &mut self.wallet] {
            assert!(!role.has_exited(), "{}", role.output());
            assert_eq!(role.logged("panicked").len(), 0, "{}", role.output());
        }
    }
}

#[tokio::test]
#[ignore = "needs a PostgreSQL with Citus: just test-citus"]
async fn the_product_does_on_two_workers_what_it_does_on_one_server() {
    let cluster = Cluster::start().await;
    let [a, b] = &cluster.users_of_both_workers().await;
    // Posts, replays and rejected keys.
    let body = json!({"amountMinor": 70, "description": "seventy", "reference": "order-7", "metadata": {"table": "4"}});
    let posted = cluster.created(a, "transactions/credit", &body).await;
    let reused = cluster.send(a, "transactions/credit", &json!({"amountMinor": 71}), "k-transactions/credit").await;
    assert_eq!((reused.status.as_u16(), reused.code()), (422, "IDEMPOTENCY_KEY_REUSED"), "{reused:?}");
    let too_much = cluster.client.post(a, "debit", 999_999, None).await;
    assert_eq!((too_much.status.as_u16(), too_much.code()), (409, "INSUFFICIENT_FUNDS"), "{too_much:?}");
    // Transfers to each shard and back, of which one is reversed.
    for other in cluster.owners.iter().filter(|other| other.id != a.id) {
        let sent = cluster.ask(a, &Ask::transfer(other, 10), &format!("to-{}", other.id)).await;
        let back = cluster.ask(other, &Ask::transfer(a, 3), "back").await;
        assert!(matches!((&sent, &back), (Outcome::Done(_), Outcome::Done(_))), "{sent:?}, {back:?}");
    }
    let sent = cluster.created(a, "transfers", &json!({"toUserId": b.id, "amountMinor": 25})).await;
    let received = cluster.get(b, &format!("/v1/transfers/{}", text(&sent["id"]))).await;
    cluster.created(b, &format!("transactions/{}/reverse", text(&received["id"])), &json!({})).await;
    // Holds.
    let hold = text(&cluster.created(b, "holds", &json!({"amountMinor": 300, "reference": "room"})).await["id"]);
    let part = json!({"amountMinor": 100, "final": false});
    cluster.created(b, &format!("holds/{hold}/capture"), &part).await;
    let voided = cluster.send(b, &format!("holds/{hold}/void"), &json!({}), "void").await;
    assert!(voided.status.is_success(), "{voided:?}");
    let state = cluster.get(b, &format!("/v1/holds/{hold}")).await;
    assert_eq!((&state["status"], &state["capturedMinor"]), (&json!("voided"), &json!(100)), "{state}");
    let short = text(&cluster.created(a, "holds", &json!({"amountMinor": 40, "expiresInS": 60})).await["id"]);
    let placed = Instant::now();
    assert_eq!(cluster.get(a, "/v1/holds?status=open").await["items"][0]["id"], json!(short));
    // Groups and reversals.
    let items: Vec<Value> =
        (1..=30).map(|n| json!({"type": "credit", "amountMinor": n, "reference": "bulk"})).collect();
    cluster.created(a, "transactions/bulk", &json!({"items": items})).await;
    let entry = text(&posted["id"]);
    cluster.created(a, &format!("transactions/{entry}/reverse"), &json!({"amountMinor": 20})).await;
    // Many at once, in all shards.
    let posts = (0..200).map(|n| {
        let (cluster, user) = (&cluster, &cluster.owners[n % 4]);
        async move { cluster.ask_until_known(user, &Ask::post("credit", 1), &format!("many-{n}")).await }
    });
    assert!(join_all(posts).await.iter().all(|outcome| matches!(outcome, Outcome::Done(_))));
    // Every kind of read.
    assert_eq!(cluster.get(a, &format!("/v1/transactions/{entry}")).await["reversedMinor"], json!(20));
    let now = cluster.client.balance(a).await;
    assert_eq!(cluster.get(a, "/v1/balance?at=2999-01-01T00:00:00Z").await["balanceMinor"], json!(now));
    for (path, rows) in [
        ("transactions?limit=100", 91),
        ("transactions?type=debit", 5),
        ("transactions?from=2020-01-01T00:00:00Z&to=2999-01-01T00:00:00Z&limit=100", 91),
        ("transactions?from=2999-01-01T00:00:00Z", 0),
        ("transactions?reference=bulk&limit=100", 30),
        ("transactions?metadata.table=4", 1),
        ("holds?status=all", 1),
        ("ledger/chain?limit=100", 92),
    ] {
        let found = cluster.get(a, &format!("/v1/{path}")).await;
        assert_eq!(found["items"].as_array().map(Vec::len), Some(rows), "{path}: {found}");
    }
    assert_eq!(cluster.get(a, "/v1/ledger/head").await["balanceMinor"], json!(now));
    assert_eq!(cluster.get(a, &format!("/v1/transactions/{entry}/receipt")).await["entry"]["id"], json!(entry));
    let period = "from=2026-01-01T00:00:00Z&to=2026-12-31T00:00:00Z";
    let statement = cluster.client.get(a, &format!("/v1/statements?{period}")).await;
    assert_eq!(statement.status, 200, "{statement:?}");
    // What the requests did on the workers used indexes.
    for worker in &cluster.citus.workers {
        let scans = "SELECT coalesce(string_agg(relname || ' ' || seq_scan, ', '), '') FROM pg_stat_user_tables
                     WHERE seq_scan > 0 AND relname ~ '^(wallets|transactions|entry_texts|open_holds)_[0-9]+$'";
        assert_eq!(cluster.citus.sql_on(worker, &cluster.world, scans).await, "");
    }
    cluster.rejects_changes().await;
    // The sweep ends the hold by itself.
    tokio::time::sleep(Duration::from_mins(1).saturating_sub(placed.elapsed())).await;
    let expired = format!("SELECT count(*) FROM transactions WHERE user_id = '{}' AND type = 'expire'", a.id);
    eventually(PATIENCE, "the hold is expired", || async {
        (cluster.world.sql(Role::Wallet, &expired).await == "1").then_some(())
    })
    .await;
    let settings = cluster.world.settings(Role::Wallet);
    // It takes longer than the limits that requests have on the workers.
    let table = "SELECT logicalrelid || '_' || shardid FROM pg_dist_shard WHERE logicalrelid = 'shard_01.transactions'::regclass";
    let table = cluster.citus.sql(&cluster.world, table).await;
    let worker = &cluster.citus.workers[cluster.worker_of(1).await];
    let slow = format!(
        "SET citus.enable_manual_changes_to_shards = on; BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(4); COMMIT"
    );
    let verify = async {
        let locked = format!(
            "SELECT count(*) FROM pg_locks
             WHERE relation = '{table}'::regclass AND mode = 'AccessExclusiveLock' AND granted"
        );
        eventually(PATIENCE, "the table is locked", || async {
            (cluster.citus.sql_on(worker, &cluster.world, &locked).await == "1").then_some(())
        })
        .await;
        purse(&["ledger", "verify"], &settings).await
    };
    let (_, verified) = tokio::join!(cluster.citus.sql_on(worker, &cluster.world, &slow), verify);
    let end = ": all consistent. Each of the 4 shards was read at a moment of its own.\n";
    assert!(verified.code == Some(0) && verified.out.ends_with(end), "{verified:?}");
    assert_eq!(purse(&["ledger", "holds"], &settings).await.out, "0 open holds with 0 cents, 0 overdue.\n");
    let report = purse(&["doctor", "--role", "wallet", "--json"], &settings).await.json();
    for check in ["database", "migrations", "rights"] {
        let checks = report["checks"].as_array().expect("a list");
        let found = checks.iter().find(|found| found["check"] == check).expect("the check");
        assert_eq!(found["result"], "ok", "{found}");
    }
    let again = purse(&["migrate", "--role", "wallet"], &settings).await;
    assert!(again.code == Some(0) && again.err.is_empty() && again.out.contains("database is up to date"), "{again:?}");
}

#[tokio::test]
#[ignore = "needs a PostgreSQL with Citus: just test-citus"]
async fn fm_31_a_worker_killed_before_or_after_its_commit_has_written_the_entry_once_when_it_is_retried() {
    let mut cluster = Cluster::start().await;
    for (number, fault) in [CommitFault::RequestLost, CommitFault::ResponseWithheld].into_iter().enumerate() {
        for worker in [0, 1] {
            let user = cluster.users_of_both_workers().await[worker].clone();
            let key = format!("{fault:?}");
            let before = cluster.client.balance(&user).await;
            cluster.links[worker].fail_next(COMMIT, fault);
            let (history, client) = (cluster.history.clone(), cluster.client.clone());
            let pending = tokio::spawn({
                let (user, key) = (user.clone(), key.clone());
                async move { history.ask(&client, &user, &Ask::post("credit", 7), &key).await }
            });
            let links = &cluster.links;
            eventually(PATIENCE, "the commit is under way", || async {
                (links[worker].commits_intercepted() == number + 1).then_some(())
            })
            .await;
            cluster.citus.workers[worker].stop();
            let outcome = pending.await.expect("a post");
            assert!(!matches!(outcome, Outcome::Done(_)), "{fault:?}: {outcome:?} although the worker is down");
            // The other worker serves.
            let other = cluster.users_of_both_workers().await[1 - worker].clone();
            let elsewhere = cluster.ask(&other, &Ask::post("credit", 1), &format!("{key}-{worker}")).await;
            assert!(matches!(elsewhere, Outcome::Done(_)), "{elsewhere:?}");
            cluster.citus.workers[worker].start_again().await;
            let known = cluster.ask_until_known(&user, &Ask::post("credit", 7), &key).await;
            assert!(matches!(known, Outcome::Done(_)), "{known:?}");
            assert_eq!(cluster.client.balance(&user).await, before + 7, "{fault:?}");
            println!("measured: FM-31 worker {worker} killed, {fault:?}: {outcome:?}, then {known:?}");
        }
    }
    cluster.finish("FM-31 worker killed at its commit", Vec::new()).await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL with Citus: just test-citus"]
async fn fm_32_a_commit_on_a_worker_whose_request_or_response_is_lost_is_reported_correctly() {
    let cluster = Cluster::start().await;
    for worker in [0, 1] {
        let user = cluster.users_of_both_workers().await[worker].clone();
        cluster.links[worker].fail_next(COMMIT, CommitFault::RequestLost);
        let lost = cluster.ask(&user, &Ask::post("credit", 5), "request").await;
        assert_eq!(lost, Outcome::NotDone("DEPENDENCY_UNAVAILABLE".to_owned()));
        cluster.links[worker].fail_next(COMMIT, CommitFault::ResponseLost);
        let written = cluster.ask(&user, &Ask::post("credit", 6), "response").await;
        assert!(matches!(written, Outcome::Done(_)), "{written:?}");
        assert_eq!((cluster.client.balance(&user).await, cluster.links[worker].commits_intercepted()), (1_006, 2));
    }
    cluster.finish("FM-32 commit or its response lost", Vec::new()).await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL with Citus: just test-citus"]
async fn fm_33_a_transfer_over_two_workers_interrupted_in_either_phase_has_both_legs_or_neither() {
    let cluster = Cluster::start().await;
    let users = cluster.users_of_both_workers().await;
    for (statement, phase) in [(PREPARE, "PREPARE"), (COMMIT_PREPARED, "COMMIT-PREPARED")] {
        for fault in [CommitFault::RequestLost, CommitFault::ResponseLost] {
            for worker in [0, 1] {
                let key = format!("{phase}-{fault:?}-{worker}");
                let before = cluster.balances(&users).await;
                cluster.links[worker].fail_next(statement, fault);
                let began = Instant::now();
                let outcome = cluster.ask(&users[0], &Ask::transfer(&users[1], 10), &key).await;
                let answered = began.elapsed();
                // Once both are prepared, the transaction is committed.
                assert!(statement == PREPARE || matches!(outcome, Outcome::Done(_)), "{key}: {outcome:?}");
                let known = cluster.ask_until_known(&users[0], &Ask::transfer(&users[1], 10), &key).await;
                assert!(matches!(known, Outcome::Done(_)), "{key}: {known:?}");
                cluster.nothing_is_prepared().await;
                assert_eq!(cluster.balances(&users).await, [before[0] - 10, before[1] + 10], "{key}");
                println!(
                    "measured: FM-33 {key}: {outcome:?} after {:.1} s, known after {:.1} s",
                    answered.as_secs_f64(),
                    began.elapsed().as_secs_f64()
                );
            }
        }
    }
    cluster.finish("FM-33 two-phase commit interrupted", Vec::new()).await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL with Citus: just test-citus"]
async fn fm_34_a_coordinator_killed_between_the_phases_of_a_transfer_leaves_both_legs_or_neither() {
    let mut cluster = Cluster::start().await;
    let users = cluster.users_of_both_workers().await;
    let before = cluster.balances(&users).await;
    // Both workers have prepared, and the coordinator waits for the response of one.
    cluster.links[1].fail_next(PREPARE, CommitFault::ResponseWithheld);
    let (history, client) = (cluster.history.clone(), cluster.client.clone());
    let pending = tokio::spawn({
        let [sender, recipient] = users.clone();
        async move { history.ask(&client, &sender, &Ask::transfer(&recipient, 10), "k").await }
    });
    eventually(PATIENCE, "both workers have prepared", || async {
        (cluster.prepared(0) == "1" && cluster.prepared(1) == "1").then_some(())
    })
    .await;
    cluster.citus.coordinator.stop();
    let outcome = pending.await.expect("a transfer");
    assert!(!matches!(outcome, Outcome::Done(_)), "{outcome:?} although the coordinator is down");
    cluster.citus.coordinator.start_again().await;
    let began = Instant::now();
    let known = cluster.ask_until_known(&users[0], &Ask::transfer(&users[1], 10), "k").await;
    assert!(matches!(known, Outcome::Done(_)), "{known:?}");
    println!("measured: FM-34: {outcome:?}, done {:.1} s after the restart", began.elapsed().as_secs_f64());
    assert_eq!(cluster.balances(&users).await, [before[0] - 10, before[1] + 10]);
    cluster.finish("FM-34 coordinator killed between the phases", Vec::new()).await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL with Citus: just test-citus"]
async fn fm_35_servers_of_a_cluster_killed_under_load_lose_nothing_that_was_acknowledged() {
    let mut cluster = Cluster::start().await;
    let holders = cluster.one_user_per_shard().await;
    let load = cluster.start_load();
    tokio::time::sleep(CALM).await;
    for server in [0, 1, 2] {
        if let Some(worker) = cluster.citus.workers.get_mut(server) {
            worker.stop();
        } else {
            cluster.citus.coordinator.stop();
        }
        tokio::time::sleep(CALM).await;
        if server < 2 {
            cluster.serves_the_other_worker(server).await;
            let longest = cluster.posts_of_the_other_worker(&holders, server, 0..100).await;
            println!("measured: FM-35 server {server}: the slowest post beside it took {:.2} s", longest.as_secs_f64());
            cluster.commands_fail().await;
            cluster.starts_without(server).await;
        }
        if server == 1 {
            cluster.ends_holds_of_the_other_worker(&holders, server).await;
        }
        match cluster.citus.workers.get_mut(server) {
            Some(worker) => worker.start_again().await,
            None => cluster.citus.coordinator.start_again().await,
        }
        let began = Instant::now();
        for owner in &cluster.owners {
            let key = format!("after-{server}");
            assert!(matches!(cluster.ask_until_known(owner, &Ask::post("credit", 1), &key).await, Outcome::Done(_)));
        }
        println!(
            "measured: FM-35 server {server}: all shards served {:.1} s after it was back",
            began.elapsed().as_secs_f64()
        );
        tokio::time::sleep(CALM).await;
    }
    cluster.finish("FM-35 each server killed under load", vec![load]).await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL with Citus: just test-citus"]
async fn fm_36_a_shard_that_moves_to_the_other_worker_under_load_loses_nothing() {
    let cluster = Cluster::start().await;
    let others = cluster.one_user_per_shard().await;
    let load = cluster.start_load();
    tokio::time::sleep(CALM).await;
    for shard in [0, 1] {
        let target = 1 - cluster.worker_of(shard).await;
        let began = Instant::now();
        let moved =
            format!("SELECT citus_schema_move('shard_0{shard}', '127.0.0.1', {})", cluster.links[target].port());
        cluster.citus.sql(&cluster.world, &moved).await;
        println!("measured: FM-36 shard {shard} moved in {:.1} s", began.elapsed().as_secs_f64());
        assert_eq!(cluster.worker_of(shard).await, target);
        cluster.rejects_changes().await;
        tokio::time::sleep(CALM).await;
    }
    let rejected = |post: &&Post| {
        post.outcomes.iter().any(|outcome| match outcome {
            Outcome::Unknown => true,
            Outcome::NotDone(code) => matches!(code.as_str(), "DEPENDENCY_UNAVAILABLE" | "OVERLOADED"),
            Outcome::Done(_) => false,
        })
    };
    let posts = cluster.history.posts();
    let rejected: Vec<_> = posts.iter().filter(rejected).collect();
    assert!(rejected.len() * 2 < posts.len(), "{} of {} posts were rejected", rejected.len(), posts.len());
    println!("measured: FM-36: {} of {} posts were rejected or in doubt", rejected.len(), posts.len());
    // The worker that the first of them has left falls silent at once.
    cluster.citus.workers[cluster.worker_of(2).await].freeze();
    tokio::time::sleep(Duration::from_secs(10)).await;
    for number in 0..8 {
        let served = cluster.ask(&others[0], &Ask::post("credit", 1), &format!("moved-{number}")).await;
        assert!(matches!(served, Outcome::Done(_)), "{served:?}");
        assert_eq!(cluster.unreachable_shards().await, Some(2.0));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    cluster.citus.workers[cluster.worker_of(2).await].wake();
    cluster.finish("FM-36 shards moved under load", vec![load]).await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL with Citus: just test-citus"]
async fn fm_37_a_worker_that_falls_silent_fails_only_what_needs_it() {
    let cluster = Cluster::start().await;
    let others = cluster.one_user_per_shard().await;
    let load = cluster.start_load();
    tokio::time::sleep(CALM).await;
    for worker in [0, 1] {
        cluster.citus.workers[worker].freeze();
        let began = Instant::now();
        let mut slowest = Duration::ZERO;
        let mut posts = 0;
        let payments = cluster.pay_from(&others, worker).await;
        let readers = cluster.read_from(&others, worker).await;
        while began.elapsed() < Duration::from_secs(15) {
            slowest = slowest.max(cluster.posts_of_the_other_worker(&others, worker, posts..posts + 1).await);
            posts += 1;
        }
        assert_eq!(cluster.unreachable_shards().await, Some(2.0));
        cluster.serves_the_other_worker(worker).await;
        cluster.starts_without(worker).await;
        drop(readers);
        let not_done = payments.stop().await;
        assert!(not_done > 100, "{not_done} transfers were refused, so most of them waited");
        cluster.citus.workers[worker].wake();
        println!(
            "measured: FM-37 worker {worker} silent: {} posts of the other one, the slowest took {:.1} s",
            posts * 2,
            slowest.as_secs_f64()
        );
        let began = Instant::now();
        for owner in &cluster.owners {
            let key = format!("after-{worker}");
            assert!(matches!(cluster.ask_until_known(owner, &Ask::post("credit", 1), &key).await, Outcome::Done(_)));
        }
        println!("measured: FM-37: all shards served {:.1} s after it woke", began.elapsed().as_secs_f64());
        eventually(PATIENCE, "no shard is counted any longer", || async {
            (cluster.unreachable_shards().await == Some(0.0)).then_some(())
        })
        .await;
        tokio::time::sleep(CALM).await;
    }
    cluster.finish("FM-37 each worker frozen under load", vec![load]).await;
}
