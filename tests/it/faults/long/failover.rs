//! A primary and its standby (FM-17 to FM-22): killed, frozen, stopped in order, woken, each under load and with the
//! standby promoted. `just test-failover` runs these alone.

use std::time::{Duration, Instant};

use purse::kernel::Role;

use super::super::history::History;
use super::super::invariants::assert_invariants;
use super::super::load::{Load, seed};
use super::super::proxy::Proxy;
use super::super::watcher::Watcher;
use crate::support::{Client, PATIENCE, PrivatePostgres, RoleProcess, User, World, eventually};

/// How long there is load before the fault, and after everything serves again.
const CALM: Duration = Duration::from_secs(2);

/// How the roles find the server that accepts writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// Both are in the URL.
    Hosts,
    /// The URL has one address, which leads to another server afterwards.
    Address,
}

/// Both databases on a primary with a standby, and both roles under load.
struct Cluster {
    world: World,
    primary: PrivatePostgres,
    standby: PrivatePostgres,
    address: Proxy,
    history: History,
    client: Client,
    owners: Vec<User>,
    load: Option<Load>,
    readiness: [Watcher<Duration>; 2],
    users: RoleProcess,
    wallet: RoleProcess,
}

impl Cluster {
    async fn start(by: By, is_synchronous: bool) -> Self {
        let mut world = World::new().await;
        let primary = PrivatePostgres::start(&[]).await;
        world.move_to(&primary).await;
        let standby = primary.standby().await;
        if is_synchronous {
            primary.wait_for_a_standby().await;
        }
        let address = Proxy::start(primary.port()).await;
        let url = |direct: &str| match by {
            By::Hosts => {
                let both = format!("@127.0.0.1:{},127.0.0.1:{}/", primary.port(), standby.port());
                direct.replace(&format!("@127.0.0.1:{}/", primary.port()), &both) + "?target_session_attrs=read-write"
            }
            By::Address => address.url(direct),
        };
        let (users, wallet) = (&world.databases.users, &world.databases.wallet);
        let urls = [
            ("USERS_DATABASE_URL", url(&users.runtime_url)),
            ("USERS_MIGRATION_DATABASE_URL", url(&users.migration_url)),
            ("WALLET_DATABASE_URL", url(&wallet.runtime_url)),
            ("WALLET_MIGRATION_DATABASE_URL", url(&wallet.migration_url)),
        ];
        let of = |role: &str| -> Vec<(&str, &str)> {
            urls.iter().filter(|(name, _)| name.starts_with(role)).map(|(name, url)| (*name, url.as_str())).collect()
        };
        let (of_users, of_wallet) = (of("USERS"), of("WALLET"));
        let (users, wallet) =
            tokio::join!(world.start_with(Role::Users, &of_users), world.start_with(Role::Wallet, &of_wallet));
        let (client, history) = (Client::new(&users.url(), &wallet.url()), History::default());
        let mut owners = Vec::new();
        for _ in 0..10 {
            owners.push(client.ready_user().await);
        }
        let readiness = [watch_readiness(users.url()), watch_readiness(wallet.url())];
        let load = None;
        let mut cluster =
            Self { world, primary, standby, address, history, client, owners, load, readiness, users, wallet };
        cluster.start_load();
        tokio::time::sleep(CALM).await;
        cluster
    }

    fn start_load(&mut self) {
        self.load = Some(Load::start(&self.history, std::slice::from_ref(&self.client), &self.owners, 8, seed()));
    }

    async fn stop_load(&mut self) {
        if let Some(load) = self.load.take() {
            load.stop().await;
        }
    }

    /// The standby becomes the primary, and the address leads to it.
    async fn fail_over(&mut self) {
        self.standby.promote().await;
        self.address.points_to(self.standby.port());
        let (old, new) = (self.primary.port(), self.standby.port());
        self.world.addresses.postgres_port = new;
        let databases = &mut self.world.databases;
        for database in [&mut databases.users, &mut databases.wallet] {
            for url in [&mut database.runtime_url, &mut database.migration_url] {
                *url = url.replace(&format!("@127.0.0.1:{old}/"), &format!("@127.0.0.1:{new}/"));
            }
        }
    }

    async fn serves(&self) {
        for role in [&self.users, &self.wallet] {
            role.ready().await;
        }
        eventually(PATIENCE, "a post and a registration are acknowledged", || async {
            let registered = self.history.register(&self.client).await.user?;
            let posted = self.client.post(&self.owners[0], "credit", 1, None).await;
            (posted.status == 201 && !registered.id.is_empty()).then_some(())
        })
        .await;
    }

