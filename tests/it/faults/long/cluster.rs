//! A RabbitMQ cluster of three under load: the node that the wallet role is connected to, the leader of each quorum queue and
//! the node of the dead letters are killed, frozen and restarted, then two nodes, then all (FM-25 to FM-30).
//! `just test-cluster` runs these; they take a quarter of an hour.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use purse::kernel::Role;
use purse_dev::{Action, BrokerCluster};
use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard};
use uuid::Uuid;

use super::super::history::{History, Outcome};
use super::super::invariants::assert_invariants_with_poison;
use super::super::load::{Load, seed};
use super::super::watcher::Watcher;
use crate::support::{Broker, Client, PATIENCE, RoleProcess, UncommittedWallet, World, eventually, purse};

const QUEUE: &str = "wallet.provision";
const DEAD: &str = "wallet.provision.dlq";
/// The first one is longer than an election and shorter than a fault.
const LADDER: &[(&str, &str)] =
    &[("RETRY_TTL_1_MS", "8000"), ("RETRY_TTL_2_MS", "2000"), ("RETRY_TTL_3_MS", "1000"), ("DB_LOCK_TIMEOUT_MS", "50")];
const FIRST_TIER: &str = "wallet.provision.retry.8s";
const TIERS: [&str; 3] = [FIRST_TIER, "wallet.provision.retry.2s", "wallet.provision.retry.1s"];
/// Of one users role and one wallet role.
const CONNECTIONS: usize = 4;
/// How long provisioning may stand still while both roles report `ok`. A peer that is silent for 20 s counts as gone, so a
/// frozen node is noticed within that.
const UNNOTICED_MAX: Duration = Duration::from_secs(30);

static CLUSTER: OnceLock<BrokerCluster> = OnceLock::new();
/// One test has the cluster at a time.
static TURN: Mutex<()> = Mutex::const_new(());

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Killed,
    Frozen,
    Restarted,
}

impl Fault {
    fn lasts(self) -> Duration {
        match self {
            Self::Killed | Self::Restarted => Duration::from_secs(15),
            // Longer than it may go unnoticed.
            Self::Frozen => Duration::from_secs(35),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Killed => "killed",
            Self::Frozen => "frozen",
            Self::Restarted => "restarted",
        })
    }
}

/// A cluster, and the roles and clients that use it.
struct Stage {
    cluster: &'static BrokerCluster,
    world: World,
    users: RoleProcess,
    wallet: RoleProcess,
    client: Client,
    history: History,
    before: [(usize, u64); 2],
    /// Ids of the messages that can never succeed.
    poison: Vec<String>,
    _turn: MutexGuard<'static, ()>,
}

async fn blocking<T: Send + 'static>(work: impl FnOnce(&'static BrokerCluster) -> T + Send + 'static) -> T {
    let cluster = || {
        CLUSTER
            .get_or_init(|| BrokerCluster::start().unwrap_or_else(|e| panic!("the tests need a RabbitMQ cluster: {e}")))
    };
    tokio::task::spawn_blocking(move || work(cluster())).await.expect("thread")
}

/// Ends every fault.
async fn heal() {
    blocking(BrokerCluster::heal).await.unwrap_or_else(|e| panic!("the cluster does not recover: {e}"));
}

