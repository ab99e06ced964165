use std::cell::Cell;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use futures_util::future::join_all;
use purse::kernel::Role;
use uuid::Uuid;

use crate::support::world::PURSE;
use crate::support::{
    Client, Outages, PATIENCE, RoleProcess, Scrape, User, World, eventually, mint, seconds_from_now, token_of,
};

/// Wallets in a spread load.
pub const WALLETS: usize = 1_000;
/// What a slow disk adds to each commit.
pub const SLOW_COMMIT: Duration = Duration::from_millis(3);
/// Enough that no debit of a benchmark is rejected.
const FIRST_CREDIT: i64 = 1_000_000_000;

/// A wallet role with many wallets, and their tokens.
pub struct Fixture {
    pub world: World,
    pub wallet: RoleProcess,
    /// Files with one token per line: of all wallets, and of the first one only.
    pub all: PathBuf,
    pub one: PathBuf,
}

pub fn owner(number: usize) -> Uuid {
    Uuid::from_u128(0x7000_8000_0000_0000_0000 + number as u128)
}

/// Writes a file with a token per user.
pub fn tokens(name: &str, users: impl Iterator<Item = Uuid>) -> PathBuf {
    lines(
        name,
        users.map(|user| {
            let claims = serde_json::json!({"sub": user.to_string(), "exp": seconds_from_now(86_400)});
            mint(&serde_json::json!({"alg": "HS256"}), &claims, crate::support::ACCESS_KEY)
        }),
    )
}

/// Writes a file with an id per user.
pub fn ids(name: &str, users: impl Iterator<Item = Uuid>) -> PathBuf {
    lines(name, users.map(|user| user.to_string()))
}

/// Writes a file.
pub fn lines(name: &str, content: impl Iterator<Item = String>) -> PathBuf {
    let path = std::env::temp_dir().join(format!("purse-bench-{}-{name}", std::process::id()));
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).expect("a file"));
    for line in content {
        writeln!(file, "{line}").expect("written");
    }
    file.flush().expect("written");
    path
}

impl Fixture {
    pub async fn start(servers: &Outages) -> Self {
        let world = World::on(servers.servers).await;
        let wallet = world.start(Role::Wallet).await;
        let owners: Vec<String> = (1..=WALLETS).map(|n| format!("'{}'", owner(n))).collect();
        let script = format!(
            "INSERT INTO wallets (user_id, id) SELECT u, gen_random_uuid() FROM unnest(ARRAY[{}]::uuid[]) AS u;
             VACUUM ANALYZE wallets, transactions",
            owners.join(",")
        );
        let (insert, analyze) = script.split_once(';').expect("two statements");
        world.sql(Role::Wallet, insert).await;
        // By the role, which computes the hashes that `verify` recomputes.
        let client = Client::new("", &wallet.url());
        for some in (1..=WALLETS).map(owner).collect::<Vec<_>>().chunks(100) {
            let credits = some.iter().map(|user| {
                let id = user.to_string();
                let user = User { token: token_of(&id), email: String::new(), id };
                let client = &client;
                async move { client.post(&user, "credit", FIRST_CREDIT, None).await }
            });
            assert!(join_all(credits).await.iter().all(|credit| credit.status == 201));
        }
        world.sql(Role::Wallet, analyze).await;
        let all = tokens("all", (1..=WALLETS).map(owner));
        let one = tokens("one", std::iter::once(owner(1)));
        Self { world, wallet, all, one }
    }

    /// Each commit waits for a slow disk from now on. Transactions that commit at once share the wait, as they share a write there.
    pub async fn delay_commits(&self, by: Duration) {
        self.set_commit_delay(&format!("= {}", by.as_micros()), "= 0").await;
    }

    pub async fn stop_delaying_commits(&self) {
        self.set_commit_delay("= DEFAULT", "= DEFAULT").await;
    }

    async fn set_commit_delay(&self, delay: &str, siblings: &str) {
        self.world.sql(Role::Wallet, &format!("ALTER SYSTEM SET commit_delay {delay}")).await;
        self.world.sql(Role::Wallet, &format!("ALTER SYSTEM SET commit_siblings {siblings}")).await;
        self.world.sql(Role::Wallet, "SELECT pg_reload_conf()").await;
    }

    /// Recomputes every balance with `purse ledger verify`.
    pub async fn verify(&self) {
        let settings = self.world.settings(Role::Wallet);
        let output = crate::tools::blocking(move || {
            Command::new(PURSE).args(["ledger", "verify"]).env_clear().envs(settings).output().expect("started")
        });
        let output = output.await;
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Posts and ledger transactions so far, as counted by the role, once the posts of the last load are written.
    /// PostgreSQL's count of commits is updated late and includes those of the health probe.
    pub async fn posts_and_batches(&self) -> (f64, f64) {
        let last = Cell::default();
        let metrics = eventually(PATIENCE, "the posts of the last load are written", || async {
            // Requests may still be on their way to the queue.
            tokio::time::sleep(Duration::from_millis(500)).await;
            let metrics = Scrape::of(&self.wallet.url()).await;
            let posts = metrics.sum("purse_ledger_batch_posts_sum", "");
            (last.replace(posts) == posts).then_some(metrics)
        });
        let metrics = metrics.await;
        let number = |part: &str| metrics.sum(&format!("purse_ledger_batch_posts_{part}"), "").unwrap_or_default();
        (number("sum"), number("count"))
    }
}