    /// Waits until both roles serve, goes on for a while, and checks every invariant on the server that is the primary now.
    async fn finish(mut self, fault: &str) {
        self.serves().await;
        // What was under way in the meantime has its outcome.
        self.stop_load().await;
        let (_, in_doubt) = self.history.counts();
        self.start_load();
        tokio::time::sleep(CALM).await;
        self.stop_load().await;
        let (_, still_in_doubt) = self.history.counts();
        assert_eq!(still_in_doubt, in_doubt, "the outcome of a request is unknown although both roles serve");
        let quiet = assert_invariants(&self.world, &self.history, &self.client).await;
        let [users, wallet] = self.readiness;
        let unready = [users.stop().await, wallet.stop().await];
        let (done, doubt) = self.history.counts();
        println!(
            "measured: {fault}: no post for {:.1} s, nothing at all for {:.1} s, not ready for {:.1} s (users) and \
             {:.1} s (wallet), quiet {:.1} s after the load, {done} done, {doubt} in doubt, 0 lost, 0 duplicated",
            self.history.longest_silence_of_posts().as_secs_f64(),
            self.history.longest_silence().as_secs_f64(),
            unready[0].as_secs_f64(),
            unready[1].as_secs_f64(),
            quiet.as_secs_f64(),
        );
        for role in [&mut self.users, &mut self.wallet] {
            assert!(!role.has_exited(), "{}", role.output());
            assert_eq!(role.logged("panicked").len(), 0, "{}", role.output());
        }
    }
}

/// Finds how long `/health/ready` does not return 200.
fn watch_readiness(url: String) -> Watcher<Duration> {
    Watcher::start(|end| async move {
        let (mut unready, mut asked) = (Duration::ZERO, Instant::now());
        while !end.has_come() {
            let status = reqwest::get(format!("{url}/health/ready")).await.map(|response| response.status());
            if !status.is_ok_and(|status| status.is_success()) {
                unready += asked.elapsed();
            }
            asked = Instant::now();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        unready
    })
}

#[tokio::test]
async fn fm_17_a_killed_primary_whose_standby_is_promoted_loses_nothing_that_was_acknowledged() {
    let mut cluster = Cluster::start(By::Hosts, true).await;
    cluster.primary.stop();
    cluster.fail_over().await;
    cluster.finish("FM-17 primary killed, both hosts in the URL").await;
}

#[tokio::test]
async fn fm_18_a_killed_primary_whose_address_leads_to_its_standby_loses_nothing_that_was_acknowledged() {
    let mut cluster = Cluster::start(By::Address, true).await;
    cluster.primary.stop();
    cluster.fail_over().await;
    cluster.finish("FM-18 primary killed, one address that is moved").await;
}

#[tokio::test]
async fn fm_19_a_planned_switchover_loses_nothing_that_was_acknowledged() {
    for by in [By::Hosts, By::Address] {
        let mut cluster = Cluster::start(by, true).await;
        cluster.primary.shut_down();
        cluster.fail_over().await;
        cluster.finish(&format!("FM-19 planned switchover, {by:?}")).await;
    }
}

#[tokio::test]
async fn fm_20_a_silent_primary_whose_standby_is_promoted_loses_nothing_that_was_acknowledged() {
    for by in [By::Hosts, By::Address] {
        let mut cluster = Cluster::start(by, true).await;
        cluster.primary.freeze();
        cluster.fail_over().await;
        cluster.finish(&format!("FM-20 primary frozen, {by:?}")).await;
    }
}

#[tokio::test]
async fn fm_21_a_primary_that_wakes_after_its_standby_was_promoted_gets_no_more_writes() {
    let mut cluster = Cluster::start(By::Address, false).await;
    // Without a synchronous standby, a failover loses what is not replicated yet. So nothing is under way when it begins.
    cluster.stop_load().await;
    cluster.standby.has_replayed(&cluster.primary).await;
    let old = cluster.world.addresses.clone();
    cluster.primary.freeze();
    cluster.start_load();
    for role in [&cluster.users, &cluster.wallet] {
        becomes_unready(role).await;
    }
    cluster.fail_over().await;
    cluster.serves().await;
    cluster.primary.wake();
    // It executes what was sent before it hung, and no request waits for that any more.
    let rows = || {
        let counted = [
            ("users", "SELECT count(*) FROM users UNION ALL SELECT count(*) FROM outbox WHERE status = 'published'"),
            ("wallet", "SELECT count(*) FROM wallets UNION ALL SELECT count(*) FROM transactions"),
        ];
        counted.map(|(role, count)| old.psql(&format!("private_{role}"), count).expect("counted"))
    };
    tokio::time::sleep(CALM).await;
    let before = rows();
    tokio::time::sleep(2 * CALM).await;
    assert_eq!(rows(), before, "the old primary is written to");
    cluster.finish("FM-21 primary frozen, replaced and woken, one address").await;
}

#[tokio::test]
async fn fm_22_while_the_standby_is_down_nothing_is_acknowledged_and_the_roles_recover_with_it() {
    let mut cluster = Cluster::start(By::Hosts, true).await;
    cluster.standby.stop();
    for role in [&cluster.users, &cluster.wallet] {
        becomes_unready(role).await;
    }
    let done = cluster.history.counts().0;
    tokio::time::sleep(2 * CALM).await;
    assert_eq!(cluster.history.counts().0, done, "something was acknowledged that one server has");
    assert_eq!(cluster.client.get(&cluster.owners[0], "/v1/balance").await.status, 200, "reads are served");
    cluster.standby.start_again().await;
    cluster.finish("FM-22 synchronous standby down for some seconds").await;
}

async fn becomes_unready(role: &RoleProcess) {
    eventually(PATIENCE, "/health/ready returns 503", || async { (role.readiness().await.0 == 503).then_some(()) })
        .await;
}