impl Stage {
    /// Both roles on a new virtual host, with two dead letters. `prepare` runs before the roles start.
    async fn set(prepare: impl AsyncFnOnce(&World)) -> Self {
        let turn = TURN.lock().await;
        let cluster = blocking(|cluster| cluster).await;
        // A test that failed leaves its fault behind.
        heal().await;
        let mut world = World::new().await;
        let name = world.broker.virtual_host().to_owned();
        world.broker = Self::broker(cluster, &world, 0);
        world.broker.create_virtual_host().await;
        prepare(&world).await;
        let urls: Vec<String> =
            cluster.nodes().iter().map(|(_, amqp, _)| format!("amqp://guest:guest@127.0.0.1:{amqp}/{name}")).collect();
        let urls = urls.join(",");
        let changed = [&[("RABBITMQ_URL", urls.as_str())], LADDER].concat();
        let (users, wallet) =
            tokio::join!(world.start_with(Role::Users, &changed[..1]), world.start_with(Role::Wallet, &changed));
        let client = Client::new(&users.url(), &wallet.url());
        let before = [&users, &wallet].map(|role| (role.descriptors(), role.threads()));
        let (history, poison) = (History::default(), Vec::new());
        let mut stage = Self { cluster, world, users, wallet, client, history, before, poison, _turn: turn };
        stage.client.ready_user().await;
        stage.poison("before the first fault").await;
        eventually(PATIENCE, "the poison is a dead letter", || async {
            (stage.world.broker.depth(DEAD).await == Some(1)).then_some(())
        })
        .await;
        eventually(PATIENCE, "every quorum queue has three members", || async {
            for queue in [QUEUE].into_iter().chain(TIERS) {
                if stage.world.broker.members_of(queue).await.len() != 3 {
                    return None;
                }
            }
            Some(())
        })
        .await;
        stage
    }

    /// The virtual host as one node shows it.
    fn broker(cluster: &BrokerCluster, world: &World, node: usize) -> Broker {
        let (_, amqp, management) = cluster.nodes()[node];
        let mut addresses = world.addresses.clone();
        (addresses.amqp_port, addresses.management_port) = (amqp, management);
        Broker::existing(addresses, world.broker.virtual_host())
    }

    /// Looks at the broker through this node from now on.
    fn look_through(&mut self, node: usize) {
        self.world.broker = Self::broker(self.cluster, &self.world, node);
    }

    async fn poison(&mut self, id: &str) {
        eventually(PATIENCE, "the poison is accepted", || async {
            let published = self.world.broker.publish("domain.events", "user.registered", b"poison", Some(id), &[]);
            // A broker that lost the leader a moment ago may not reply either.
            matches!(tokio::time::timeout(Duration::from_secs(5), published).await, Ok(true)).then_some(())
        })
        .await;
        self.poison.push(id.to_owned());
    }

    fn index(&self, node: &str) -> usize {
        self.cluster.nodes().iter().position(|(name, ..)| *name == node).unwrap_or_else(|| panic!("no node {node}"))
    }

    /// The node that has the connection of the consumer.
    async fn consumer_node(&self) -> usize {
        let node = eventually(PATIENCE, "the consumer's connection is listed", || async {
            let listed = self.world.broker.connection_nodes().await;
            listed.into_iter().find(|(name, _)| name == "purse wallet: provisioning").map(|(_, node)| node)
        });
        self.index(&node.await)
    }

    async fn node_of(&self, queue: &'static str) -> usize {
        let node = eventually(PATIENCE, "the queue has a node", || async {
            self.world.broker.node_of(queue).await.filter(|node| !node.is_empty())
        });
        self.index(&node.await)
    }

    async fn act(&self, nodes: &BTreeSet<usize>, action: Action) {
        for node in nodes.clone() {
            blocking(move |cluster| cluster.command(node, action)).await.unwrap_or_else(|e| panic!("{action:?}: {e}"));
        }
    }

    /// Has some nodes fail for a while under load, and then checks everything. What is published during the fault, a
    /// delivery that waits in a retry tier, and a message that can never succeed are part of it.
    async fn survive(&mut self, what: &str, nodes: &BTreeSet<usize>, fault: Fault) {
        let watch = watch_health(self);
        let known = self.history.counts().0;
        let first = self.world.sql(Role::Wallet, "SELECT clock_timestamp()").await;
        let load =
            Load::start(&self.history, std::slice::from_ref(&self.client), &self.history.registered_users(), 0, seed());
        tokio::time::sleep(Duration::from_secs(2)).await;
        let retried = Uuid::now_v7();
        let uncommitted = UncommittedWallet::insert(&self.world, retried).await;
        self.world.publish_event(retried, &format!("retried {what} {fault}")).await;
        eventually(PATIENCE, "a delivery waits in the first tier", || async {
            (self.world.broker.depth(FIRST_TIER).await? > 0).then_some(())
        })
        .await;
        self.act(
            nodes,
            match fault {
                Fault::Killed => Action::Kill,
                Fault::Frozen => Action::Pause,
                Fault::Restarted => Action::Stop,
            },
        )
        .await;
        let began = Instant::now();
        uncommitted.roll_back().await;
        if let (1, Some(alive)) = (nodes.len(), (0..3).find(|node| !nodes.contains(node))) {
            self.look_through(alive);
        }
        // A quorum queue whose leader is frozen accepts nothing until the cluster declares the node down, which takes longer.
        let others_serve = nodes.len() == 1 && fault != Fault::Frozen;
        if others_serve {
            self.poison(&format!("during {what} {fault}")).await;
            eventually(PATIENCE, &format!("{what} {fault}: provisioning resumes meanwhile"), || async {
                let registered = self.history.register(&self.client).await.user?;
                let is_provisioned = format!("SELECT count(*) FROM wallets WHERE user_id = '{}'", registered.id);
                for _ in 0..20 {
                    if self.world.sql(Role::Wallet, &is_provisioned).await == "1" {
                        return Some(());
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                None
            })
            .await;
        }
        tokio::time::sleep(fault.lasts().saturating_sub(began.elapsed())).await;
        if nodes.len() > 1 {
            for role in [&self.users, &self.wallet] {
                let reported = probe(&reqwest::Client::new(), &role.url(), "/health/ready").await;
                assert_eq!(reported, (200, "degraded".to_owned()), "{what} {fault}");
            }
        }
        heal().await;
        let recovered = Instant::now();
        if !others_serve {
            self.poison(&format!("after {what} {fault}")).await;
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        load.stop().await;
        self.settle(&format!("{what} {fault}"), retried).await;
        let registrations = self.silence(Role::Users, "SELECT created_at FROM users", &first).await;
        let wallets = format!("SELECT created_at FROM wallets WHERE user_id <> '{retried}'");
        let provisioning = self.silence(Role::Wallet, &wallets, &first).await;
        let quiet = recovered.elapsed();
        watch.stop().await;
        println!(
            "measured: {what} {fault}: {} registrations, longest silence of registrations {registrations} s and of provisioning {provisioning} s, all as before {:.1} s after recovery",
            self.history.counts().0 - known,
            quiet.as_secs_f64()
        );
    }

    /// Waits until everything is as before the fault: wallets, dead letters, health, consumers, connections, channels.
    async fn settle(&self, what: &str, retried: Uuid) {
        let poison: Vec<&str> = self.poison.iter().map(String::as_str).collect();
        let is_provisioned = format!("SELECT count(*) FROM wallets WHERE user_id = '{retried}'");
        eventually(PATIENCE * 4, &format!("{what}: the retried event is provisioned"), || async {
            (self.world.sql(Role::Wallet, &is_provisioned).await == "1").then_some(())
        })
        .await;
        // The broker dead-letters again after three minutes if the target was away.
        eventually(PATIENCE * 4, &format!("{what}: every poison message is a dead letter"), || async {
            (self.world.broker.depth(DEAD).await? as usize >= poison.len()).then_some(())
        })
        .await;
        assert_invariants_with_poison(&self.world, &self.history, &self.client, &poison).await;
        self.users.ready().await;
        self.wallet.ready().await;
        // The broker updates most of these every few seconds.
        let (broker, until) = (&self.world.broker, Instant::now() + PATIENCE);
        loop {
            let consumers = broker.consumers(QUEUE).await;
            let found = (consumers, broker.connections().await, broker.channels().await, broker.unacked().await);
            if found == (Some(1), CONNECTIONS, CONNECTIONS, 0) {
                break;
            }
            let connections = broker.connection_nodes().await;
            assert!(
                Instant::now() < until,
                "{what}: consumers, connections, channels, unacked: {found:?}\n{connections:?}"
            );
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        for (role, (descriptors, threads)) in [&self.users, &self.wallet].into_iter().zip(self.before) {
            eventually(PATIENCE, &format!("{what}: descriptors and threads are as before"), || async {
                (role.descriptors() <= descriptors + 6 && role.threads() <= threads + 4).then_some(())
            })
            .await;
        }
    }

    /// The longest time between two rows that were created since then, in seconds.
    async fn silence(&self, role: Role, times: &str, since: &str) -> String {
        let gaps = format!(
            "SELECT round(extract(epoch FROM max(gap))::numeric, 1) FROM (
                 SELECT created_at - lag(created_at) OVER (ORDER BY created_at) AS gap FROM ({times}) AS times
                 WHERE created_at >= '{since}' ) AS gaps"
        );
        self.world.sql(role, &gaps).await
    }
}

/// A response of a probe: its status, and what it reports.
async fn probe(client: &reqwest::Client, url: &str, path: &str) -> (u16, String) {
    let response = client.get(format!("{url}{path}")).send().await.unwrap_or_else(|e| panic!("{url}{path}: {e}"));
    let status = response.status().as_u16();
    let body: Value = response.json().await.expect("JSON");
    (status, body["status"].as_str().unwrap_or_default().to_owned())
}

/// Polls the health of both roles during a fault. Fails if a role is not alive or not ready, or if users wait for wallets while
/// both roles report `ok`.
fn watch_health(stage: &Stage) -> Watcher<()> {
    let urls = [stage.users.url(), stage.wallet.url()];
    let databases = [&stage.world.databases.users, &stage.world.databases.wallet]
        .map(|database| stage.world.addresses.superuser_url(&database.database));
    Watcher::start(|end| async move {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).build().expect("a client");
        let [users, wallets] = [connect(&databases[0]).await, connect(&databases[1]).await];
        let (mut wallets_before, mut unnoticed_since) = (0, Instant::now());
        while !end.has_come() {
            let mut all_ok = true;
            for url in &urls {
                assert_eq!(probe(&client, url, "/health/live").await.0, 200, "{url}");
                let (status, reported) = probe(&client, url, "/health/ready").await;
                assert_eq!(status, 200, "{url}: requests do not need the broker: {reported}");
                all_ok &= reported == "ok";
            }
            let registered = count(&users, "SELECT count(*) FROM users").await;
            let provisioned = count(&wallets, "SELECT count(*) FROM wallets").await;
            // One is the user whose event is retried, another one may be under way.
            let waiting = registered > provisioned + 1;
            if !all_ok || !waiting || provisioned > wallets_before {
                unnoticed_since = Instant::now();
            }
            wallets_before = provisioned;
            let unnoticed = unnoticed_since.elapsed();
            assert!(
                unnoticed < UNNOTICED_MAX,
                "for {unnoticed:?} {} users had no wallet, and both roles reported ok",
                registered - provisioned
            );
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    })
}

async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("connected");
    tokio::spawn(async move { drop(connection.await) });
    client
}

async fn count(database: &tokio_postgres::Client, query: &str) -> i64 {
    database.query_one(query, &[]).await.expect(query).get(0)
}

/// One node fails, for each reason that a node can matter for.
async fn each_node_that_matters(fault: Fault) {
    let mut stage = Stage::set(async |_| {}).await;
    let consumer = BTreeSet::from([stage.consumer_node().await]);
    stage.survive("the node of the consumer", &consumer, fault).await;
    for queue in [QUEUE].into_iter().chain(TIERS) {
        let leader = BTreeSet::from([stage.node_of(queue).await]);
        stage.survive(&format!("the leader of {queue}"), &leader, fault).await;
    }
    let dead = BTreeSet::from([stage.node_of(DEAD).await]);
    stage.survive("the node of the dead letters", &dead, fault).await;
}

#[tokio::test]
async fn fm_25_each_node_that_matters_is_killed_and_every_user_gets_one_wallet() {
    each_node_that_matters(Fault::Killed).await;
}

#[tokio::test]
async fn fm_26_each_node_that_matters_freezes_and_every_user_gets_one_wallet() {
    each_node_that_matters(Fault::Frozen).await;
}

#[tokio::test]
async fn fm_27_each_node_that_matters_is_restarted_and_every_user_gets_one_wallet() {
    each_node_that_matters(Fault::Restarted).await;
}

#[tokio::test]
async fn fm_28_without_a_majority_events_wait_and_every_user_gets_one_wallet_afterwards() {
    let mut stage = Stage::set(async |_| {}).await;
    for fault in [Fault::Killed, Fault::Frozen, Fault::Restarted] {
        let consumer = stage.consumer_node().await;
        let two = BTreeSet::from([consumer, (consumer + 1) % 3]);
        stage.survive("two nodes", &two, fault).await;
    }
    stage.survive("all nodes", &BTreeSet::from([0, 1, 2]), Fault::Killed).await;
}

#[tokio::test]
async fn fm_29_a_role_that_starts_while_a_node_is_down_provisions_and_returns_every_dead_letter_later() {
    let mut stage = Stage::set(async |_| {}).await;
    let dead = stage.node_of(DEAD).await;
    let name = stage.world.broker.virtual_host().to_owned();
    stage.look_through((dead + 1) % 3);
    stage.act(&BTreeSet::from([dead]), Action::Kill).await;
    let urls =
        stage.cluster.nodes().into_iter().map(|(_, amqp, _)| format!("amqp://guest:guest@127.0.0.1:{amqp}/{name}"));
    let urls = urls.collect::<Vec<_>>().join(",");
    let wallet = stage.world.spawn(Role::Wallet, &[&[("RABBITMQ_URL", urls.as_str())], LADDER].concat()).await;
    std::mem::replace(&mut stage.wallet, wallet).kill().await;
    stage.client = Client::new(&stage.users.url(), &stage.wallet.url());
    for _ in 0..3 {
        let registered = stage.history.register(&stage.client).await;
        assert!(matches!(registered.outcome, Outcome::Done(_)), "{registered:?}");
    }
    eventually(PATIENCE, "every user has a wallet", || async {
        let [users, wallets] = [(Role::Users, "users"), (Role::Wallet, "wallets")]
            .map(|(role, table)| (role, format!("SELECT count(*) FROM {table}")));
        (stage.world.sql(users.0, &users.1).await == stage.world.sql(wallets.0, &wallets.1).await).then_some(())
    })
    .await;
    stage.poison("while the dead letters have no node").await;
    let (status, reported) = probe(&reqwest::Client::new(), &stage.wallet.url(), "/health/ready").await;
    assert_eq!((status, reported.as_str()), (200, "degraded"));
    heal().await;
    eventually(PATIENCE * 4, "both dead letters are there", || async {
        (stage.world.broker.depth(DEAD).await? >= 2).then_some(())
    })
    .await;
    let poison: Vec<&str> = stage.poison.iter().map(String::as_str).collect();
    assert_invariants_with_poison(&stage.world, &stage.history, &stage.client, &poison).await;
    stage.wallet.ready().await;
}

#[tokio::test]
async fn fm_30_dead_letters_in_a_quorum_queue_can_be_read_while_any_node_is_down() {
    let mut stage = Stage::set(async |world: &World| world.broker.declare_quorum(DEAD, None).await).await;
    let name = stage.world.broker.virtual_host().to_owned();
    let urls =
        stage.cluster.nodes().into_iter().map(|(_, amqp, _)| format!("amqp://guest:guest@127.0.0.1:{amqp}/{name}"));
    let only = [("RABBITMQ_URL".to_owned(), urls.collect::<Vec<_>>().join(","))].into();
    for node in 0..3 {
        stage.look_through((node + 1) % 3);
        stage.act(&BTreeSet::from([node]), Action::Kill).await;
        let id = format!("while node {node} is down");
        stage.poison(&id).await;
        let total = stage.poison.len();
        eventually(PATIENCE, &id, || async {
            let listed = purse(&["dlq", "list", "--json"], &only).await;
            (listed.code == Some(0) && listed.json()["total"] == total).then_some(())
        })
        .await;
        heal().await;
    }
    let poison: Vec<&str> = stage.poison.iter().map(String::as_str).collect();
    assert_invariants_with_poison(&stage.world, &stage.history, &stage.client, &poison).await;
}
